"""Fixtures of the detector's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import FixedClock, memory_mesh
from tests.support.nats_server import NatsServer


@pytest.fixture
def clock() -> FixedClock:
    """The server's clock: it stands still until it is moved."""
    return FixedClock()


@pytest.fixture
async def mesh(clock: FixedClock) -> AsyncIterator[MemoryTransport]:
    """A connection to a provisioned broker of its own, on that clock."""
    async with memory_mesh(clock=clock) as transport:
        yield transport


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A real server, without streams."""
    with NatsServer(tmp_path / "nats") as found:
        yield found


@pytest.fixture
async def transport(server: NatsServer) -> AsyncIterator[JetStreamTransport]:
    """A connection to it."""
    found = await JetStreamTransport.connect(server.url)
    yield found
    await found.close()
