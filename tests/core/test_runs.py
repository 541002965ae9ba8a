"""The client's fold of a run: events in, where it stands out. Pure."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.chain import workflow_chain
from agentflow.errors import EvidenceError
from agentflow.mesh.transport import Message
from agentflow.payloads import (
    Command,
    Decision,
    DefinitionRef,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunAdvanced,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSignalled,
    StepCompleted,
    schema_of,
)
from agentflow.runs import ENDED, RunEvent, RunState, evolve, fold, goal_key, goal_of, read_event
from agentflow.testing import START, envelope, goal
from tests.support.fake_planner import ask, failure

DEFINITION = DefinitionRef(name="greet", version="2.0.0", sha256="0" * 64, planner="fsm", engine="test/1")
TOOL_CALL = Command(id="01JCYZ", subject="tools.calls.01JCYZ", schema="tool.requested/1", payload_sha256="0" * 64)


def event(payload: Payload, seq: int = 1, way: str = "out") -> RunEvent:
    """An event of a run."""
    return RunEvent(
        seq, f"workflows.run-1.{way}", schema_of(payload), f"2026-01-01T00:00:{seq:02}.000000Z", payload, None
    )


def begun(*decisions: Payload) -> RunState:
    """A run that was accepted, after more decisions."""
    accepted = GoalAccepted(
        consumed=(), definition=DEFINITION, seed="00", state="hello", reason="started", attempt=1, commands=(ask(),)
    )
    payloads = [GoalSubmitted("greet"), accepted, *decisions]
    ways = ["in", *["out"] * (len(payloads) - 1)]
    return fold(
        "run-1", [event(payload, seq, way) for seq, (payload, way) in enumerate(zip(payloads, ways, strict=True))]
    )


def test_a_goal_nobody_answered_is_submitted() -> None:
    """And waits for a planner."""
    state = fold("run-1", [event(GoalSubmitted("greet"), way="in")])

    assert ("submitted", "greet", "a planner that answers the goal") == (
        state.status,
        state.workflow,
        state.waiting_for,
    )
    assert not state.ended


def test_an_accepted_run_is_in_its_first_state() -> None:
    """Named by the exact definition, and since when it was submitted."""
    state = begun()

    assert ("running", "greet@2.0.0", "hello", 1, 1) == (
        state.status,
        state.workflow,
        state.state,
        state.attempt,
        state.steps,
    )
    assert "2026-01-01T00:00:00.000000Z" == state.submitted
    assert "2026-01-01T00:00:01.000000Z" == state.updated


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (RunAdvanced(consumed=(), reason="completed", state="b", commands=(ask("writer"),)), "the agent 'writer'"),
        (
            RunAdvanced(consumed=(), reason="completed", state="b", commands=(TOOL_CALL,)),
            "the result of tool call 01JCYZ",
        ),
        (RunAdvanced(consumed=(), reason="completed", state="b", waits_for="approved"), "the signal 'approved'"),
        (
            RunAdvanced(consumed=(), reason="retry", state="b", retry_at="2026-01-01T00:00:09.000000Z"),
            "the retry at 2026-01-01T00:00:09.000000Z",
        ),
        (RunAdvanced(consumed=(), reason="noted"), "the agent 'greeter'"),
        (RunAdvanced(consumed=(), reason="rearmed"), "the agent 'greeter'"),
    ],
)
def test_a_run_says_what_it_waits_for(decision: Decision, expected: str) -> None:
    """The agent, the call, the signal or the moment; taking note of something changes nothing about that."""
    assert expected == begun(decision).waiting_for


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (RunCompleted(consumed=(), state="done", output={"a": 1}), "completed"),
        (RunFailed(consumed=(), state="hello", error=failure()), "failed"),
        (RunCancelled(consumed=(), state="hello"), "cancelled"),
        (GoalRejected(consumed=(), code="definition.unknown", message="no"), "rejected"),
    ],
)
def test_a_run_that_ended_waits_for_nothing(ending: Payload, status: str) -> None:
    """Its status is how it ended."""
    state = begun(ending)

    assert (status, "", True) == (state.status, state.waiting_for, state.ended)


def test_a_completed_run_has_its_output_and_no_error() -> None:
    """An earlier failure that was recovered from is history, not the run's end."""
    failed = RunAdvanced(consumed=(), reason="error", state="fallback", error=failure(), commands=(ask(),))

    assert failure() == begun(failed).error
    state = begun(failed, RunCompleted(consumed=(), state="done", output=[1]))
    assert (None, [1], 2) == (state.error, state.output, state.steps)


def test_a_failed_run_keeps_the_last_failure_it_knows() -> None:
    """Where the ending names none, the step's failure stands."""
    failed = RunAdvanced(consumed=(), reason="retry", state="hello", error=failure("step.timeout"), retry_at="x")

    assert failure("step.timeout") == begun(failed, RunFailed(consumed=(), state="hello")).error


def test_a_cancelled_run_does_not_show_a_failure_it_got_over() -> None:
    """It ended because somebody asked."""
    failed = RunAdvanced(consumed=(), reason="retry", state="hello", error=failure(), retry_at="x")

    assert begun(failed, RunCancelled(consumed=(), state="hello")).error is None


def test_refused_inputs_are_counted_and_change_nothing_else() -> None:
    """Before and after the end."""
    refused = InputRejected(consumed=(), code="input.unexpected", message="what?")
    live = begun(refused, refused)
    ended = begun(RunCompleted(consumed=(), state="done", output=1), refused)

    assert ("running", 2) == (live.status, live.rejected_inputs)
    assert ("completed", 1, 1) == (ended.status, ended.output, ended.rejected_inputs)


