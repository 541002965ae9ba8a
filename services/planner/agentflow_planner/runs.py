"""A run as the fold of its recorded history. Pure.

`Input` is one thing a planner handles; `RunState` is where a run stands; `evolve` folds one recorded decision, with the
inputs it consumed, into the state. Whoever folds the same history gets the same state: a planner after a crash, a
standby that takes over, and replay.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from agentflow.chain import workflow_chain
from agentflow.clock import format_time, parse_time
from agentflow.envelope import ChainPlace, Sealed
from agentflow.payloads import (
    Consumed,
    Decision,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSignalled,
    StepCompleted,
    TimerSet,
    ToolCompleted,
)

Kind = Literal["goal", "signal", "cancel", "result", "timer", "junk"]
"""What an input is to a run."""

Status = Literal["absent", "rejected", "running", "completed", "failed", "cancelled"]
"""Where a run's life stands; `absent` and `rejected` are not runs (yet)."""

Waiting = Literal["", "step", "retry", "signal"]
"""What a running run waits for."""

ENTERING = frozenset({"started", "completed", "signal", "error"})
"""Reasons of decisions that enter a state."""

Recorded: TypeAlias = Decision | GoalRejected | InputRejected
"""The payloads a planner stores on a run's `out` subject."""


class Problem(msgspec.Struct, frozen=True):
    """Why an input cannot be taken as it is."""

    code: str
    message: str
    found: str = ""
    allowed: str = ""


class Input(msgspec.Struct, frozen=True):
    """One thing a planner handles."""

    kind: Kind
    workflow_id: str
    ref: Consumed
    time: datetime
    """When the server stored it."""
    trace_id: str
    payload: Payload | None = None
    sender: str = ""
    """Who says to have sent it; empty for a body that is no envelope, whose publisher nobody knows."""
    tenant: str = "default"
    command_id: str = ""
    """For a result: the command it answers, taken from its subject."""
    problem: Problem | None = None


class Pending(msgspec.Struct, frozen=True):
    """The command a run waits for."""

    id: str
    state: str
    attempt: int


class RunState(msgspec.Struct, frozen=True):
    """Where a run stands."""

    workflow_id: str
    status: Status = "absent"
    tenant: str = "default"
    trace_id: str = ""
    goal: str = ""
    """The goal and its input in a form that compares: see `goal_key`."""
    definition: DefinitionRef | None = None
    seed: str = ""
    input: dict[str, Any] = {}
    started: str = ""
    state: str = ""
    attempt: int = 0
    steps: int = 0
    """States entered."""
    waiting: Waiting = ""
    command: Pending | None = None
    entered: str = ""
    """When the present wait began; its time-out counts from here."""
    awaits: str = ""
    """The signal it waits for."""
    retry_at: str = ""
    output: Any = None
    """What the last step returned."""
    outputs: dict[str, Any] = {}
    signals: dict[str, dict[str, Any]] = {}
    error: Failure | None = None
    error_state: str = ""
    timer: TimerSet | None = None
    consumed: dict[str, str] = {}
    """Key of an input (`key_of`) to the id of the decision that consumed it."""
    place: ChainPlace | None = None
    """Where the next decision goes in the run's chain."""
    ts: str = ""
    """Time of the last decision."""
    out_seq: int = 0
    """Stream sequence of the last decision: what the next one expects."""

    @property
    def ended(self) -> bool:
        """Whether nothing moves the run any more."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def exists(self) -> bool:
        """Whether there is a run under this id."""
        return self.status == "running" or self.ended


_ENDINGS: dict[type[Decision], Status] = {RunCompleted: "completed", RunFailed: "failed", RunCancelled: "cancelled"}


def key_of(ref: Consumed) -> str:
    """What tells inputs apart: the id alone is the sender's to choose."""
    return f"{ref.id}:{ref.hash}"


def goal_key(goal: GoalSubmitted) -> str:
    """A goal and its input as text that is equal exactly when they are, whatever the order of keys."""
    ordered = msgspec.json.encode({"goal": goal.goal, "input": goal.input}, order="sorted")
    return ordered.decode()


