"""The raw JetStream API over one NATS connection: requests, answers, and the one table that translates errors.

Requests are the server's own JSON: nats-py's typed wrappers lack newer fields (schedules, priority groups, batched
direct gets), and several of them hide an outcome (faults.md, A4).
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from agentflow.errors import AgentflowError, Conflict, MeshError, NotStored, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh.transport import Message

WRONG_LAST_SEQUENCE = (10071, 10164)
STREAM_NOT_FOUND = 10059
NO_MESSAGE = 10037
CONSUMER_NOT_FOUND = 10014
NO_ROOM = (10023, 10047, 10077)
"""Insufficient resources, storage exceeded, the stream's own limit: refused for certain, though marked 503."""
HIDDEN_HEADERS = ("Nats-Expected-Stream", "Nats-Expected-Last-Subject-Sequence", "Nats-Num-Pending")

_TRANSLATION: tuple[tuple[type[BaseException], type[MeshError], str], ...] = (
    (nats.errors.MaxPayloadError, PublishFailed, "mesh.too_large"),
    (nats.errors.BadSubjectError, PublishFailed, "mesh.bad_subject"),
    (nats.errors.BadHeaderError, PublishFailed, "mesh.bad_header"),
    (nats.errors.TimeoutError, OutcomeUnknown, "mesh.outcome_unknown"),
    (asyncio.TimeoutError, OutcomeUnknown, "mesh.outcome_unknown"),
    (nats.errors.NoRespondersError, NotStored, "mesh.no_responders"),
    (nats.errors.Error, Unreachable, "mesh.unreachable"),
    (OSError, Unreachable, "mesh.unreachable"),
)


def translate(error: BaseException, doing: str) -> MeshError:
    """The agentflow error a client error is; the only place that knows both."""
    for theirs, ours, code in _TRANSLATION:
        if isinstance(error, theirs):
            return ours(f"{doing}: {type(error).__name__} {error}".strip(), code=code)
    raise error


def api_error(answer: Mapping[str, Any], doing: str) -> AgentflowError | None:
    """The error in a JetStream API answer, translated, or None."""
    error = answer.get("error")
    if not error:
        return None
    number, text = error.get("err_code", 0), error.get("description", "")
    if number in WRONG_LAST_SEQUENCE:
        return Conflict(f"{doing}: {text}", err_code=number)
    if error.get("code") == 404 or number in (STREAM_NOT_FOUND, NO_MESSAGE, CONSUMER_NOT_FOUND):
        return NotStored(f"{doing}: {text}", err_code=number)
    if number in NO_ROOM:
        return PublishFailed(f"{doing}: {text}", code="mesh.no_room", err_code=number)
    if error.get("code") == 503:
        return Unreachable(f"{doing}: {text}", err_code=number)
    return PublishFailed(f"{doing}: {text}", code="mesh.refused", err_code=number)


class Api:
    """JetStream API calls on one connection."""

    def __init__(self, client: NatsClient) -> None:
        self.client = client
        self.losses = 0
        """How often the connection was lost so far."""

    async def call(self, verb: str, body: Mapping[str, Any] | None = None, *, timeout: float = 5.0) -> dict[str, Any]:
        """One API request; raises the translated error when the answer is one or does not come."""
        answer = await self.ask(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", timeout=timeout)
        found: dict[str, Any] = json.loads(answer)
        if error := api_error(found, verb):
            raise error
        return found

    async def ask(
        self, subject: str, body: bytes, *, headers: dict[str, str] | None = None, timeout: float = 5.0
    ) -> bytes:
        """One request; raises `Unreachable` when not connected, `NotStored` without responders, `OutcomeUnknown`."""
        if not self.client.is_connected:
            raise Unreachable(f"{subject}: not connected")
        losses = self.losses
        try:
            answer = await self.client.request(subject, body, timeout=timeout, headers=headers)
        except (nats.errors.Error, OSError) as error:
            if isinstance(error, nats.errors.TimeoutError) and self.losses != losses:
                raise OutcomeUnknown(f"{subject}: the connection was lost before the answer came") from error
            raise translate(error, subject) from error
        return answer.data

    async def round_trip(self, timeout: float = 5.0) -> None:
        """Return once the server has processed everything sent before on this connection.

        The client's own `flush` is not used: when it times out, its late answer kills the read loop for good.
        """
        with contextlib.suppress(NotStored):  # nobody answers, says the server: that is an answer too
            await self.ask("$JS.API.INFO", b"", timeout=timeout)

    async def stored_message(self, stream: str, query: Mapping[str, Any]) -> Message | None:
        """`STREAM.MSG.GET`, answered by the stream's leader."""
        try:
            found = (await self.call(f"STREAM.MSG.GET.{stream}", query))["message"]
        except NotStored as absent:
            if absent.error_code == "mesh.no_responders":
                raise Unreachable(f"no JetStream to ask about {stream}") from absent
            return None
        return Message(
            stream=stream,
            seq=found["seq"],
            subject=found["subject"],
            body=base64.b64decode(found.get("data", "")),
            time=parse_time(found["time"]),
            headers=parse_headers(base64.b64decode(found.get("hdrs", ""))),
        )


def parse_headers(block: bytes) -> dict[str, str]:
    """A stored `NATS/1.0` header block as a dict, without the headers that only steered the publish."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs if key.strip() not in HIDDEN_HEADERS}


def plain_headers(headers: Mapping[Any, Any] | None) -> dict[str, str]:
    """Headers of a received message as text (nats-py mixes in enum keys and header objects)."""
    found = {str(getattr(key, "value", key)): str(value) for key, value in (headers or {}).items()}
    return {key: value for key, value in found.items() if key not in HIDDEN_HEADERS}


def parse_time(text: str) -> datetime:
    """A server timestamp (nanoseconds allowed) as UTC with microseconds."""
    text = text.removesuffix("Z")
    seconds, _, fraction = text.partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}").replace(tzinfo=UTC)


def from_nanoseconds(value: int) -> datetime:
    """Nanoseconds since the epoch as UTC with microseconds, never rounded up."""
    seconds, rest = divmod(value, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def direct_message(stream: str, msg: Msg) -> Message:
    """A message from a direct get, whose place is in its headers."""
    headers = plain_headers(msg.headers)
    return Message(
        stream=stream,
        seq=int(headers.pop("Nats-Sequence")),
        subject=headers.pop("Nats-Subject"),
        body=msg.data,
        time=parse_time(headers.pop("Nats-Time-Stamp")),
        headers={k: v for k, v in headers.items() if k not in ("Nats-Stream", "Nats-Last-Sequence")},
    )
