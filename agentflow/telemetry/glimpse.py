"""What telemetry looks at of a message: ids and names, never the payload. Pure.

A glimpse is taken of every delivery, so it reads a few members and verifies nothing: nothing but spans, labels and log
lines may rest on it. Whatever the bytes are, there is a glimpse; what cannot be read is empty.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime

import msgspec

from agentflow.adoption import adopted_id, adopted_trace
from agentflow.envelope import Sealed
from agentflow.errors import SubjectError
from agentflow.subjects import parse

TRACEPARENT = "traceparent"
OTHER = "other"
_HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")
_SEALED = b'{"envelope_hash":"'
_GOAL = "goal.submitted/1"
_TEMPLATES = {
    "workflow.in": "workflows.{id}.in",
    "workflow.out": "workflows.{id}.out",
    "workflow.result": "workflows.{id}.results.{id}",
    "agent.in": "agents.{agent}.in.{id}",
    "agent.out": "agents.{agent}.out",
    "tool.call": "tools.calls.{id}",
    "tool.result": "tools.results.{agent}.{id}",
    "tool.audit": "tools.audit.{id}",
    "tool.anomaly": "tools.anomaly.{id}",
    "protocol": "protocols.{protocol}.{topic}",
    "timer.set": "timers.set.{kind}.{id}.{n}",
    "timer.due": "timers.due.{kind}.{id}.{n}",
    "dead": "dead.{stream}.{consumer}",
    "dead.case": "dead.{stream}.{consumer}.{id}",
}


class Glimpse(msgspec.Struct, frozen=True):
    """What is told about a message; every member may be empty."""

    subject: str
    template: str
    """The subject without what makes it one of very many: `workflows.{id}.in`."""
    id: str = ""
    schema: str = ""
    trace_id: str = ""
    span_id: str = ""
    workflow_id: str = ""
    tenant: str = ""
    workflow: str = ""
    """Name of the run's definition, without its version."""
    sampled: bool = False
    """Whether whoever stored it recorded a span under exactly these ids."""
    caller: tuple[str, str] | None = None
    """Trace and span id of a plain publisher that traces itself."""
    size: int = 0

    @property
    def correlation_id(self) -> str:
        """What ties log lines together: the run's id, or the message's where there is no run."""
        return self.workflow_id or self.id


IN_HAND: ContextVar[Glimpse | None] = ContextVar("agentflow_message_in_hand", default=None)
"""The message that is being handled here; log lines take its ids."""


class _Metadata(msgspec.Struct, frozen=True):
    workflow_id: str = ""
    tenant: str = ""
    workflow: str = ""


class _Head(msgspec.Struct, frozen=True):
    id: str = ""
    schema: str = ""
    trace_id: str = ""
    span_id: str = ""
    metadata: _Metadata = _Metadata()
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _Goal(msgspec.Struct, frozen=True):
    goal: str = ""


_head = msgspec.json.Decoder(_Head)
_goal = msgspec.json.Decoder(_Goal)


def template_of(subject: str) -> str:
    """The subject's place in the grammar, of which there are few; `other` for one outside it."""
    try:
        return _TEMPLATES[parse(subject).kind]
    except SubjectError:
        return OTHER


def glimpse(subject: str, body: bytes, headers: Mapping[str, str], time: datetime) -> Glimpse:
    """What a stored message tells."""
    header = _HEADER.match(headers.get(TRACEPARENT, ""))
    if not body.startswith(_SEALED):
        return _plain(subject, body, time, header)
    try:
        head = _head.decode(body)
        named = _goal.decode(head.payload).goal if head.schema == _GOAL else head.metadata.workflow
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Glimpse(subject, template_of(subject), size=len(body))
    ids = (head.trace_id, head.span_id)
    valid = tuple(map(len, ids)) == (32, 16) and all(_HEX.match(each) and each.strip("0") for each in ids)
    return Glimpse(
        subject=subject,
        template=template_of(subject),
        id=head.id[:64],
        schema=head.schema[:80],
        trace_id=head.trace_id if valid else "",
        span_id=head.span_id if valid else "",
        workflow_id=head.metadata.workflow_id[:64],
        tenant=head.metadata.tenant[:64],
        workflow=named.partition("@")[0][:64],
        sampled=valid and header is not None and header.groups()[:2] == ids and bool(int(header.group(3), 16) & 1),
        size=len(body),
    )


def glimpse_of(sealed: Sealed) -> Glimpse:
    """What an envelope of ours tells before it is stored."""
    envelope, metadata = sealed.envelope, sealed.envelope.metadata
    tenant, workflow = (str(metadata.get(name, "")) for name in ("tenant", "workflow"))
    return Glimpse(
        subject=envelope.subject,
        template=template_of(envelope.subject),
        id=envelope.id,
        schema=envelope.schema,
        trace_id=envelope.trace_id,
        span_id=envelope.span_id,
        workflow_id=sealed.workflow_id,
        tenant=tenant[:64],
        workflow=workflow.partition("@")[0][:64],
        size=len(sealed.body),
    )


def _plain(subject: str, body: bytes, time: datetime, header: re.Match[str] | None) -> Glimpse:
    """A plain publisher's message; on a run's `in` subject it has the ids the planner adopts it under."""
    caller = (header.group(1), header.group(2)) if header and header.group(1).strip("0") else None
    tokens = subject.split(".")
    if len(tokens) != 3 or (tokens[0], tokens[2]) != ("workflows", "in"):
        return Glimpse(subject, template_of(subject), caller=caller, size=len(body))
    id = adopted_id(subject, time, body)
    return Glimpse(
        subject=subject,
        template=template_of(subject),
        id=id,
        trace_id=adopted_trace(id),
        workflow_id=tokens[1],
        caller=caller,
        size=len(body),
    )
