"""The fixture that makes one suite of two: every test that asks for `mesh` or `transport` runs on both."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.mesh.transport import Transport
from tests.contract.meshes import Mesh
from tests.support.nats_server import NatsServer


@pytest.fixture(params=["memory", "jetstream"])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mesh]:
    """A broker of the test's own: in memory, and a real server."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield await _memory(stack)
        else:
            yield await _jetstream(stack, tmp_path)


@pytest.fixture
def transport(mesh: Mesh) -> Transport:
    """A connection to the test's own broker."""
    return mesh.transport


async def _memory(stack: AsyncExitStack) -> Mesh:
    broker = MemoryBroker()

    async def attach() -> Transport:
        attached = MemoryTransport(broker)
        stack.push_async_callback(attached.close)
        return attached

    @contextmanager
    def silence() -> Iterator[None]:
        broker.faults.delay(0.5)
        yield

    return Mesh(await attach(), attach, silence)


async def _jetstream(stack: AsyncExitStack, directory: Path) -> Mesh:
    server = await asyncio.to_thread(stack.enter_context, NatsServer(directory / "nats"))

    async def attach() -> Transport:
        attached = await JetStreamTransport.connect(server.url, name="contract", timeout=10)
        stack.push_async_callback(attached.close)
        return attached

    @contextmanager
    def silence() -> Iterator[None]:
        server.freeze()
        try:
            yield
        finally:
            server.thaw()

    return Mesh(await attach(), attach, silence)
