"""D1: a service is killed at each named point, under load; the mesh goes on by itself when it is back."""

import time
from pathlib import Path

import pytest

from agentflow import crash
from tests.faults.invariants import ALWAYS
from tests.faults.world import LOG, fault_world
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

RUNS = 8

RECOVERY = 30.0
"""Seconds from the start of a process to the end of every run; on an idle machine 2 to 4, most of it the start itself."""


UNDER_LOAD = sorted(point for point in crash.POINTS if not point.startswith("detector."))
"""The detector's points lie where it has found something: `tests/e2e/test_detector.py` kills it there."""


@pytest.mark.parametrize("point", UNDER_LOAD)
async def test_a_service_killed_under_load_is_recovered_from(tmp_path: Path, point: str) -> None:
    """The third passage of the point kills it; it is started again, all runs end, and every invariant holds."""
    service = point.partition(".")[0]
    async with fault_world(tmp_path, environment={service: {"AF_CRASH_AT": f"{point}:3"}}) as world:
        victim = world.one(service)
        await world.submit(RUNS)
        await eventually(lambda: not victim.running, f"{service} dies at {point}", within=60)
        assert victim.exit_code == -9, victim.last_lines()
        back = time.monotonic()
        await world.revive(victim)
        await world.finish()
        recovery = time.monotonic() - back
        LOG.info("%s: all ended %.1f s after the start", point, recovery)
        assert recovery < RECOVERY
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()
