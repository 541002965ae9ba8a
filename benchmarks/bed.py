"""What is measured on: a local mesh with the measured agents, and the floor's processes beside it on the same server."""

import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from agentflow import subjects
from agentflow.client import Client
from agentflow.clock import SystemClock
from agentflow.envelope import ChainPlace, unseal
from agentflow.ids import new_id
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.local.processes import ChildProcess
from agentflow.mesh.embedded import EmbeddedServer
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Consumer, ConsumerSpec
from agentflow.payloads import StepRequested
from agentflow.run import tells_an_end
from agentflow.schemas import compose
from benchmarks.floor import FloorClient
from benchmarks.loads import Arrivals
from benchmarks.script import Script, Write, script_of

ROOT = Path(__file__).parents[1]
TEXT = "my card never came, and nobody could tell me where it is"
INPUT = {"text": TEXT, "wait": 0, "marker": ""}

_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Bed:
    """A running mesh, a client of it, and room for files."""

    mesh: LocalMesh
    client: Client
    folder: Path

    # --- ours -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def runs(self) -> AsyncIterator["Runs"]:
        """Runs, submitted and followed as a client does it."""
        hints = self.client.transport.follow("stored.workflows.*.out")
        await hints.ready()
        runs = Runs(self.client)

        async def listen() -> None:
            while True:
                hint = await hints.next()
                if hint is not None and tells_an_end(*hint):
                    runs.arrivals.arrived(hint[0].split(".")[2])

        listening = asyncio.create_task(listen())
        try:
            yield runs
        finally:
            listening.cancel()
            await hints.close()

    @contextlib.asynccontextmanager
    async def requests(self) -> AsyncIterator["Requests"]:
        """Durable requests to an agent, their replies consumed; on a mesh without a planner."""
        spec = ConsumerSpec("AF_MESSAGES", "bench", ("workflows.*.results.*",), max_ack_pending=1024)
        consumer = await self.client.transport.consume(spec)
        requests = Requests(self.client)
        listening = asyncio.create_task(requests.listen(consumer))
        try:
            yield requests
        finally:
            listening.cancel()
            await consumer.close()

    async def recorded(self) -> Script:
        """One run of three steps as a script: its messages, watched on the wire."""
        run_id = new_id(_clock.now(), secrets.token_bytes)
        seen: dict[tuple[str, bytes], None] = {}  # in order, each once: a delivery shows the subject again
        wire = self.client.transport.follow(">")
        await wire.ready()
        run = await self.client.submit("three-steps", {**INPUT, "wait": 0.2}, id=run_id)
        await run.result(timeout=30)
        until = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < until:  # there is always something on the wire
            message = await wire.next(timeout=0.1)
            if message is not None and _belongs(*message, run_id):
                seen.setdefault(message)
        await wire.close()
        return script_of([(subject, len(body) + _HEADERS) for subject, body in seen])

    # --- the floor --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def floor(self, script: Script, *, workers: int = 1, ack_wait: float = 30.0) -> AsyncIterator["FloorBed"]:
        """The floor's processes on the same server.

        They send no sign of life while they work, so `ack_wait` is long, but where the recovery is measured.
        """
        (self.folder / "script.json").write_text(json.dumps(script.plain()), "utf-8")
        async with FloorClient.connected(self.mesh.url, script) as client:
            roles = ["worker"] * workers + (["decider"] if script.rounds else [])
            children = [self._child(role, number, ack_wait) for number, role in enumerate(roles)]
            try:
                for child in children:
                    child.start()
                for role in set(roles):
                    await client.ready(role)
                yield FloorBed(client, children)
            finally:
                await asyncio.gather(*(child.stop(5.0) for child in children))

    def _child(self, role: str, number: int, ack_wait: float) -> ChildProcess:
        argv = [
            sys.executable,
            "-m",
            "benchmarks.floor",
            role,
            f"--url={self.mesh.url}",
            f"--script={self.folder / 'script.json'}",
            f"--markers={self.folder}",
            f"--ack-wait={ack_wait}",
        ]
        return ChildProcess(f"floor-{role}-{number}", argv, log=self.folder / "floor.log", cwd=ROOT, env=os.environ)


@dataclass(frozen=True, slots=True)
class FloorBed:
    """The floor, ready."""

    client: FloorClient
    children: list[ChildProcess]


_HEADERS = 150
"""Bytes of the headers of a message of ours: trace, expected stream, and an expected sequence."""


def _belongs(subject: str, body: bytes, run_id: str) -> bool:
    """Whether a message seen on the wire is one that a run stores."""
    if subject.startswith((f"workflows.{run_id}.", f"timers.set.planner.{run_id}.")):
        return True
    return subject.startswith("agents.") and ".in." in subject and run_id.encode() in body


