"""`/healthz`, `/readyz` and `/metrics`, served by a thread of its own: it answers while the event loop is blocked.

The standard library's server, and bounds around it: one request a connection, `PATIENCE` seconds for it, at most
`MAX_CONNECTIONS` at once. Where more come, the oldest is closed for the newest, so that idle or slow connections never
keep a probe out. There is no authentication: bind it to an address that only probes and scrapers reach.
"""

import json
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentflow.errors import ConfigError

MAX_CONNECTIONS = 32
PATIENCE = 5.0
"""Seconds a client may be silent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Answer]
"""Makes the answer; called from a thread of the server."""


def as_json(status: int, content: Mapping[str, Any]) -> Answer:
    """A page in JSON."""
    return Answer(status, "application/json", json.dumps(content).encode() + b"\n")


class Pages(ThreadingHTTPServer):
    """Serves pages by their paths; `with Pages(…) as pages` or `close`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        """Listens at once, on a free port for port 0; raises `ConfigError` (`http.address`)."""
        self.pages = pages
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._guard = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Request)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"AF_HTTP_ADDRESS: cannot listen on {host}:{port}: {error}", code="http.address"
            ) from error
        self._thread = threading.Thread(target=self.serve_forever, name="agentflow-http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """`http://host:port`, as it came out."""
        host, port = self.server_address[0], self.server_address[1]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def server_bind(self) -> None:
        """Bind without asking the resolver for our own name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, for the oldest if there are too many."""
        with self._guard:
            self._open[request] = None
            while len(self._open) > MAX_CONNECTIONS:
                oldest, _ = self._open.popitem(last=False)
                _cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection is done with."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event."""

    def close(self) -> None:
        """End it, and every connection."""
        self.shutdown()
        self.server_close()
        with self._guard:
            for each in self._open:
                _cut(each)
        self._thread.join()


def _cut(connection: socket.socket) -> None:
    """End a connection that its own thread may be reading from."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: Pages
    timeout = PATIENCE
    server_version, sys_version = "agentflow", ""

    def do_GET(self) -> None:  # the standard library's name
        """Answer with a page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # the standard library's name
        """Answer with a page's headers."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            answer = as_json(HTTPStatus.NOT_FOUND, {"error": "not found", "pages": sorted(self.server.pages)})
        else:
            try:
                answer = page()
            except Exception as error:  # noqa: BLE001  # a page that breaks is told as one, by its type alone
                answer = as_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": type(error).__name__})
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not worth a line."""
