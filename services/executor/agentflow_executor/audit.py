"""The envelopes the executor makes about a call: the entries of its audit chain, and the one answer. Pure.

Ids are derived from the call, so whoever takes the call over makes the same; a conflict on the chain's expected sequence
decides who goes on.
"""

from datetime import datetime
from typing import Any

import msgspec

from agentflow import subjects
from agentflow.chain import handling_chain
from agentflow.envelope import ChainPlace, Ref, Sealed, encode_payload, sha256_hex
from agentflow.ids import derive_id
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, ToolCompleted, ToolFailed
from agentflow.schemas import compose
from agentflow_executor.intake import Call
from agentflow_executor.ledger import Record

EXECUTOR = "executor"
"""The logical producer of everything here."""

_PURPOSES: dict[type[Record], str] = {
    AuditIntent: "audit:intent",
    AuditReconciled: "audit:reconciled",
    AuditOutcome: "audit:outcome",
}
_OWN = frozenset({"reply_to", "deadline"})
_METADATA_BYTES = 1024


def entry(call: Call, place: ChainPlace, record: Record, index: int, now: datetime) -> Sealed:
    """An entry of the call's audit chain; `index` is the execution it is about, 0 for the outcome."""
    envelope = call.sealed.envelope
    id = derive_id(call.id, EXECUTOR, _PURPOSES[type(record)], index)
    return compose(
        record,
        id=id,
        subject=subjects.tool_audit(call.id),
        sender=EXECUTOR,
        to=envelope.sender,
        trace_id=envelope.trace_id,
        span_id=span_of(id),
        ts=now,
        place=place,
        causes=(call.sealed.ref,),
        metadata=carried(envelope.metadata),
    )


def answer(call: Call, outcome: AuditOutcome, rests_on: Ref | None, now: datetime) -> Sealed:
    """The answer to the caller: the outcome's own bytes, and a reference to the audit entry it rests on."""
    envelope = call.sealed.envelope
    id = derive_id(call.id, EXECUTOR, "result")
    completed = outcome.status == "completed"
    return compose(
        ToolCompleted(None) if completed or outcome.error is None else ToolFailed(outcome.error),
        id=id,
        subject=call.reply_to,
        sender=EXECUTOR,
        to=envelope.sender,
        trace_id=envelope.trace_id,
        span_id=span_of(id),
        ts=now,
        place=handling_chain(call.sealed),
        causes=(call.sealed.ref, rests_on) if rests_on else (call.sealed.ref,),
        metadata=carried(envelope.metadata),
        raw=msgspec.Raw(encode_payload(outcome.result)),
    )


def span_of(id: str) -> str:
    """The span of an envelope, derived from its id."""
    return sha256_hex(id.encode())[:16]


def carried(metadata: dict[str, Any]) -> dict[str, Any]:
    """What of a call's metadata its answers carry on: all but what is the call's own, and nothing large."""
    kept = {key: value for key, value in metadata.items() if key not in _OWN and len(key) <= 64}
    return {key: value for key, value in kept.items() if len(encode_payload(value)) <= _METADATA_BYTES}
