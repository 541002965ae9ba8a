"""Running the program in this process, on a mesh in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from agentflow.cli import app
from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import memory_mesh

T = TypeVar("T")

NAME = "cli-tests"
URL = f"memory://{NAME}"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        assert 1 == len(self.out.splitlines()), self.out
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Runs commands; `terminal("runs", "--json")`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        code = app.run(arguments)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Ended(code, out, err)


class Mesh:
    """The mesh in memory that commands reach by `AF_NATS_URL`, and a way to do things on it."""

    def do(self, work: Callable[[MemoryTransport], Awaitable[T]]) -> T:
        """Do something on a connection of its own."""

        async def connected() -> T:
            transport = MemoryTransport.named(NAME)
            try:
                return await work(transport)
            finally:
                await transport.close()

        return asyncio.run(connected())

    def provision(self) -> None:
        """Give it the streams and buckets of a mesh."""

        async def copy(transport: MemoryTransport) -> None:
            async with memory_mesh() as complete:
                for name in await complete.stream_names():
                    info = await complete.stream_info(name)
                    assert info is not None
                    await transport.create_stream(info.config)

        self.do(copy)
