"""Structured logs: one JSON object a line on stderr, with the ids of the work in hand bound to every line.

Payloads are never logged; ids, subjects, codes and sizes are. Tracebacks are, without local variables, which hold
payloads and secrets. `bound` puts the ids of a message on every line logged
while it is handled.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from agentflow.envelope import Sealed


def configure(service: str, incarnation: str, level: str = "info", *, console: bool = False) -> None:
    """Set structlog up for the whole process; called once, in a service's composition root."""
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service, incarnation=incarnation)


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
