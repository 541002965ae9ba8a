"""What arrives on a run's subjects, as typed `Input`s. Pure: bytes and subjects in, values out.

A body that is not an envelope is adopted on a run's `in` subject (architecture, section 3.5): validated, attributed to
its place in the stream, and known from then on by a derived id and the hash of its raw bytes. Nothing is dropped: what
cannot be taken becomes a `junk` input with a code, and the planner refuses it in a record.
"""

import hashlib

import msgspec

from agentflow import subjects
from agentflow.adoption import adopted_id, adopted_trace
from agentflow.envelope import Sealed, claim_in, sha256_hex, stored_hash, unseal
from agentflow.errors import InputError, SchemaError
from agentflow.ids import TOKEN, new_id
from agentflow.mesh.transport import Message
from agentflow.payloads import (
    CancelRequested,
    Consumed,
    GoalSubmitted,
    MessageRedelivered,
    Payload,
    RunSignalled,
    StepCompleted,
    StepFailed,
    TimerDue,
    ToolCompleted,
    ToolFailed,
)
from agentflow.plain import check_plain
from agentflow.schemas import decode_payload
from agentflow_planner.adoption import read_plain
from agentflow_planner.runs import Input, Kind, Problem

REDELIVERED = "input.redelivered"
"""Code of what stands for another message. It is resolved where it is delivered; only one that stands for nothing is
refused there, so whoever finds it while reading back leaves it alone."""

_KINDS: dict[type[Payload], Kind] = {
    GoalSubmitted: "goal",
    RunSignalled: "signal",
    CancelRequested: "cancel",
    StepCompleted: "result",
    StepFailed: "result",
    ToolCompleted: "result",
    ToolFailed: "result",
    TimerDue: "timer",
}
_ALLOWED: dict[str, tuple[Kind, ...]] = {
    "workflow.in": ("goal", "signal", "cancel"),
    "workflow.result": ("result",),
    "timer.due": ("timer",),
}
OWN_CHAINS = frozenset({"workflow", "decision", "handling", "audit", "timer", "dead"})
"""Kinds of chains that only the mesh's own services write; what a client sends claims a place on none of them."""


def read_input(message: Message, payload: Payload | None = None) -> Input:
    """The input a stored message is. `payload` is given when it was fetched by reference (see `needs_artifact`)."""
    place = subjects.parse(message.subject)
    if stored_hash(message.body) is None:
        if place.kind == "workflow.in":
            return _adopt(message, place.owner)
        problem = Problem("envelope.not_sealed", "body is not an envelope", _excerpt(message.body), "a sealed envelope")
        return _junk(message, place.owner, problem)
    try:
        sealed = unseal(message.body, message.subject)
        taken = payload or decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    except InputError as error:
        return _junk(message, place.owner, problem_of(error))
    kind = _KINDS.get(type(taken))
    if kind is None or kind not in _ALLOWED.get(place.kind, ()):
        code = REDELIVERED if isinstance(taken, MessageRedelivered) else "schema.unexpected"
        problem = Problem(code, f"{sealed.envelope.schema} has no place on {message.subject}")
        return _junk(message, place.owner, problem)
    if strange := _out_of_place(place, sealed) or _not_plain(taken):
        return _junk(message, place.owner, strange)
    return _sealed_input(message, place, sealed, kind, taken)


def refuse_arrival(message: Message, problem: Problem) -> Input:
    """A message that cannot be taken for a reason that lies outside its bytes, such as a payload that is gone."""
    return _junk(message, subjects.parse(message.subject).owner, problem)


def twin_of(given: Input) -> Input:
    """An input under an id that another input of the run has already: refused, under an id of its own."""
    digest = hashlib.sha256(f"{given.ref.subject}|{given.time.isoformat()}|{given.ref.hash}".encode()).digest()
    ref = msgspec.structs.replace(given.ref, id=new_id(given.time, lambda count: digest[:count]))
    problem = Problem("input.id_taken", "another input of the run has this id", given.ref.id, "an id of its own")
    return msgspec.structs.replace(given, kind="junk", ref=ref, payload=None, problem=problem)


