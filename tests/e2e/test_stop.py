"""A mesh that is stopped while it works: what is in hand is finished, and that takes no longer than the work."""

import time
from pathlib import Path

import pytest
import yaml

from agentflow.client import Client
from agentflow.local.mesh import LocalMesh, MeshOptions
from tests.e2e.desks import LedgerDesk
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PAUSE = 1.5
"""Seconds the handler takes before it calls its tool."""


async def test_a_handler_that_is_about_to_call_a_tool_still_finds_the_executor(tmp_path: Path) -> None:
    """The call is made after the stop began; the effect is there, and nobody waited for a drain to run out."""
    desk = LedgerDesk(tmp_path)
    desk.lay_out()
    project = yaml.safe_load(desk.project.read_text())
    project["agents"][0]["settings"]["pause"] = PAUSE
    desk.project.write_text(yaml.safe_dump(project))
    options = MeshOptions(watched=False, environment={"*": {"PYTHONPATH": str(Path(__file__).parents[2])}})
    mesh = LocalMesh(tmp_path / "mesh", project=desk.project, options=options)
    try:
        await mesh.start()
        async with Client.connect(mesh.url) as client:
            await client.submit("booking", {"amount": 20}, id="run-1")
            await eventually(lambda: len(desk.handler_runs) == 1, "the handler's start", within=30)
        begun = time.monotonic()
        await mesh.stop()
        took = time.monotonic() - begun
    finally:
        await mesh.stop()

    assert 20 in desk.ledger
    assert took < PAUSE + 6
    assert {0} == {child.exit_code for child in mesh.processes()}
