"""What arrives on a run's subjects, as typed `Input`s. Pure: bytes and subjects in, values out.

A body that is not an envelope is adopted on a run's `in` subject (architecture, section 3.5): validated, attributed to
its place in the stream, and known from then on by a derived id and the hash of its raw bytes. Nothing is dropped: what
cannot be taken becomes a `junk` input with a code, and the planner refuses it in a record.
"""

import hashlib
from typing import Any

import msgspec

from agentflow import subjects
from agentflow.adoption import adopted_id, adopted_trace
from agentflow.envelope import Sealed, claim_in, sha256_hex, stored_hash, unseal
from agentflow.errors import InputError
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
from agentflow.schemas import decode_payload
from agentflow_planner.runs import Input, Kind, Problem

MAX_PLAIN = 256 * 1024
"""Bytes a plain publisher's body may have."""

REDELIVERED = "input.redelivered"
"""Code of what stands for another message. It is resolved where it is delivered; only one that stands for nothing is
refused there, so whoever finds it while reading back leaves it alone."""

PLAIN_FORMS = '{"goal": NAME, "input": {…}}, {"signal": NAME, "data": {…}} or {"cancel": REASON}'
"""What a plain publisher may send."""

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
        found, allowed = (str(error.fields.get(name, ""))[:200] for name in ("found", "allowed"))
        return _junk(message, place.owner, Problem(error.error_code, error.message[:500], found, allowed))
    kind = _KINDS.get(type(taken))
    if kind is None or kind not in _ALLOWED.get(place.kind, ()):
        code = REDELIVERED if isinstance(taken, MessageRedelivered) else "schema.unexpected"
        problem = Problem(code, f"{sealed.envelope.schema} has no place on {message.subject}")
        return _junk(message, place.owner, problem)
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
        tenant=tenant,
        command_id=place.item if kind == "result" else "",
    )


def _adopt(message: Message, workflow_id: str) -> Input:
    """A plain publisher's message."""
    try:
        kind, schema, payload = _plain(message.body)
    except InputError as error:
        found = _excerpt(message.body)
        return _junk(message, workflow_id, Problem(error.error_code, error.message[:500], found, PLAIN_FORMS))
    return _plain_input(message, workflow_id, kind, schema, payload, None)


def _plain(body: bytes) -> tuple[Kind, str, Payload]:
    if len(body) > MAX_PLAIN:
        raise InputError(f"body has {len(body)} bytes; allowed are {MAX_PLAIN}", code="plain.too_large")
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
        if "goal" in members:
            return "goal", "goal.submitted/1", msgspec.convert(members, GoalSubmitted)
        if "signal" in members:
            renamed = {("name" if key == "signal" else key): value for key, value in members.items()}
            return "signal", "run.signalled/1", msgspec.convert(renamed, RunSignalled)
        if "cancel" in members:
            given = members["cancel"]
            reason = {**members, "reason": given if isinstance(given, str) else ""}
            del reason["cancel"]
            return "cancel", "run.cancel_requested/1", msgspec.convert(reason, CancelRequested)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"body is not a goal, signal or cancel: {error}", code="plain.malformed") from error
    raise InputError("body is not a goal, signal or cancel", code="plain.malformed")


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
