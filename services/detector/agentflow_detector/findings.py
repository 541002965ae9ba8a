"""What the commands read and write: stored anomalies, and breakers."""

from typing import Any

import msgspec
from msgspec.structs import replace

from agentflow.breakers import Breaker, is_open, read_breaker
from agentflow.cli.output import did_you_mean
from agentflow.clock import Clock, SystemClock, format_time
from agentflow.envelope import unseal
from agentflow.errors import Conflict, EvidenceError, InputError, NotStored
from agentflow.mesh.transport import Bucket, Entry, Message, Transport
from agentflow.payloads import ToolAnomaly
from agentflow.registry import BREAKERS
from agentflow.schemas import payload_as

ANOMALIES = "tools.anomaly.*"

_CLOCK: Clock = SystemClock()


async def read_anomalies(transport: Transport) -> list[dict[str, Any]]:
    """Every stored anomaly, in stream order; what is none is left out (`agentflow verify` tells of it)."""
    found = [_anomaly(message) async for message in transport.read("AF_AUDIT", ANOMALIES)]
    return [each for each in found if each is not None]


async def find_anomaly(transport: Transport, start: str) -> dict[str, Any]:
    """The one anomaly whose id begins with `start`; raises `NotStored`, or `InputError` where there are several."""
    every = await read_anomalies(transport)
    found = [each for each in every if each["id"].startswith(start)]
    if not found:
        hint = did_you_mean(start, (each["id"] for each in every))
        raise NotStored(f"there is no anomaly {start!r}", code="anomaly.unknown", hint=hint)
    if len(found) > 1:
        raise InputError(f"{len(found)} anomalies begin with {start!r}", code="anomaly.ambiguous", found=start)
    return found[0]


async def read_breakers(transport: Transport, clock: Clock = _CLOCK) -> list[dict[str, Any]]:
    """Every breaker, by name."""
    bucket = await transport.bucket(BREAKERS)
    return [_breaker(entry, clock) for entry in await bucket.entries()]


async def find_breaker(transport: Transport, name: str, clock: Clock = _CLOCK) -> dict[str, Any]:
    """One breaker; raises `NotStored`."""
    return _breaker(await _entry(await transport.bucket(BREAKERS), name), clock)


async def reset(transport: Transport, name: str, clock: Clock = _CLOCK) -> dict[str, Any]:
    """Close a breaker, and note that it was; one that cannot be read is taken away. Raises `NotStored`."""
    bucket = await transport.bucket(BREAKERS)
    while True:
        entry = await _entry(bucket, name)
        try:
            breaker = replace(read_breaker(name, entry.value), reset=True)
        except EvidenceError:
            breaker = _unreadable(clock)
        try:
            await bucket.update(name, msgspec.json.encode(breaker), entry.revision)
        except Conflict:
            continue
        return _breaker(await _entry(bucket, name), clock)


async def _entry(bucket: Bucket, name: str) -> Entry:
    entries = {entry.key: entry for entry in await bucket.entries()}
    if name not in entries:
        hint = did_you_mean(name, entries)
        raise NotStored(f"{name!r} is not blocked and never was", code="breaker.unknown", name=name, hint=hint)
    return entries[name]


def _anomaly(message: Message) -> dict[str, Any] | None:
    try:
        sealed = unseal(message.body, message.subject)
        anomaly = payload_as(sealed, ToolAnomaly)
    except InputError:
        return None
    told: dict[str, Any] = msgspec.to_builtins(anomaly)
    return {"id": sealed.envelope.id, "stored": format_time(message.time), "found": sealed.envelope.ts, **told}


def _breaker(entry: Entry, clock: Clock) -> dict[str, Any]:
    try:
        breaker = read_breaker(entry.key, entry.value)
    except EvidenceError:
        return {"name": entry.key, "state": "unreadable: blocks all", **msgspec.to_builtins(_unreadable(clock))}
    state = "open" if is_open(breaker, clock.now()) else "reset" if breaker.reset else "closed"
    return {"name": entry.key, "state": state, **msgspec.to_builtins(breaker)}


def _unreadable(clock: Clock) -> Breaker:
    """Stands in for what cannot be read."""
    now = format_time(clock.now())
    return Breaker(until=now, since=now, rule="", anomaly="", reason="what was there could not be read", reset=True)
