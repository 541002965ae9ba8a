"""Recorded decisions as replay reads them: also those whose bytes were edited, as far as they can still be read. Pure."""

import msgspec

from agentflow.envelope import Envelope, Sealed, claim_in, sha256_hex, stored_hash, unseal
from agentflow.errors import AgentflowError
from agentflow.payloads import Consumed, Decision, DefinitionRef, GoalAccepted, GoalRejected, InputRejected, Payload
from agentflow.schemas import decode_payload, open_claim
from agentflow_streams.deciders import Arrival, Recorded

_HASH = 84
"""Bytes of the member `envelope_hash` at the front of a body."""

_envelopes = msgspec.json.Decoder(Envelope)


def read_decision(arrival: Arrival) -> Recorded | str:
    """The decision a message is, or why it is none."""
    try:
        sealed, intact = unseal(arrival.body, arrival.subject), True
    except AgentflowError as error:
        edited = loosely(arrival.body)
        if edited is None or edited.envelope.subject != arrival.subject:
            return f"it cannot be read: {error.message}"
        sealed, intact = edited, False
    try:
        payload = _payload(sealed, arrival)
    except AgentflowError as error:
        return f"its payload cannot be read: {error.message}"
    if not isinstance(payload, Decision | GoalRejected | InputRejected) or not payload.consumed:
        return f"{sealed.envelope.schema} is no decision about an input"
    return Recorded(arrival, sealed, payload, intact)


def loosely(body: bytes) -> Sealed | None:
    """The envelope in a body, under the hash it claims, whether or not it has it; None where there is none."""
    hashes = stored_hash(body)
    if hashes is None:
        return None
    try:
        return Sealed(_envelopes.decode(b"{" + body[_HASH:]), hashes[0], body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def consumed_by(payload: Payload) -> tuple[Consumed, ...]:
    """The inputs a decision is about."""
    found: tuple[Consumed, ...] = getattr(payload, "consumed", ())
    return found


def definition_of(payload: Payload) -> DefinitionRef | None:
    """The definition a decision binds its run to."""
    return payload.definition if isinstance(payload, GoalAccepted) else None


def hashes_of(body: bytes) -> tuple[str, ...]:
    """What a message may be called by: the hash of the envelope it is, and the hash of its raw bytes."""
    hashes = stored_hash(body)
    raw = sha256_hex(body)
    return (raw,) if hashes is None or hashes[0] != hashes[1] else (hashes[1], raw)


def _payload(sealed: Sealed, arrival: Arrival) -> Payload:
    if claim_in(sealed.envelope.payload) is None or arrival.artifact is None:
        return decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    return open_claim(sealed.envelope, arrival.artifact)
