"""A run as its clients see it: what is stored about it, read as typed events and folded into where it stands. Pure.

The planner's own fold (which decides) lives with the planner; this one answers people's questions: what is the run's
status, in which state is it, what is it waiting for, what came of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from agentflow import subjects
from agentflow.chain import is_stranger
from agentflow.clock import format_time
from agentflow.envelope import Envelope, claim_in, unseal
from agentflow.errors import EnvelopeError, EvidenceError, SchemaError, SubjectError
from agentflow.mesh.transport import Message
from agentflow.payloads import (
    TERMINAL,
    Command,
    Decision,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from agentflow.schemas import decode_payload

Status = Literal["submitted", "running", "completed", "failed", "cancelled", "rejected"]
"""Where a run's life stands; `submitted` is a goal no planner has answered yet, `rejected` one that started no run."""

ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})
"""Statuses nothing changes any more."""

PLAIN = "plain"
"""Schema shown for a body that is no envelope: what a plain publisher sent."""

_ENDINGS: dict[type[Decision], Status] = {RunCompleted: "completed", RunFailed: "failed", RunCancelled: "cancelled"}
_STAYS = frozenset({"noted", "rearmed"})


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One stored message of a run."""

    seq: int
    """Its sequence in the stream: orders events, but is no identity."""
    subject: str
    schema: str
    """Of the payload; `plain` for a body that is no envelope."""
    ts: str
    """The envelope's time, or when a plain body was stored; RFC 3339."""
    payload: Payload | dict[str, Any]
    """Typed, where the schema is known here."""
    envelope: Envelope | None

    @property
    def terminal(self) -> bool:
        """Whether it is the run's end."""
        return self.schema in TERMINAL and _kind(self.subject) == "workflow.out"


class RunState(msgspec.Struct, frozen=True):
    """Where a run stands."""

    id: str
    status: Status = "submitted"
    workflow: str = ""
    """`name@version`; before it is accepted, the goal as it was asked for."""
    state: str = ""
    attempt: int = 0
    steps: int = 0
    """Commands sent so far, retries included."""
    waiting_for: str = ""
    """What has to happen next, for people; empty once it has ended."""
    submitted: str = ""
    """RFC 3339."""
    updated: str = ""
    """Time of the last decision; RFC 3339."""
    output: Any = None
    error: Failure | None = None
    """Why it failed, or the last failure of a step."""
    rejected_inputs: int = 0
    """Inputs it did not take; each is on the stream with its reason."""

    @property
    def ended(self) -> bool:
        """Whether nothing changes it any more."""
        return self.status in ENDED


def read_event(message: Message, payload: Payload | None = None) -> RunEvent:
    """A stored message as an event; `payload` is given where it was kept elsewhere (a claim check).

    What strangers put on a run's subjects may be anything and is shown as it is. Among its decisions a body that was
    one and does not verify is damage: raises `EvidenceError`.
    """
    if _kind(message.subject) == "workflow.out" and is_stranger(message.body, subjects.parse(message.subject).owner):
        return RunEvent(message.seq, message.subject, PLAIN, format_time(message.time), _plain(message.body), None)
    try:
        sealed = unseal(message.body, message.subject)
    except EnvelopeError as error:
        if _kind(message.subject) == "workflow.out":
            raise EvidenceError(
                f"{message.stream}:{message.seq} on {message.subject} does not verify: {error.message}",
                stream=message.stream,
                seq=message.seq,
                reason=error.error_code,
            ) from error
        return RunEvent(message.seq, message.subject, PLAIN, format_time(message.time), _plain(message.body), None)
    envelope = sealed.envelope
    typed = payload if payload is not None else _typed(envelope)
    return RunEvent(message.seq, message.subject, envelope.schema, envelope.ts, typed, envelope)


def _kind(subject: str) -> str:
    """The kind of a subject; empty for one outside the grammar, on which a stranger may have put something."""
    try:
        return subjects.parse(subject).kind
    except SubjectError:
        return ""


def _typed(envelope: Envelope) -> Payload | dict[str, Any]:
    """The payload as its struct, or as an object where the schema is newer than we are."""
    try:
        if claim_in(envelope.payload) is None:
            return decode_payload(envelope.schema, envelope.payload)
    except SchemaError:
        pass
    found: dict[str, Any] = msgspec.json.decode(envelope.payload)
    return found


def _plain(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"text": body[:2000].decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {"value": found}


def goal_of(event: RunEvent) -> GoalSubmitted | None:
    """The goal an event is, sealed or plain; None for anything else."""
    if isinstance(event.payload, GoalSubmitted):
        return event.payload
    if event.schema != PLAIN or _kind(event.subject) != "workflow.in":
        return None
    try:
        return msgspec.convert(event.payload, GoalSubmitted)
    except msgspec.ValidationError:
        return None


def goal_key(goal: GoalSubmitted) -> bytes:
    """Equal for the same goal and input, whatever the order of keys; 1, 1.0 and true stay different."""
    return msgspec.json.encode({"goal": goal.goal, "input": goal.input}, order="sorted")


def fold(run_id: str, events: Iterable[RunEvent]) -> RunState:
    """Where a run stands after its events, given in stream order."""
    state = RunState(run_id)
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: RunState, event: RunEvent) -> RunState:
    """The state after one more event; events that decide nothing change nothing."""
    match event.payload:
        case GoalAccepted() as accepted:
            fresh = RunState(state.id, "running", submitted=state.submitted or event.ts)
            definition = accepted.definition
            return _decided(replace(fresh, workflow=f"{definition.name}@{definition.version}"), accepted, event.ts)
        case Decision() as decision:
            return _decided(state, decision, event.ts)
        case GoalRejected(code=code, message=message):
            failure = Failure(code=code, type="GoalRejected", message=message, blame="input", retryable=False)
            return replace(state, status="rejected", error=failure, waiting_for="", updated=event.ts)
        case InputRejected():
            return replace(state, rejected_inputs=state.rejected_inputs + 1, updated=event.ts)
    if state.submitted:
        return state
    goal = goal_of(event)
    return replace(
        state,
        workflow=goal.goal if goal else state.workflow,
        submitted=event.ts,
        waiting_for="a planner that answers the goal",
    )


def _decided(state: RunState, decision: Decision, ts: str) -> RunState:
    state = replace(
        state,
        state=decision.state or state.state,
        attempt=decision.attempt or state.attempt,
        steps=state.steps + len(decision.commands),
        error=decision.error or state.error,
        updated=ts,
    )
    if ended := _ENDINGS.get(type(decision)):
        output = decision.output if isinstance(decision, RunCompleted) else None
        error = state.error if ended == "failed" else decision.error
        return replace(state, status=ended, output=output, error=error, waiting_for="")
    return state if decision.reason in _STAYS else replace(state, waiting_for=_waiting_for(decision))


def _waiting_for(decision: Decision) -> str:
    if decision.retry_at:
        return f"the retry at {decision.retry_at}"
    if decision.commands:
        return _answerer(decision.commands[-1])
    if decision.waits_for:
        return f"the signal {decision.waits_for!r}"
    return "the planner"


def _answerer(command: Command) -> str:
    subject = subjects.parse(command.subject)
    return f"the agent {subject.owner!r}" if subject.kind == "agent.in" else f"the result of tool call {subject.item}"
