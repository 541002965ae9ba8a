"""Spans, as everything here begins them: ids taken from the envelope, parents that are exported, and never a payload.

One run is one trace. The span of *storing* an envelope has exactly the envelope's `trace_id` and `span_id`; the span of
*handling* it, in whatever process, is its child. Who stores without a tracer says so in `traceparent` (not sampled), and
then handling begins at the top of the same trace: nothing has a parent that nobody exports. A redelivered message is
handled under the same parent, with a link that names the count of deliveries; a replay is a trace of its own that is
linked to the run's.

Without a tracer all of this is one look at a global, and nothing else.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from agentflow.errors import AgentflowError
from agentflow.telemetry import conventions as names
from agentflow.telemetry.forced import next_ids
from agentflow.telemetry.glimpse import Glimpse

_tracer = trace.get_tracer("agentflow")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def tracing() -> bool:
    """Whether somebody takes spans in this process: `AF_TRACES`, or a tracer the application has set up itself."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def start_send(seen: Glimpse) -> Span | None:
    """The span of an envelope being stored; None without a tracer. Whoever starts it ends it, unless it was in vain."""
    if not tracing():
        return None
    here = trace.get_current_span().get_span_context()
    inside = here.is_valid and f"{here.trace_id:032x}" == seen.trace_id
    links = [_link(here, "cause")] if here.is_valid and not inside else []
    with next_ids(trace_id=seen.trace_id, span_id=seen.span_id):
        return _tracer.start_span(
            f"{names.SEND} {seen.template}",
            context=None if inside else Context(),
            kind=SpanKind.PRODUCER,
            attributes=_messaging(seen, names.SEND),
            links=links,
        )


def is_sampled(span: Span | None, seen: Glimpse) -> bool:
    """Whether a span is recorded, and under the message's own ids."""
    if span is None:
        return False
    context = span.get_span_context()
    ours = f"{context.trace_id:032x}" == seen.trace_id and f"{context.span_id:016x}" == seen.span_id
    return ours and context.trace_flags.sampled


def start_process(seen: Glimpse, deliveries: int) -> Span | None:
    """The span of a delivery being handled; None without a tracer."""
    if not tracing():
        return None
    attributes = {**_messaging(seen, names.PROCESS), names.DELIVERIES: deliveries}
    with next_ids(trace_id=seen.trace_id):
        return _tracer.start_span(
            f"{names.PROCESS} {seen.template}",
            context=_parent(seen),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=_links(seen, deliveries),
        )


@contextlib.contextmanager
def operation(name: str, what: str = "", attributes: Mapping[str, Any] | None = None) -> Iterator[Span]:
    """A span of something done inside this process, such as `execute_tool sorter`; what is raised fails it, by its code."""
    with _tracer.start_as_current_span(
        f"{name} {what}".strip(),
        kind=SpanKind.INTERNAL,
        attributes={names.GEN_AI_OPERATION: name, **(attributes or {})},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            fail(span, code_of(error))
            raise


def workflow_ended(name: str, workflow_id: str, started: datetime, *, code: str = "") -> None:
    """Tell of a run from its start to now, when it has ended; `code` says why it did not end well."""
    if not tracing():
        return
    span = _tracer.start_span(
        f"{names.INVOKE_WORKFLOW} {name}",
        kind=SpanKind.INTERNAL,
        start_time=int(started.timestamp() * 1_000_000) * 1000,
        attributes={
            names.GEN_AI_OPERATION: names.INVOKE_WORKFLOW,
            names.GEN_AI_WORKFLOW: name,
            names.GEN_AI_CONVERSATION: workflow_id,
        },
    )
    if code:
        fail(span, code)
    span.end()


@contextlib.contextmanager
def replaying(trace_id: str, span_id: str, workflow_id: str) -> Iterator[Span]:
    """The span of a run being replayed: at the top of a new trace, linked to the run's own.

    `trace_id` and `span_id` are those of any envelope of the run, best of its first decision.
    """
    run = _remote(trace_id, span_id)
    with _tracer.start_as_current_span(
        "replay",
        context=Context(),
        kind=SpanKind.INTERNAL,
        attributes={names.CONVERSATION_ID: workflow_id},
        links=[_link(run, "replay")],
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            fail(span, code_of(error))
            raise


def fail(span: Span, code: str) -> None:
    """Mark a span as failed: by a code of ours, and by nothing a stranger wrote."""
    span.set_attribute(names.ERROR_TYPE, code)
    span.set_status(Status(StatusCode.ERROR, code))


def code_of(error: BaseException) -> str:
    """The stable code of an error; the name of its type where it is none of ours."""
    return error.error_code if isinstance(error, AgentflowError) else type(error).__name__


def _messaging(seen: Glimpse, operation: str) -> dict[str, Any]:
    found = {
        names.SYSTEM: names.NATS,
        names.OPERATION_NAME: operation,
        names.OPERATION_TYPE: operation,
        names.DESTINATION: seen.template,
        names.TEMPLATE: seen.template,
        names.BODY_SIZE: seen.size,
        names.MESSAGE_ID: seen.id,
        names.CONVERSATION_ID: seen.workflow_id,
        names.TENANT: seen.tenant,
        names.WORKFLOW: seen.workflow,
        names.SCHEMA: seen.schema,
    }
    return {key: value for key, value in found.items() if value != ""}


def _parent(seen: Glimpse) -> Context:
    """The span the message was stored in, where somebody exports it; else the top of the trace."""
    if not seen.sampled:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(_remote(seen.trace_id, seen.span_id)), Context())


def _links(seen: Glimpse, deliveries: int) -> Sequence[Link]:
    links = []
    if seen.caller is not None:
        links.append(_link(_remote(*seen.caller), "caller"))
    if deliveries > 1 and seen.trace_id and seen.span_id:
        links.append(_link(_remote(seen.trace_id, seen.span_id), "redelivery", deliveries))
    return links


def _remote(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)


def _link(context: SpanContext, what: str, deliveries: int = 0) -> Link:
    attributes: dict[str, Any] = {names.LINK: what}
    if deliveries:
        attributes[names.DELIVERIES] = deliveries
    return Link(context, attributes)
