"""A real mesh with the ledger desk: separate processes, a real server, files that show every effect."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from agentflow.client import Client
from agentflow.local.mesh import LocalMesh, MeshOptions

WORKFLOW = """
name: booking
version: 1.0.0
planner: fsm
timeout: 2m
initial_state: clerk
final_states: [done]
states:
  clerk: {agent: clerk, input: {amount: "${input.amount}"}, timeout: 40s, on_success: receipt}
  receipt: {tool: book, input: {amount: "${outputs.clerk.booked + 1}"}, timeout: 40s, on_success: done}
output: {booked: "${outputs.clerk.booked}", receipt: "${outputs.receipt.amount}"}
"""


@dataclass(frozen=True, slots=True)
class LedgerDesk:
    """The files of a test's desk."""

    directory: Path

    @property
    def ledger(self) -> list[int]:
        """The amounts that were booked, in order."""
        lines = (self.directory / "ledger.jsonl").read_text().splitlines()
        return [json.loads(line)["amount"] for line in lines]

    @property
    def handler_runs(self) -> list[str]:
        """The messages the agent's handler was run for, in order."""
        path = self.directory / "runs.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def project(self) -> Path:
        """The project file."""
        return self.directory / "agentflow.yaml"

    def lay_out(self) -> None:
        """Write project, definition and empty files."""
        self.directory.chmod(0o755)  # the tools run as another user
        module = "tests.e2e.ledger_desk"
        (self.directory / "ledger.jsonl").touch()
        (self.directory / "notes.jsonl").touch()
        (self.directory / "booking.yaml").write_text(WORKFLOW)
        project = {
            "agents": [{"use": f"{module}:Clerk", "settings": {"runs": str(self.directory / "runs.txt")}}],
            "tools": [
                {"use": f"{module}:book", "grants": {"ledger": {"path": "ledger.jsonl", "mode": "append"}}},
                {"use": f"{module}:note", "grants": {"notes": {"path": "notes.jsonl", "mode": "append"}}},
            ],
            "allow": {"agents": {"clerk": ["book"]}, "workflows": {"booking": ["book", "note"]}},
            "workflows": ["booking.yaml"],
        }
        self.project.write_text(yaml.safe_dump(project))


@dataclass(frozen=True, slots=True)
class RunningDesk:
    """A desk whose mesh is up."""

    desk: LedgerDesk
    mesh: LocalMesh
    client: Client


@contextlib.asynccontextmanager
async def running_desk(directory: Path, **environment: dict[str, str]) -> AsyncIterator[RunningDesk]:
    """Start a mesh nobody restarts but the test; `environment` gives settings to a service by its name."""
    desk = LedgerDesk(directory)
    desk.lay_out()
    everywhere = {"*": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    options = MeshOptions(watched=False, environment={**everywhere, **environment})
    async with (
        LocalMesh.running(directory / "mesh", project=desk.project, options=options) as mesh,
        Client.connect(mesh.url) as client,
    ):
        yield RunningDesk(desk, mesh, client)
