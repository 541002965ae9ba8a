"""The NATS protocol by hand on a TCP socket: what a publisher can send that no client library would."""

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

PATIENCE = 30.0
"""Seconds to wait for what must come."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came."""

    subject: str
    reply: str
    headers: str
    body: bytes

    def json(self) -> Any:
        """Its body, read as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class RawNats:
    """One connection, spoken line by line. `with RawNats.to(url) as nats`."""

    sock: socket.socket
    buffer: bytes = b""
    errors: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    _subscriptions: int = 0

    @classmethod
    @contextlib.contextmanager
    def to(cls, url: str) -> Iterator[Self]:
        """A connection to `nats://host:port`, with headers on, closed at the end of the block."""
        host, _, port = url.removeprefix("nats://").rpartition("@")[2].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
            nats = cls(sock)
            nats.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"raw"}')
            nats.ping()
            yield nats

    def send(self, line: bytes, payload: bytes | None = None) -> None:
        """One protocol line, and the payload that follows it."""
        self.sock.sendall(line + b"\r\n" + (b"" if payload is None else payload + b"\r\n"))

    def publish(self, subject: str, body: bytes, *, reply: str = "", headers: bytes | None = None) -> None:
        """PUB or HPUB; nothing is checked, so nothing is kept from the server."""
        parts = [subject.encode()] + ([reply.encode()] if reply else [])
        if headers is None:
            self.send(b" ".join([b"PUB", *parts, b"%d" % len(body)]), body)
        else:
            head = b"NATS/1.0\r\n" + headers + b"\r\n"
            sizes = (b"%d" % len(head), b"%d" % (len(head) + len(body)))
            self.send(b" ".join([b"HPUB", *parts, *sizes]), head + body)

    def subscribe(self, subject: str) -> None:
        """SUB; what comes is in `received`."""
        self._subscriptions += 1
        self.send(f"SUB {subject} {self._subscriptions}".encode())

    def request(
        self, subject: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None, timeout: float = PATIENCE
    ) -> Received:
        """A message with a reply subject, and the answer to it; fails after `timeout` seconds."""
        inbox = f"_INBOX.{secrets.token_hex(8)}"
        self.subscribe(inbox)
        raw = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() if headers else None
        self.publish(subject, body, reply=inbox, headers=raw)
        return self.until(inbox, timeout=timeout)

    def until(self, subject: str, *, timeout: float = PATIENCE) -> Received:
        """The first message on a subject, taken out of what was received."""
        deadline = time.monotonic() + timeout
        while True:
            for message in self.received:
                if message.subject == subject:
                    self.received.remove(message)
                    return message
            assert time.monotonic() < deadline, f"nothing on {subject} within {timeout} s; errors: {self.errors}"
            self.pump(deadline - time.monotonic())

    def ping(self) -> None:
        """Wait until the server has read everything so far; raises `ConnectionError` when it has hung up."""
        self.send(b"PING")
        deadline = time.monotonic() + PATIENCE
        while not self.pump(max(0.01, deadline - time.monotonic())):
            assert time.monotonic() < deadline, "no PONG"

    def pump(self, timeout: float) -> bool:
        """Read one protocol operation; returns whether it was a PONG."""
        self.sock.settimeout(max(0.01, timeout))
        try:
            line = self._line()
        except TimeoutError:
            return False
        match line.split(" "):
            case ["MSG", subject, _, *rest]:
                body = self._bytes(int(rest[-1]))
                self.received.append(Received(subject, rest[0] if len(rest) > 1 else "", "", body))
            case ["HMSG", subject, _, *rest]:
                head, total = int(rest[-2]), int(rest[-1])
                data = self._bytes(total)
                reply = rest[0] if len(rest) > 2 else ""
                self.received.append(Received(subject, reply, data[:head].decode(errors="replace"), data[head:]))
            case ["PING"]:
                self.send(b"PONG")
            case ["-ERR", *_]:
                self.errors.append(line)
            case ["PONG"]:
                return True
        return False

    def _line(self) -> str:
        while b"\r\n" not in self.buffer:
            self._fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode(errors="replace")

    def _bytes(self, count: int) -> bytes:
        while len(self.buffer) < count + 2:
            self._fill()
        data, self.buffer = self.buffer[:count], self.buffer[count + 2 :]
        return data

    def _fill(self) -> None:
        chunk = self.sock.recv(65536)
        if not chunk:
            raise ConnectionError(f"the server hung up: {self.errors}")
        self.buffer += chunk
