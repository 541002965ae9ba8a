"""Fixtures of the executor's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import memory_mesh
from agentflow_executor.sandbox import ProcessSandbox
from tests.services.executor import worlds


@pytest.fixture
def workdirs(tmp_path: Path) -> Path:
    """Where the working folders of sandboxes are made; a tool's user could not find it by name."""
    folder = tmp_path / "workdirs"
    folder.mkdir()
    return folder


@pytest.fixture
def sandbox(workdirs: Path) -> Iterator[ProcessSandbox]:
    """A process sandbox that leaves nothing behind."""
    found = worlds.sandbox(workdirs)
    yield found
    found.close()
    assert [] == list(workdirs.iterdir()), "a working folder was left behind"


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A connection to a provisioned broker of its own."""
    async with memory_mesh() as transport:
        yield transport
