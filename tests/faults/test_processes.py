"""D2 to D4: processes that are told to end, freeze and come back, or exist twice."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from agentflow.local.processes import ChildProcess
from tests.faults.invariants import ALWAYS
from tests.faults.load import steady_load
from tests.faults.world import LOG, World, fault_world
from tests.support.waiting import eventually, stays

pytestmark = pytest.mark.e2e

FROZEN = 60.0
"""Seconds a zombie is frozen for."""


@pytest.mark.timeout(300)
async def test_services_told_to_end_under_load_give_back_what_they_cannot_finish(tmp_path: Path) -> None:
    """SIGTERM: each ends with 0 within its drain time, what it had in hand is done or comes again, nothing is lost."""
    async with fault_world(tmp_path) as world:
        async with steady_load(world):
            for child in world.mesh.processes():
                done = len(world.desk.ledger)
                await world.ended(done + 4)
                begun = time.monotonic()
                child.terminate()
                assert await child.wait(60) == 0, child.last_lines()
                LOG.info("%s ended %.1f s after SIGTERM", child.name, time.monotonic() - begun)
                assert time.monotonic() - begun < 20
                await world.revive(child)
                await world.saw_heads()
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


def writes_of(world: World, child: ChildProcess, ending: str = "stored") -> int:
    """Attempts of a process to store evidence that ended like this."""
    made = world.witness.publishes.attempts()
    return sum(a.writer.endswith(f":{child.pid}") and a.ending == ending and a.id != "" for a in made)


async def frozen(child: ChildProcess) -> None:
    """Stop it (SIGSTOP), and return when it stands still."""
    child.send(signal.SIGSTOP)
    await eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, f"{child.name} stands still")


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_the_work_of_frozen_processes_is_taken_over_and_they_do_no_harm_when_they_return(tmp_path: Path) -> None:
    """SIGSTOP for a minute, of one process of each kind at once; the others end every run; then SIGCONT.

    The frozen ones hold handlers, calls and decisions in hand; what they write late is refused or is what is stored.
    """
    twice = {"planner": 2, "runtime": 2, "executor": 2}
    async with fault_world(tmp_path, processes=twice, pause=1.0) as world:
        await world.submit(24)
        await world.ended(3)
        zombies = [max(world.mesh.services[name], key=lambda child: writes_of(world, child)) for name in twice]
        for zombie in zombies:
            await frozen(zombie)
        begun = time.monotonic()
        try:
            await world.submit(12)
            await world.finish(within=FROZEN)
            LOG.info("taken over: 36 runs ended %.1f s after the freeze", time.monotonic() - begun)
            await world.saw_heads()
            everything = len(world.desk.ledger)
            await eventually(lambda: time.monotonic() - begun > FROZEN, "a minute", within=FROZEN + 5)
            refused = sum(writes_of(world, zombie, "refused") for zombie in zombies)
        finally:
            for zombie in zombies:
                zombie.send(signal.SIGCONT)
        await stays(lambda: len(world.desk.ledger) == everything, "the number of effects", during=5.0)
        late = sum(writes_of(world, zombie, "refused") for zombie in zombies) - refused
        LOG.info("%d late writes were refused", late)
        assert late > 0, "the zombies had nothing in hand"
        assert all(zombie.running for zombie in zombies)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


@pytest.mark.timeout(240)
async def test_two_of_everything_share_the_work(tmp_path: Path) -> None:
    """Runtimes and executors both work; one planner decides at a time; nothing happens twice."""
    twice = {"planner": 2, "runtime": 2, "executor": 2, "detector": 2}
    async with fault_world(tmp_path, processes=twice) as world:
        await world.submit(40)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()
        share = {child.name: writes_of(world, child) for child in world.mesh.processes()}
        LOG.info("stored by each: %s", share)
        assert all(share[name] for name in ("runtime", "runtime-2", "executor", "executor-2"))
        assert 40 == len(world.desk.handler_runs)
        planners = sorted((share["planner"], share["planner-2"]))
        assert planners[0] == 0 < planners[1], "one stands by"
