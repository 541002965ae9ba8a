"""What the detector sees of one message on the audit stream: an `Observation`, or why there is none. Pure.

Time is when the server stored the message. What the records do not say (older ones have no principal with the outcome)
is empty, and rules that ask for it do not count the call.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from agentflow import subjects
from agentflow.envelope import Sealed
from agentflow.errors import InputError
from agentflow.payloads import AuditOutcome, Evidence, Payload

BLOCKED = "breaker.open"
"""Code of a call that a breaker kept from running: it is no sign of anything but the breaker."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NETWORK = "network."


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was asked for, or what came of one."""

    kind: Literal["call", "outcome"]
    time: int
    """Microseconds since 1970, by the server's clock."""
    call_id: str
    evidence: Evidence
    tool: str = ""
    principal: str = ""
    run: str = ""
    tenant: str = ""
    status: str = ""
    code: str = ""
    """Class of the failure."""
    permissions: tuple[str, ...] = ()
    tool_version: str = ""
    features: dict[str, Any] = {}


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(time: int) -> datetime:
    """The moment so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=time)


def observe_call(sealed: Sealed, stored: datetime) -> Observation:
    """A call as it was asked for; raises `InputError` (`call.misplaced`) for what is none."""
    envelope = sealed.envelope
    if envelope.schema != "tool.requested/1" or subjects.tool_call(envelope.id) != envelope.subject:
        raise InputError(
            f"{envelope.subject} holds {envelope.schema} {envelope.id}, not its call", code="call.misplaced"
        )
    return Observation(kind="call", time=microseconds(stored), call_id=envelope.id, evidence=_evidence(sealed))


def observe_audit(sealed: Sealed, payload: Payload, stored: datetime) -> Observation | None:
    """The outcome of a call, or None for what is said on the way to it.

    Raises `InputError` (`audit.foreign`) for what the executor cannot have written there.
    """
    envelope = sealed.envelope
    call_id = subjects.parse(envelope.subject).item
    if envelope.chain != f"audit:{call_id}" or [cause.id for cause in envelope.causes] != [call_id]:
        raise InputError(f"{envelope.subject} holds {envelope.schema} of another chain", code="audit.foreign")
    if not isinstance(payload, AuditOutcome):
        return None
    return Observation(
        kind="outcome",
        time=microseconds(stored),
        call_id=call_id,
        evidence=_evidence(sealed),
        tool=payload.tool,
        principal=payload.principal,
        run=sealed.workflow_id,
        tenant=_text(envelope.metadata.get("tenant")) or "default",
        status=payload.status,
        code=payload.error.code if payload.error else "",
        permissions=payload.permissions,
        tool_version=payload.tool_version,
        features=_features(payload, stored),
    )


def _features(outcome: AuditOutcome, stored: datetime) -> dict[str, Any]:
    """The numbers and names of one call."""
    used = outcome.usage
    return {
        "status": outcome.status,
        "error": outcome.error.code if outcome.error else "",
        "latency_ms": used.wall_ms if used else None,
        "cpu_ms": used.cpu_ms if used else None,
        "max_rss_kib": used.max_rss_kib if used else None,
        "exit_code": outcome.exit_code,
        "bytes_in": outcome.input_bytes,
        "bytes_out": outcome.output_bytes,
        "permissions": list(outcome.permissions),
        "hosts": sorted({p.partition(":")[2] for p in outcome.permissions if p.startswith(_NETWORK) and ":" in p}),
        "tool_version": outcome.tool_version,
        "hour_utc": stored.hour,
    }


def _evidence(sealed: Sealed) -> Evidence:
    return Evidence(sealed.envelope.id, sealed.hash, sealed.envelope.subject)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
