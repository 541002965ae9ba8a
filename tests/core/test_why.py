"""Why a run does not move: from its history what it waits for, from the mesh what is in the way."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentflow import subjects
from agentflow.clock import format_time
from agentflow.payloads import (
    Command,
    Consumed,
    DeadLetter,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunAdvanced,
    RunCompleted,
    RunFailed,
    RunSignalled,
    TimerSet,
)
from agentflow.runs import RunEvent
from agentflow.testing import START, envelope
from agentflow.why import Facts, Wait, explain, wait_of

RUN = "run-1"
CALL = "01JCYZ00000000000000000000"
DEFINITION = DefinitionRef(name="greet", version="1.0.0", sha256="0" * 64, planner="fsm", engine="test/1")
LATER = format_time(START + timedelta(seconds=30))
TIMER = TimerSet("01JCYZ00000000000000000001", "timers.set.planner.run-1.0", "0" * 64, LATER)


def history(*payloads: Payload) -> list[RunEvent]:
    """Events of a run: what clients say on `in`, the planner's decisions on `out`."""
    found = []
    for seq, payload in enumerate(payloads, 1):
        is_input = isinstance(payload, GoalSubmitted | RunSignalled)
        subject = subjects.workflow_in(RUN) if is_input else subjects.workflow_out(RUN)
        sealed = envelope(payload, subject, index=seq, at=START + timedelta(seconds=seq))
        found.append(RunEvent(seq, subject, sealed.envelope.schema, sealed.envelope.ts, payload, sealed.envelope))
    return found


def accepted(**more: Any) -> GoalAccepted:
    """The run's first decision."""
    return GoalAccepted(consumed=(), definition=DEFINITION, seed="00", state="hello", reason="started", **more)


def ask(subject: str) -> Command:
    """A command on a subject."""
    return Command(id=CALL, subject=subject, schema="step.requested/1", payload_sha256="0" * 64)


AGENT = ask(subjects.agent_in("greeter", CALL))
TOOL = ask(subjects.tool_call(CALL))
ALIVE = Facts(START, {"planner": 1, "executor": 1, "agent.greeter": 2})
GOAL = GoalSubmitted("greet")


@pytest.mark.parametrize(
    ("payloads", "kind", "owner"),
    [
        ((GOAL,), "goal", "planner"),
        ((GOAL, accepted(commands=(AGENT,))), "agent", "greeter"),
        ((GOAL, accepted(commands=(TOOL,))), "tool", CALL),
        ((GOAL, accepted(waits_for="approve")), "signal", "approve"),
        ((GOAL, accepted(retry_at=LATER)), "retry", "timer"),
        ((GOAL, accepted(commands=(AGENT,)), RunAdvanced(consumed=(), reason="noted")), "agent", "greeter"),
        ((GOAL, accepted(waits_for="approve"), RunSignalled("approve")), "input", "planner"),
        ((GOAL, RunCompleted(consumed=(), state="done", reason="completed")), "ended", ""),
    ],
)
def test_a_run_waits_for_what_its_history_says(payloads: tuple[Payload, ...], kind: str, owner: str) -> None:
    """Whatever it is, it has a kind, an owner, and a time since when."""
    _, wait = wait_of(RUN, history(*payloads))

    assert (kind, owner) == (wait.kind, wait.owner)
    assert wait.since


def test_what_the_planner_took_already_is_not_waited_for() -> None:
    """An input counts as told only until a decision consumed it."""
    events = history(GOAL, accepted(waits_for="approve"), RunSignalled("approve"))
    told = events[-1].envelope
    assert told is not None
    consumed = (Consumed(told.id, "0" * 64, "run.signalled/1", told.subject, 3),)
    more = history(GOAL, accepted(), RunSignalled("approve"), RunAdvanced(consumed=consumed, waits_for="second"))

    assert "signal" == wait_of(RUN, [*events, more[-1]])[1].kind


def test_the_runs_timer_says_until_when() -> None:
    """The last one that was armed, also where a later decision armed none."""
    decisions = (GOAL, accepted(commands=(AGENT,), timer=TIMER), RunAdvanced(consumed=(), reason="noted"))

    assert LATER == wait_of(RUN, history(*decisions))[1].until


LETTER = DeadLetter("AF_AGENTS", "runtime", 1, AGENT.subject, 9, "delivery.exhausted", "delivered 9 times", "")


@pytest.mark.parametrize(
    ("command", "facts", "code"),
    [
        (AGENT, ALIVE, "waits"),
        (AGENT, replace(ALIVE, alive={"planner": 1, "executor": 1}), "agent.absent"),
        (AGENT, replace(ALIVE, alive={"agent.greeter": 1}), "planner.absent"),
        (AGENT, replace(ALIVE, letters=(LETTER,)), "message.dead"),
        (AGENT, replace(ALIVE, now=START + timedelta(minutes=5)), "waits.overdue"),
        (TOOL, ALIVE, "waits"),
        (TOOL, replace(ALIVE, letters=(LETTER,)), "waits"),
        (TOOL, replace(ALIVE, alive={"planner": 1}), "executor.absent"),
        (TOOL, replace(ALIVE, tool="send", blocked_until=LATER, blocked_by="agent.clerk"), "breaker.open"),
        (TOOL, replace(ALIVE, tool="send", unreadable="tool.send"), "breaker.unreadable"),
    ],
)
def test_what_is_in_the_way_is_named(command: Command, facts: Facts, code: str) -> None:
    """With a stable code, a sentence, and something to do where something has to be done."""
    reason = explain(*wait_of(RUN, history(GOAL, accepted(commands=(command,), timer=TIMER))), facts)

    assert (RUN, "running", code) == (reason.run, reason.status, reason.code)
    assert reason.why
    assert bool(reason.do) == (not code.startswith("waits"))


def test_the_key_that_blocks_is_named() -> None:
    """It may be the tool's, the agent's or the workflow's: somebody has to reset that one."""
    facts = replace(ALIVE, tool="send", blocked_until=LATER, blocked_by="agent.clerk")

    reason = explain(*wait_of(RUN, history(GOAL, accepted(commands=(TOOL,), timer=TIMER))), facts)

    assert "agent.clerk" in reason.why


def test_a_signal_is_asked_for_with_the_command_that_sends_it() -> None:
    """The person who reads it can copy the line."""
    reason = explain(*wait_of(RUN, history(GOAL, accepted(waits_for="approve"))), ALIVE)

    assert ("waits", f"agentflow signal {RUN} approve") == (reason.code, reason.do)


def test_an_ended_run_does_not_wait() -> None:
    """How it ended is said, with the code where it did not end well; a refusal after the end changes nothing."""
    error = Failure("step.failed", "StepError", "it broke", "agent")
    late = InputRejected(consumed=(), code="run.ended", message="it has ended")
    events = history(GOAL, accepted(), RunFailed(consumed=(), state="hello", reason="error", error=error), late)
    state, wait = wait_of(RUN, events)
    reason = explain(state, wait, Facts(START))

    assert ("ended", "", Wait("ended", "", state.updated)) == (reason.code, reason.do, wait)
    assert "failed (step.failed)" in reason.why
