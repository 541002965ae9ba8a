"""D22: machines whose clocks are an hour off, or jump while they work: nothing is early, late, or done twice for it."""

from pathlib import Path

import pytest

from tests.faults.invariants import ALWAYS
from tests.faults.world import World, fault_world
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HOUR = "3600"


def log_of(world: World, service: str) -> str:
    """What a service has logged so far."""
    return world.one(service).log.read_text()


async def is_logged(world: World, told: str) -> None:
    """Wait until the runtime's log holds something."""
    await eventually(lambda: told in log_of(world, "runtime") or None, f"{told} is logged", within=60)


async def test_clocks_an_hour_off_change_nothing_and_are_told(tmp_path: Path) -> None:
    """The runtime an hour ahead, the executor an hour behind, and steps that have twenty minutes."""
    environment = {
        "runtime": {"AF_CLOCK_OFFSET": HOUR},
        "executor": {"AF_CLOCK_OFFSET": f"-{HOUR}"},
        "planner": {"AF_CLOCK_OFFSET": HOUR},
    }
    async with fault_world(tmp_path, environment=environment) as world:
        await world.submit(4)
        report = await world.aftermath()
        await world.expect_exact_effects()
        for service in environment:
            assert '"clock.skew"' in log_of(world, service), service
        assert '"clock.skew"' not in log_of(world, "detector")
    report.require(*ALWAYS)


async def test_a_clock_that_jumps_back_and_forth_while_work_is_done_changes_nothing(tmp_path: Path) -> None:
    """An hour back, then an hour ahead, then right again, in the runtime and the executor at once."""
    file = tmp_path / "offset"
    environment = {service: {"AF_CLOCK_OFFSET": str(file)} for service in ("runtime", "executor", "planner")}
    async with fault_world(tmp_path, environment=environment) as world:
        for seconds, told in ((f"-{HOUR}", '"clock.skew"'), (HOUR, '"clock.skew"'), ("0", '"clock.agrees"')):
            file.write_text(seconds)
            await world.finish(await world.submit(2))
            await is_logged(world, told)
        report = await world.aftermath()
        await world.expect_exact_effects()
    report.require(*ALWAYS)
