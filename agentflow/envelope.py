"""The envelope: what every message between agents is, and how it is sealed (architecture, sections 3.1 and 3.2).

Sealing hashes the bytes that are stored, so nobody has to re-encode a message to check it:

    rest = JSON of every member but envelope_hash
    envelope_hash = sha256(rest)
    body = '{"envelope_hash":"' + hex + '",' + rest[1:]

and whoever has the body checks `sha256("{" + body[84:])`. No canonical form is needed, so none can disagree. Pure: no
I/O, no clock, no randomness.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import msgspec

from agentflow import subjects
from agentflow.clock import parse_time
from agentflow.errors import EnvelopeError, SchemaError, SubjectError
from agentflow.ids import is_ulid

MessageType = Literal["request", "response", "event", "control"]
"""What a message is to its receiver: asks, answers, tells, or steers."""

MAX_ENVELOPE = 512 * 1024
"""Bytes. Body and headers together over the server's 1 MiB make it close the connection for good."""

MAX_INLINE_PAYLOAD = 128 * 1024
"""Bytes. A payload above this goes to the object store and is referred to by a `ClaimCheck`."""

ZERO_HASH = "0" * 64
"""`prev_hash` of the first place of a chain that rests on nothing earlier."""

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_HEX32 = re.compile(r"[0-9a-f]{32}\Z")
_HEX16 = re.compile(r"[0-9a-f]{16}\Z")
_PREFIX = re.compile(rb'\{"envelope_hash":"([0-9a-f]{64})",')
_PREFIX_LENGTH = 84
_SCHEMA = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+/[1-9][0-9]{0,3}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
_MAX_SEQ = 2**53 - 1
"""The largest integer every JSON reader keeps exactly."""


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What making a message cost."""

    tokens: int = 0
    dollars: float = 0.0


class Ref(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """An envelope named by what it is: its id and the hash of its bytes."""

    id: str
    hash: str


class ClaimCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stands in for a payload that is kept in the object store `AF_ARTIFACTS`."""

    artifact: str
    """Name in the object store."""
    sha256: str
    """Hex digest of the payload's bytes."""
    size: int
    """Bytes."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}, kw_only=True):
    """Every member but the hash, in the order they are stored."""

    id: str
    """ULID, derived from the cause or new."""
    subject: str
    """Where it is meant to be stored; moved elsewhere it no longer verifies."""
    schema: str
    """Name and version of the payload's schema, such as `step.requested/1`."""
    type: MessageType
    sender: str
    """`from` on the wire: agent id, service id or client id."""
    to: str
    """Agent id, service id or workflow topic."""
    trace_id: str
    """W3C trace id, 32 hex."""
    span_id: str
    """W3C span id, 16 hex."""
    ts: str
    """RFC 3339, UTC, microseconds."""
    payload: msgspec.Raw
    """The payload's JSON, as it is stored."""
    metadata: dict[str, Any] = {}
    """workflow_id, tenant, attempt, planner, reply_to, deadline, residency … open."""
    cost: Cost = Cost()
    chain: str
    """The chain this envelope has its place in (architecture, section 3.3)."""
    chain_seq: int
    """Its place, from 0."""
    prev_hash: str
    """Hash of the envelope before it in the chain, or what place 0 rests on."""
    causes: tuple[Ref, ...] = ()
    """The envelopes whose handling made this one; the first is the one handled."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope, its hash, and the exact bytes that are stored."""

    envelope: Envelope
    hash: str
    body: bytes

    @property
    def ref(self) -> Ref:
        """Its id and hash, for `causes` and chains."""
        return Ref(self.envelope.id, self.hash)

    @property
    def workflow_id(self) -> str:
        """The run it belongs to, or an empty string."""
        value = self.envelope.metadata.get("workflow_id", "")
        return value if isinstance(value, str) else ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)
_claim_decoder = msgspec.json.Decoder(ClaimCheck)


def sha256_hex(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def encode_payload(payload: Any) -> bytes:
    """JSON bytes of a payload struct, compact, in member order; raises `SchemaError` for a value JSON cannot hold."""
    try:
        return _encoder.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"payload cannot be written as JSON: {brief(error)}", code="value.not_json") from error


def seal(draft: Envelope) -> Sealed:
    """Hash the draft's bytes and put the hash in front; raises `EnvelopeError` for a draft that must not be stored.

    The envelope returned is what a reader of those bytes finds in them.
    """
    _check_members(draft)
    try:
        rest = _encoder.encode(draft)
    except (TypeError, ValueError, RecursionError) as error:
        raise EnvelopeError(f"envelope cannot be written as JSON: {brief(error)}", code="envelope.malformed") from error
    digest = sha256_hex(rest)
    body = b'{"envelope_hash":"' + digest.encode() + b'",' + rest[1:]
    if len(body) > MAX_ENVELOPE:
        raise EnvelopeError(
            f"envelope {draft.id} ({draft.schema}) has {len(body)} bytes; allowed are {MAX_ENVELOPE}",
            code="envelope.too_large",
            found=len(body),
            allowed=MAX_ENVELOPE,
        )
    return Sealed(_read(rest), digest, body)


def stored_hash(body: bytes) -> tuple[str, str] | None:
    """The hash a body claims and the hash it has, or None when it is not in the sealed form at all."""
    prefix = _PREFIX.match(body)
    if prefix is None:
        return None
    return prefix.group(1).decode(), hashlib.sha256(b"{" + body[_PREFIX_LENGTH:]).hexdigest()


_SEALED_MARKS = (b'{"envelope_hash":"', b',"prev_hash":"')


