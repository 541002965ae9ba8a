"""Reading a tool call: what is not exactly what its sender may send is refused before anything else is done. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentflow import subjects
from agentflow.clock import parse_time
from agentflow.envelope import Sealed, encode_payload, sha256_hex, unseal
from agentflow.errors import InputError, SchemaError
from agentflow.payloads import Payload, ToolRequested
from agentflow_executor.permissions import PLANNER, principal_of


@dataclass(frozen=True, slots=True)
class Call:
    """A verified call; its payload may still be unusable."""

    sealed: Sealed
    reply_to: str
    """The one subject its caller may be answered on."""

    @property
    def id(self) -> str:
        """The call id."""
        return self.sealed.envelope.id


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asks for."""

    tool: str
    input: dict[str, Any]
    input_sha256: str
    """Of the input's JSON."""
    principal: str
    deadline: datetime
    input_bytes: int = 0
    """Of the input's JSON."""


def open_call(body: bytes, subject: str) -> Call:
    """A stored message as a call; raises `InputError` for anything else.

    Codes: those of `unseal`; `call.misplaced` where the subject does not carry the envelope's id, `call.reply_to` where
    the answer is wanted on a subject that is not this caller's.
    """
    sealed = unseal(body, subject)
    parsed = subjects.parse(subject)
    if parsed.kind != "tool.call" or parsed.item != sealed.envelope.id:
        raise InputError(
            f"call {sealed.envelope.id} is stored on {subject!r}",
            code="call.misplaced",
            found=subject,
            allowed="its own",
        )
    allowed, found = reply_subject(sealed), sealed.envelope.metadata.get("reply_to")
    if found != allowed:
        raise InputError(
            f"call {sealed.envelope.id} of {sealed.envelope.sender!r} wants its answer on {str(found)[:200]!r}; "
            f"allowed is {allowed!r}",
            code="call.reply_to",
            found=found,
            allowed=allowed,
        )
    return Call(sealed, allowed)


def reply_subject(sealed: Sealed) -> str:
    """Where the answer to a call goes: to the run of a planner's call, to the agent of an agent's."""
    envelope = sealed.envelope
    if envelope.sender == PLANNER:
        return subjects.workflow_result(sealed.workflow_id, envelope.id)
    return subjects.tool_result(envelope.sender, envelope.id)


def read_request(call: Call, payload: Payload) -> Request:
    """What the call asks for; raises `InputError` where it is not a tool call or says no usable deadline or caller."""
    if not isinstance(payload, ToolRequested):
        raise SchemaError(
            f"expected ToolRequested, found {call.sealed.envelope.schema}",
            code="schema.unexpected",
            found=call.sealed.envelope.schema,
            allowed="tool.requested/1",
        )
    try:
        deadline = parse_time(payload.deadline)
    except ValueError as error:
        raise InputError(f"call {call.id} has no usable deadline: {error}", code="call.deadline") from error
    data = encode_payload(payload.input)
    return Request(
        tool=payload.tool[:200],
        input=payload.input,
        input_sha256=sha256_hex(data),
        principal=principal_of(call.sealed.envelope.sender, payload.workflow),
        deadline=deadline,
        input_bytes=len(data),
    )
