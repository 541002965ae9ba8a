"""A process is killed at a named point; the run still ends right, and nothing is done twice.

Each test kills one service with SIGKILL at a crash point in its code, starts it again, and looks at the world: the
ledger file shows every effect there was, the streams show every message, and all of them verify.
"""

from pathlib import Path

import pytest

from agentflow.clock import SystemClock
from agentflow.local.processes import ChildProcess
from agentflow_streams.verification import verify
from tests.e2e.desks import RunningDesk, running_desk
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def died(child: ChildProcess) -> None:
    """Wait until the crash point killed the process."""
    await eventually(lambda: not child.running, f"{child.name} dies at its crash point", within=30)
    assert child.exit_code == -9, child.last_lines()


async def booked_right(running: RunningDesk, run_id: str) -> None:
    """The run ended right, each effect happened once, and every stored message verifies."""
    output = await running.client.run(run_id).result(timeout=60)
    assert output == {"booked": 20, "receipt": 21}
    assert running.desk.ledger == [20, 21]
    found = await verify(running.client.transport, now=SystemClock().now())
    assert found.ok, found.damages
    assert found.open_runs == ()


async def kill_and_recover(tmp_path: Path, service: str, point: str) -> RunningDesk:
    """Run a booking while `service` dies at `point`, start it again, and check the world."""
    async with running_desk(tmp_path, **{service: {"AF_CRASH_AT": point}}) as running:
        [child] = running.mesh.services[service]
        run = await running.client.submit("booking", {"amount": 20}, id="run-1")
        await died(child)
        child.forget("AF_CRASH_AT")
        child.start()
        await booked_right(running, run.id)
    return running


@pytest.mark.parametrize(
    "point",
    [
        "planner.after_decision",
        "planner.after_decision:2",
        "planner.after_decision:3",
        "planner.after_commands",
        "planner.after_commands:3",
    ],
)
async def test_a_planner_that_dies_around_a_decision_is_taken_over(tmp_path: Path, point: str) -> None:
    """Between decision and command, and between command and acknowledgement, of the first and of later decisions."""
    await kill_and_recover(tmp_path, "planner", point)


@pytest.mark.parametrize("point", ["runtime.before_tool_call", "runtime.after_tool_call", "runtime.after_result"])
async def test_a_runtime_that_dies_in_a_handler_runs_it_again_from_the_record(tmp_path: Path, point: str) -> None:
    """Before and after the tool call, and after the result: the tool's effect is there once."""
    running = await kill_and_recover(tmp_path, "runtime", point)
    expected = 1 if point == "runtime.after_result" else 2
    assert len(running.desk.handler_runs) == expected


@pytest.mark.parametrize(
    "point",
    [
        "executor.after_intent",
        "executor.after_effect",
        "executor.after_outcome",
        "executor.after_result",
        "executor.after_effect:2",
    ],
)
async def test_an_executor_that_dies_around_an_irreversible_effect_never_repeats_it(tmp_path: Path, point: str) -> None:
    """Between intent and effect, effect and outcome, outcome and result, result and acknowledgement."""
    await kill_and_recover(tmp_path, "executor", point)


@pytest.mark.slow
async def test_a_server_that_is_killed_and_started_again_loses_nothing(tmp_path: Path) -> None:
    """Runs submitted before, during and after the server's death all end right."""
    async with running_desk(tmp_path) as running:
        before = [await running.client.submit("booking", {"amount": 20}, id=f"before-{n}") for n in range(5)]
        await running.mesh.server.kill()
        await running.mesh.server.restart()
        after = [await running.client.submit("booking", {"amount": 20}, id=f"after-{n}") for n in range(5)]
        for run in (*before, *after):
            assert await run.result(timeout=60) == {"booked": 20, "receipt": 21}
        assert sorted(running.desk.ledger) == [20] * 10 + [21] * 10
        found = await verify(running.client.transport, now=SystemClock().now())
        assert found.ok, found.damages
