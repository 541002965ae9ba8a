"""What publishing and working report of each message: a span, the counters, the health of the stream, the ids of logs.

`Sending` goes with one envelope from the first attempt to the known outcome, `handling` with one delivery from receipt
to settlement. Both cost some microseconds while nobody traces.
"""

import contextlib
from collections.abc import Iterator

from opentelemetry import trace

from agentflow.clock import Clock, SystemClock
from agentflow.envelope import Sealed, traceparent
from agentflow.errors import AgentflowError, Conflict, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh.transport import Delivery, Stored
from agentflow.subjects import stream_of
from agentflow.telemetry import conventions as names
from agentflow.telemetry import metrics, spans
from agentflow.telemetry.glimpse import IN_HAND, TRACEPARENT, Glimpse, glimpse, glimpse_of
from agentflow.telemetry.outcomes import STORES

_FULL = "mesh.no_room"


class Sending:
    """One envelope being stored."""

    def __init__(self, sealed: Sealed) -> None:
        self._seen = glimpse_of(sealed)
        self.stream = stream_of(sealed.envelope.subject)
        self._span = spans.start_send(self._seen)
        self.headers = {TRACEPARENT: traceparent(sealed.envelope, sampled=spans.is_sampled(self._span, self._seen))}
        """What goes with the message, so that its handling joins the trace."""

    def stored(self, stored: Stored) -> None:
        """The server acknowledged it, or holds the same bytes already."""
        STORES.acknowledged(self.stream)
        self._end("duplicate" if stored.duplicate else "stored")

    def adopted(self) -> None:
        """What stands in its place is an earlier attempt at the same: the span of that may never have been told."""
        self._end("adopted")

    def attempt_failed(self, error: AgentflowError) -> None:
        """An attempt ended without an acknowledgement; another may follow."""
        if isinstance(error, OutcomeUnknown | Unreachable):
            STORES.failed(self.stream, error.error_code)

    def failed(self, error: BaseException) -> None:
        """It is not stored, or nobody knows."""
        if isinstance(error, Conflict):  # another message is there, with a span of its own: this one never was
            metrics.message_sent(self._seen.template, "conflict")
            return
        if isinstance(error, PublishFailed) and error.error_code == _FULL:
            STORES.failed(self.stream, error.error_code)
        refused = isinstance(error, PublishFailed | Unreachable)
        self._end("refused" if refused else "unknown", spans.code_of(error))

    def _end(self, outcome: str, code: str = "") -> None:
        metrics.message_sent(self._seen.template, outcome)
        if self._span is None:
            return
        self._span.set_attribute(names.OUTCOME, outcome)
        if code:
            spans.fail(self._span, code)
        self._span.end()


@contextlib.contextmanager
def scheduling(sealed: Sealed) -> Iterator[dict[str, str]]:
    """Go with the one attempt to set a timer; what is yielded goes with its headers."""
    sending = Sending(sealed)
    try:
        yield sending.headers
    except AgentflowError as error:
        sending.attempt_failed(error)
        sending.failed(error)
        raise
    sending.stored(Stored(sending.stream, 0))


class Handling:
    """One delivery being handled."""

    def __init__(self, seen: Glimpse, span: trace.Span | None) -> None:
        self.seen, self._span = seen, span
        self.outcome = "done"

    def ended(self, outcome: str, code: str) -> None:
        """Say how it ended, where that is not `done`: the word for the counters, and the code of the reason."""
        self.outcome = outcome
        if self._span is not None:
            spans.fail(self._span, code)

    def end(self) -> None:
        """It is settled."""
        if self._span is not None:
            self._span.set_attribute(names.OUTCOME, self.outcome)
            self._span.end()


@contextlib.contextmanager
def handling(delivery: Delivery, clock: Clock | None = None) -> Iterator[Handling]:
    """Go with a delivery: what is logged and stored inside the block belongs to it."""
    message = delivery.message
    seen = glimpse(message.subject, message.body, message.headers, message.time)
    waited = ((clock or SystemClock()).now() - message.time).total_seconds()
    metrics.message_taken(
        message.stream, again=delivery.deliveries > 1, waited=waited, tenant=seen.tenant, workflow=seen.workflow
    )
    span = spans.start_process(seen, delivery.deliveries)
    work, before = Handling(seen, span), IN_HAND.set(seen)
    try:
        with _current(span):
            yield work
    except BaseException as error:
        work.ended("cancelled", spans.code_of(error))
        raise
    finally:
        IN_HAND.reset(before)
        work.end()
        metrics.message_handled(message.stream, seen.template, work.outcome)


@contextlib.contextmanager
def watching() -> Iterator[Handling]:
    """Go with a delivery that is only looked at: nothing is counted or traced, since it is somebody else's work."""
    yield Handling(Glimpse("", ""), None)


def _current(span: trace.Span | None) -> contextlib.AbstractContextManager[object]:
    if span is None:
        return contextlib.nullcontext()
    return trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
