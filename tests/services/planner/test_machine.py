"""The state machine's decisions: what is recorded, where a run goes, and what it sends."""

from datetime import timedelta

import pytest

from agentflow.payloads import (
    GoalAccepted,
    GoalRejected,
    InputRejected,
    RunAdvanced,
    RunCancelled,
    RunCompleted,
    RunFailed,
    StepRequested,
    ToolRequested,
)
from agentflow.schemas import payload_as
from agentflow_planner.definition import StateDef
from agentflow_planner.machine import Decided, Ignored, Verdict
from agentflow_planner.runs import Problem, RunState
from tests.services.planner.worlds import START, World, branch, plan_of, retries, seconds_after_start, step


def recorded(verdict: Verdict) -> object:
    """The payload of a decision."""
    assert isinstance(verdict, Decided)
    return verdict.recorded


def failure_code(verdict: Verdict) -> str:
    """The code of a failed run's error."""
    failed = recorded(verdict)
    assert isinstance(failed, RunFailed)
    assert failed.error is not None
    return failed.error.code


def test_a_goal_enters_the_initial_state_and_asks_its_agent() -> None:
    """The first decision names the definition and lists one command, on a subject of its own."""
    world = World(plan_of({"a": step("a", input={"n": "${input.n + 1}"})}))

    accepted = recorded(world.submit(n=1))

    assert isinstance(accepted, GoalAccepted)
    assert (accepted.state, accepted.reason, accepted.attempt) == ("a", "started", 1)
    request = payload_as(world.commands[0], StepRequested)
    assert request.input == {"n": 2}
    assert request.workflow == "sample@1.0.0"
    assert world.commands[0].envelope.subject == f"agents.a.in.{accepted.commands[0].id}"
    assert world.commands[0].envelope.metadata["reply_to"] == f"workflows.w-1.results.{accepted.commands[0].id}"


def test_a_tool_state_calls_the_executor() -> None:
    """A state with a tool sends a tool call whose id is the command's."""
    world = World(plan_of({"a": StateDef("a", tool="search", on_success="done", input={"q": "${input.q}"})}))

    world.submit(q="x")

    call = payload_as(world.commands[0], ToolRequested)
    assert (call.tool, call.input, call.state) == ("search", {"q": "x"}, "a")
    assert world.commands[0].envelope.subject == f"tools.calls.{world.commands[0].envelope.id}"


def test_results_lead_through_all_states_to_the_end() -> None:
    """Three steps, each given what the one before returned; the last output is the run's."""
    states = {
        "a": step("a", "b"),
        "b": step("b", "c", input={"x": "${output.v}"}),
        "c": step("c", input={"x": "${outputs.a.v}", "y": "${outputs.b.v}"}),
    }
    world = World(plan_of(states))
    world.submit()
    world.answer({"v": 1})
    world.answer({"v": 2})

    ended = recorded(world.answer({"v": 3}))

    assert isinstance(ended, RunCompleted)
    assert (ended.state, ended.output) == ("done", {"v": 3})
    assert [payload_as(c, StepRequested).input for c in world.commands] == [{}, {"x": 1}, {"x": 1, "y": 2}]
    assert world.state.status == "completed"


@pytest.mark.parametrize(("confidence", "to"), [(0.9, "answer"), (0.8, "answer"), (0.79, "escalate"), (0, "escalate")])
def test_the_first_condition_that_holds_decides(confidence: float, to: str) -> None:
    """Conditions are tried in order; the evaluation and the values it read are in the record."""
    ways = branch("c", ("answer", "output.confidence >= context.threshold"), ("escalate", None))
    world = World(
        plan_of({"c": ways, "answer": step("answer"), "escalate": step("escalate")}, context={"threshold": 0.8})
    )
    world.submit()

    advanced = recorded(world.answer({"confidence": confidence}))

    assert isinstance(advanced, RunAdvanced)
    assert (advanced.previous, advanced.state, advanced.reason) == ("c", to, "completed")
    [evaluated] = advanced.conditions
    assert evaluated.result is (to == "answer")
    assert evaluated.values == {"output.confidence": confidence, "context.threshold": 0.8}


