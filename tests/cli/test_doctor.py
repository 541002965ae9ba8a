"""The doctor: every fault has a finding with its remedy, and a sound mesh has none."""

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentflow.cli import checks
from agentflow.cli.check_consumers import PLANNER
from agentflow.cli.checks import check_mesh
from agentflow.cli.findings import Check, Finding, Patient
from agentflow.cli.session import Located
from agentflow.errors import MeshError, ServerUnfit
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import ConsumerSpec, StreamInfo
from agentflow.registry import (
    CONFIG,
    REGISTRY,
    AgentDeclaration,
    Heartbeat,
    ToolDeclaration,
    agent_key,
    alive_key,
    tool_key,
)
from agentflow.testing import START, memory_mesh
from tests.cli.terminal import Mesh, Terminal

HERE = Located("memory://doctor", "--nats-url")


@pytest.fixture
async def mesh_in_memory() -> AsyncIterator[MemoryTransport]:
    """A provisioned mesh."""
    async with memory_mesh() as transport:
        yield transport


async def patient(transport: MemoryTransport, located: Located = HERE, **varz: Any) -> Patient:
    """A mesh to be examined."""
    infos = [await transport.stream_info(name) for name in await transport.stream_names()]
    return Patient(located, transport, varz, {info.name: info for info in infos if info is not None})


async def found(check: Check, of: Patient) -> list[Finding]:
    """What a check finds."""
    return [finding async for finding in check(of)]


async def beat(transport: MemoryTransport, kind: str, id: str = "x", incarnation: str = "one") -> None:
    """Somebody is alive."""
    raw = {"kind": kind, "id": id, "incarnation": incarnation, "started": "", "pid": 1, "host": "here"}
    value = msgspec.json.encode(msgspec.convert(raw, Heartbeat))
    await (await transport.bucket(REGISTRY)).put(alive_key(kind, id, incarnation), value)


async def declare(transport: MemoryTransport) -> None:
    """There is an agent and a tool."""
    config = await transport.bucket(CONFIG)
    await config.put(agent_key("greeter"), msgspec.json.encode(AgentDeclaration("greeter")))
    tool = ToolDeclaration("send", "send", "1.0.0", "", {}, {}, (), "pure", 1.0)
    await config.put(tool_key("send"), msgspec.json.encode(tool))


# --- server --------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_fit_is_said_to_be(mesh_in_memory: MemoryTransport) -> None:
    """How quick it is, which version, and that it is durable."""
    findings = await found(checks.check_server, await patient(mesh_in_memory, version="2.15.1"))

    assert [("server", "ok"), ("durability", "ok")] == [(f.check, f.level) for f in findings]
    assert "version 2.15.1" in findings[0].message


