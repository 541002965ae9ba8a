"""What the planner counts of its decisions."""

import pytest
from msgspec.structs import replace

from agentflow.payloads import (
    Decision,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    RunAdvanced,
    RunFailed,
)
from agentflow.telemetry import metrics, spans
from agentflow_planner import watching
from agentflow_planner.machine import Decided, Ignored, Verdict
from agentflow_planner.runs import Input, RunState
from agentflow_planner.watching import planning, tell, workflow_of
from tests.telemetry.conftest import Kept

DEFINITION = DefinitionRef(name="support", version="1.0.0", planner="fsm", sha256="0" * 64, engine="python/1")
RUNNING = RunState("run-1", status="running", definition=DEFINITION, started="2026-01-01T00:00:00.000000Z")
FAILURE = Failure(code="tool.timeout", type="TimeoutError", message="ended", blame="tool", retryable=True)


@pytest.fixture
def replans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The replans that were counted."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(metrics, "replanned", lambda workflow, reason: found.append((workflow, reason)))
    return found


@pytest.mark.parametrize(
    ("recorded", "counted"),
    [
        (RunAdvanced(consumed=(), reason="retry"), [("support", "retry")]),
        (RunAdvanced(consumed=(), reason="error"), [("support", "error")]),
        (RunAdvanced(consumed=(), reason="completed"), []),
        (RunAdvanced(consumed=(), reason="noted"), []),
        (RunFailed(consumed=(), reason="error", error=FAILURE), []),
    ],
)
def test_a_replan_is_a_decision_that_leaves_the_straight_way(
    recorded: Decision, counted: list[tuple[str, str]], replans: list[tuple[str, str]]
) -> None:
    """A step tried again, or another state for an error; not a run that gives up, which plans nothing any more."""
    tell(RUNNING, recorded)

    assert counted == replans


def test_a_refusal_is_no_decision_about_a_run(replans: list[tuple[str, str]]) -> None:
    """It has no reason and no state."""
    tell(RUNNING, GoalRejected(consumed=(), code="definition.unknown", message="no"))

    assert [] == replans


def test_the_end_of_a_run_tells_of_the_whole(kept: Kept) -> None:
    """From its start to now, under its name; with the code of why it failed."""
    tell(replace(RUNNING, status="failed"), RunFailed(consumed=(), reason="error", error=FAILURE))
    tell(RUNNING, RunAdvanced(consumed=(), reason="completed"))

    [span] = kept()
    assert ("invoke_workflow support", "tool.timeout") == (span.name, span.status.description)
    assert span.start_time == 1_767_225_600_000_000_000


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Decided(RunAdvanced(consumed=(), state="clerk", reason="completed")), {"completed", "clerk"}),
        (
            Decided(GoalRejected(consumed=(), code="definition.unknown", message="no")),
            {"refused", "definition.unknown"},
        ),
        (Ignored("result.late"), {"ignored", "result.late"}),
    ],
)
def test_a_plan_span_says_what_it_came_to(kept: Kept, verdict: Verdict, expected: set[str]) -> None:
    """In stable words alone."""
    with planning(RUNNING, a_goal("other@2")) as plan:
        plan.decided(verdict)

    [span] = kept()
    assert "plan support" == span.name
    assert expected <= set((span.attributes or {}).values())


def a_goal(name: str) -> Input:
    """A goal as an input."""
    from agentflow.payloads import Consumed
    from agentflow.testing import START

    ref = Consumed(id="01M7XEKJ5EGGBM06ZNZD5G7MYY", hash="0" * 64, schema="goal.submitted/1", subject="x", seq=1)
    return Input("goal", "run-1", ref, START, "a" * 32, payload=GoalSubmitted(name, {}))


def test_the_workflow_of_a_goal_is_the_name_it_asks_for() -> None:
    """Without the version, and not longer than a label may be."""
    assert "other" == workflow_of(RunState("run-1"), a_goal("other@2.0"))
    assert 64 == len(workflow_of(RunState("run-1"), a_goal("x" * 500)))
    assert "support" == workflow_of(RUNNING, a_goal("other"))
    assert {"retry", "error"} == watching.REPLANS
    assert not spans.tracing()
    assert issubclass(GoalAccepted, Decision)
