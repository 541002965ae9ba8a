"""A real mesh to break: server and services as processes, runs under way, effects in files, and a witness to all of it.

    async with fault_world(tmp_path) as world:
        await world.submit(20)
        ... break something ...
        report = await world.aftermath()
        report.require(*ALWAYS)

Nobody restarts anything but the test. When the world ends, whatever it left on this machine fails the test.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agentflow import subjects
from agentflow.client import Client
from agentflow.errors import MeshError, OutcomeUnknown, Unreachable
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.local.processes import ChildProcess
from agentflow.mesh.connect import connect
from tests.e2e.desks import LedgerDesk
from tests.faults.canaries import Canary, canary
from tests.faults.footprint import Machine, look_around, look_at_mesh, mesh_violations
from tests.faults.history import count_effects
from tests.faults.invariants import Witness, check
from tests.faults.network import Namespace, mesh_in
from tests.faults.proxy import Proxy
from tests.faults.publishes import VARIABLE, PublishLog, RecordingTransport
from tests.faults.verdicts import Report
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
LOG = logging.getLogger("faults")
"""Figures of a test; `--log-cli-level=INFO` shows them."""

PATIENCE = 120.0
"""Seconds runs get to end after a fault; a slow machine needs them."""


@dataclass(slots=True)
class World:
    """What a fault test works with."""

    desk: LedgerDesk
    mesh: LocalMesh
    client: Client
    witness: Witness
    proxy: Proxy | None
    memo: Canary
    submitted: dict[str, int] = field(default_factory=dict)
    """Run to its amount."""

    def one(self, service: str) -> ChildProcess:
        """The first process of a service."""
        return self.mesh.services[service][0]

    def pids(self) -> dict[str, int]:
        """Services that run now."""
        return {child.name: child.pid for child in self.mesh.processes() if child.running}

    async def submit(self, count: int) -> list[str]:
        """Start so many runs; each amount is used once, so that an effect can be told from every other."""
        return [await self.submit_one() for _ in range(count)]

    async def submit_one(self) -> str:
        """Start a run; raises what the client raises, and notes what it told."""
        number = len(self.submitted) + 1
        return await self.submit_as(f"run-{number}", number * 10)

    async def submit_as(self, run_id: str, amount: int) -> str:
        """Start a run under an id, or ask again; notes what the caller is told."""
        self.submitted[run_id] = amount
        subject = subjects.workflow_in(run_id)
        try:
            await self.client.submit("booking", {"amount": amount, "memo": self.memo.value}, id=run_id)
        except (OutcomeUnknown, Unreachable):
            self.witness.answers.append((subject, "unknown"))
            raise
        except MeshError:
            self.witness.answers.append((subject, "refused"))
            raise
        self.witness.answers.append((subject, "stored"))
        return run_id

    async def finish(self, runs: Sequence[str] = (), within: float = PATIENCE) -> None:
        """Wait until runs (by default all) have ended well, each with its own output, and note what we were told."""
        for run_id in runs or list(self.submitted):
            amount = self.submitted[run_id]
            output = await self.client.run(run_id).result(timeout=within)
            self.witness.told[run_id] = output
            assert output == {"booked": amount, "receipt": amount + 1}

    async def ended(self, count: int, within: float = PATIENCE) -> None:
        """Wait until at least so many effects are in the ledger: work is under way."""
        await eventually(lambda: len(self.desk.ledger) >= count, f"{count} effects", within=within)

    async def revive(self, child: ChildProcess) -> None:
        """Start a process that has ended, without its crash point."""
        child.forget("AF_CRASH_AT")
        child.start()

    async def restart_server(self) -> None:
        """Start the server again, and wait until our own connection is up."""
        await self.mesh.restart_server()
        await eventually(lambda: self.client.transport.connected, "the witness is connected", within=30)

    @property
    def notes(self) -> list[str]:
        """What the idempotent tool did, in order."""
        return (self.desk.directory / "notes.jsonl").read_text().splitlines()

    async def ready(self, within: float = 60.0) -> None:
        """Wait until every service that runs says that it is ready; learns where to ask."""

        async def look() -> bool:
            await self.witness.health.learn(self.client.transport)
            return await self.witness.health.says(True, self.pids(), self.client.transport)

        await eventually(look, "every service is ready", within=within)

    async def prepare(self) -> None:
        """Look at everything before the fault."""
        await self.ready()
        transport, pids = self.client.transport, self.pids()
        self.witness.mesh_before = await look_at_mesh(transport, pids)
        await self.witness.heads.note(transport)

    async def saw_heads(self) -> None:
        """Remember what the server shows now."""
        await self.witness.heads.note(self.client.transport)

    async def aftermath(self, *, finish: bool = True) -> Report:
        """After the fault: every run ends, every service is ready, the mesh is at rest; then the checker."""
        if finish:
            await self.finish()
        await self.ready()
        await self.witness.health.observe("after the fault", True, self.pids(), self.client.transport)
        await self._at_rest()
        report = await check(self.witness)
        LOG.info("\n%s", report)
        return report

    async def _at_rest(self) -> None:
        """Wait, but not for ever, until nothing is left that only needed a moment to go: sandboxes, stale pulls."""
        before, loop = self.witness.mesh_before, asyncio.get_running_loop()
        deadline = loop.time() + 20
        while before is not None and loop.time() < deadline:
            now = await look_at_mesh(self.client.transport, self.pids())
            if not mesh_violations(before, now, len(self.pids())):
                return
            await asyncio.sleep(0.25)

    async def expect_exact_effects(self) -> None:
        """Every run booked its two amounts, once."""
        expected = sorted(each for amount in self.submitted.values() for each in (amount, amount + 1))
        assert sorted(self.desk.ledger) == expected


WORKFLOW = """
name: booking
version: 1.0.0
planner: fsm
timeout: {timeout}
initial_state: clerk
final_states: [done]
states:
  clerk: {{agent: clerk, input: {{amount: "${{input.amount}}"}}, timeout: {step}, on_success: jot}}
  jot: {{tool: note, input: {{text: "${{input.memo}}"}}, timeout: {step}, on_success: receipt}}
  receipt: {{tool: book, input: {{amount: "${{outputs.clerk.booked + 1}}"}}, timeout: {step}, on_success: done}}