@pytest.mark.parametrize(
    ("code", "level"),
    [("server.too_old", "error"), ("server.not_durable", "error"), ("server.not_provable", "warning")],
)
async def test_a_server_that_is_unfit_is_a_finding_with_its_remedy(
    code: str, level: str, mesh_in_memory: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be proven is a warning, what is wrong an error."""

    async def unfit(monitor_url: str = "") -> None:
        raise ServerUnfit("unfit", code=code)

    monkeypatch.setattr(mesh_in_memory, "require_durable", unfit)
    _, finding = await found(checks.check_server, await patient(mesh_in_memory))
    assert ("durability", level) == (finding.check, finding.level)
    assert finding.fix


async def test_of_a_mesh_that_does_not_answer_only_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what there is to say of this machine."""
    monkeypatch.setattr(checks, "CONNECT_TIMEOUT", 0.05)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{probe.getsockname()[1]}"

    found = await check_mesh(Located(url, "--nats-url"))
    assert ("server", "error", "server.unreachable") == (found[0].check, found[0].level, found[0].code)
    assert {"settings", "ports"} == {finding.check for finding in found[1:]}


# --- streams -------------------------------------------------------------------------------------------------------


async def test_streams_as_they_should_be_are_one_line(mesh_in_memory: MemoryTransport) -> None:
    """All of them together."""
    [finding] = await found(checks.check_streams, await patient(mesh_in_memory))

    assert ("streams", "ok") == (finding.check, finding.level)


async def test_the_doctor_knows_the_streams_that_provisioning_makes(mesh_in_memory: MemoryTransport) -> None:
    """No more and no less."""
    assert sorted(await mesh_in_memory.stream_names()) == sorted(checks.STREAMS)


async def test_missing_streams_are_named(mesh_in_memory: MemoryTransport) -> None:
    """And nothing is created by looking."""
    mesh_in_memory.broker.streams.pop("AF_DEAD")
    [finding] = await found(checks.check_streams, await patient(mesh_in_memory))

    assert ("error", "missing: AF_DEAD", "agentflow streams apply") == (finding.level, finding.message, finding.fix)
    assert "AF_DEAD" not in await mesh_in_memory.stream_names()


@pytest.mark.parametrize(("key", "value", "level"), [("max_bytes", 2**20, "warning"), ("deny_delete", False, "error")])
async def test_drift_is_told_and_left_as_it_is(
    key: str, value: object, level: str, mesh_in_memory: MemoryTransport
) -> None:
    """A setting that protects evidence is an error."""
    stream = mesh_in_memory.broker.streams["AF_AGENTS"]
    stream.config[key] = value  # as if an operator had changed it
    findings = await found(checks.check_streams, await patient(mesh_in_memory))

    assert [level] == [f.level for f in findings if "AF_AGENTS" in f.message and key in f.message]
    assert value == stream.config[key]


@pytest.mark.parametrize(("full", "levels"), [(0.5, []), (0.85, ["warning"]), (0.99, ["error"])])
async def test_a_stream_that_fills_up_is_told_in_time(
    full: float, levels: list[str], mesh_in_memory: MemoryTransport
) -> None:
    """A full one refuses what is stored next."""
    examined = await patient(mesh_in_memory)
    info: StreamInfo = examined.streams["AF_MESSAGES"]
    examined.streams["AF_MESSAGES"] = replace(info, bytes=int(info.config["max_bytes"] * full))

    findings = await found(checks.check_streams, examined)
    assert levels == [finding.level for finding in findings if finding.check == "capacity"]


# --- services ------------------------------------------------------------------------------------------------------


async def test_services_that_are_alive_are_counted(mesh_in_memory: MemoryTransport) -> None:
    """By process."""
    await declare(mesh_in_memory)
    for kind, incarnation in (("planner", "one"), ("planner", "two"), ("runtime", "one"), ("executor", "one")):
        await beat(mesh_in_memory, kind, incarnation=incarnation)
    await beat(mesh_in_memory, "agent", "greeter")

    findings = await found(checks.check_services, await patient(mesh_in_memory))
    assert [
        ("planner", "ok", "2 alive"),
        ("runtime", "ok", "1 alive"),
        ("executor", "ok", "1 alive"),
        ("detector", "warning", "none is alive: nobody watches tool calls"),
    ] == [(f.check, f.level, f.message) for f in findings]


async def test_a_mesh_without_its_services_is_ill(mesh_in_memory: MemoryTransport) -> None:
    """Whoever is needed; and an agent nobody hosts is named."""
    await declare(mesh_in_memory)

    findings = await found(checks.check_services, await patient(mesh_in_memory))
    levels = {"planner": "error", "runtime": "error", "executor": "error", "detector": "warning", "agents": "warning"}
    assert levels == {f.check: f.level for f in findings}
    assert "greeter" in findings[-1].message


async def test_who_has_nothing_to_do_may_be_missing(mesh_in_memory: MemoryTransport) -> None:
    """Without agents no runtime is needed, without tools no executor."""
    await beat(mesh_in_memory, "planner")

    findings = await found(checks.check_services, await patient(mesh_in_memory))
    assert ["ok", "warning", "warning", "warning"] == [finding.level for finding in findings]


# --- clock, dead letters, disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "level"), [(0.0, "ok"), (3.0, "warning"), (-3.0, "warning"), (60.0, "error")])
async def test_clocks_that_differ_are_told(
    seconds: float, level: str, mesh_in_memory: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either way; deadlines are given as times."""
    located = replace(HERE, monitor_url="http://127.0.0.1:1")

    def varz(url: str) -> dict[str, Any]:
        now = datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: TID251 - the server's clock
        return {"now": now.strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"}

    monkeypatch.setattr(checks, "read_varz", varz)
    [finding] = await found(checks.check_clock, await patient(mesh_in_memory, located, now="2026-01-01T00:00:00Z"))
    assert ("clock", level) == (finding.check, finding.level)


async def test_without_a_monitoring_address_the_clock_is_not_judged(mesh_in_memory: MemoryTransport) -> None:
    """There is nothing to compare with."""
    assert [] == await found(checks.check_clock, await patient(mesh_in_memory))


async def test_dead_letters_are_counted(mesh_in_memory: MemoryTransport) -> None:
    """A warning: somebody has to look."""
    assert ["ok"] == [f.level for f in await found(checks.check_dead_letters, await patient(mesh_in_memory))]

    await mesh_in_memory.publish("dead.AF_MESSAGES.planner", b"{}", stream="AF_DEAD")
    [finding] = await found(checks.check_dead_letters, await patient(mesh_in_memory))
    assert ("warning", "dead.strays") == (finding.level, finding.code)


@pytest.mark.parametrize(("free", "level"), [(2**40, "ok"), (2**29, "warning"), (2**20, "error")])
async def test_room_on_the_disk_is_told(
    free: int, level: str, mesh_in_memory: MemoryTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the data is on this machine."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    local = replace(HERE, data_dir=str(tmp_path))

    [finding] = await found(checks.check_disk, await patient(mesh_in_memory, local))
    assert ("disk", level) == (finding.check, finding.level)
    assert [] == await found(checks.check_disk, await patient(mesh_in_memory))


async def test_a_check_that_fails_is_a_finding_and_the_others_go_on(
    mesh_in_memory: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor does not faint."""

    async def check_blood(of: Patient) -> AsyncIterator[Finding]:
        yield Finding("blood", "ok", "red")
        raise MeshError("no more", hint="rest")

    findings = [finding async for finding in checks._guarded(check_blood, await patient(mesh_in_memory))]
    assert [
        Finding("blood", "ok", "red", "", "blood.ok"),
        Finding("blood", "error", "no more", "rest", "mesh.error"),
    ] == findings


# --- the command ---------------------------------------------------------------------------------------------------


def test_an_ill_mesh_ends_with_1(terminal: Terminal, mesh: Mesh) -> None:
    """Every finding is shown, with its remedy."""
    ended = terminal("doctor")

    assert 1 == ended.code
    assert "FAIL  planner" in ended.out
    assert "→ start agentflow-planner, or agentflow dev" in ended.out
    found = terminal("doctor", "--json")
    assert (1, False) == (found.code, found.json["ok"])
    assert {"check", "level", "message", "fix", "code"} == set(found.json["findings"][0])
    assert all(finding["code"] for finding in found.json["findings"])
    assert "[planner.absent]" in ended.out


def test_a_sound_mesh_ends_with_0(terminal: Terminal, mesh: Mesh) -> None:
    """Warnings do not fail it."""

    async def live(transport: MemoryTransport) -> None:
        await beat(transport, "planner")
        for each in PLANNER:
            await transport.consume(ConsumerSpec(each.stream, each.name, each.filters, pinned=True))

    mesh.do(live)
    found = terminal("doctor", "--json")
    assert (0, True) == (found.code, found.json["ok"])
    assert "warning" in {finding["level"] for finding in found.json["findings"]}


def test_times_of_go_are_read() -> None:
    """With nine digits, fewer, or none."""
    for text in ("2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.0Z", "2026-01-01T00:00:00Z"):
        assert checks._server_time(text) == START
