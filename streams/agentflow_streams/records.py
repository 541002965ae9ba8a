"""One stored message, judged by itself: integrity, subject and schema. Pure.

A message is clean (`sealed` and no `damage`), or it is not and `damage` says of which kind. Of an edited envelope what
can still be read is kept in `trace`, so that one edited byte is told as one damage and does not also look like a
missing place in its chain.
"""

import re
from dataclasses import dataclass, replace

from agentflow import subjects
from agentflow.envelope import ClaimCheck, Sealed, claim_in, looks_sealed, sha256_hex, stored_hash, unseal
from agentflow.errors import EnvelopeError, SchemaError, SubjectError
from agentflow.payloads import SCHEMAS, Payload
from agentflow.schemas import decode_payload
from agentflow_streams.findings import Kind

_PLACE = re.compile(rb'"chain":"([^"\\]{1,200})","chain_seq":(\d{1,18}),"prev_hash":"([0-9a-f]{64})"')
_ID = re.compile(rb'"id":"([0-7][0-9A-HJKMNP-TV-Z]{25})"')


@dataclass(frozen=True, slots=True)
class Trace:
    """What an edited envelope still says about itself, none of it proven."""

    id: str
    chain: str
    place: int
    prev_hash: str
    claimed: str
    """The hash in front of the bytes."""
    actual: str
    """The hash of the bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored message and what is true of it by itself."""

    stream: str
    seq: int
    subject: str
    raw_hash: str
    """Of the whole body, as decisions list plain messages they adopt."""
    sealed: Sealed | None = None
    """The envelope, if the bytes are the ones sealed; a moved one too."""
    payload: Payload | None = None
    """Typed; None where there is none, where it breaks its schema, or while it is only a claim check."""
    claim: ClaimCheck | None = None
    """Set while the payload is elsewhere: see `with_artifact`."""
    damage: Kind | None = None
    detail: str = ""
    """The damage, or why the payload could not be checked."""
    trace: Trace | None = None


def open_record(stream: str, seq: int, subject: str, body: bytes) -> Record:
    """Judge one stored message."""
    record = Record(stream, seq, subject, sha256_hex(body))
    try:
        sealed = unseal(body)
    except (EnvelopeError, SubjectError) as error:
        if looks_sealed(body):
            return replace(record, damage="edited", detail=error.message, trace=_trace(body))
        return replace(record, damage="foreign", detail="body is not a sealed envelope")
    record = replace(record, sealed=sealed)
    if sealed.envelope.subject != subject:
        meant = sealed.envelope.subject
        return replace(record, damage="moved", detail=f"envelope {sealed.envelope.id} was sealed for {meant}")
    if claim := claim_in(sealed.envelope.payload):
        return replace(record, claim=claim)
    return _with_payload(record, sealed, bytes(sealed.envelope.payload))


def with_artifact(record: Record, data: bytes | None) -> Record:
    """The record of a claim check with the bytes found in the object store, None when there are none."""
    claim, sealed = record.claim, record.sealed
    if claim is None or sealed is None:
        return record
    record = replace(record, claim=None)
    if data is None:
        return replace(
            record, damage="missing", detail=f"its payload, artifact {claim.artifact}, is not there or not whole"
        )
    if sha256_hex(data) != claim.sha256:
        return replace(
            record, damage="edited", detail=f"its payload, artifact {claim.artifact}, is not what was sealed"
        )
    return _with_payload(record, sealed, data)


def is_open_input(subject: str) -> bool:
    """Whether anyone may write there, plain or junk: `workflows.<id>.in` and `agents.<id>.in`."""
    try:
        parsed = subjects.parse(subject)
    except SubjectError:
        return False
    return parsed.kind in ("workflow.in", "agent.in") and not parsed.item


def _with_payload(record: Record, sealed: Sealed, data: bytes) -> Record:
    schema, kind = sealed.envelope.schema, sealed.envelope.type
    try:
        payload = decode_payload(schema, data)
    except SchemaError as error:
        if error.error_code == "schema.unknown":
            return replace(record, detail=f"its schema {schema} is not known here, so its payload was not checked")
        return replace(record, damage="foreign", detail=error.message)
    if SCHEMAS[schema][1] != kind:
        return replace(record, damage="foreign", detail=f"{schema} travels as {SCHEMAS[schema][1]}, not as {kind}")
    return replace(record, payload=payload)


def _trace(body: bytes) -> Trace | None:
    """Read an edited envelope's place from its bytes: its members come in a fixed order, the chain near the end."""
    places, named = list(_PLACE.finditer(body)), _ID.search(body)
    if not places or named is None:
        return None
    claimed, actual = stored_hash(body) or ("", sha256_hex(b"{" + body[84:]))
    chain, seq, prev_hash = places[-1].groups()
    return Trace(named[1].decode(), chain.decode(errors="replace"), int(seq), prev_hash.decode(), claimed, actual)