output: {{booked: "${{outputs.clerk.booked}}", receipt: "${{outputs.receipt.amount}}"}}
"""


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def fault_world(
    directory: Path,
    *,
    processes: Mapping[str, int] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    proxied: bool = False,
    namespace: Namespace | None = None,
    store: Path | None = None,
    timeout: str = "30m",
    step: str = "20m",
    pause: float = 0.0,
    alone: bool = True,
) -> AsyncIterator[World]:
    """Start a mesh; `proxied` puts a proxy between the services and the broker, `store` is the server's folder.

    Beside another world it is not `alone`: then the test itself sees to what is left behind.
    In a `namespace` the services reach the broker over its wire, by a proxy at our end.
    `timeout` and `step` are the time-outs of a run and of each of its steps, `pause` the seconds a handler takes.
    """
    desk, temporary = LedgerDesk(directory), directory / "temporary"
    desk.lay_out()
    (directory / "booking.yaml").write_text(WORKFLOW.format(timeout=timeout, step=step))
    project = yaml.safe_load(desk.project.read_text())
    project["agents"][0]["settings"]["pause"] = pause
    desk.project.write_text(yaml.safe_dump(project))
    temporary.mkdir()
    before = look_around(temporary)
    log = PublishLog(directory / "publishes.jsonl")
    secret, password, memo = canary("the environment"), canary("a setting"), canary("a tool's input", payload=True)
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        host = namespace.here if namespace else "127.0.0.1"
        proxy = await stack.enter_async_context(Proxy.running(host)) if proxied or namespace else None
        if proxy is not None:
            proxy.target = ("127.0.0.1", port)
        everywhere = {
            "PYTHONPATH": f"{ROOT / 'tests' / 'faults' / 'recorder'}:{ROOT}",
            "TMPDIR": str(temporary),
            "SHOP_API_KEY": secret.value,
            "AF_NATS_URL": f"nats://mesh:{password.value}@{host}:{proxy.port if proxy else port}",
            VARIABLE: str(log.path),
        }
        if namespace is not None:  # the server's own pages are not to be seen from there
            everywhere.update(AF_MONITOR_URL="", AF_ALLOW_VOLATILE="true", AF_HTTP_ADDRESS=f"{namespace.there}:0")
        given = dict(environment or {})
        options = MeshOptions(
            port=port,
            processes=processes or {},
            watched=False,
            environment={**given, "*": {**everywhere, **given.get("*", {})}},
        )
        kind = mesh_in(namespace) if namespace else LocalMesh
        mesh = await stack.enter_async_context(
            kind.running(store or directory / "mesh", project=desk.project, options=options)
        )
        transport = await connect(mesh.url, name="witness")
        stack.push_async_callback(transport.close)
        recording: Any = RecordingTransport(transport, log)
        witness = Witness(
            transport,
            log,
            effects=lambda: count_effects((directory / "ledger.jsonl").read_text().splitlines()),
            canaries=[secret, password, memo],
            logs=[mesh.logs],
        )
        world = World(desk, mesh, Client(recording), witness, proxy, memo)
        witness.pids = world.pids
        await world.prepare()
        yield world
    if alone:
        await gone_by(before, temporary)


async def gone_by(before: Machine, temporary: Path, within: float = 15.0) -> None:
    """Fail if something of ours is still on this machine after a while."""
    await eventually(
        lambda: not look_around(temporary).left_behind(before),
        f"nothing is left behind: {look_around(temporary).left_behind(before)}",
        within=within,
    )


async def side_by_side(directory: Path, *parts: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    """Run several parts at once, each in a folder and with a world of its own (not `alone`): they wait together."""
    before = look_around(directory / "temporary")
    async with asyncio.TaskGroup() as group:
        for number, part in enumerate(parts, start=1):
            folder = directory / f"world-{number}"
            folder.mkdir()
            group.create_task(part(folder), name=folder.name)
    await gone_by(before, directory / "temporary")