def looks_sealed(body: bytes) -> bool:
    """Whether bytes that do not verify were an envelope once; holds when any one place of an envelope was edited."""
    return stored_hash(body) is not None or any(mark in body for mark in _SEALED_MARKS)


def unseal(body: bytes, subject: str | None = None) -> Sealed:
    """Parse and check stored bytes: form, hash, members, and the subject they were stored under when given.

    Raises `EnvelopeError` with one of the codes `envelope.not_sealed`, `envelope.too_large`, `envelope.hash_mismatch`,
    `envelope.malformed`, `envelope.duplicate_key`, `envelope.member_invalid`, `envelope.moved`.
    """
    if len(body) > MAX_ENVELOPE:
        raise EnvelopeError(f"body has {len(body)} bytes; allowed are {MAX_ENVELOPE}", code="envelope.too_large")
    hashes = stored_hash(body)
    if hashes is None:
        raise EnvelopeError("body does not begin with an envelope_hash", code="envelope.not_sealed")
    claimed, actual = hashes
    if claimed != actual:
        raise EnvelopeError(
            f"envelope_hash is {claimed} but the bytes hash to {actual}",
            code="envelope.hash_mismatch",
            found=actual,
            allowed=claimed,
        )
    envelope = _read(b"{" + body[_PREFIX_LENGTH:])
    if subject is not None and envelope.subject != subject:
        raise EnvelopeError(
            f"envelope {envelope.id} belongs on {envelope.subject!r} but is stored on {subject!r}",
            code="envelope.moved",
            found=subject,
            allowed=envelope.subject,
        )
    return Sealed(envelope, claimed, body)


def claim_for(payload: bytes) -> ClaimCheck:
    """The claim check for a payload: content-addressed, so the same payload is kept once."""
    digest = sha256_hex(payload)
    return ClaimCheck(artifact=f"sha256-{digest}", sha256=digest, size=len(payload))


def claim_in(payload: msgspec.Raw | bytes) -> ClaimCheck | None:
    """The claim check a stored payload is, or None when the payload is inline.

    Only the form `claim_for` makes is one, so that no stranger's text becomes the name of an artifact.
    """
    data = bytes(payload)
    if not data.startswith(b'{"artifact":'):
        return None
    try:
        claim = _claim_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    fine = _HEX64.match(claim.sha256) and claim.artifact == f"sha256-{claim.sha256}" and claim.size >= 0
    return claim if fine else None


def traceparent(envelope: Envelope, *, sampled: bool = True) -> str:
    """The W3C `traceparent` header of an envelope; `sampled` says that its span is recorded by whoever stores it."""
    return f"00-{envelope.trace_id}-{envelope.span_id}-0{int(sampled)}"


def brief(error: BaseException) -> str:
    """An error's text, cut: it may quote what a stranger sent."""
    return str(error)[:200]


def _read(rest: bytes) -> Envelope:
    """The members of a body without its hash; refused unless it is one JSON text that says the same to every reader."""
    try:
        envelope = _decoder.decode(rest)
        if _encoder.encode(msgspec.json.decode(rest)) != rest:
            _refuse_duplicate_keys(rest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EnvelopeError(f"envelope is malformed: {brief(error)}", code="envelope.malformed") from error
    _check_members(envelope)
    return envelope


def _refuse_duplicate_keys(rest: bytes) -> None:
    """Readers differ in which of two equal keys counts; only bytes no writer of ours makes are looked at so closely."""

    def unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise EnvelopeError("envelope has a key twice", code="envelope.duplicate_key")
        return found

    json.loads(rest, object_pairs_hook=unique)


def _check_members(envelope: Envelope) -> None:
    """Refuse what the types alone let through; every refusal names the member."""
    checks = (
        ("id", is_ulid(envelope.id), "a ULID"),
        ("subject", _is_subject(envelope.subject), "a subject of the grammar"),
        ("schema", _SCHEMA.match(envelope.schema), "name/version"),
        ("trace_id", _HEX32.match(envelope.trace_id), "32 lower-case hex digits"),
        ("span_id", _HEX16.match(envelope.span_id), "16 lower-case hex digits"),
        ("prev_hash", _HEX64.match(envelope.prev_hash), "64 lower-case hex digits"),
        ("chain", 0 < len(envelope.chain) <= 200, "1 to 200 characters"),
        ("chain_seq", 0 <= envelope.chain_seq <= _MAX_SEQ, f"0 to {_MAX_SEQ}"),
        ("ts", _is_time(envelope.ts), "RFC 3339 UTC with microseconds and Z"),
        ("payload", bytes(envelope.payload)[:1] == b"{", "a JSON object"),
        ("causes", all(is_ulid(c.id) and _HEX64.match(c.hash) for c in envelope.causes), "id and hash of envelopes"),
    )
    for member, fine, allowed in checks:
        if not fine:
            found = repr(getattr(envelope, member))[:120]
            raise EnvelopeError(
                f"member {member} is {found}; allowed is {allowed}",
                code="envelope.member_invalid",
                member=member,
                found=found,
                allowed=allowed,
            )


def _is_subject(text: str) -> bool:
    try:
        subjects.parse(text)
    except SubjectError:
        return False
    return True


def _is_time(text: str) -> bool:
    if not _TIME.match(text):
        return False
    try:
        parse_time(text)
    except ValueError:
        return False
    return True


class ChainPlace(msgspec.Struct, frozen=True):
    """Where in a chain the next envelope goes: the chain, the place, and the hash it rests on."""

    chain: str
    seq: int = 0
    prev_hash: str = ZERO_HASH

    def after(self, sealed: Sealed) -> Self:
        """The place behind `sealed`, which must itself be on this chain."""
        return type(self)(self.chain, sealed.envelope.chain_seq + 1, sealed.hash)
