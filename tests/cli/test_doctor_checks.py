"""The doctor's further checks: consumers, heartbeats, capacity, sandbox, settings, ports; each fault has its code."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentflow.cli import checks
from agentflow.cli.check_consumers import PLANNER, check_consumers, of_agent
from agentflow.cli.check_machine import listener, ports_findings, settings_findings
from agentflow.cli.check_registry import check_registry, check_sandbox
from agentflow.cli.check_storage import check_capacity, foretold
from agentflow.cli.checks import check_dead_letters, check_mesh
from agentflow.cli.findings import Check, Finding, Patient
from agentflow.cli.session import Located
from agentflow.clock import SystemClock, format_time
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import ConsumerSpec
from agentflow.registry import REGISTRY, Heartbeat, alive_key
from agentflow.testing import memory_mesh
from agentflow_executor.holding import as_detail
from agentflow_executor.settings import ExecutorSettings
from agentflow_executor.shell import consumer_spec as executor_spec
from agentflow_planner.__main__ import consumers as planner_specs
from agentflow_planner.settings import PlannerSettings
from agentflow_runtime.hosting import consumer_name
from tests.cli.test_dead import GivenUp
from tests.support.nats_server import NatsServer

HERE = Located("memory://doctor", "--nats-url")


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A provisioned mesh."""
    async with memory_mesh() as transport:
        yield transport


async def patient(transport: MemoryTransport, **varz: Any) -> Patient:
    """A mesh to be examined."""
    infos = [await transport.stream_info(name) for name in await transport.stream_names()]
    return Patient(HERE, transport, varz, {info.name: info for info in infos if info is not None})


async def codes(check: Check, of: Patient) -> list[tuple[str, str]]:
    """Levels and codes of what a check finds; whatever is wrong comes with a fix."""
    found = [finding async for finding in check(of)]
    assert all(finding.fix for finding in found if finding.level != "ok")
    return [(finding.level, finding.code) for finding in found]


async def alive(transport: MemoryTransport, kind: str, id: str = "x", **more: Any) -> None:
    """Somebody is alive: this process, just now, unless said otherwise."""
    given = {"incarnation": "one", "started": "", "pid": os.getpid(), "host": platform.node()}
    given["beat"] = format_time(SystemClock().now())
    entry = msgspec.convert({"kind": kind, "id": id, **given, **more}, Heartbeat)
    await (await transport.bucket(REGISTRY)).put(alive_key(kind, id, entry.incarnation), msgspec.json.encode(entry))


async def make(transport: MemoryTransport, **more: Any) -> None:
    """The planner's consumers."""
    for each in PLANNER:
        given = {"filters": each.filters, "pinned": each.pinned, **more}
        await transport.consume(ConsumerSpec(each.stream, each.name, **given))


# --- consumers -------------------------------------------------------------------------------------------------------


def test_the_doctor_expects_the_consumers_that_services_make() -> None:
    """The services are not imported by it; so their own words are compared here."""
    made = [(spec.stream, spec.name, spec.filters, spec.pinned) for spec in planner_specs(PlannerSettings())]
    assert made == [(each.stream, each.name, each.filters, each.pinned) for each in PLANNER]
    from agentflow.cli.check_consumers import EXECUTOR

    spec = executor_spec(ExecutorSettings())
    assert [(spec.stream, spec.name, spec.filters)] == [(each.stream, each.name, each.filters) for each in EXECUTOR]
    assert consumer_name("helper") == of_agent("helper").name


async def test_a_consumer_that_is_missing_is_an_error(mesh: MemoryTransport) -> None:
    """Of each service that is alive; of one that is not, nothing is expected."""
    assert [("ok", "consumer.ok")] == await codes(check_consumers, await patient(mesh))
    await alive(mesh, "planner")
    await alive(mesh, "executor")
    await alive(mesh, "agent", "helper")

    assert [("error", "consumer.missing")] * 4 == await codes(check_consumers, await patient(mesh))


