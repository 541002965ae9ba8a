"""The public test kit: a clock that jumps, a mesh in memory, and envelopes that are the same in every run.

    async def test_a_decision_is_announced() -> None:
        clock = FixedClock()
        async with memory_mesh(clock=clock) as mesh:
            await store(mesh, goal("support", workflow_id="run-1"))
            clock.advance(3600)         # every timer of the next hour fires, now

Faults are planned on `mesh.broker.faults` (`agentflow.mesh.memory_faults`): a lost acknowledgement, a lost publish, a
late one, no connection.
"""

import hashlib
import importlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from agentflow import subjects
from agentflow.clock import Clock
from agentflow.envelope import ChainPlace, Ref, Sealed
from agentflow.errors import ConfigError
from agentflow.ids import new_id
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.payloads import GoalSubmitted, Payload
from agentflow.schemas import compose

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The moment everything here begins at."""


class FixedClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start.astimezone(UTC)
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """The present time, aware, in UTC."""
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move on by `seconds` and tell whoever listens; returns the new time. Time never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self._now += timedelta(seconds=seconds)
        for listener in self._listeners:
            listener()
        return self._now

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every move."""
        self._listeners.append(listener)


@asynccontextmanager
async def memory_mesh(
    streams: Iterable[Mapping[str, Any]] | None = None, *, clock: Clock | None = None
) -> AsyncIterator[MemoryTransport]:
    """A connection to a broker of its own, provisioned and closed again.

    `streams` are the server's JSON configurations; without them it gets the streams and buckets of a real mesh, for
    which `agentflow-streams` has to be installed (`ConfigError` otherwise). With a `FixedClock` no time passes by itself.
    """
    transport = MemoryTransport(MemoryBroker(clock))
    try:
        if streams is None:
            await _provision(transport)
        for config in streams or ():
            await transport.create_stream(config)
        yield transport
    finally:
        await transport.close()


async def _provision(transport: MemoryTransport) -> None:
    """By name, because what lies above this library cannot be imported by it."""
    try:
        provisioning = importlib.import_module("agentflow_streams.provision")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "memory_mesh() needs agentflow-streams for the streams of a mesh: install it, or pass `streams`",
            code="testing.no_streams",
        ) from error
    await provisioning.provision(transport)


def envelope(
    payload: Payload,
    subject: str,
    *,
    index: int = 0,
    sender: str = "test",
    to: str = "test",
    place: ChainPlace | None = None,
    causes: tuple[Ref, ...] = (),
    metadata: Mapping[str, Any] | None = None,
    at: datetime = START,
) -> Sealed:
    """A sealed envelope made of nothing but its arguments: the same ones make the same bytes.

    Its id comes from `subject` and `index`; without a `place` it is the first on a chain of its own.
    """
    digest = hashlib.sha256(f"{subject}|{index}".encode()).digest()
    id = new_id(at, lambda size: digest[:size])
    return compose(
        payload,
        id=id,
        subject=subject,
        sender=sender,
        to=to,
        trace_id=digest.hex()[:32],
        span_id=digest.hex()[32:48],
        ts=at,
        place=place or ChainPlace(f"events:{sender}:{id}"),
        causes=causes,
        metadata=dict(metadata or {}),
    )


def goal(
    name: str,
    input: Mapping[str, Any] | None = None,
    *,
    workflow_id: str = "run-1",
    index: int = 0,
    at: datetime = START,
) -> Sealed:
    """A goal as a client submits it: `name` is a definition's `name` or `name@version`."""
    return envelope(
        GoalSubmitted(goal=name, input=dict(input or {})),
        subjects.workflow_in(workflow_id),
        index=index,
        to=f"workflows.{workflow_id}",
        metadata={"workflow_id": workflow_id},
        at=at,
    )
