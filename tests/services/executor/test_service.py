"""The executor's shell as a process runs it, with real sandboxes, on the mesh in memory and on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing

from agentflow import subjects
from agentflow.errors import ConfigError
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Transport
from agentflow.payloads import AuditIntent, AuditOutcome, ToolCompleted, ToolFailed
from agentflow.project import Project, ToolSpec
from agentflow.registry import CONFIG, REGISTRY, Heartbeat, ToolDeclaration
from agentflow.schemas import payload_as
from agentflow.service import Host
from agentflow.settings import ServiceSettings
from agentflow.testing import memory_mesh
from agentflow_executor.catalog import load_catalog
from agentflow_executor.declare import declare
from agentflow_executor.errors import SandboxUnavailable
from agentflow_executor.profile import Policies
from agentflow_executor.sandbox import ProcessSandbox
from agentflow_executor.shell import work
from agentflow_streams.provision import provision
from tests.services.executor import sample_tools, worlds
from tests.services.executor.harness import (
    EVERYTHING,
    Desk,
    ScriptedSandbox,
    call,
    catalog,
    envelope,
    host,
    planned,
    request,
)
from tests.services.executor.worlds import running
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

Connect = Callable[[], Awaitable[Transport]]
"""Another connection to the mesh of the test."""


@asynccontextmanager
async def memory() -> AsyncIterator[Connect]:
    """Connections to a broker in memory."""
    async with memory_mesh() as mesh:

        async def another() -> Transport:
            return MemoryTransport(mesh.broker)

        yield another


@asynccontextmanager
async def jetstream(folder: Path) -> AsyncIterator[Connect]:
    """Connections to a real server."""
    opened: list[Transport] = []
    with NatsServer(folder) as server:

        async def another() -> Transport:
            opened.append(await JetStreamTransport.connect(server.url))
            return opened[-1]

        try:
            await provision(await another())
            yield another
        finally:
            for each in opened:
                await each.close()


@pytest.fixture(params=["memory", "jetstream"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Either of them."""
    async with memory() if request.param == "memory" else jetstream(tmp_path / "nats") as found:
        yield found


class Process:
    """An executor at work."""

    def __init__(self, found: Host, workdirs: Path, outbox: Path, slots: int = 4) -> None:
        self.host, self.sandbox = found, worlds.sandbox(workdirs, slots=slots)
        self.catalog = catalog(str(outbox))
        self.task = asyncio.create_task(work(found, self.catalog, self.sandbox))

    async def stop(self) -> None:
        """SIGTERM."""
        self.host.stop.set()
        await self.task

    async def kill(self) -> None:
        """The process is gone, and its children with it."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def workdirs(tmp_path: Path) -> Path:
    """Where the working folders of sandboxes are made."""
    folder = tmp_path / "workdirs"
    folder.mkdir()
    return folder


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(connect: Connect, workdirs: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts executors that share an outbox; at the end of the test nothing of them is left."""
    started: list[Process] = []

    async def another(slots: int = 4, **settings: Any) -> Process:
        mesh = await connect()
        process = Process(host(mesh, concurrency=slots, **settings), workdirs, tmp_path / "outbox", slots)
        started.append(process)
        bucket = await mesh.bucket(REGISTRY)
        await eventually(lambda: bucket.entries("executor."), "a registered executor")
        return process

    yield another
    for process in started:
        if not process.task.done():
            await process.stop()
    await eventually(lambda: not list(workdirs.iterdir()), "the end of all working folders")


@pytest.fixture
async def desk(connect: Connect) -> Desk:
    """A caller's view of the mesh."""
    return Desk(await connect(), catalog(), ProcessSandbox(slots=1, uid=worlds.NOBODY))


async def answered(desk: Desk, sealed: Any, within: float = 20.0) -> Any:
    """The answer to a call, once it is there."""
    return await eventually(lambda: desk.find_answer(sealed), "an answer", within=within)


async def test_calls_are_executed_and_answered(start: Start, desk: Desk, tmp_path: Path) -> None:
    """An agent's, a planner's, one that is refused: each with its answer and its audit; the effect is in the outbox."""
    await start()
    added, sent, refused = (
        call("add", {"a": 40, "b": 2}, index=1),
        planned("append_line", {"text": "hi"}, index=2),
        call("fly", index=3),
    )
    for each in (added, sent, refused):
        await desk.send(each)

    assert ToolCompleted({"sum": 42}) == payload_as(await answered(desk, added), ToolCompleted)
    assert ToolCompleted({"call": sent.envelope.id}) == payload_as(await answered(desk, sent), ToolCompleted)
    assert "tool.unknown" == payload_as(await answered(desk, refused), ToolFailed).error.code
    assert ["tool.intent/1", "tool.outcome/1"] == await desk.entries(sent)
    lines = [json.loads(line) for line in (tmp_path / "outbox").read_text().splitlines()]
    assert [{"call": sent.envelope.id, "text": "hi"}] == lines


