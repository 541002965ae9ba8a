"""Fixtures of the runtime's tests: a mesh in memory with the real streams."""

from collections.abc import AsyncIterator

import pytest

from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import memory_mesh
from tests.services.runtime.harness import Desk


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A connection to a provisioned broker of its own."""
    async with memory_mesh() as transport:
        yield transport


@pytest.fixture
def desk(mesh: MemoryTransport) -> Desk:
    """A planner's view of it."""
    return Desk(mesh)
