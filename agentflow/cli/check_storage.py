"""The doctor looks at what is kept: subjects in the server's memory, and room in its store."""

from collections.abc import AsyncIterator
from typing import Any

from agentflow.cli.findings import Finding, Level, Patient
from agentflow.clock import SystemClock

SUBJECT_BYTES = 512
"""Memory of the server for each subject, about (measured)."""

MEMORY_WARNING = 2 * 1024**3
"""Bytes of it that should be noticed."""

STORE_WARNING, STORE_ERROR = 0.8, 0.95
"""How full the server's store may be."""

YOUNGEST = 3600.0
"""Seconds a stream must exist until anything is foretold from it."""

_NANOSECOND = 1e-9


async def check_capacity(patient: Patient) -> AsyncIterator[Finding]:
    """What subjects cost now and will cost, and how full the store is."""
    subjects = sum(info.subjects for info in patient.streams.values())
    ahead = foretold(patient)
    worst = max(subjects, ahead) * SUBJECT_BYTES
    level: Level = "warning" if worst > MEMORY_WARNING else "ok"
    future = f"; at this rate {ahead * SUBJECT_BYTES / 2**20:.1f} MiB when retention is reached" if ahead else ""
    told = f"{subjects} subjects, about {subjects * SUBJECT_BYTES / 2**20:.1f} MiB of server memory{future}"
    fix = (
        "lower max_age of AF_MESSAGES, AF_AGENTS and AF_AUDIT, or give the server more memory" if level != "ok" else ""
    )
    yield Finding("capacity", level, told, fix, "capacity.memory")
    for finding in _store(patient.varz):
        yield finding


def foretold(patient: Patient) -> int:
    """Subjects there will be when each stream is as old as what it keeps, at the rate so far; 0 where that is not known.

    Each run leaves subjects on several streams, until they expire: retention times runs.
    """
    now, total = SystemClock().now(), 0.0
    for info in patient.streams.values():
        age = (now - info.created).total_seconds()
        kept = float(info.config.get("max_age", 0)) * _NANOSECOND
        if age < YOUNGEST or info.name.startswith(("KV_", "OBJ_")):
            continue
        total += info.subjects * max(1.0, kept / age)
    return int(total)


def _store(varz: dict[str, Any]) -> list[Finding]:
    """The server's own limit, as its monitoring port tells it."""
    account = varz.get("jetstream") or {}
    limit = (account.get("config") or {}).get("max_storage", 0)
    used = (account.get("stats") or {}).get("storage", 0)
    if not limit or limit < 0 or (full := used / limit) < STORE_WARNING:
        return []
    level: Level = "error" if full > STORE_ERROR else "warning"
    told = f"the server's store is {full:.0%} full ({used / 2**30:.1f} of {limit / 2**30:.1f} GiB)"
    return [Finding("capacity", level, told, "raise max_file_store, or lower retention", "capacity.store")]
