"""What `agentflow doctor` looks at. Every check reads; none changes the mesh."""

import asyncio
import contextlib
import importlib.metadata
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agentflow import subjects
from agentflow.cli.check_consumers import check_consumers
from agentflow.cli.check_machine import ports_findings, settings_findings
from agentflow.cli.check_registry import check_registry, check_sandbox
from agentflow.cli.check_storage import check_capacity
from agentflow.cli.findings import Check, Finding, Level, Patient
from agentflow.cli.session import CONNECT_TIMEOUT, Located
from agentflow.clock import SystemClock, parse_time
from agentflow.errors import AgentflowError, MeshError, ServerUnfit, Unreachable
from agentflow.letters import cases
from agentflow.local.room import remembered
from agentflow.local.services import PROVISIONERS
from agentflow.mesh.connect import connect
from agentflow.mesh.embedded import read_varz
from agentflow.mesh.transport import Transport
from agentflow.registry import ARTIFACTS, BREAKERS, CONFIG, REGISTRY, STATE, Heartbeat

STREAMS = (
    *sorted({*subjects.STREAMS.values(), "AF_CHECKPOINTS"}),
    *(f"KV_{name}" for name in (BREAKERS, CONFIG, REGISTRY, STATE)),
    f"OBJ_{ARTIFACTS}",
)
"""What a provisioned mesh has."""

SKEW_WARNING, SKEW_ERROR = 1.0, 10.0
"""Seconds our clock may differ from the server's."""

FULL_WARNING, FULL_ERROR = 0.8, 0.95
"""How full a stream may be; a full one refuses messages."""

DISK_WARNING, DISK_ERROR = 1024**3, 64 * 1024**2
"""Bytes that should be free where the data is."""


CHECK_TIMEOUT = 15.0
"""Seconds one check may take: a server that is there and silent must not hold up the doctor."""

Progress = Callable[[str], None]
"""Takes the name of a check that begins."""


async def check_mesh(located: Located, progress: Progress = lambda _: None) -> list[Finding]:
    """Every finding about a mesh, good and bad."""
    ours = [*settings_findings(), *await ports_findings(located.url)]
    progress("server")
    try:
        transport = await connect(located.url, name="agentflow-doctor", timeout=CONNECT_TIMEOUT)
    except Unreachable as error:
        fix = "agentflow dev starts a mesh; --nats-url says where one is"
        return [Finding("server", "error", error.message, fix, "server.unreachable"), *ours]
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            patient = await _examine(located, transport)
        found = []
        for check in CHECKS:
            progress(_name_of(check))
            found += [finding async for finding in _guarded(check, patient)]
    except (TimeoutError, MeshError) as error:
        why = str(error) or f"it does not answer within {CHECK_TIMEOUT:g} s"
        fix = "look at its log; without JetStream nothing works"
        return [
            Finding("server", "error", f"the server is up, and JetStream is not: {why}", fix, "server.silent"),
            *ours,
        ]
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_TIMEOUT):
                await transport.close()
    return [*found, *ours]


async def _examine(located: Located, transport: Transport) -> Patient:
    varz: dict[str, Any] = {}
    if located.monitor_url:
        with contextlib.suppress(ServerUnfit):
            varz = await asyncio.to_thread(read_varz, located.monitor_url)
    infos = [await transport.stream_info(name) for name in STREAMS]
    return Patient(located, transport, varz, {info.name: info for info in infos if info is not None})


