"""A tracer for one test: spans kept in memory, ids forced as in a service."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow.telemetry import spans, tracing
from tests.core.conftest import log_lines as log_lines  # noqa: PLC0414  # a fixture of the core's tests, used here too


class Kept:
    """The spans of one test."""

    def __init__(self, exporter: InMemorySpanExporter, flush: object) -> None:
        self._exporter, self._flush = exporter, flush

    def __call__(self) -> list[ReadableSpan]:
        """All that ended so far."""
        assert callable(self._flush)
        self._flush()
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Spans are on, for this test alone."""
    exporter = InMemorySpanExporter()
    provider = tracing.provider("agentflow-tester", "1", "life-1", exporter)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("agentflow"))
    yield Kept(exporter, provider.force_flush)
    provider.shutdown()
