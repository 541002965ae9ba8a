"""Payloads in and out of envelopes: typed, validated against the schema the envelope names, never guessed."""

from typing import Any, TypeVar

import msgspec

from agentflow.clock import format_time
from agentflow.envelope import (
    MAX_INLINE_PAYLOAD,
    ChainPlace,
    Cost,
    Envelope,
    Ref,
    Sealed,
    brief,
    claim_for,
    claim_in,
    encode_payload,
    seal,
    sha256_hex,
)
from agentflow.errors import EvidenceError, SchemaError
from agentflow.payloads import SCHEMAS, Payload, schema_of

P = TypeVar("P", bound=Payload)

_decoders: dict[str, msgspec.json.Decoder[Payload]] = {
    name: msgspec.json.Decoder(s) for name, (s, _) in SCHEMAS.items()
}


def decode_payload(schema: str, payload: bytes | msgspec.Raw) -> Payload:
    """The typed payload; raises `SchemaError` (`schema.unknown`, `schema.mismatch`)."""
    decoder = _decoders.get(schema)
    if decoder is None:
        known = ", ".join(sorted(SCHEMAS))
        raise SchemaError(f"unknown schema {schema[:200]!r}", code="schema.unknown", found=schema[:200], allowed=known)
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = brief(error)
        raise SchemaError(f"payload breaks {schema}: {found}", code="schema.mismatch", found=found) from error


def open_claim(envelope: Envelope, data: bytes) -> Payload:
    """The typed payload of an envelope with a claim check, given the artifact it refers to.

    Raises `SchemaError`, and `EvidenceError` (`artifact.altered`) for bytes that are not the ones sealed.
    """
    claim = claim_in(envelope.payload)
    if claim is None:
        return decode_payload(envelope.schema, envelope.payload)
    if len(data) != claim.size or sha256_hex(data) != claim.sha256:
        raise EvidenceError(
            f"artifact {claim.artifact[:80]} of envelope {envelope.id} is not what was sealed",
            code="artifact.altered",
            artifact=claim.artifact,
        )
    return decode_payload(envelope.schema, data)


def payload_as(sealed: Sealed, struct: type[P]) -> P:
    """The payload of an envelope as the struct the caller expects; raises `SchemaError` for another schema."""
    payload = decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    if not isinstance(payload, struct):
        raise SchemaError(
            f"expected {struct.__name__}, found {sealed.envelope.schema}",
            code="schema.unexpected",
            found=sealed.envelope.schema,
            allowed=struct.__name__,
        )
    return payload


def compose(
    payload: Payload,
    *,
    id: str,
    subject: str,
    sender: str,
    to: str,
    trace_id: str,
    span_id: str,
    ts: Any,
    place: ChainPlace,
    causes: tuple[Ref, ...] = (),
    metadata: dict[str, Any] | None = None,
    cost: Cost | None = None,
    raw: msgspec.Raw | None = None,
) -> Sealed:
    """Seal a payload into an envelope at a place of a chain; raises `SchemaError` for one that breaks its schema.

    `ts` is a datetime or the text of one. A payload above the inline limit is replaced by its claim check: whoever
    stores the envelope stores the payload first (`agentflow.artifacts.keep`). `raw` gives the bytes to seal instead.
    """
    schema = schema_of(payload)
    data = encode_payload(payload)
    decode_payload(schema, data)
    if len(data) > MAX_INLINE_PAYLOAD:
        data = encode_payload(claim_for(data))
    return seal(
        Envelope(
            id=id,
            subject=subject,
            schema=schema,
            type=SCHEMAS[schema][1],
            sender=sender,
            to=to,
            trace_id=trace_id,
            span_id=span_id,
            ts=ts if isinstance(ts, str) else format_time(ts),
            payload=raw if raw is not None else msgspec.Raw(data),
            metadata=metadata or {},
            cost=cost or Cost(),
            chain=place.chain,
            chain_seq=place.seq,
            prev_hash=place.prev_hash,
            causes=causes,
        )
    )
