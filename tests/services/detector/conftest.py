"""Fixtures of the detector's tests."""

from collections.abc import AsyncIterator

import pytest

from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import FixedClock, memory_mesh


@pytest.fixture
def clock() -> FixedClock:
    """The server's clock: it stands still until it is moved."""
    return FixedClock()


@pytest.fixture
async def mesh(clock: FixedClock) -> AsyncIterator[MemoryTransport]:
    """A connection to a provisioned broker of its own, on that clock."""
    async with memory_mesh(clock=clock) as transport:
        yield transport
