"""The pages: they answer whatever else goes on, and whoever asks."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agentflow.errors import ConfigError
from agentflow.telemetry import serving
from agentflow.telemetry.health import LIFE, Health
from agentflow.telemetry.process import alive, parse_address, ready
from agentflow.telemetry.serving import Answer, Page, Pages, as_json


def broken() -> Answer:
    """A page with a fault, and a secret in it."""
    raise RuntimeError("sk-abcdefgh12345678")


@contextlib.contextmanager
def served(**pages: Page) -> Iterator[Pages]:
    """Pages on a free port, by their names."""
    made = Pages("127.0.0.1", 0, {f"/{name}": page for name, page in pages.items()})
    try:
        yield made
    finally:
        made.close()


def fine() -> Answer:
    """A page."""
    return as_json(200, {"fine": True})


def ask(pages: Pages, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", pages.server_port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_a_page_answers() -> None:
    """With its type and length; a query changes nothing."""
    with served(fine=fine) as pages:
        status, headers, body = ask(pages, "/fine?verbose=1")

    assert (200, "application/json") == (status, headers["content-type"])
    assert {"fine": True} == json.loads(body)
    assert "Python" not in headers.get("server", "")


def test_head_has_headers_alone() -> None:
    """The same as of GET."""
    with served(fine=fine) as pages:
        status, headers, body = ask(pages, "/fine", "HEAD")

    assert (200, b"") == (status, body)
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/", "/nothing", "/../etc/passwd", "/fine/", "//"])
def test_an_unknown_path_is_not_found(path: str) -> None:
    """And names what there is."""
    with served(fine=fine) as pages:
        status, _, body = ask(pages, path)

    assert 404 == status
    assert ["/fine"] == json.loads(body)["pages"]


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW"])
def test_other_methods_are_refused(method: str) -> None:
    """Nothing can be changed here."""
    with served(fine=fine) as pages:
        status, _, _ = ask(pages, "/fine", method)

    assert 501 == status


def test_a_page_that_breaks_says_so_without_a_word_of_the_error() -> None:
    """An error's text may hold a secret; its type is enough."""
    with served(broken=broken) as pages:
        status, _, body = ask(pages, "/broken")
        assert 404 == ask(pages, "/still-there")[0]

    assert (500, {"error": "RuntimeError"}) == (status, json.loads(body))


def test_silent_and_slow_clients_keep_nobody_out() -> None:
    """Far more of them than connections there are; a probe is answered all the same, the oldest have to go."""
    with served(fine=fine) as pages:
        idle = [socket.create_connection(("127.0.0.1", pages.server_port)) for _ in range(serving.MAX_CONNECTIONS * 2)]
        try:
            for each in idle:
                with contextlib.suppress(OSError):
                    each.send(b"GET /fi")
            assert 200 == ask(pages, "/fine")[0]
        finally:
            for each in idle:
                each.close()


def test_a_client_that_sends_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience, with nobody else asking."""
    monkeypatch.setattr(serving._Request, "timeout", 0.1)
    with served(fine=fine) as pages, socket.create_connection(("127.0.0.1", pages.server_port)) as silent:
        silent.settimeout(30)
        assert b"" == silent.recv(1)


@pytest.mark.parametrize(
    "junk", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n", b"GET /fine HTTP/9.9\r\n\r\n"]
)
def test_junk_is_refused_and_breaks_nothing(junk: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """No traceback, and the next one is answered."""
    with served(fine=fine) as pages:
        with socket.create_connection(("127.0.0.1", pages.server_port)) as stranger, contextlib.suppress(OSError):
            stranger.sendall(junk)
            stranger.settimeout(30)
            stranger.recv(1000)
        assert 200 == ask(pages, "/fine")[0]

    assert "Traceback" not in capfd.readouterr().err


def test_closing_leaves_no_thread() -> None:
    """The port is free again, and nothing of it runs on."""
    with served(fine=fine) as pages:
        ask(pages, "/fine")
        port = pages.server_port

    assert "agentflow-http" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()


def test_an_address_that_is_taken_is_a_fault_of_the_settings() -> None:
    """Told at the start, with the name of the setting."""
    with served(fine=fine) as pages, pytest.raises(ConfigError, match="AF_HTTP_ADDRESS") as refused:
        Pages("127.0.0.1", pages.server_port, {})

    assert "http.address" == refused.value.error_code


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), (":9090", ("0.0.0.0", 9090)), ("[::1]:80", ("::1", 80))],  # noqa: S104  # parsed, not bound
)
def test_an_address_is_host_and_port(address: str, expected: tuple[str, int]) -> None:
    """Without a host it means every address of the machine."""
    assert expected == parse_address(address)


@pytest.mark.parametrize("address", ["", "host", "host:", "host:x", "host:70000", "host:-1", "host:¹"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """By its setting's name."""
    with pytest.raises(ConfigError, match="AF_HTTP_ADDRESS"):
        parse_address(address)


def test_health_and_readiness_are_told_apart() -> None:
    """A process that cannot work is not ready, and worth keeping all the same. Each answer takes milliseconds."""
    health = Health()
    with served(healthz=alive(health), readyz=ready(health)) as pages:
        assert (200, 503) == (ask(pages, "/healthz")[0], ask(pages, "/readyz")[0])
        health.says(LIFE, ok=True)
        health.turned()
        assert (200, 200) == (ask(pages, "/healthz")[0], ask(pages, "/readyz")[0])
        took = []
        for _ in range(20):
            began = time.perf_counter()
            ask(pages, "/readyz")
            took.append(time.perf_counter() - began)
    assert min(took) < 0.01
