"""The detector as a process beside the others: rapid fire, the pair, kills at every point, two at once, and how fast.

Everything is looked at from outside: the anomalies and the breakers that are stored, and what a run comes to.
"""

import contextlib
import json
import statistics
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.breakers import read_breaker
from agentflow.client import Client
from agentflow.clock import SystemClock
from agentflow.envelope import unseal
from agentflow.errors import RunFailed
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.payloads import ToolAnomaly
from agentflow.registry import BREAKERS
from agentflow.schemas import payload_as
from agentflow_streams.verification import verify
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MODULE = "tests.e2e.pair_tools"
WORKFLOW = """
name: work
version: 1.0.0
planner: fsm
timeout: 2m
initial_state: work
final_states: [done]
states:
  work: {agent: worker, input: {tools: "${input.tools}"}, timeout: 60s, retry: {max_attempts: 1}, on_success: done}
output: {done: "${outputs.work.done}"}
"""
RULES: dict[str, Any] = {
    "version": "e2e",
    "rules": [
        {
            "id": "rapid",
            "kind": "rate",
            "per": ["run", "tool"],
            "threshold": 5,
            "window": 60,
            "actions": ["flag", "auto_block"],
            "block": ["tool"],
            "block_seconds": 3,
        },
        {
            "id": "pair",
            "kind": "sequence",
            "per": ["run"],
            "first": {"permissions": ["db.write"]},
            "then": {"permissions": ["network.http"]},
            "window": 300,
            "severity": "critical",
        },
    ],
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A mesh with a detector."""

    mesh: LocalMesh
    client: Client

    async def run(self, id: str, *tools: str) -> Any:
        """A run that calls these tools; its output."""
        run = await self.client.submit("work", {"tools": list(tools)}, id=id)
        return await run.result(timeout=90)

    async def anomalies(self) -> list[ToolAnomaly]:
        """What is stored by now."""
        stored = self.client.transport.read("AF_AUDIT", "tools.anomaly.*")
        return [payload_as(unseal(message.body, message.subject), ToolAnomaly) async for message in stored]

    async def told(self, count: int = 1) -> list[ToolAnomaly]:
        """The anomalies, once there are so many."""

        async def enough() -> list[ToolAnomaly] | None:
            found = await self.anomalies()
            return found if len(found) >= count else None

        return await eventually(enough, f"{count} anomalies", within=40)

    async def blocked(self) -> dict[str, Any]:
        """The breakers."""
        entries = await (await self.client.transport.bucket(BREAKERS)).entries()
        return {entry.key: read_breaker(entry.key, entry.value) for entry in entries}

    async def verifies(self) -> None:
        """The whole history is sound."""
        found = await verify(self.client.transport, now=SystemClock().now())
        assert found.ok, found.damages


def lay_out(directory: Path) -> None:
    """Write project, definition and rules."""
    directory.chmod(0o755)
    (directory / "work.yaml").write_text(WORKFLOW)
    (directory / "rules.yaml").write_text(json.dumps(RULES))
    names = ["save", "post", "lookup"]
    project = {
        "agents": [{"use": f"{MODULE}:Worker"}],
        "tools": [{"use": f"{MODULE}:{name}"} for name in names],
        "allow": {"agents": {"worker": names}},
        "workflows": ["work.yaml"],
    }
    (directory / "agentflow.yaml").write_text(yaml.safe_dump(project))


@contextlib.asynccontextmanager
async def watched(
    directory: Path, *, detectors: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Watched]:
    """A mesh that nobody restarts but the test; `settings` are the detector's own."""
    lay_out(directory)
    environment = {
        "*": {"PYTHONPATH": str(Path(__file__).parents[2])},
        "detector": {"AF_DETECTOR_RULES": str(directory / "rules.yaml"), **(settings or {})},
    }
    options = MeshOptions(watched=False, environment=environment, processes={"detector": detectors})
    async with (
        LocalMesh.running(directory / "mesh", project=directory / "agentflow.yaml", options=options) as mesh,
        Client.connect(mesh.url) as client,
    ):
        yield Watched(mesh, client)


async def test_rapid_fire_is_found_and_blocked_and_the_block_ends(tmp_path: Path) -> None:
    """Real calls of a real agent; the run that went on calling is stopped, and a later one is not."""
    async with watched(tmp_path) as desk:
        with pytest.raises(RunFailed):
            await desk.run("run-1", *["lookup"] * 60)

        [anomaly] = await desk.told()
        assert ("rapid", "lookup", "run-1", 5) == (anomaly.rule, anomaly.tool, anomaly.workflow_id, anomaly.count)
        assert ("tool.lookup",) == anomaly.breakers
        state = await desk.client.run("run-1").state()
        assert "breaker.open" in str(state.error)
        assert anomaly.until == (await desk.blocked())["tool.lookup"].until
        assert {"done": 1} == await desk.run("run-2", "save")

        async def again() -> bool:
            with contextlib.suppress(RunFailed):
                return bool(await desk.run(f"later-{len(await desk.blocked())}-{next(numbers)}", "lookup"))
            return False

        numbers = iter(range(1000))
        await eventually(again, "the block ends", within=40)
        assert 1 == len(await desk.anomalies())
        await desk.verifies()


@pytest.mark.parametrize(
    ("point", "settings"),
    [
        ("detector.after_anomaly", {}),
        ("detector.after_breaker", {}),
        ("detector.after_snapshot", {"AF_DETECTOR_SNAPSHOT_MESSAGES": "1"}),
        ("detector.after_snapshot:4", {"AF_DETECTOR_SNAPSHOT_MESSAGES": "1"}),
    ],
)
async def test_a_detector_that_is_killed_forgets_nothing_and_tells_nothing_twice(
    tmp_path: Path, point: str, settings: dict[str, str]
) -> None:
    """SIGKILL at a named point; what starts again tells what is left to tell."""
    async with watched(tmp_path, settings={"AF_CRASH_AT": point, **settings}) as desk:
        [child] = desk.mesh.services["detector"]
        assert {"done": 3} == await desk.run("run-1", "lookup", "save", "post")
        with contextlib.suppress(RunFailed):
            await desk.run("run-2", *["lookup"] * 5)
        await eventually(lambda: not child.running, "the detector dies at its crash point", within=40)
        assert -9 == child.exit_code
        child.forget("AF_CRASH_AT")
        child.start()

        found = await desk.told(2)

        assert ["pair", "rapid"] == sorted(each.rule for each in found)
        await eventually(desk.blocked, "the breaker is set", within=40)
        assert ["tool.lookup"] == list(await desk.blocked())
        await desk.verifies()


@pytest.mark.slow
async def test_two_detectors_tell_once_and_one_takes_over_from_the_other(tmp_path: Path) -> None:
    """One of two is killed, whichever was the active one; what comes then is found all the same."""
    async with watched(tmp_path, detectors=2) as desk:
        one, other = desk.mesh.services["detector"]
        await desk.run("run-1", "save", "post")
        await desk.told(1)
        await one.kill()
        await desk.run("run-2", "save", "post")
        await desk.told(2)
        one.start()
        await other.kill()
        await desk.run("run-3", "save", "post")

        found = await desk.told(3)

        assert ["run-1", "run-2", "run-3"] == [each.workflow_id for each in found]
        await desk.verifies()


@pytest.mark.slow
async def test_a_finding_is_stored_well_within_a_minute(tmp_path: Path) -> None:
    """From the stored audit entry to the stored anomaly, by the server's clock: the 95th percentile of 40 findings."""
    async with watched(tmp_path) as desk:
        for number in range(40):
            await desk.run(f"run-{number}", "save", "post")
        await desk.told(40)
        transport = desk.client.transport
        took = []
        async for message in transport.read("AF_AUDIT", "tools.anomaly.*"):
            anomaly = payload_as(unseal(message.body, message.subject), ToolAnomaly)
            trigger = await transport.last("AF_AUDIT", anomaly.evidence[-1].subject)
            assert trigger is not None
            took.append((message.time - trigger.time).total_seconds())

        p95 = statistics.quantiles(took, n=20)[-1]
        print(f"time to detect: p50 {statistics.median(took) * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms")  # noqa: T201  # the figure
        assert 40 == len(took)
        assert p95 < 60
