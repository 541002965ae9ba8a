"""A TCP proxy that misbehaves on demand: the network between services and broker.

`hold` is what a firewall that drops packets looks like to both ends: nothing arrives, nothing is closed, and what was
sent arrives when the way is free again. It works in one direction too. `cut` closes every connection at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Self

Direction = Literal["up", "down"]
"""`up` is from the services to the broker."""

BOTH: tuple[Direction, ...] = ("up", "down")


@dataclass(slots=True)
class _Way:
    """One direction of every connection."""

    free: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    piece: int = 64 * 1024
    bytes: int = 0


class Proxy:
    """Listens on a port of its own and forwards to a target that may come later."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        """Accepted so far."""
        self.target = ("127.0.0.1", 0)
        self._ways: dict[Direction, _Way] = {direction: _Way() for direction in BOTH}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        for way in self._ways.values():
            way.free.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """A proxy for the time of a block."""
        proxy = cls()
        proxy._server = await asyncio.start_server(proxy._accept, host, port)
        proxy.port = proxy._server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            proxy._server.close()
            proxy.cut()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def hold(self, *directions: Direction) -> None:
        """Let nothing through, in both directions unless named; connections stay up."""
        for direction in directions or BOTH:
            self._ways[direction].free.clear()

    def release(self) -> None:
        """Let everything through again."""
        for way in self._ways.values():
            way.free.set()

    def slow(self, delay: float = 0.0, piece: int = 64 * 1024) -> None:
        """Delay every piece by so many seconds, and make pieces of so many bytes."""
        for way in self._ways.values():
            way.delay, way.piece = delay, piece

    def cut(self) -> None:
        """Reset every connection there is; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    def bytes(self, direction: Direction) -> int:
        """Forwarded so far."""
        return self._ways[direction].bytes

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer), name="proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._ways["up"].free.wait()
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            self._writers.add(far_writer)
            try:
                await self._both(reader, writer, far_reader, far_writer)
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except OSError:
            return  # nobody listens there: the connection is closed, as the target would
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Pump both ways until one end closes."""
        up = asyncio.create_task(self._pump("up", reader, far_writer), name="proxy")
        down = asyncio.create_task(self._pump("down", far_reader, writer), name="proxy")
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = self._ways[direction]
        with contextlib.suppress(OSError):
            while data := await reader.read(way.piece):
                if way.delay:
                    await asyncio.sleep(way.delay)
                await way.free.wait()
                writer.write(data)
                await writer.drain()
                way.bytes += len(data)