async def test_the_mesh_knows_what_is_declared_and_what_lives(start: Start, desk: Desk) -> None:
    """Every tool is declared for good, and registered while the process lives."""
    process = await start()
    declared = await (await desk.mesh.bucket(CONFIG)).entries("tool.")
    registry = await desk.mesh.bucket(REGISTRY)
    alive = [msgspec.json.decode(entry.value, type=Heartbeat) for entry in await registry.entries()]

    assert sorted(EVERYTHING) == [msgspec.json.decode(entry.value, type=ToolDeclaration).id for entry in declared]
    assert sorted(EVERYTHING) == sorted(beat.id for beat in alive if beat.kind == "tool")
    [itself] = [beat for beat in alive if beat.kind == "executor"]
    assert {"sandbox": "process", "concurrency": 4, "tools": len(EVERYTHING)}.items() <= itself.detail.items()
    assert "wall time" in itself.detail["holds"]
    assert "network" in " ".join(itself.detail["lacks"])

    await process.stop()

    assert [] == await registry.entries()
    assert len(declared) == len(await (await desk.mesh.bucket(CONFIG)).entries("tool."))


async def test_no_more_calls_run_at_once_than_there_are_slots(start: Start, desk: Desk) -> None:
    """Five calls and two slots: all are answered, in turn."""
    await start(slots=2)
    asked = [call("add", {"a": n}, index=n) for n in range(5)]
    for each in asked:
        await desk.send(each)

    sums = [payload_as(await answered(desk, each), ToolCompleted).output["sum"] for each in asked]
    assert [1, 2, 3, 4, 5] == sums


async def test_stopping_finishes_what_is_in_hand(start: Start, desk: Desk) -> None:
    """A call that runs when SIGTERM comes is answered, and the process ends by itself."""
    process = await start(ack_wait=5.0)
    asked = call("append_line", {"text": "last"})
    await desk.send(asked)
    await eventually(lambda: desk.entries(asked), "the intent")
    await process.stop()

    assert ToolCompleted({"call": asked.envelope.id}) == payload_as(await desk.answer(asked), ToolCompleted)


async def test_two_executors_share_the_calls(start: Start, desk: Desk, tmp_path: Path) -> None:
    """Each call is executed once, whoever takes it."""
    await start(slots=1)
    await start(slots=1)
    asked = [call("append_line", {"text": str(n)}, index=n) for n in range(6)]
    for each in asked:
        await desk.send(each)
    for each in asked:
        await answered(desk, each)

    lines = [json.loads(line)["call"] for line in (tmp_path / "outbox").read_text().splitlines()]
    assert sorted(each.envelope.id for each in asked) == sorted(lines)


async def test_a_call_longer_than_the_ack_wait_runs_once(start: Start, desk: Desk, tmp_path: Path) -> None:
    """It is kept alive while it runs."""
    await start(ack_wait=0.15, slots=2)
    await start(ack_wait=0.15, slots=2)
    asked = call("append_then_fail", {"how": "hang"}, seconds=2)
    await desk.send(asked)
    answer = await answered(desk, asked)

    assert 1 == len((tmp_path / "outbox").read_text().splitlines())
    assert ToolCompleted({"call": asked.envelope.id}) == payload_as(answer, ToolCompleted)
    assert ["tool.intent/1", "tool.reconciled/1", "tool.outcome/1"] == await desk.entries(asked)


async def test_the_work_of_a_dead_executor_moves_on(start: Start, desk: Desk, tmp_path: Path) -> None:
    """Killed behind the effect, in the middle of the tool: another waits until nobody can act, asks the check, answers."""
    doomed = await start()
    asked = call("append_then_fail", {"how": "hang"}, seconds=3)
    await desk.send(asked)
    await eventually(lambda: (tmp_path / "outbox").exists() and (tmp_path / "outbox").read_text(), "the effect")
    await doomed.kill()
    await start()
    answer = await answered(desk, asked)

    assert [asked.envelope.id] == (tmp_path / "outbox").read_text().split()
    assert ToolCompleted({"call": asked.envelope.id}) == payload_as(answer, ToolCompleted)
    assert ["tool.intent/1", "tool.reconciled/1", "tool.outcome/1"] == await desk.entries(asked)
    assert 1 == payload_as((await desk.audit(asked))[0], AuditIntent).execution