def needs_artifact(message: Message) -> Sealed | None:
    """The envelope of a message whose payload is kept in the object store, if it verifies."""
    if stored_hash(message.body) is None:
        return None
    try:
        sealed = unseal(message.body, message.subject)
    except InputError:
        return None
    return sealed if claim_in(sealed.envelope.payload) is not None else None


def _out_of_place(place: subjects.Subject, sealed: Sealed) -> Problem | None:
    """An envelope whose chain or cause is not that of its subject: sound in itself, and made by somebody else.

    A result is on the chain of its command's handling and names the command as its first cause; what a client sends is
    on no chain of the mesh's own.
    """
    envelope = sealed.envelope
    if place.kind == "workflow.result":
        chain, cause = f"handling:{place.item}", envelope.causes[0].id if envelope.causes else ""
        if envelope.chain != chain:
            return Problem("result.wrong_chain", "the result is on another chain", envelope.chain[:200], chain)
        if cause != place.item:
            return Problem("result.wrong_cause", "the result answers another message", cause, place.item)
    if place.kind == "workflow.in" and envelope.chain.partition(":")[0] in OWN_CHAINS:
        allowed = "input:CLIENT:RUN"
        return Problem("input.wrong_chain", "an input is on a chain of the mesh's own", envelope.chain[:200], allowed)
    return None


def _not_plain(payload: Payload) -> Problem | None:
    """A value in the payload that cannot be worked with: nested too deeply, say."""
    match payload:
        case GoalSubmitted(input=value) | RunSignalled(data=value) | StepCompleted(output=value):
            where = "value"
        case ToolCompleted(output=value):
            where = "output"
        case _:
            return None
    try:
        check_plain(value, where)
    except SchemaError as error:
        return problem_of(error)
    return None


def _sealed_input(message: Message, place: subjects.Subject, sealed: Sealed, kind: Kind, payload: Payload) -> Input:
    envelope = sealed.envelope
    tenant = envelope.metadata.get("tenant", "default")
    if not isinstance(tenant, str) or not TOKEN.match(tenant):
        found = str(tenant)[:80]
        return _junk(
            message, place.owner, Problem("tenant.invalid", "metadata.tenant is no token", found, TOKEN.pattern)
        )
    return Input(
        kind=kind,
        workflow_id=place.owner,
        ref=Consumed(
            id=envelope.id, hash=sealed.hash, schema=envelope.schema, subject=message.subject, seq=message.seq
        ),
        time=message.time,
        trace_id=envelope.trace_id,
        payload=payload,
        sender=envelope.sender,
        tenant=tenant,
        command_id=place.item if kind == "result" else "",
    )


def _adopt(message: Message, workflow_id: str) -> Input:
    """A plain publisher's message."""
    try:
        adopted = read_plain(message.body)
    except InputError as error:
        return _junk(message, workflow_id, problem_of(error))
    return _plain_input(message, workflow_id, adopted.kind, adopted.schema, adopted.payload, None)


def problem_of(error: InputError) -> Problem:
    """An error as a record says it: bounded, with what was found and what is allowed."""
    found, allowed = (str(error.fields.get(name, ""))[:200] for name in ("found", "allowed"))
    return Problem(error.error_code, error.message[:500], found, allowed)


def _junk(message: Message, workflow_id: str, problem: Problem) -> Input:
    return _plain_input(message, workflow_id, "junk", "unknown/0", None, problem)


def _plain_input(
    message: Message, workflow_id: str, kind: Kind, schema: str, payload: Payload | None, problem: Problem | None
) -> Input:
    id = adopted_id(message.subject, message.time, message.body)
    return Input(
        kind=kind,
        workflow_id=workflow_id,
        ref=Consumed(
            id=id,
            hash=sha256_hex(message.body),
            schema=schema,
            subject=message.subject,
            seq=message.seq,
        ),
        time=message.time,
        trace_id=adopted_trace(id),
        payload=payload,
        problem=problem,
    )


def _excerpt(body: bytes) -> str:
    return body[:120].decode("utf-8", "replace")