def decision_time(state: RunState, given: Input) -> datetime:
    """The time of a decision: its input's, never below the one before, and never below the timer that it takes.

    (A server whose clock was set back may store a timer before its time; it is due all the same.)
    """
    moments = [given.time]
    if state.ts:
        moments.append(parse_time(state.ts))
    if given.kind == "timer" and state.timer is not None and state.timer.id == given.ref.id:
        moments.append(parse_time(state.timer.due))
    return max(moments)


def later(moment: str, seconds: float) -> str:
    """`moment` plus `seconds`, both RFC 3339."""
    return format_time(parse_time(moment) + timedelta(seconds=seconds))


def place_for(state: RunState, given: Input) -> ChainPlace:
    """Where the next decision goes: on the run's chain, or at the start of one for this input."""
    if state.place is not None and (state.exists or given.kind != "goal"):
        return state.place
    return workflow_chain(state.workflow_id, given.ref.id)


def evolve(state: RunState, sealed: Sealed, recorded: Recorded, inputs: Mapping[str, Input], seq: int) -> RunState:
    """The state after a recorded decision; `inputs` holds what it consumed, by key (timers may be left out)."""
    consumed = {**state.consumed, **{key_of(c): sealed.envelope.id for c in recorded.consumed}}
    base = replace(
        state,
        consumed=consumed,
        place=ChainPlace(sealed.envelope.chain, sealed.envelope.chain_seq + 1, sealed.hash),
        ts=sealed.envelope.ts,
        out_seq=seq,
    )
    if isinstance(recorded, InputRejected):
        return base
    if isinstance(recorded, GoalRejected):
        return replace(base, status="rejected")
    return apply(base, recorded, inputs, sealed.envelope.ts)


def apply(state: RunState, decision: Decision, inputs: Mapping[str, Input], ts: str) -> RunState:
    """The part of `evolve` that does not depend on where the decision is stored; also used while deciding."""
    state = absorb(state, decision, inputs)
    if decision.timer is not None:
        state = replace(state, timer=decision.timer)
    if decision.error is not None:
        state = replace(state, error=decision.error, error_state=decision.previous)
    if decision.reason in ENTERING:
        state = replace(state, steps=state.steps + 1)
    if ended := _ENDINGS.get(type(decision)):
        output = decision.output if isinstance(decision, RunCompleted) else state.output
        return replace(state, status=ended, state=decision.state, waiting="", command=None, output=output)
    return state if decision.reason in ("noted", "rearmed") else _wait(state, decision, ts)


def absorb(state: RunState, decision: Decision, inputs: Mapping[str, Input]) -> RunState:
    """What the inputs of a decision add to the state, before it moves."""
    for consumed in decision.consumed:
        if state.timer is not None and state.timer.id == consumed.id:
            state = replace(state, timer=None)
        if given := inputs.get(key_of(consumed)):
            state = _take_in(state, given, decision)
    if decision.reason == "signal":
        state = _with_output(state, state.signals[state.awaits])
        state = replace(state, signals={name: data for name, data in state.signals.items() if name != state.awaits})
    return state


def _take_in(state: RunState, given: Input, decision: Decision) -> RunState:
    """What an input itself adds to the state."""
    match given.payload:
        case GoalSubmitted() as goal if isinstance(decision, GoalAccepted):
            return replace(
                state,
                status="running",
                goal=goal_key(goal),
                input=goal.input,
                definition=decision.definition,
                seed=decision.seed,
                tenant=given.tenant,
                trace_id=given.trace_id,
                started=format_time(given.time),
            )
        case RunSignalled(name=name, data=data):
            return replace(state, signals={**state.signals, name: data})
        case StepCompleted(output=output) | ToolCompleted(output=output):
            return _with_output(state, output)
    return state


def _with_output(state: RunState, output: Any) -> RunState:
    return replace(state, output=output, outputs={**state.outputs, state.state: output})


def _wait(state: RunState, decision: Decision, ts: str) -> RunState:
    """Begin to wait for a step, a signal, or the time of a retry."""
    waiting: Waiting = "retry" if decision.retry_at else "step" if decision.commands else "signal"
    command = Pending(decision.commands[0].id, decision.state, decision.attempt) if decision.commands else None
    return replace(
        state,
        state=decision.state,
        attempt=decision.attempt,
        waiting=waiting,
        command=command,
        awaits=decision.waits_for,
        entered=ts,
        retry_at=decision.retry_at,
    )
