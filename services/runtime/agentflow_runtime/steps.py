"""A step on the wire: what is read from the request, and the envelopes its handling makes.

Everything a handling makes is a function of the message it handles, so that a second attempt makes the same again
(architecture, sections 3.3 and 4):

- The `n`-th effect of a handling has the id `derive_id(cause, agent, "effect", n)` and place `n` of the chain
  `handling:<cause>`. The id does not depend on *what* the effect is: a second attempt that asks for another tool at the
  same place meets the first attempt's call there, and is told so, instead of making a second effect beside it.
- The result has the id `derive_id(cause, agent, "result")` and the place behind the effects.
- No payload holds the present time; only `ts`, which no comparison looks at, does.

Pure.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentflow import subjects
from agentflow.clock import parse_time
from agentflow.envelope import ChainPlace, Ref, Sealed
from agentflow.errors import InputError, SchemaError, SubjectError
from agentflow.ids import derive_id
from agentflow.payloads import Payload, StepCompleted, StepFailed, StepRequested, ToolRequested
from agentflow.schemas import compose

EXECUTOR = "executor"
"""Whom tool calls are addressed to."""

STEP = "step.requested/1"
"""The schema of a request to an agent."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request to do one step, with what its handling needs of it."""

    sealed: Sealed
    request: StepRequested
    deadline: datetime
    reply_to: str
    """Where its one result is stored."""


def reply_address(sealed: Sealed) -> str:
    """Where the result of a step belongs; raises `InputError` (`reply.invalid`) unless the request says exactly that."""
    named = sealed.envelope.metadata.get("reply_to")
    try:
        allowed = subjects.workflow_result(sealed.workflow_id, sealed.envelope.id)
    except SubjectError as error:
        raise InputError(f"no workflow to reply to: {error}", code="reply.invalid") from error
    if named != allowed:
        found = repr(named)[:200]
        raise InputError(
            f"reply_to is {found}; allowed is {allowed}", code="reply.invalid", found=found, allowed=allowed
        )
    return allowed


def read_step(sealed: Sealed, payload: Payload) -> Step:
    """The step an envelope asks for; raises `InputError` (`reply.invalid`) or `SchemaError` (`schema.…`)."""
    if not isinstance(payload, StepRequested):
        schema = sealed.envelope.schema
        raise SchemaError(f"an agent takes {STEP}, not {schema}", code="schema.unexpected", found=schema, allowed=STEP)
    try:
        deadline = parse_time(payload.deadline)
    except ValueError as error:
        raise SchemaError(f"payload breaks {STEP}: deadline: {error}", code="schema.mismatch") from error
    return Step(sealed, payload, deadline, reply_address(sealed))


def effect_id(cause_id: str, agent_id: str, index: int) -> str:
    """The id of the `index`-th effect made while handling `cause_id`."""
    return derive_id(cause_id, agent_id, "effect", index)


def span_id(envelope_id: str) -> str:
    """The W3C span id of a derived envelope: the first 8 bytes of its id's SHA-256, in hex."""
    return hashlib.sha256(envelope_id.encode()).hexdigest()[:16]


def seal_call(cause: Sealed, agent_id: str, request: ToolRequested, place: ChainPlace, ts: datetime) -> Sealed:
    """The tool call at `place` of a handling's chain."""
    call_id = effect_id(cause.envelope.id, agent_id, place.seq)
    return _seal(
        request,
        cause=cause,
        agent_id=agent_id,
        id=call_id,
        subject=subjects.tool_call(call_id),
        to=EXECUTOR,
        ts=ts,
        place=place,
        extra={"reply_to": subjects.tool_result(agent_id, call_id)},
    )


def seal_result(
    cause: Sealed,
    agent_id: str,
    reply_to: str,
    result: StepCompleted | StepFailed,
    *,
    place: ChainPlace,
    ts: datetime,
    used: Sequence[Ref] = (),
) -> Sealed:
    """The step's result; `used` are the tool results that went into it."""
    return _seal(
        result,
        cause=cause,
        agent_id=agent_id,
        id=derive_id(cause.envelope.id, agent_id, "result"),
        subject=reply_to,
        to=cause.envelope.sender,
        ts=ts,
        place=place,
        used=used,
    )


def _seal(
    payload: Payload,
    *,
    cause: Sealed,
    agent_id: str,
    id: str,
    subject: str,
    to: str,
    ts: datetime,
    place: ChainPlace,
    extra: dict[str, Any] | None = None,
    used: Sequence[Ref] = (),
) -> Sealed:
    carried = {name: value for name, value in cause.envelope.metadata.items() if name != "reply_to"}
    return compose(
        payload,
        id=id,
        subject=subject,
        sender=agent_id,
        to=to,
        trace_id=cause.envelope.trace_id,
        span_id=span_id(id),
        ts=ts,
        place=place,
        causes=(cause.ref, *used),
        metadata={**carried, **(extra or {})},
    )