def test_results_and_signals_do_not_move_a_run_by_themselves() -> None:
    """Only decisions do."""
    state = begun()

    assert state == evolve(state, event(RunSignalled("hurry"), 9, "in"))
    assert state == evolve(state, event(StepCompleted(output=1), 9, "results.x"))


payloads = st.sampled_from(
    [
        RunAdvanced(consumed=(), reason="completed", state="b", commands=(ask(),)),
        RunAdvanced(consumed=(), reason="noted"),
        InputRejected(consumed=(), code="c", message="m"),
        RunSignalled("x"),
        StepCompleted(output=1),
    ]
)


@given(st.lists(payloads, max_size=12), st.integers(0, 12))
def test_folding_in_two_parts_is_folding_at_once(events: list[Payload], cut: int) -> None:
    """Whoever goes on from a stored state gets where the whole history leads."""
    numbered = [event(payload, seq) for seq, payload in enumerate(events)]
    state = fold("run-1", numbered[:cut])
    for each in numbered[cut:]:
        state = evolve(state, each)

    assert fold("run-1", numbered) == state


@given(st.lists(payloads, max_size=12))
def test_only_an_ending_ends_a_run(events: list[Payload]) -> None:
    """Nothing else that is stored can."""
    assert fold("run-1", [event(payload) for payload in events]).status not in ENDED


# --- reading events ------------------------------------------------------------------------------------------------


def stored(body: bytes, subject: str = "workflows.run-1.in") -> Message:
    """A stored message."""
    return Message("AF_MESSAGES", 7, subject, body, START)


def test_a_sealed_message_is_read_typed() -> None:
    """With its envelope, and the time the envelope has."""
    sealed = goal("greet", {"name": "Ada"})
    found = read_event(stored(sealed.body))

    assert GoalSubmitted("greet", {"name": "Ada"}) == found.payload
    assert (7, "goal.submitted/1", sealed.envelope, sealed.envelope.ts) == (
        found.seq,
        found.schema,
        found.envelope,
        found.ts,
    )


def test_a_schema_that_is_newer_than_we_are_is_read_as_an_object() -> None:
    """A client does not stop because a planner was upgraded."""
    from agentflow.envelope import seal

    newer = msgspec.structs.replace(
        envelope(RunSignalled("x"), "workflows.run-1.out", place=workflow_chain("run-1", "G" * 26)).envelope,
        schema="run.carried/1",
        payload=msgspec.Raw(b'{"state":"hello","head":"abc"}'),
    )

    found = read_event(stored(seal(newer).body, "workflows.run-1.out"))
    assert ("run.carried/1", {"state": "hello", "head": "abc"}) == (found.schema, found.payload)
    assert not found.terminal


def test_a_decision_moved_to_another_run_decides_nothing_there() -> None:
    """It is on a chain of its own run, and there it would be damage."""
    place = workflow_chain("run-1", "G" * 26)
    sealed = envelope(RunCancelled(consumed=()), "workflows.run-3.out", place=place)

    found = read_event(stored(sealed.body, "workflows.run-2.out"))
    assert ("plain", None, False) == (found.schema, found.envelope, found.terminal)
    with pytest.raises(EvidenceError, match="AF_MESSAGES:7"):
        read_event(stored(sealed.body, "workflows.run-1.out"))


@given(st.binary(max_size=200))
def test_whatever_is_put_on_in_is_an_event(body: bytes) -> None:
    """Anybody may write there; nothing that they write stops a reader."""
    found = read_event(stored(body))

    assert found.envelope is None
    assert isinstance(found.payload, dict)


def test_the_end_of_a_run_is_only_the_end_on_its_out() -> None:
    """A client that writes `run.completed/1` to `in` completes nothing."""
    sealed = envelope(RunCompleted(consumed=(), output="mine"), "workflows.run-1.in")

    assert not read_event(stored(sealed.body)).terminal


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.randoms())
def test_the_same_goal_has_the_same_key_in_any_order(input: dict[str, Any], random: Any) -> None:
    """Order of members is not part of a goal."""
    shuffled = list(input.items())
    random.shuffle(shuffled)

    assert goal_key(GoalSubmitted("greet", input)) == goal_key(GoalSubmitted("greet", dict(shuffled)))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0, False), ("1", 1), (None, {}), ([], {})])
def test_inputs_that_python_takes_for_equal_are_not_the_same_goal(one: object, other: object) -> None:
    """What is compared is what is stored."""
    assert goal_key(GoalSubmitted("greet", {"a": one})) != goal_key(GoalSubmitted("greet", {"a": other}))


def test_only_a_goal_is_a_goal() -> None:
    """Sealed, or the plain form of one; anything else is none."""
    plain = read_event(stored(b'{"goal":"greet","input":{"a":1}}'))

    assert GoalSubmitted("greet", {"a": 1}) == goal_of(plain)
    assert goal_of(read_event(stored(b'{"goal":7}'))) is None
    assert goal_of(read_event(stored(b'{"goal":"greet","mode":"fast"}'))) is None
    assert goal_of(event(RunSignalled("x"), way="in")) is None


def test_subjects_of_events_are_those_of_the_run() -> None:
    """One filter covers them all."""
    for way in ("in", "out", "results.01JCYZ"):
        assert subjects.matches(subjects.workflow_all("run-1"), f"workflows.run-1.{way}")
