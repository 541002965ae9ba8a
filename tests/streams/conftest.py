"""Brokers for the tests of streams: in memory, and a real server of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Transport
from tests.support.nats_server import NatsServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real server."""
    async with running(tmp_path / "nats") as found:
        yield found


@pytest.fixture
async def jetstream(server: NatsServer) -> AsyncIterator[JetStreamTransport]:
    """A connection to it."""
    async with connected(server) as found:
        yield found


@pytest.fixture(params=["memory", "jetstream"])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    """An empty broker, of both kinds."""
    if request.param == "memory":
        transport = MemoryTransport()
        yield transport
        await transport.close()
    else:
        async with running(tmp_path / "nats") as server, connected(server) as found:
            yield found


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[NatsServer]:
    """A server for the time of a block."""
    server = NatsServer(directory)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.kill)


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[JetStreamTransport]:
    """A connection for the time of a block."""
    transport = await JetStreamTransport.connect(server.url, name="streams")
    try:
        yield transport
    finally:
        await transport.close()
