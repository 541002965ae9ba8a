"""D6 and D15 at full length: ten minutes without a server, and beside it ten minutes of partition.

Both worlds live in one test, so that ten minutes are waited for once; it is started before all others (`long`).
"""

import asyncio
import contextlib
import time
from pathlib import Path

import psutil
import pytest

from agentflow import subjects
from agentflow.errors import OutcomeUnknown, Unreachable
from tests.faults.invariants import ALWAYS
from tests.faults.test_partition import works_again
from tests.faults.world import LOG, World, fault_world, side_by_side

OUTAGE = 600.0
"""Seconds."""

GROWTH = 24 * 1024 * 1024
"""Bytes a process may grow by while nobody answers it."""

BUSY = 0.10
"""Share of a processor a process may use while nobody answers it."""

CLIENTS_EVERY = 2.0
"""Seconds between the runs that clients submit into the void."""


def used(pid: int) -> tuple[int, float]:
    """Memory (bytes) and processor time (seconds) of a process so far."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    return process.memory_info().rss, times.user + times.system


async def outlast(world: World, what: str, until: float) -> None:
    """Wait for the end of an outage, and see that nobody grew or was busy meanwhile."""
    before = {name: used(pid) for name, pid in world.pids().items()}
    begun = time.monotonic()
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    lasted = time.monotonic() - begun
    for name, pid in world.pids().items():
        memory, processor = (now - then for now, then in zip(used(pid), before[name], strict=True))
        LOG.info(
            "%s: %s grew by %d KiB and used %.2f%% of a processor", what, name, memory // 1024, 100 * processor / lasted
        )
        assert memory < GROWTH
        assert processor / lasted < BUSY


async def submit_into_the_void(world: World, unanswered: list[str], stop: asyncio.Event) -> None:
    """Clients that do not know of the outage; each is told that nobody answers, and under which id to ask again."""
    told: list[tuple[str, object, bool]] = []

    async def one() -> None:
        run_id = f"void-{len(world.submitted)}"
        world.submitted[run_id] = (len(world.submitted) + 1) * 10
        unanswered.append(run_id)
        try:
            await world.submit_as(run_id, world.submitted[run_id])
            unanswered.remove(run_id)
        except (OutcomeUnknown, Unreachable) as error:
            told.append((run_id, error.fields["run_id"], run_id in str(error.fields["hint"])))

    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(one(), name="void")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CLIENTS_EVERY)
    assert all((run_id, True) == (named, hinted) for run_id, named, hinted in told)


async def server_away(directory: Path, until: float) -> None:
    """D6: clients keep submitting; when the server is back, what nobody was promised is not there."""
    async with fault_world(directory, alone=False) as world:
        await world.submit(4)
        await world.ended(2)
        await world.mesh.server.kill()
        unanswered: list[str] = []
        stop = asyncio.Event()
        clients = asyncio.create_task(submit_into_the_void(world, unanswered, stop), name="clients")
        mine, _ = used(psutil.Process().pid)
        await outlast(world, "no server", until)
        assert used(psutil.Process().pid)[0] - mine < 4 * GROWTH, "the clients' own process grew"
        stop.set()
        await clients  # the last are told before the server is back
        LOG.info("%d submits without an answer", len(unanswered))
        assert len(unanswered) > OUTAGE / CLIENTS_EVERY / 2
        await world.restart_server()
        await works_again(world)
        for run_id in unanswered:
            assert await world.client.transport.last("AF_MESSAGES", subjects.workflow_in(run_id)) is None
            del world.submitted[run_id]
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


async def nobody_hears(directory: Path, until: float) -> None:
    """D15: ten minutes in which nothing gets through between services and broker, while clients go on."""
    async with fault_world(directory, proxied=True, alone=False) as world:
        assert world.proxy is not None
        await world.submit(4)
        await world.ended(2)
        world.proxy.hold()
        await world.submit(4)
        await outlast(world, "partition", until)
        world.proxy.release()
        LOG.info("after the partition: works again after %.1f s", await works_again(world))
        assert all(child.running for child in world.mesh.processes())
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(OUTAGE + 400)
async def test_ten_minutes_without_a_server_and_ten_minutes_of_partition(tmp_path: Path) -> None:
    """Nobody grows, nobody is busy, nobody gives up; afterwards all goes on, and there are no ghosts."""
    until = time.monotonic() + OUTAGE
    await side_by_side(tmp_path, lambda folder: server_away(folder, until), lambda folder: nobody_hears(folder, until))