async def _guarded(check: Check, patient: Patient) -> AsyncIterator[Finding]:
    """A check that fails or takes too long is itself a finding, and the others go on. Every finding has a code."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            async for finding in check(patient):
                found.append(finding)  # what was found before a failure counts
    except AgentflowError as error:
        hint = str(error.fields.get("hint", ""))
        found.append(Finding(_name_of(check), "error", error.message, hint, error.error_code))
    except TimeoutError:
        told = f"no answer within {CHECK_TIMEOUT:g} s"
        found.append(Finding(_name_of(check), "error", told, "is the server overloaded, or frozen?", "doctor.timeout"))
    for finding in found:
        yield replace(finding, code=finding.code or f"{finding.check.replace(' ', '_')}.{finding.level}")


def _name_of(check: Check) -> str:
    return check.__name__.removeprefix("check_")


async def check_server(patient: Patient) -> AsyncIterator[Finding]:
    """Reachable, recent, and durable."""
    rtt = await patient.transport.rtt()
    version = patient.varz.get("version", "")
    yield Finding("server", "ok", f"answers in {rtt * 1000:.1f} ms{f', version {version}' if version else ''}")
    try:
        await patient.transport.require_durable(patient.located.monitor_url)
    except ServerUnfit as error:
        provable = error.error_code != "server.not_provable"
        level: Level = "error" if provable else "warning"
        yield Finding("durability", level, error.message, _FIXES.get(error.error_code, ""), error.error_code)
    else:
        yield Finding("durability", "ok", "the server syncs to disk before it acknowledges")


_FIXES = {
    "server.too_old": "install a newer nats-server",
    "server.not_durable": "set `jetstream { sync_interval: always }` and restart the server",
    "server.not_provable": "set AF_MONITOR_URL to the server's monitoring address, http://host:8222",
}


async def check_streams(patient: Patient) -> AsyncIterator[Finding]:
    """All there, as they should be, and not full."""
    missing = [name for name in STREAMS if name not in patient.streams]
    if missing:
        yield Finding(
            "streams", "error", f"missing: {', '.join(missing)}", "agentflow streams apply", "streams.missing"
        )
        return
    drifts = await _drift(patient)
    for drift in drifts:
        level: Level = "error" if getattr(drift, "protected", False) else "warning"
        yield Finding(
            "streams",
            level,
            str(getattr(drift, "sentence", drift)),
            "agentflow streams apply --update",
            "streams.drift",
        )
    if not drifts:
        yield Finding("streams", "ok", f"all {len(STREAMS)} streams and buckets are there as they should be")
    for info in patient.streams.values():
        limit = info.config.get("max_bytes", -1)
        if limit > 0 and (full := info.bytes / limit) >= FULL_WARNING:
            level = "error" if full >= FULL_ERROR else "warning"
            yield Finding(
                "capacity",
                level,
                f"{info.name} is {full:.0%} full",
                "raise its max_bytes, or lower retention",
                "streams.full",
            )


async def _drift(patient: Patient) -> Sequence[object]:
    """What differs from the definitions. With every stream there, provisioning only compares."""
    choices: dict[str, object] = {"replicas": patient.streams["AF_MESSAGES"].config.get("num_replicas", 1)}
    if patient.located.data_dir and (capacity := remembered(Path(patient.located.data_dir))):
        choices["capacity"] = capacity
    found: list[object] = []
    for point in importlib.metadata.entry_points(group=PROVISIONERS):
        report = await point.load()(patient.transport, **choices)
        found.extend(getattr(report, "drift", ()))
    return found


async def check_services(patient: Patient) -> AsyncIterator[Finding]:
    """Somebody decides, somebody handles, somebody executes."""
    if f"KV_{REGISTRY}" not in patient.streams or f"KV_{CONFIG}" not in patient.streams:
        return
    entries = await (await patient.transport.bucket(REGISTRY)).entries()
    beats = [msgspec.json.decode(entry.value, type=Heartbeat) for entry in entries]
    config = await patient.transport.bucket(CONFIG)
    agents = {entry.key.removeprefix("agent.") for entry in await config.entries("agent.")}
    tools = {entry.key.removeprefix("tool.") for entry in await config.entries("tool.")}
    for kind, needed in (("planner", True), ("runtime", bool(agents)), ("executor", bool(tools)), ("detector", False)):
        pages = {beat.incarnation: beat.detail.get("http", "") for beat in beats if beat.kind == kind}
        if pages:
            where = ", ".join(f"{page}/readyz" for page in sorted(pages.values()) if page)
            yield Finding(kind, "ok", f"{len(pages)} alive{f': {where}' if where else ''}")
        else:
            level: Level = "error" if needed else "warning"
            lacking = "nobody watches tool calls" if kind == "detector" else "what needs one waits"
            fix = f"start agentflow-{kind}, or agentflow dev"
            yield Finding(kind, level, f"none is alive: {lacking}", fix, f"{kind}.absent")
    hosted = {beat.id for beat in beats if beat.kind == "agent"}
    for agent in sorted(agents - hosted):
        yield Finding(
            "agents",
            "warning",
            f"{agent} is declared and no process hosts it",
            "start a runtime with it",
            "agents.absent",
        )


async def check_clock(patient: Patient) -> AsyncIterator[Finding]:
    """Our clock against the server's: deadlines and retries are given as times."""
    if not patient.varz.get("now"):
        return
    clock = SystemClock()
    before = clock.now()
    varz = await asyncio.to_thread(read_varz, patient.located.monitor_url)
    after = clock.now()
    server = _server_time(str(varz["now"]))
    skew = max((before - server).total_seconds(), (server - after).total_seconds(), 0.0)
    level: Level = "error" if skew > SKEW_ERROR else "warning" if skew > SKEW_WARNING else "ok"
    yield Finding(
        "clock",
        level,
        f"{skew:.1f} s off the server's",
        "" if level == "ok" else "synchronise the clocks (NTP)",
        "clock.skew",
    )