@pytest.mark.parametrize("drift", [{"filters": ("workflows.>",)}, {"pinned": False}])
async def test_a_consumer_that_takes_something_else_is_an_error(drift: dict[str, Any], mesh: MemoryTransport) -> None:
    """It would miss messages, or share what must not be shared."""
    await alive(mesh, "planner")
    streams = {each.stream for each in PLANNER}
    await make(mesh, **(drift if "pinned" in drift else {}))
    if "filters" in drift:
        mesh.broker.durables.pop(("AF_MESSAGES", "planner"))
        await mesh.consume(ConsumerSpec("AF_MESSAGES", "planner", ("workflows.>",), pinned=True))

    found = await codes(check_consumers, await patient(mesh))
    assert {("error", "consumer.drift")} == set(found)
    assert len(found) == (1 if "filters" in drift else len(streams))


async def test_a_planner_that_nobody_is_active_on_is_stuck(mesh: MemoryTransport) -> None:
    """Once there is something to do."""
    await alive(mesh, "planner")
    await make(mesh)
    assert [("ok", "consumer.ok")] == await codes(check_consumers, await patient(mesh))

    await mesh.publish("workflows.run-1.in", b"{}", stream="AF_MESSAGES")
    assert [("error", "planner.stuck")] == await codes(check_consumers, await patient(mesh))


@pytest.mark.parametrize(("seconds", "expected"), [(100.0, ("warning", "consumer.lag")), (0.0, ("ok", "consumer.ok"))])
async def test_what_waits_for_long_is_told(seconds: float, expected: tuple[str, str], mesh: MemoryTransport) -> None:
    """A moment is no lag; a minute is."""
    await mesh.consume(ConsumerSpec("AF_AGENTS", "agent-helper", ("agents.helper.in",)))
    await mesh.publish("agents.other.in", b"{}", stream="AF_AGENTS")
    seq = (await mesh.publish("agents.helper.in", b"{}", stream="AF_AGENTS")).seq
    messages = mesh.broker.streams["AF_AGENTS"].messages
    messages[seq] = replace(messages[seq], time=messages[seq].time - timedelta(seconds=seconds))

    assert [expected] == await codes(check_consumers, await patient(mesh))


# --- who is alive ----------------------------------------------------------------------------------------------------


async def test_processes_that_are_there_and_agree_have_no_finding(mesh: MemoryTransport) -> None:
    """Whatever they host."""
    await alive(mesh, "runtime", version="1")
    await alive(mesh, "agent", "helper", version="1")

    assert [] == await codes(check_registry, await patient(mesh))


@pytest.mark.parametrize(("seconds", "level"), [(5.0, "warning"), (-5.0, "warning"), (60.0, "error")])
async def test_a_service_whose_clock_is_off_is_told(seconds: float, level: str, mesh: MemoryTransport) -> None:
    """Against the time the server gave its heartbeat; once, however much it hosts."""
    beat = format_time(SystemClock().now() + timedelta(seconds=seconds))
    await alive(mesh, "runtime", beat=beat)
    await alive(mesh, "agent", "helper", beat=beat)

    assert [(level, "clock.skew")] == await codes(check_registry, await patient(mesh))


async def test_versions_that_differ_are_told(mesh: MemoryTransport) -> None:
    """Somebody forgot to upgrade a part."""
    await alive(mesh, "planner", version="1.0")
    await alive(mesh, "executor", version="1.1")

    assert [("warning", "versions.differ")] == await codes(check_registry, await patient(mesh))


async def test_an_entry_nobody_stands_behind_is_an_orphan(mesh: MemoryTransport) -> None:
    """Its process is gone, or it is hosted by nobody."""
    await alive(mesh, "planner", pid=2**22 + 1)
    await alive(mesh, "agent", "helper")

    assert [("warning", "registry.orphan")] * 2 == await codes(check_registry, await patient(mesh))


