"""A local mesh whose services are stubs, so that what is tested is the mesh."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentflow.local import services
from agentflow.local.services import Program

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class StubProgram(Program):
    """A stub under the name of a service."""

    @property
    def argv(self) -> list[str]:
        """Its command line."""
        return [sys.executable, "-m", "tests.local.stub_service", self.name]


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    """What is installed: stubs of the required services, and no other."""
    installed: dict[str, Program] = {name: StubProgram(name, "stub") for name in services.REQUIRED}
    monkeypatch.setattr(services, "installed_programs", lambda: installed)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return installed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project file with an agent, so that a runtime is wanted."""
    path = tmp_path / "agentflow.yaml"
    path.write_text("agents: [{use: 'agents:one'}]\n")
    return path