def _server_time(text: str) -> datetime:
    """A Go timestamp, whose nanoseconds Python cannot take."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return parse_time(f"{seconds}.{fraction[:6]:0<6}+00:00").astimezone(UTC)


async def check_dead_letters(patient: Patient) -> AsyncIterator[Finding]:
    """Messages that services gave up wait for a person."""
    if (info := patient.streams.get("AF_DEAD")) is None:
        return
    if not info.messages:
        yield Finding("dead letters", "ok", "none", "", "dead.none")
        return
    messages = [(m.body, m.subject, m.seq, m.time) async for m in patient.transport.read("AF_DEAD")]
    found = cases(messages)
    waiting = [case for case in found.values() if case.status == "open"]
    if waiting:
        codes = ", ".join(sorted({case.letter.content.code for case in waiting})[:5])
        told = f"{len(waiting)} of {len(found)} messages that were given up wait for a person: {codes}"
        yield Finding("dead letters", "warning", told, "agentflow dead ls --open", "dead.open")
    elif found:
        yield Finding("dead letters", "ok", f"{len(found)}, none of them open", "", "dead.handled")
    strays = [subject for _, subject, _, _ in messages if subject.count(".") == 2]  # letters; their cases have one more
    if len(strays) > len(found):
        told = f"{len(strays) - len(found)} messages on AF_DEAD are no letters"
        yield Finding("dead letters", "warning", told, "agentflow verify --stream AF_DEAD", "dead.strays")


async def check_disk(patient: Patient) -> AsyncIterator[Finding]:
    """Room where the data is, when that is this machine."""
    if not patient.located.data_dir:
        return
    try:
        free = shutil.disk_usage(patient.located.data_dir).free
    except OSError as error:
        raise MeshError(f"{patient.located.data_dir}: {error.strerror}", code="disk.unreadable") from error
    level: Level = "error" if free < DISK_ERROR else "warning" if free < DISK_WARNING else "ok"
    fix = "" if level == "ok" else "free some space: a server without any stops storing until it is restarted"
    yield Finding("disk", level, f"{free / 1024**3:.1f} GiB free in {patient.located.data_dir}", fix, "disk.free")


CHECKS: tuple[Check, ...] = (
    check_server,
    check_streams,
    check_capacity,
    check_services,
    check_registry,
    check_consumers,
    check_sandbox,
    check_clock,
    check_dead_letters,
    check_disk,
)
"""In the order they are shown."""