def test_a_condition_that_cannot_be_evaluated_is_never_false() -> None:
    """The step fails with its own code and takes the way of errors; no other transition is tried."""
    ways = branch("c", ("x", "output.absent > 1"), ("x", None), on_error="sorry")
    world = World(plan_of({"c": ways, "x": step("x"), "sorry": step("sorry", input={"why": "${error.code}"})}))
    world.submit()

    advanced = recorded(world.answer({}))

    assert isinstance(advanced, RunAdvanced)
    assert (advanced.state, advanced.reason) == ("sorry", "error")
    assert advanced.error is not None
    assert advanced.error.code == "condition.failed"
    assert payload_as(world.commands[-1], StepRequested).input == {"why": "condition.failed"}


def test_no_transition_that_holds_fails_the_run() -> None:
    """Without a way on and without `on_error`, the run fails with a code."""
    world = World(plan_of({"c": branch("c", ("done", "output.go == true"))}))
    world.submit()
    assert failure_code(world.answer({"go": False})) == "transition.none"


def test_a_failed_step_is_tried_again_after_a_backoff_from_the_runs_seed() -> None:
    """The retry waits on a durable timer, below the full backoff, and is sent as attempt two."""
    world = World(plan_of({"a": step("a", retry=retries(3, backoff=8.0))}))
    world.submit()

    waiting = recorded(world.fail())

    assert isinstance(waiting, RunAdvanced)
    assert (waiting.reason, waiting.attempt, waiting.commands) == ("retry", 2, ())
    assert 0 <= seconds_after_start(waiting.retry_at) <= 8.1
    assert world.state.timer is not None
    assert world.state.timer.due == waiting.retry_at
    resumed = recorded(world.fire())
    assert isinstance(resumed, RunAdvanced)
    assert (resumed.reason, resumed.attempt) == ("resume", 2)
    assert payload_as(world.commands[-1], StepRequested).attempt == 2
    assert len({command.envelope.id for command in world.commands}) == 2


def test_attempts_are_counted_out_and_then_on_error_is_taken() -> None:
    """After `max_attempts` failures the run goes where `on_error` leads."""
    world = World(plan_of({"a": step("a", retry=retries(2, 0.1), on_error="b"), "b": step("b")}))
    world.submit()
    world.fail()
    world.fire()
    advanced = recorded(world.fail())
    assert isinstance(advanced, RunAdvanced)
    assert (advanced.state, advanced.reason, advanced.attempt) == ("b", "error", 1)


def test_a_failure_that_cannot_be_mended_is_not_tried_again() -> None:
    """`retryable: false` skips the attempts that are left."""
    world = World(plan_of({"a": step("a", retry=retries(5))}))
    world.submit()
    assert failure_code(world.fail("input.bad", retryable=False)) == "input.bad"


def test_a_step_that_is_silent_for_too_long_fails_by_the_runs_timer() -> None:
    """The timer is armed for the step's time-out and fails it; a late result changes nothing."""
    world = World(plan_of({"a": step("a", timeout=5.0)}))
    world.submit()
    assert world.state.timer is not None
    assert seconds_after_start(world.state.timer.due) == pytest.approx(5.0, abs=0.1)

    assert failure_code(world.fire()) == "step.timeout"
    assert world.answer({}) == Ignored("run.ended")


def test_a_late_result_of_an_earlier_attempt_is_ignored() -> None:
    """Only the command the run waits for can answer."""
    world = World(plan_of({"a": step("a", timeout=5.0, retry=retries(2, 0.1))}))
    world.submit()
    first = world.commands[0]
    world.fire()
    world.fire()
    assert world.answer({"late": True}, first) == Ignored("result.late")
    assert isinstance(recorded(world.answer({"fine": True})), RunCompleted)


def test_a_run_that_takes_too_long_fails_whatever_it_waits_for() -> None:
    """The run's own time-out counts from its goal."""
    world = World(plan_of({"a": step("a", "a", timeout=4.0)}, timeout=10.0, max_steps=100))
    world.submit()
    for _ in range(2):
        world.now = world.now.replace(second=world.now.second + 3)
        world.answer({})
    verdicts = [world.fire(), world.fire()]
    assert failure_code(verdicts[-1]) in ("run.timeout", "step.timeout")
    assert world.state.status == "failed"


