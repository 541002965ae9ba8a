"""The commands `anomalies` and `breakers`, as a shell runs them, on a real server."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.registry import BREAKERS
from agentflow_detector import commands
from agentflow_streams.provision import provision
from tests.services.detector.histories import breakers, rapid, record, ruleset, watch
from tests.support.nats_server import NatsServer

HEAVY = ("nats", "pydantic", "rich", "asyncio", "structlog", "msgspec", "yaml", "opentelemetry")


async def shell(*arguments: str) -> Result:
    """Run a command beside a running event loop, as `agentflow` would."""
    app = typer.Typer(rich_markup_mode=None)
    commands.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


def told(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


async def caught(transport: JetStreamTransport) -> None:
    """A mesh on which the agent `clerk` was caught and is blocked for an hour."""
    await provision(transport)
    for number in range(3):
        await record(transport, number)
    await watch(transport, ruleset(rapid(block_seconds=3600)))


async def test_a_mesh_without_findings_says_so(server: NatsServer, transport: JetStreamTransport) -> None:
    """An empty list is a list, and no error."""
    await provision(transport)

    for name in ("anomalies", "breakers"):
        listed = await shell(name, "ls", "--nats-url", server.url, "--json")
        assert (0, []) == (listed.exit_code, told(listed))


async def test_findings_are_listed_and_shown(server: NatsServer, transport: JetStreamTransport) -> None:
    """In a table, as JSON, and one by the beginning of its id, with its evidence."""
    await caught(transport)

    table = await shell("anomalies", "--nats-url", server.url)
    [listed] = told(await shell("anomalies", "ls", "--json", "--nats-url", server.url))
    shown = await shell("anomalies", "show", listed["id"][:20], "--nats-url", server.url)

    assert all(
        word in table.stdout for word in ("rapid", "medium", "tool lookup by clerk", "agent.clerk", listed["id"])
    )
    assert ("rapid", 3, ["agent.clerk"]) == (listed["rule"], len(listed["evidence"]), listed["breakers"])
    assert all(each["hash"] in shown.stdout for each in listed["evidence"])


async def test_a_breaker_is_listed_shown_and_reset(server: NatsServer, transport: JetStreamTransport) -> None:
    """A reset is stored when the command ends, and only that one."""
    await caught(transport)

    [listed] = told(await shell("breakers", "--json", "--nats-url", server.url))
    shown = await shell("breakers", "show", "agent.clerk", "--nats-url", server.url)
    reset = await shell("breakers", "reset", "agent.clerk", "--nats-url", server.url, "--json")

    assert ("agent.clerk", "open") == (listed["name"], listed["state"])
    assert "agent.clerk is open" in shown.stdout
    assert (0, "reset") == (reset.exit_code, told(reset)["state"])
    assert (await breakers(transport))["agent.clerk"].reset


async def test_a_breaker_nobody_can_read_can_be_reset(server: NatsServer, transport: JetStreamTransport) -> None:
    """It blocks all calls as it is, so there has to be a way out."""
    await provision(transport)
    await (await transport.bucket(BREAKERS)).put("tool.refund", b"junk")

    listed = told(await shell("breakers", "ls", "--json", "--nats-url", server.url))
    reset = await shell("breakers", "reset", "tool.refund", "--nats-url", server.url)

    assert ["unreadable: blocks all"] == [each["state"] for each in listed]
    assert 0 == reset.exit_code
    assert (await breakers(transport))["tool.refund"].reset


@pytest.mark.parametrize(
    ("arguments", "code", "ended"),
    [
        (("breakers", "reset", "agent.clrk"), "breaker.unknown", 3),
        (("breakers", "show", "tool.x"), "breaker.unknown", 3),
        (("anomalies", "show", "01ZZ"), "anomaly.unknown", 3),
    ],
)
async def test_what_is_not_there_is_told_with_what_is(
    server: NatsServer, transport: JetStreamTransport, arguments: tuple[str, ...], code: str, ended: int
) -> None:
    """A stable code, a hint, and exit code 3."""
    await caught(transport)

    result = await shell(*arguments, "--nats-url", server.url, "--json")

    assert ended == result.exit_code
    assert code == told(result)["error"]["code"]
    assert told(result)["error"]["hint"]


def test_the_commands_are_light_and_explain_themselves() -> None:
    """`agentflow --help` imports this module; every command has an example."""
    look = f"import sys, agentflow_detector.commands; print([m for m in {HEAVY!r} if m in sys.modules])"
    argv = [sys.executable, "-c", look]
    assert "[]" == subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    app = typer.Typer(rich_markup_mode=None)
    commands.register(app)
    for arguments in (["anomalies"], ["anomalies", "ls"], ["anomalies", "show"], ["breakers", "reset"]):
        assert f"agentflow {' '.join(arguments)}" in CliRunner().invoke(app, [*arguments, "--help"]).stdout
