"""A message that kills its process becomes a dead letter; once the cause is mended, a person has it handled."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.client import Client
from agentflow.clock import SystemClock
from agentflow.errors import RunFailed
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow_streams.verification import verify
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

WORKFLOW = """
name: moody
version: 1.0.0
planner: fsm
timeout: 10m
initial_state: work
final_states: [done]
states:
  work: {agent: moody, input: {}, timeout: 5m, on_success: done}
"""


def lay_out(folder: Path) -> Path:
    """A project with the agent; returns its file."""
    (folder / "moody.yaml").write_text(WORKFLOW)
    agents = [{"use": "tests.e2e.moody_desk:Moody", "settings": {"folder": str(folder)}}]
    (folder / "agentflow.yaml").write_text(yaml.safe_dump({"agents": agents, "workflows": ["moody.yaml"]}))
    return folder / "agentflow.yaml"


async def agentflow(url: str, *arguments: str) -> Any:
    """Run the program as a process; returns its JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentflow", *arguments, "--json", "--nats-url", url),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert 0 == process.returncode, out
    return json.loads(out)


async def test_a_poisonous_message_is_handled_after_its_cause_is_mended(tmp_path: Path) -> None:
    """It dies until it is given up; the run fails; `dead retry` runs the handler once, and the run stays as it is."""
    environment = {"*": {"PYTHONPATH": str(Path(__file__).parents[2]), "AF_MAX_DELIVERIES": "2"}}
    options = MeshOptions(environment=environment)
    async with (
        LocalMesh.running(tmp_path / "mesh", project=lay_out(tmp_path), options=options) as mesh,
        Client.connect(mesh.url) as client,
    ):
        run = await client.submit("moody", {}, id="run-1")
        with pytest.raises(RunFailed):
            await run.result(timeout=90)
        (letter,) = await agentflow(mesh.url, "dead", "ls")
        assert ("delivery.exhausted", "open", "agent-moody") == (letter["code"], letter["status"], letter["consumer"])
        shown = await agentflow(mesh.url, "dead", "show", letter["id"])
        assert ("step.requested/1", True, "helps") == (shown["message"]["schema"], shown["verified"], shown["outlook"])

        (tmp_path / "mended").touch()
        (told,) = await agentflow(mesh.url, "dead", "retry", letter["id"])
        assert "retried" == told["outcome"]
        assert "the run run-1 ended run.failed (delivery.exhausted: " in told["message"]
        assert "submit the goal again" in told["message"]

        async def resolved() -> bool:
            (found,) = await agentflow(mesh.url, "dead", "ls")
            return bool(found["status"] == "resolved")

        await eventually(resolved, "the letter is resolved", within=60)
        assert [shown["message"]["id"]] == (tmp_path / "done.txt").read_text().split()
        (again,) = await agentflow(mesh.url, "dead", "retry", letter["id"])
        assert ("already", "it is resolved") == (again["outcome"], again["message"])

        assert "failed" == (await run.state()).status
        found = await verify(client.transport, now=SystemClock().now())
        assert found.ok, found.damages
