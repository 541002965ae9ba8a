"""Recorded histories as a file: everything a replay needs, and nothing of the mesh they came from. Pure.

One JSON document: runs with their messages in stream order, their commands and fired timers, the definitions they keep
to by hash, and the large payloads they refer to. `Shelf` reads it as if it were a mesh, so that a file is replayed by the
same code. A file is as confidential as the runs in it.
"""

import base64
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from agentflow import subjects
from agentflow.clock import format_time, parse_time
from agentflow.errors import InputError, NotStored
from agentflow.mesh.transport import Message, StreamInfo
from agentflow_streams.history import RUN_STREAM

FORMAT: Literal["agentflow.histories/1"] = "agentflow.histories/1"


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bytes: as text where they are UTF-8, else in base64."""

    text: str = ""
    base64: str = ""

    @classmethod
    def of(cls, data: bytes) -> "Blob":
        """The form of some bytes."""
        try:
            return cls(text=data.decode())
        except UnicodeDecodeError:
            return cls(base64=base64.b64encode(data).decode())

    @property
    def data(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.base64, validate=True) if self.base64 else self.text.encode()


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored message."""

    stream: str
    seq: int
    subject: str
    time: str
    """When the server stored it, RFC 3339."""
    body: Blob

    @classmethod
    def of(cls, message: Message) -> "Kept":
        """The form of a message."""
        return cls(message.stream, message.seq, message.subject, format_time(message.time), Blob.of(message.body))

    @property
    def message(self) -> Message:
        """The message."""
        return Message(self.stream, self.seq, self.subject, self.body.data, parse_time(self.time))


class Histories(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs with all that is needed to decide them again."""

    format: Literal["agentflow.histories/1"]
    runs: tuple[str, ...]
    messages: tuple[Kept, ...]
    artifacts: dict[str, Blob] = {}
    """Definitions and large payloads, by their name in AF_ARTIFACTS."""


def encode(histories: Histories) -> bytes:
    """The bytes of a file, laid out so that two can be compared line by line."""
    return msgspec.json.format(msgspec.json.encode(histories), indent=1) + b"\n"


def decode(data: bytes, path: str = "") -> Histories:
    """Read the bytes of a file; raises `InputError` (`recording.malformed`) naming the place."""
    try:
        found = msgspec.json.decode(data, type=Histories)
        for kept in found.messages:
            _ = kept.message
        return found
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        where = path or "the file"
        raise InputError(f"{where} holds no recorded histories: {error}", code="recording.malformed") from error


class Shelf:
    """Recorded histories, read like a mesh."""

    def __init__(self, histories: Histories) -> None:
        self.runs = histories.runs
        self._artifacts = histories.artifacts
        self._messages = sorted((kept.message for kept in histories.messages), key=lambda m: (m.stream, m.seq))

    def _of(self, stream: str) -> Iterable[Message]:
        return (message for message in self._messages if message.stream == stream)

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message kept under exactly `subject`."""
        return max((m for m in self._of(stream) if m.subject == subject), key=lambda m: m.seq, default=None)

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message kept under exactly `subject`."""
        return min((m for m in self._of(stream) if m.subject == subject), key=lambda m: m.seq, default=None)

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence."""
        return next((message for message in self._of(stream) if message.seq == seq), None)

    async def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """What is kept of a stream, in its order."""
        for message in self._of(stream):
            if (
                start <= message.seq
                and (end is None or message.seq <= end)
                and subjects.matches(subject, message.subject)
            ):
                yield message

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as far as it is kept. Nothing of it has expired: what is not there is missing."""
        found = list(self._of(name))
        if not found and name != RUN_STREAM:
            return None
        created = min((message.time for message in found), default=datetime.min.replace(tzinfo=UTC))
        size = sum(len(message.body) for message in found)
        last = found[-1].seq if found else 0
        return StreamInfo(name, {}, len(found), size, 1, last, 0, created)

    async def artifact(self, bucket: str, name: str) -> bytes:
        """The bytes of an artifact; raises `NotStored`."""
        if name not in self._artifacts:
            raise NotStored(f"get {name} in {bucket}: not there", name=name)
        return self._artifacts[name].data
