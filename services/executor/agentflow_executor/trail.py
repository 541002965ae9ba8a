"""The audit chain of one call as a writer needs it: what it says so far, and where the next entry goes.

Every entry is stored behind the sequence this process knows as the last; a `Conflict` means that another executor went
on, and the chain has to be read again.
"""

from dataclasses import dataclass, field
from datetime import datetime

from agentflow import subjects
from agentflow.chain import audit_chain
from agentflow.envelope import ChainPlace, Ref, Sealed, unseal
from agentflow.errors import EnvelopeError, EvidenceError, OutcomeUnknown, SchemaError
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Message, Transport
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled
from agentflow.schemas import decode_payload
from agentflow_executor.audit import EXECUTOR, entry
from agentflow_executor.intake import Call
from agentflow_executor.ledger import Ledger, Record, evolve


@dataclass(frozen=True, slots=True)
class Trail:
    """The chain up to the last entry known."""

    place: ChainPlace
    """Where the next entry goes."""
    seq: int = 0
    """Stream sequence of the last entry; 0 where there is none."""
    ledger: Ledger = field(default_factory=Ledger)
    last: Ref | None = None

    def behind(self, sealed: Sealed, record: Record, seq: int) -> "Trail":
        """The chain with one more entry; raises `EvidenceError` where it cannot stand there."""
        return Trail(self.place.after(sealed), seq, evolve(self.ledger, record), sealed.ref)


def empty_trail(call: Call) -> Trail:
    """The chain of a call nothing was done about."""
    return Trail(audit_chain(call.sealed))


async def append(transport: Transport, call: Call, trail: Trail, record: Record, index: int, now: datetime) -> Trail:
    """Store one more entry; raises `Conflict` where another executor was first, and what `store` raises."""
    sealed = entry(call, trail.place, record, index, now)
    stored = await store(transport, sealed, expect=trail.seq)
    return trail.behind(sealed, record, stored.seq)


async def read_trail(transport: Transport, call: Call) -> Trail:
    """The chain as it is stored; raises `EvidenceError` where it does not verify."""
    subject = subjects.tool_audit(call.id)
    stream = subjects.stream_of(subject)
    last, trail = await transport.last(stream, subject), empty_trail(call)
    if last is None:
        return trail
    async for message in transport.read(stream, subject):
        trail = _take(trail, message)
    if trail.seq < last.seq:
        raise OutcomeUnknown(f"{subject} can be read up to {trail.seq} only, but reaches {last.seq}", subject=subject)
    return trail


def _take(trail: Trail, message: Message) -> Trail:
    """One stored entry, verified, linked to the one before, and folded."""
    where = f"{message.stream}:{message.seq}"
    try:
        sealed = unseal(message.body, message.subject)
        record = decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    except (EnvelopeError, SchemaError) as error:
        raise EvidenceError(f"{where} is not an audit entry: {error}", code="ledger.damaged", where=where) from error
    envelope = sealed.envelope
    if (envelope.chain, envelope.chain_seq, envelope.prev_hash) != (
        trail.place.chain,
        trail.place.seq,
        trail.place.prev_hash,
    ) or envelope.sender != EXECUTOR:
        raise EvidenceError(f"{where} does not continue the audit chain", code="ledger.damaged", where=where)
    if not isinstance(record, AuditIntent | AuditOutcome | AuditReconciled):
        raise EvidenceError(f"{where} is {envelope.schema}, not an audit entry", code="ledger.damaged", where=where)
    return trail.behind(sealed, record, message.seq)