@pytest.mark.parametrize(
    ("uid", "expected"), [(65534, ("ok", "sandbox.process")), (None, ("warning", "sandbox.same_user"))]
)
async def test_what_the_sandbox_holds_is_said_by_the_executor(
    uid: int | None, expected: tuple[str, str], mesh: MemoryTransport
) -> None:
    """Where it runs; and what it cannot hold."""
    await alive(mesh, "executor", detail={"sandbox": "process", **as_detail(uid)})
    await alive(mesh, "executor", incarnation="two", detail={"sandbox": "process", **as_detail(uid)})

    assert [expected] == await codes(check_sandbox, await patient(mesh))
    (finding,) = [finding async for finding in check_sandbox(await patient(mesh))]
    assert "does not hold network" in finding.message


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_memory_for_subjects_is_counted_and_foretold(mesh: MemoryTransport) -> None:
    """Half a KiB each, now and when retention is reached."""
    for number in range(5):
        await mesh.publish(f"workflows.run-{number}.in", b"{}", stream="AF_MESSAGES")
    young = await patient(mesh)
    assert 0 == foretold(young)
    assert [("ok", "capacity.memory")] == await codes(check_capacity, young)

    messages = young.streams["AF_MESSAGES"]
    aged = replace(messages, created=messages.created - timedelta(days=1))
    old = replace(young, streams={**young.streams, "AF_MESSAGES": aged})
    assert foretold(old) in (34, 35)
    many = replace(young, streams={**young.streams, "AF_MESSAGES": replace(aged, subjects=5_000_000)})
    assert [("warning", "capacity.memory")] == await codes(check_capacity, many)


@pytest.mark.parametrize(("used", "level"), [(50, None), (85, "warning"), (99, "error")])
async def test_a_store_that_fills_up_is_told(used: int, level: str | None, mesh: MemoryTransport) -> None:
    """As the server counts it."""
    jetstream = {"config": {"max_storage": 100}, "stats": {"storage": used}}

    found = await codes(check_capacity, await patient(mesh, jetstream=jetstream))
    assert found[1:] == ([(level, "capacity.store")] if level else [])


async def test_open_letters_wait_for_a_person(mesh: MemoryTransport) -> None:
    """With their codes; strays on the stream are told too."""
    stored = await mesh.publish("agents.helper.in", b"x", stream="AF_AGENTS")
    message = await mesh.get("AF_AGENTS", stored.seq)
    assert message is not None
    await write_dead_letter(mesh, GivenUp(message), "agent-helper", "runtime", "input.bad", "no")

    assert [("warning", "dead.open")] == await codes(check_dead_letters, await patient(mesh))


# --- this machine ----------------------------------------------------------------------------------------------------


def test_settings_that_are_wrong_are_findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Errors and warnings, each once, with their own codes."""
    monkeypatch.chdir(tmp_path)
    assert [("ok", "config.ok")] == [(each.level, each.code) for each in settings_findings()]

    monkeypatch.setenv("AF_ACK_WAIT", "soon")
    monkeypatch.setenv("AF_ACK_WIAT", "1")
    assert [("error", "config.invalid"), ("warning", "config.unknown_variable")] == [
        (each.level, each.code) for each in settings_findings()
    ]


async def test_somebody_else_on_the_port_is_told() -> None:
    """Who is no NATS server; and a NATS server is recognised."""

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400\r\n")
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        (finding,) = await ports_findings("nats://127.0.0.1:1", (port,))
    assert ("warning", "ports.taken") == (finding.level, finding.code)
    (free,) = await ports_findings("nats://127.0.0.1:1", (port,))
    assert ("ok", "ports.ok") == (free.level, free.code)


async def test_a_server_that_is_frozen_does_not_hold_up_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that nothing answers, and ends."""
    monkeypatch.setattr(checks, "CHECK_TIMEOUT", 0.5)
    with NatsServer(tmp_path / "nats") as server:
        assert "nats" == await listener(int(server.url.rpartition(":")[2]))
        started = asyncio.create_task(check_mesh(Located(server.url, "--nats-url"), progress=lambda _: server.freeze()))
        try:
            async with asyncio.timeout(30):
                found = await started
        finally:
            server.thaw()

    first: Finding = found[0]
    assert ("error", True) == (first.level, first.code in ("server.silent", "server.unreachable"))
