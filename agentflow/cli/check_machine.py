"""The doctor looks at this machine: the settings that hold here, and who listens on the usual ports."""

import asyncio
from collections.abc import Sequence

from agentflow.cli.findings import Finding
from agentflow.configuration.layers import SECTIONS
from agentflow.configuration.resolving import check, common_settings, resolve, settings_of, warnings

PORTS = {4222: "nats-server", 8222: "its monitoring"}
"""What `agentflow dev` listens on unless it is told otherwise."""

LOOK = 0.5
"""Seconds a port is looked at."""


def settings_findings() -> list[Finding]:
    """Everything that is wrong with the settings of whatever is installed here."""
    models = [(common_settings(), ""), *((settings_of(name), name) for name in SECTIONS)]
    problems = [each for model, name in models if model for each in resolve(model, section=name).problems]
    wrong = dict.fromkeys([*problems, *check()])
    found = [Finding("settings", "error", str(each), "agentflow config check", each.code) for each in wrong]
    odd = [Finding("settings", "warning", str(each), "agentflow config check", each.code) for each in warnings()]
    return [*found, *odd] or [Finding("settings", "ok", "usable", "", "config.ok")]


async def ports_findings(url: str, ports: Sequence[int] = tuple(PORTS)) -> list[Finding]:
    """Who listens on the usual ports of this machine; somebody else there keeps a mesh from starting."""
    found, listening = [], []
    for port in ports:
        kind = await listener(port)
        if kind == "other" and port == ports[0]:
            told = f"{port} is taken by something that is no NATS server"
            fix = f"agentflow dev --port takes another; `ss -ltnp 'sport = :{port}'` says who it is"
            found.append(Finding("ports", "warning", told, fix, "ports.taken"))
        elif kind:
            listening.append(f"{port} ({kind})")
    told = (
        f"listening here: {', '.join(listening)}" if listening else "nothing listens on the usual ports of this machine"
    )
    return found or [Finding("ports", "ok", told, "", "ports.ok")]


async def listener(port: int) -> str:
    """What answers on a port of this machine: `nats`, `other`, or nothing."""
    try:
        async with asyncio.timeout(LOOK):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return ""
    try:
        async with asyncio.timeout(LOOK):
            return "nats" if (await reader.read(5)) == b"INFO " else "other"
    except (OSError, TimeoutError):
        return "other"
    finally:
        writer.close()