async def test_a_cancelled_process_leaves_no_tool_behind(start: Start, desk: Desk) -> None:
    """What drains too slowly is ended with the process."""
    process, marker = await start(), "613.617283950"
    await desk.send(call("hang", {"marker": marker}))
    await eventually(lambda: running(marker), "the tool's child")
    await process.kill()

    await eventually(lambda: not running(marker), "the end of the tool's child")


async def test_junk_does_not_stop_the_work(start: Start, desk: Desk) -> None:
    """It becomes a dead letter; the call behind it is answered."""
    await start(slots=1)
    await desk.mesh.publish("tools.calls.junk", b"not an envelope", stream="AF_AUDIT")
    forged = envelope(request("add", {"a": 1}), "clerk", index=7, reply_to=subjects.tool_result("boss", "x"))
    await desk.send(forged)
    asked = call("add", {"a": 1})
    await desk.send(asked)
    await answered(desk, asked)

    letters = await eventually(lambda: _letters(desk, 2), "two dead letters")
    assert ["call.reply_to", "envelope.not_sealed"] == sorted(letter.code for letter in letters)


async def _letters(desk: Desk, count: int) -> Any:
    found = await desk.dead()
    return found if len(found) >= count else None


async def test_a_refusal_is_on_the_audit_of_a_real_mesh(start: Start, desk: Desk) -> None:
    """What was denied, and why, is evidence too."""
    await start()
    asked = planned("add", {"a": 1}, workflow="other@2.0.0")
    await desk.send(asked)
    await answered(desk, asked)

    [entry] = await desk.audit(asked)
    outcome = payload_as(entry, AuditOutcome)
    assert ("refused", "tool.denied") == (outcome.status, outcome.error.code if outcome.error else "")


# --- starting ------------------------------------------------------------------------------------------------------


async def test_it_does_not_start_with_a_sandbox_that_cannot_be_set_up(mesh: MemoryTransport, tmp_path: Path) -> None:
    """Fail closed: no call is taken, nothing is declared."""
    broken = ProcessSandbox(slots=1, uid=worlds.NOBODY, tmp=str(tmp_path / "nowhere"))

    with pytest.raises(SandboxUnavailable, match="cannot be set up here"):
        await work(host(mesh), catalog(), broken)

    assert [] == await (await mesh.bucket(CONFIG)).entries()
    assert [] == await (await mesh.bucket(REGISTRY)).entries()


async def test_it_does_not_start_where_a_tool_broke_its_promise(mesh: MemoryTransport, workdirs: Path) -> None:
    """Another process declared the same version of a tool with another schema."""
    mine = catalog().tools["add"].declaration
    await declare(await mesh.bucket(CONFIG), msgspec.structs.replace(mine, effect="irreversible"))

    with pytest.raises(ConfigError) as caught:
        await work(host(mesh), catalog(), worlds.sandbox(workdirs))

    assert "tool.incompatible" == caught.value.error_code
    assert "effect was irreversible, is pure" in str(caught.value)


async def test_what_will_be_refused_or_is_not_contained_is_said_at_the_start(mesh: MemoryTransport) -> None:
    """A tool without its grant, and one that asks for the network, which this sandbox does not hold back."""
    module = sample_tools.__name__
    tools = [ToolSpec(f"{module}:append_line"), ToolSpec(f"{module}:reach_network"), ToolSpec(f"{module}:add")]
    found, script = host(mesh), ScriptedSandbox()
    found.stop.set()
    with structlog.testing.capture_logs() as logged:
        await work(found, load_catalog(Project(tools=tools), Policies()), script)

    said = {line["event"]: line for line in logged if line["log_level"] == "warning"}
    assert ("append_line", "permission.missing") == (said["tool.refused"]["tool"], said["tool.refused"]["code"])
    assert ("reach_network", ["network.http"]) == (
        said["tool.not_contained"]["tool"],
        said["tool.not_contained"]["permissions"],
    )
    assert 2 == len(said)
    assert script.closed


async def test_it_needs_its_own_settings(mesh: MemoryTransport, workdirs: Path) -> None:
    """A mistake of whoever composes it is said clearly."""
    found = host(mesh)
    found.settings = ServiceSettings()

    with pytest.raises(ConfigError, match="ExecutorSettings"):
        await work(found, catalog(), worlds.sandbox(workdirs))