def test_one_timer_serves_many_steps() -> None:
    """A timer that fires early enough is left armed: later steps arm none, and it is re-armed when it fires."""
    states = {name: step(name, after, timeout=60.0) for name, after in (("a", "b"), ("b", "c"), ("c", "done"))}
    world = World(plan_of(states))
    world.submit()
    world.now += timedelta(seconds=1)
    world.answer({})
    assert [payload.timer is not None for _, payload, _ in world.log] == [True, False]
    rearmed = recorded(world.fire())
    assert isinstance(rearmed, RunAdvanced)
    assert rearmed.reason == "rearmed"
    assert rearmed.timer is not None


def test_a_run_stops_after_max_steps() -> None:
    """A loop ends with its own code."""
    world = World(plan_of({"a": step("a", "a")}, max_steps=3))
    world.submit()
    world.answer({})
    world.answer({})
    assert failure_code(world.answer({})) == "run.max_steps"


def test_a_signal_moves_a_state_that_waits_for_it() -> None:
    """Its data is the state's output."""
    world = World(
        plan_of(
            {"wait": StateDef("wait", signal="approve", on_success="b"), "b": step("b", input={"by": "${output.by}"})}
        )
    )
    world.submit()
    assert (world.state.waiting, world.state.awaits) == ("signal", "approve")
    advanced = recorded(world.signal("approve", by="ann"))
    assert isinstance(advanced, RunAdvanced)
    assert advanced.reason == "signal"
    assert payload_as(world.commands[-1], StepRequested).input == {"by": "ann"}


def test_a_signal_that_comes_early_is_kept() -> None:
    """It is noted, and taken at once when the run gets to the state that waits for it."""
    world = World(plan_of({"a": step("a", "wait"), "wait": StateDef("wait", signal="approve", on_success="done")}))
    world.submit()
    assert getattr(recorded(world.signal("approve", by="ann")), "reason", "") == "noted"
    world.answer({})
    ended = recorded(world.fire())
    assert isinstance(ended, RunCompleted)
    assert ended.output == {"by": "ann"}


def test_a_signal_that_does_not_come_times_out() -> None:
    """The wait for a person has an end."""
    world = World(plan_of({"wait": StateDef("wait", signal="approve", timeout=9.0, on_success="done")}))
    world.submit()
    assert failure_code(world.fire()) == "signal.timeout"


def test_cancel_ends_the_run_and_what_comes_later_changes_nothing() -> None:
    """Nothing new starts after a cancel."""
    world = World(plan_of({"a": step("a", "b"), "b": step("b")}))
    world.submit()
    cancelled = recorded(world.cancel("changed my mind"))
    assert isinstance(cancelled, RunCancelled)
    assert cancelled.error is not None
    assert cancelled.error.message == "changed my mind"
    assert world.answer({}) == Ignored("run.ended")
    assert len(world.commands) == 1


def test_the_same_goal_again_is_nothing_new_and_another_is_refused() -> None:
    """A run keeps its goal; key order does not make another."""
    world = World(plan_of({"a": step("a")}))
    world.submit(x=1, y=2)
    assert world.submit(y=2, x=1) == Ignored("goal.same")
    refused = recorded(world.submit(x=2))
    assert isinstance(refused, InputRejected)
    assert refused.code == "run.id_taken"
    assert world.state.status == "running"
    assert isinstance(recorded(world.answer({})), RunCompleted)


def test_a_goal_nobody_knows_is_rejected_and_a_better_one_may_follow() -> None:
    """A rejected goal makes no run: its id is still free."""
    world = World(Problem("definition.unknown", "no such definition"))
    rejected = recorded(world.submit())
    assert isinstance(rejected, GoalRejected)
    assert (rejected.code, world.state.status) == ("definition.unknown", "rejected")
    world.plan = plan_of({"a": step("a")})
    assert isinstance(recorded(world.submit()), GoalAccepted)
    assert world.log[1][0].envelope.chain_seq == 0


@pytest.mark.parametrize(
    "body", [b"", b"null", b"\xff\xfe", b'{"goal":', b"[1]", b'{"other":1}', b'{"goal":"x","huh":1}']
)
def test_junk_never_ends_a_live_run(body: bytes) -> None:
    """It is refused in a record with a code, and the run goes on."""
    world = World(plan_of({"a": step("a")}))
    world.submit()
    refused = recorded(world.take("workflows.w-1.in", body))
    assert isinstance(refused, InputRejected)
    assert refused.code.startswith("plain.")
    assert isinstance(recorded(world.answer({})), RunCompleted)


