"""Payloads in and out of envelopes: typed, validated against the schema the envelope names, never guessed."""

import math
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
    encode_payload,
    seal,
)
from agentflow.errors import SchemaError
from agentflow.payloads import SCHEMAS, Payload, schema_of

P = TypeVar("P", bound=Payload)

MAX_DEPTH = 64
"""Levels of nesting allowed in values that come from users, tools and models."""

_INT_MAX, _INT_MIN = 2**64 - 1, -(2**63)
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


def check_plain(value: Any, where: str = "value", depth: int = 0) -> None:
    """Refuse a value that JSON would change or drop: NaN, infinities, huge integers, non-text keys, deep nesting."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"{where} is nested deeper than {MAX_DEPTH}", code="value.too_deep", where=where)
    match value:
        case None | bool():
            return
        case str() if _is_unicode(value):
            return
        case str():
            raise SchemaError(f"{where} holds text that is not Unicode", code="value.not_json", where=where)
        case int() if _INT_MIN <= value <= _INT_MAX:
            return
        case float() if math.isfinite(value):
            return
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not _is_unicode(key):
                    raise SchemaError(
                        f"{where} has the key {_shown(key)}; keys are text", code="value.key", where=where
                    )
                check_plain(item, f"{where}.{key[:80]}", depth + 1)
        case list() | tuple():
            for index, item in enumerate(value):
                check_plain(item, f"{where}[{index}]", depth + 1)
        case _:
            raise SchemaError(
                f"{where} is {type(value).__name__} {_shown(value)}; allowed are JSON values with finite numbers",
                code="value.not_json",
                where=where,
            )


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: a lone surrogate is no text."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    """A stranger's value, cut, for a message: an integer may have too many digits to be written at all."""
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  # the value's own __repr__ may raise anything
        return "(not printable)"
