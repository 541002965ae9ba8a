"""A terminal, and a mesh for its commands."""

from collections.abc import Iterator

import pytest

from agentflow.mesh.memory import MemoryTransport
from tests.cli.terminal import NAME, URL, Mesh, Terminal


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Runs commands in this process."""
    return Terminal(capsys)


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    """A provisioned mesh in memory that commands find."""
    monkeypatch.setenv("AF_NATS_URL", URL)
    made = Mesh()
    made.provision()
    yield made
    MemoryTransport.forget(NAME)
