"""The doctor looks at who is alive: clocks, versions, orphans, and what the executors' sandboxes hold."""

import os
import platform
from collections.abc import AsyncIterator, Sequence

import msgspec

from agentflow.cli.findings import Finding, Level, Patient
from agentflow.clock import parse_time
from agentflow.mesh.transport import Entry
from agentflow.registry import REGISTRY, Heartbeat

SKEW_WARNING, SKEW_ERROR = 1.0, 10.0
"""Seconds the clock of a service may differ from the server's; the way of a heartbeat is in it."""

HOSTS = {"agent": "runtime", "tool": "executor"}
"""What is hosted, and by what."""


async def _beats(patient: Patient) -> list[tuple[Entry, Heartbeat]]:
    if f"KV_{REGISTRY}" not in patient.streams:
        return []
    entries = await (await patient.transport.bucket(REGISTRY)).entries()
    found = []
    for entry in entries:
        try:
            found.append((entry, msgspec.json.decode(entry.value, type=Heartbeat)))
        except msgspec.DecodeError:
            continue
    return found


async def check_registry(patient: Patient) -> AsyncIterator[Finding]:
    """Heartbeats: written by clocks that agree, by one version, by processes that are there."""
    beats = await _beats(patient)
    for finding in (*_skews(beats), *_versions([beat for _, beat in beats]), *_orphans([beat for _, beat in beats])):
        yield finding


def _skews(beats: Sequence[tuple[Entry, Heartbeat]]) -> list[Finding]:
    """Each process's clock against the server's, which stamped its heartbeat; once for each process."""
    found, seen = [], set()
    for entry, beat in beats:
        if not beat.beat or beat.incarnation in seen:
            continue
        seen.add(beat.incarnation)
        try:
            skew = abs((entry.time - parse_time(beat.beat)).total_seconds())
        except ValueError:
            continue
        if skew > SKEW_WARNING:
            level: Level = "error" if skew > SKEW_ERROR else "warning"
            told = f"{beat.kind} {beat.id} on {beat.host} is {skew:.1f} s off the server's"
            found.append(Finding("clock", level, told, f"synchronise the clock of {beat.host} (NTP)", "clock.skew"))
    return found


def _versions(beats: Sequence[Heartbeat]) -> list[Finding]:
    versions = sorted({beat.version for beat in beats if beat.version})
    if len(versions) < 2:
        return []
    told = f"services run different versions: {', '.join(versions)}"
    return [Finding("versions", "warning", told, "upgrade them all; runs in flight go on", "versions.differ")]


def _orphans(beats: Sequence[Heartbeat]) -> list[Finding]:
    """Entries whose process is gone, or that no process of theirs stands behind."""
    services = {(beat.kind, beat.incarnation) for beat in beats}
    found = []
    for beat in beats:
        host = HOSTS.get(beat.kind, beat.kind)
        gone = beat.host == platform.node() and not _runs(beat.pid)
        if gone or (host, beat.incarnation) not in services:
            why = f"its process {beat.pid} is gone" if gone else f"no {host} stands behind it"
            told = f"{beat.kind} {beat.id}: {why}"
            fix = "it goes by itself after three heartbeats; if it stays, nats kv del AF_REGISTRY KEY"
            found.append(Finding("registry", "warning", told, fix, "registry.orphan"))
    return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


async def check_sandbox(patient: Patient) -> AsyncIterator[Finding]:
    """What the sandbox of each live executor holds where it runs, and what it cannot; each kind once."""
    told = set()
    for _, beat in await _beats(patient):
        holds, lacks = beat.detail.get("holds"), beat.detail.get("lacks")
        if beat.kind != "executor" or not isinstance(holds, list) or not isinstance(lacks, list):
            continue
        level: Level = "warning" if beat.detail.get("own_user") is False else "ok"
        fix = "run the executor as root, so that tools run as another user" if level == "warning" else ""
        code = "sandbox.same_user" if level == "warning" else "sandbox.process"
        message = f"{beat.detail.get('sandbox')}: holds {', '.join(holds)}; does not hold {', '.join(lacks)}"
        if message not in told:
            told.add(message)
            yield Finding("sandbox", level, message, fix, code)
