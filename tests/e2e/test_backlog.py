"""Work that is queued while nobody decides about it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.client import Client
from agentflow.local.mesh import LocalMesh, MeshOptions

RUNS = 1000
ROOT = Path(__file__).parents[2]

WORKFLOW = """
name: three
version: 1.0.0
planner: fsm
timeout: 20m
initial_state: one
final_states: [done]
states:
  one: {agent: first, input: {text: "${input.text}"}, timeout: 10m, on_success: two}
  two: {agent: second, input: {text: "${outputs.one.text}"}, timeout: 10m, on_success: three}
  three: {agent: third, input: {text: "${outputs.two.text}"}, timeout: 10m, on_success: done}
output: "${outputs.three.text}"
"""

PROJECT = """
agents:
  - use: benchmarks.agents:first
  - use: benchmarks.agents:second
  - use: benchmarks.agents:third
workflows: [three.yaml]
"""


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_a_thousand_runs_queued_while_every_planner_is_down_complete_when_one_starts(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Nothing is lost or decided twice: each run ends with its own output, in the backlog's order of magnitude."""
    (tmp_path / "three.yaml").write_text(WORKFLOW)
    (tmp_path / "agentflow.yaml").write_text(PROJECT)
    options = MeshOptions(watched=False, environment={"*": {"PYTHONPATH": str(ROOT)}})
    loop = asyncio.get_running_loop()
    async with (
        LocalMesh.running(tmp_path / "mesh", project=tmp_path / "agentflow.yaml", options=options) as mesh,
        Client.connect(mesh.url) as client,
    ):
        [planner] = mesh.services["planner"]
        await planner.stop()
        busy = asyncio.Semaphore(50)

        async def submitted(number: int) -> None:
            async with busy:
                await client.submit("three", {"text": f"text {number}"}, id=f"run-{number}")

        await asyncio.gather(*(submitted(number) for number in range(RUNS)))
        assert [] == await client.runs(status="completed")

        begun = loop.time()
        planner.start()
        async with asyncio.timeout(480):
            outputs = [await client.run(f"run-{number}").result() for number in range(RUNS)]
        record_property("seconds", round(loop.time() - begun, 1))

    assert [f"text {number}" for number in range(RUNS)] == outputs
