"""A broker that can be read and nothing else: what replay is given, so that it cannot change what it looks at."""

from collections.abc import AsyncIterator
from typing import NoReturn, Protocol

from agentflow.errors import Denied
from agentflow.mesh.transport import Message, StreamInfo, Transport


class Past(Protocol):
    """The part of a `Transport` that only reads streams."""

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message stored under exactly `subject`."""
        ...

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message stored under exactly `subject`."""
        ...

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence."""
        ...

    def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History in stream order."""
        ...

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as it is, or None."""
        ...


class Readable(Past, Protocol):
    """What is stored, with the artifacts it refers to."""

    async def artifact(self, bucket: str, name: str) -> bytes:
        """The bytes of an artifact; raises `NotStored`."""
        ...


class ReadOnly:
    """A transport of which only reading is left; everything else raises `Denied` (`replay.read_only`)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message stored under exactly `subject`."""
        return await self._transport.last(stream, subject)

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message stored under exactly `subject`."""
        return await self._transport.first(stream, subject)

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence."""
        return await self._transport.get(stream, seq)

    def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History in stream order."""
        return self._transport.read(stream, subject, start=start, end=end)

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as it is, or None."""
        return await self._transport.stream_info(name)

    async def artifact(self, bucket: str, name: str) -> bytes:
        """The bytes of an artifact; raises `NotStored`."""
        return await (await self._transport.objects(bucket)).get(name)

    def __getattr__(self, name: str) -> NoReturn:
        raise Denied(f"a replay only reads: {name!r} is not allowed", code="replay.read_only", operation=name)
