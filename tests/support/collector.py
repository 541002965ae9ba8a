"""A collector of spans for one test: OTLP over HTTP on a free port, everything it was sent kept."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SpanSeen:
    """A span as the collector got it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: str
    """The status' text where it is an error, else empty."""
    attributes: dict[str, Any]
    links: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Trace id, span id and attributes of each."""


class Collector:
    """`with Collector() as collector`; `endpoint` is what `OTEL_EXPORTER_OTLP_ENDPOINT` takes."""

    def __init__(self) -> None:
        self.spans: list[SpanSeen] = []
        self.raw: list[bytes] = []
        collector = self

        class Request(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process send its spans here, soon."""
        return {
            "AF_TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def take(self, body: bytes) -> None:
        """Keep what a process sent."""
        self.raw.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = plain(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans.extend(seen(service, span) for span in scope.spans)

    def of(self, trace_id: str) -> list[SpanSeen]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def names(self) -> set[str]:
        """The names of all spans."""
        return {span.name for span in self.spans}


def seen(service: str, span: Any) -> SpanSeen:
    """A span of the wire as a value."""
    return SpanSeen(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        failed=(span.status.message or "error") if span.status.code == 2 else "",
        attributes=plain(span.attributes),
        links=[(each.trace_id.hex(), each.span_id.hex(), plain(each.attributes)) for each in span.links],
    )


def plain(attributes: Iterable[Any]) -> dict[str, Any]:
    """Attributes by name; a value is what its only member says."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def orphans(spans: Iterable[SpanSeen]) -> list[SpanSeen]:
    """The spans whose parent is not there."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id and span.parent_id not in known]
