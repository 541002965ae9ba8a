"""Taking and exporting spans: off, to the console, or by OTLP. Needs the extra `otel`, and is imported where it is on.

`AF_TRACES` decides; where it is not set, `OTEL_TRACES_EXPORTER` does. The standard variables count beside it:
`OTEL_EXPORTER_OTLP_*` (endpoint, headers, time-out), `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TextIO

from opentelemetry import trace

from agentflow.errors import ConfigError
from agentflow.telemetry.forced import wanted_span_id, wanted_trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Where = Literal["off", "console", "otlp"]
"""Where spans go."""

FLUSH = 3.0
"""Seconds a process gives its last spans at its end."""

_STANDARD: Mapping[str, Where] = {"": "off", "none": "off", "console": "console", "otlp": "otlp"}


def destination(traces: str | None, environment: Mapping[str, str] | None = None) -> Where:
    """Where spans go: what `AF_TRACES` says, else `OTEL_TRACES_EXPORTER`; raises `ConfigError` for an unknown one."""
    environment = os.environ if environment is None else environment
    name, variable = (traces, "AF_TRACES") if traces else (environment.get("OTEL_TRACES_EXPORTER", ""), "")
    found: Where | None = "off" if name == "off" and variable else _STANDARD.get(name or "")
    if found is None:
        variable = variable or "OTEL_TRACES_EXPORTER"
        raise ConfigError(f"{variable} is {name!r}; allowed are off, console, otlp", code="telemetry.exporter_unknown")
    return found


def provider(service: str, version: str, instance: str, exporter: "SpanExporter") -> "TracerProvider":
    """A tracer provider whose spans take the ids they are told to."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class EnvelopeIds(RandomIdGenerator):
        """Ids as they are wanted, else by chance."""

        def generate_span_id(self) -> int:
            return wanted_span_id() or super().generate_span_id()

        def generate_trace_id(self) -> int:
            return wanted_trace_id() or super().generate_trace_id()

    resource = Resource.create({"service.name": service, "service.version": version, "service.instance.id": instance})
    made = TracerProvider(resource=resource, id_generator=EnvelopeIds(), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def _exporter(where: Where, console: TextIO) -> "SpanExporter":
    if where == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=console, formatter=one_line)


def one_line(span: "ReadableSpan") -> str:
    """A span as one line of JSON."""
    return f"{span.to_json(indent=None)}\n"


@contextlib.contextmanager
def traced(
    service: str, version: str = "", instance: str = "", traces: str | None = None, *, console: TextIO | None = None
) -> Iterator[Where]:
    """Export this process's spans for the time of a block; at its end the last ones get `FLUSH` seconds.

    `traces` is what `AF_TRACES` says; `console` is where it goes if that is `console`, by default stdout.
    For a service, the command line, and any program of one's own that submits goals and wants to be seen in the trace.
    Leaves a tracer alone that the application has set up itself. Raises `ConfigError`.
    """
    where = destination(traces)
    if where == "off" or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield where
        return
    try:
        made = provider(service, version, instance, _exporter(where, console or sys.stdout))
    except ImportError as error:
        raise ConfigError(
            f"AF_TRACES={where} needs the extra `otel`: pip install 'agentflow-mesh[otel]'",
            code="telemetry.not_installed",
        ) from error
    trace.set_tracer_provider(made)
    try:
        yield where
    finally:
        _end(made)


def _end(made: "TracerProvider") -> None:
    """Flush, but not for long: a collector that is away must not hold up the end of a process."""
    thread = threading.Thread(target=made.shutdown, name="agentflow-spans", daemon=True)
    thread.start()
    thread.join(FLUSH)