def test_plain_json_is_adopted() -> None:
    """A goal, a signal and a cancel need no envelope: they are known by a derived id and the hash of their bytes."""
    world = World(plan_of({"wait": StateDef("wait", signal="go", on_success="a"), "a": step("a")}))
    accepted = recorded(world.take("workflows.w-1.in", b'{"goal":"sample","input":{"x":1}}'))
    assert isinstance(accepted, GoalAccepted)
    assert isinstance(recorded(world.take("workflows.w-1.in", b'{"signal":"go"}')), RunAdvanced)
    assert isinstance(recorded(world.take("workflows.w-1.in", b'{"cancel":"enough"}')), RunCancelled)


def test_a_step_input_that_cannot_be_made_fails_the_state_it_belongs_to() -> None:
    """The state's own `on_error` is taken, in the same decision."""
    states = {"a": step("a", "b"), "b": step("b", input={"x": "${output.absent}"}, on_error="c"), "c": step("c")}
    world = World(plan_of(states))
    world.submit()
    advanced = recorded(world.answer({}))
    assert isinstance(advanced, RunAdvanced)
    assert (advanced.state, advanced.previous, advanced.reason) == ("c", "b", "error")


def test_states_that_fail_into_each_other_do_not_go_round_for_ever() -> None:
    """Two states whose inputs cannot be made and that name each other as `on_error` end the run."""
    bad = {"x": "${output.absent}"}
    states = {"a": step("a", "b"), "b": step("b", input=bad, on_error="c"), "c": step("c", input=bad, on_error="b")}
    world = World(plan_of(states))
    world.submit()
    assert failure_code(world.answer({})) == "condition.failed"


def test_signals_and_cancels_without_a_run_are_refused() -> None:
    """They make no run; the refusal is on record."""
    world = World(None)
    assert getattr(recorded(world.signal("x")), "code", "") == "run.unknown"
    assert getattr(recorded(world.cancel()), "code", "") == "run.unknown"


def test_the_runs_output_is_what_the_definition_says() -> None:
    """`output:` is rendered from all outputs at the end."""
    plan = plan_of({"a": step("a", "b"), "b": step("b")}, output={"both": "${outputs.a.v + outputs.b.v}"})
    world = World(plan)
    world.submit()
    world.answer({"v": 1})
    ended = recorded(world.answer({"v": 2}))
    assert isinstance(ended, RunCompleted)
    assert ended.output == {"both": 3}


def test_a_signal_is_spent_once_it_was_waited_for() -> None:
    """A loop that comes back to the wait asks again: an old answer does not count for a new draft."""
    states = {
        "draft": step("draft", "review"),
        "review": StateDef("review", signal="answer", transitions=(), on_success="decide"),
        "decide": branch("decide", ("done", "output.good == true"), ("draft", None)),
    }
    world = World(plan_of(states))
    world.submit()
    world.answer({})
    world.signal("answer", by="ann")
    world.answer({"good": False})
    world.answer({})
    assert (world.state.state, world.state.waiting) == ("review", "signal")
    assert world.state.signals == {}
    assert world.state.timer is not None
    assert seconds_after_start(world.state.timer.due) > 1.0


def test_backoffs_grow_and_differ_between_runs() -> None:
    """Full jitter below a bound that doubles: over many runs, second waits go beyond what first ones may."""
    waits: dict[int, list[float]] = {1: [], 2: []}
    for number in range(40):
        plan = plan_of({"a": step("a", retry=retries(3, backoff=4.0))})
        world = World(plan, workflow_id=f"w-{number}", state=RunState(f"w-{number}"))
        world.submit()
        for attempt in (1, 2):
            failed = recorded(world.fail())
            assert isinstance(failed, RunAdvanced)
            waits[attempt].append(seconds_after_start(failed.retry_at) - (world.now - START).total_seconds())
            world.fire()
    assert 0 <= min(waits[1]) <= max(waits[1]) <= 4.0
    assert 4.0 < max(waits[2]) <= 8.0
    assert len(set(waits[1])) > 20
