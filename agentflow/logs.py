"""Structured logs: one JSON object a line on stderr, with the ids of the work in hand bound to every line.

Every line has `timestamp`, `level`, `event`, `component`, and while a message is handled `trace_id`, `span_id` and
`correlation_id` (the run's id, or the message's where there is no run). Lines of libraries, which log by the standard
library, have the same form. Payloads are never logged; ids, subjects, codes and sizes are. Tracebacks are, without
local variables, which hold payloads and secrets. What looks like a secret all the same is hidden at the very end.
`bound` puts the ids of a message on every line logged while it is handled.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import trace
from structlog.tracebacks import ExceptionDictTransformer
from structlog.types import Processor

from agentflow.envelope import Sealed
from agentflow.redaction import Redactor
from agentflow.telemetry.glimpse import IN_HAND, Glimpse

_Event = MutableMapping[str, Any]


def configure(
    service: str, incarnation: str, level: str = "info", *, console: bool = False, secrets: Iterable[str] = ()
) -> None:
    """Set structlog up for the whole process; called once, in a service's composition root.

    `secrets` are values that no line may contain, such as the password in the broker's URL.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer: Processor = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    finish = _finish(service, incarnation, Redactor(secrets))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *finish, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    _take_over(finish, renderer, max(threshold, logging.WARNING))


def _finish(service: str, incarnation: str, redactor: Redactor) -> list[Processor]:
    """What every line goes through, whoever logged it."""
    itself = {"service": service, "incarnation": incarnation, "component": service.removeprefix("agentflow-")}

    def identify(_: Any, __: str, event: _Event) -> _Event:
        for name, value in itself.items():
            event.setdefault(name, value)
        if (seen := IN_HAND.get()) is not None:
            _fill(event, seen)
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
        if correlation := event.get("workflow_id") or event.get("message_id"):
            event.setdefault("correlation_id", correlation)
        return event

    def redact(_: Any, __: str, event: _Event) -> _Event:
        for name, value in event.items():
            event[name] = redactor.value(value, name)
        return event

    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        identify,
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        redact,
    ]


def _fill(event: _Event, seen: Glimpse) -> None:
    """The ids of the message in hand, where the line does not say others."""
    for name in ("trace_id", "span_id", "workflow_id"):
        if value := getattr(seen, name):
            event.setdefault(name, value)
    if seen.id:
        event.setdefault("message_id", seen.id)


def _take_over(finish: list[Processor], renderer: Processor, level: int) -> None:
    """Give the lines of libraries the same form: warnings and errors, whatever the level of our own lines."""
    handler = _ToStderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                *finish,
            ],
        )
    )
    root = logging.getLogger()
    for ours in [each for each in root.handlers if isinstance(each, _ToStderr)]:
        root.removeHandler(ours)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


class _ToStderr(logging.Handler):
    """Writes to what stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001  # a line that cannot be written must not break what logged it
            self.handleError(record)


def get(name: str) -> Any:
    """A logger whose lines carry `logger=name`; asked for after `configure`."""
    return structlog.get_logger().bind(logger=name)


@contextmanager
def bound(sealed: Sealed) -> Iterator[None]:
    """Bind the ids of an envelope to every line logged inside the block."""
    envelope = sealed.envelope
    with structlog.contextvars.bound_contextvars(
        trace_id=envelope.trace_id, span_id=envelope.span_id, workflow_id=sealed.workflow_id, message_id=envelope.id
    ):
        yield
