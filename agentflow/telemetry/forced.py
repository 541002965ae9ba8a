"""The ids the next span is to have.

An envelope's span id stands in its sealed bytes before a span begins, so the span of its being stored has to take that
id and no other. What begins a span says so here; the id generator of the tracer (`agentflow.telemetry.tracing`) asks.
A tracer of somebody else's does not ask: its spans have ids of their own, and `traceparent` says that they are not ours.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_trace_id: ContextVar[int] = ContextVar("agentflow_next_trace_id", default=0)
_span_id: ContextVar[int] = ContextVar("agentflow_next_span_id", default=0)


@contextlib.contextmanager
def next_ids(*, trace_id: str = "", span_id: str = "") -> Iterator[None]:
    """Inside the block the next span takes these ids (hex); an empty one is left to chance."""
    trace, span = _trace_id.set(int(trace_id or "0", 16)), _span_id.set(int(span_id or "0", 16))
    try:
        yield
    finally:
        _trace_id.reset(trace)
        _span_id.reset(span)


def wanted_trace_id() -> int:
    """The trace id asked for, or 0."""
    return _trace_id.get()


def wanted_span_id() -> int:
    """The span id asked for, or 0."""
    return _span_id.get()
