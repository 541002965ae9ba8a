"""Runs that keep coming while something is broken; whoever gets no answer asks again under the same id."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agentflow.errors import OutcomeUnknown, Unreachable
from tests.faults.world import World


@dataclass(slots=True)
class Load:
    """What was submitted, and what the submitters were told."""

    stored: list[str] = field(default_factory=list)
    unanswered: int = 0
    """Calls that ended unknown or unreachable."""


@contextlib.asynccontextmanager
async def steady_load(world: World, *, every: float = 0.1, submitters: int = 1, most: int = 16) -> AsyncIterator[Load]:
    """Submit a run every so many seconds inside the block, each until it is known to be stored.

    No more than `most` are under way at once, however slow the machine: a backlog would prove nothing and take long.
    """
    load, stop = Load(), asyncio.Event()
    tasks = [asyncio.create_task(_submit(world, load, stop, every, most), name="load") for _ in range(submitters)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _submit(world: World, load: Load, stop: asyncio.Event, every: float, most: int) -> None:
    while not stop.is_set():
        if len(world.submitted) - len(world.desk.ledger) // 2 < most:
            await _insist(world, load)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)


async def _insist(world: World, load: Load) -> None:
    """One run, submitted until it is known to be stored."""
    number = len(world.submitted) + 1
    run_id = f"run-{number}"
    while run_id not in load.stored:
        try:
            await world.submit_as(run_id, number * 10)
            load.stored.append(run_id)
        except (OutcomeUnknown, Unreachable):
            load.unanswered += 1