class Runs:
    """Runs of the measured workflows."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.arrivals = Arrivals()
        self.ids: list[str] = []
        """Every run there was."""

    async def run(self, goal: str = "three-steps", *, id: str = "", **input: object) -> None:
        """One run from its submission to the word that its end is stored."""
        run_id = id or new_id(_clock.now(), secrets.token_bytes)
        self.ids.append(run_id)
        ended = self.arrivals.expect(run_id)
        await self._client.submit(goal, {**INPUT, **input}, id=run_id)
        await self.arrivals.wait(ended)


class Requests:
    """Durable requests to one agent."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport
        self._arrivals = Arrivals()
        self.sizes = (0, 0)
        """Bytes of the last request and of its reply."""

    async def listen(self, consumer: Consumer) -> None:
        """Take the replies."""
        async for delivery in consumer.deliveries(lambda: 512):
            sealed = unseal(delivery.message.body, delivery.message.subject)
            self.sizes = (self.sizes[0], len(delivery.message.body) + _HEADERS)
            self._arrivals.arrived(sealed.workflow_id)
            await delivery.ack()

    async def request(self) -> None:
        """One request, stored, and its reply, consumed."""
        made = new_id(_clock.now(), secrets.token_bytes)
        step = StepRequested("bench@1.0.0", "first", 1, {"text": TEXT}, "2999-01-01T00:00:00.000000Z")
        sealed = compose(
            step,
            id=made,
            subject=subjects.agent_in("first", made),
            sender="bench",
            to="first",
            trace_id=secrets.token_hex(16),
            span_id=secrets.token_hex(8),
            ts=_clock.now(),
            place=ChainPlace(f"bench:{made}"),
            metadata={"workflow_id": made, "tenant": "default", "reply_to": subjects.workflow_result(made, made)},
        )
        self.sizes = (len(sealed.body) + _HEADERS, self.sizes[1])
        answered = self._arrivals.expect(made)
        await store(self._transport, sealed, expect=0)
        await self._arrivals.wait(answered)

    def script(self) -> Script:
        """What one request stores."""
        return Script(Write("command", self.sizes[0]), [], [Write("result", self.sizes[1])])


@contextlib.asynccontextmanager
async def bed(*, durable: bool, processes: Mapping[str, int] | None = None) -> AsyncIterator[Bed]:
    """A mesh for the time of a block, on a server that syncs before it acknowledges, or on one with its defaults."""
    with tempfile.TemporaryDirectory(prefix="agentflow-bench-") as name:
        folder = Path(name)
        lay_out(folder)
        everywhere = {"PYTHONPATH": str(ROOT), "AF_ALLOW_VOLATILE": str(not durable).lower()}
        options = MeshOptions(
            watched=False,
            processes={"executor": 0, "detector": 0, **(processes or {})},
            environment={"*": everywhere},
        )
        mesh = LocalMesh(folder / "mesh", project=folder / "agentflow.yaml", options=options)
        if not durable:
            mesh.server = EmbeddedServer(folder / "mesh", durable=False)
        try:
            await mesh.start()
            async with Client.connect(mesh.url) as client:
                yield Bed(mesh, client, folder)
        finally:
            await mesh.stop()


def lay_out(folder: Path) -> None:
    """Write a project with the measured agents and their workflows."""
    (folder / "three-steps.yaml").write_text(yaml.safe_dump(workflow("three-steps", "second")), "utf-8")
    (folder / "hanging.yaml").write_text(yaml.safe_dump(workflow("hanging", "hanging")), "utf-8")
    agents = [{"use": f"benchmarks.agents:{name}"} for name in ("first", "second", "third", "hanging")]
    project = {"agents": agents, "workflows": ["three-steps.yaml", "hanging.yaml"]}
    (folder / "agentflow.yaml").write_text(yaml.safe_dump(project), "utf-8")


def workflow(name: str, second: str) -> dict[str, object]:
    """Three steps in a row."""
    input = {"text": "${input.text}", "wait": "${input.wait}", "marker": "${input.marker}"}

    def state(agent: str, then: str) -> dict[str, object]:
        return {"agent": agent, "input": input, "timeout": "60s", "on_success": then}

    return {
        "name": name,
        "version": "1.0.0",
        "planner": "fsm",
        "timeout": "10m",
        "initial_state": "one",
        "final_states": ["done"],
        "states": {"one": state("first", "two"), "two": state(second, "three"), "three": state("third", "done")},
        "output": "${outputs.three}",
    }
