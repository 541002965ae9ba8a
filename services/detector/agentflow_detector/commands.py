"""The commands this distribution adds to `agentflow`: `anomalies` and `breakers`.

Light on purpose: `agentflow --help` imports this module, so everything heavy is imported where it is used.
"""

from typing import Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, note, say, table
from agentflow.cli.session import open_transport

Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as tool.refund, agent.clerk, workflow.support.")]
AnomalyId = Annotated[str, typer.Argument(metavar="ID", help="The anomaly's id, or the beginning of it.")]
Last = Annotated[int, typer.Option("--last", "-n", metavar="N", min=1, help="Only the last so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    anomalies = typer.Typer(help="What the detector found in the tool calls.", rich_markup_mode=None)
    anomalies.callback(invoke_without_command=True, epilog=examples("agentflow anomalies", "agentflow anomalies -n 5"))(
        _anomalies
    )
    anomalies.command("ls", epilog=examples("agentflow anomalies ls", "agentflow anomalies ls --json | jq '.[].rule'"))(
        list_anomalies
    )
    anomalies.command("show", epilog=examples("agentflow anomalies show 01KDVDNA0052M1JH6P0M9FE9GR"))(show_anomaly)
    app.add_typer(anomalies, name="anomalies")
    breakers = typer.Typer(help="What the detector has blocked, and taking a block back.", rich_markup_mode=None)
    breakers.callback(invoke_without_command=True, epilog=examples("agentflow breakers", "agentflow breakers --json"))(
        _breakers
    )
    breakers.command("ls", epilog=examples("agentflow breakers ls", "agentflow breakers ls --json"))(list_breakers)
    breakers.command("show", epilog=examples("agentflow breakers show tool.refund"))(show_breaker)
    breakers.command("reset", epilog=examples("agentflow breakers reset agent.clerk"))(reset_breaker)
    app.add_typer(breakers, name="breakers")


def _anomalies(context: typer.Context, last: Last = 50, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """What the detector found in the tool calls."""
    if context.invoked_subcommand is None:
        list_anomalies(last=last, as_json=as_json, nats_url=nats_url)


def _breakers(context: typer.Context, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """What the detector has blocked, and taking a block back."""
    if context.invoked_subcommand is None:
        list_breakers(as_json=as_json, nats_url=nats_url)


@command
async def list_anomalies(last: Last = 50, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """List the findings, the oldest first."""
    from agentflow_detector.findings import read_anomalies

    async with open_transport(nats_url) as transport:
        found = (await read_anomalies(transport))[-last:]
    emit(found, as_json=as_json, render=_print_anomalies)


@command
async def show_anomaly(anomaly: AnomalyId, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Show one finding, with the calls that made it."""
    from agentflow_detector.findings import find_anomaly

    async with open_transport(nats_url) as transport:
        found = await find_anomaly(transport, anomaly)
    emit(found, as_json=as_json, render=_print_anomaly)


@command
async def list_breakers(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """List the breakers, open ones and those that have closed."""
    from agentflow_detector.findings import read_breakers

    async with open_transport(nats_url) as transport:
        found = await read_breakers(transport)
    emit(found, as_json=as_json, render=_print_breakers)


@command
async def show_breaker(name: Name, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Show one breaker: whether it is open, until when, and why."""
    from agentflow_detector.findings import find_breaker

    async with open_transport(nats_url) as transport:
        found = await find_breaker(transport, name)
    emit(found, as_json=as_json, render=_print_breaker)


@command
async def reset_breaker(name: Name, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Close a breaker now.

    What was found before does not open it again; a new finding does. This ends when the reset is stored.
    """
    from agentflow_detector.findings import reset

    async with open_transport(nats_url) as transport:
        found = await reset(transport, name)
    emit(found, as_json=as_json, render=_print_breaker)


def _print_anomalies(found: list[dict[str, Any]]) -> None:
    rows = [(e["stored"], e["severity"], e["rule"], _about(e), ", ".join(e["breakers"]), e["id"]) for e in found]
    table(("stored", "severity", "rule", "about", "blocked", "id"), rows, empty="nothing was found")


def _print_anomaly(found: dict[str, Any]) -> None:
    say(f"{found['id']}  {found['severity']}  {found['rule']} ({found['kind']})")
    say(f"  {_about(found)}, tenant {found['tenant']}: {found['detail']}")
    say(f"  done: {', '.join(found['actions'])}")
    if found["breakers"]:
        say(f"  blocked until {found['until']}: {', '.join(found['breakers'])}")
    for name, value in found["features"].items():
        say(f"  {name}: {value}")
    say(f"  made by {found['count']} calls, the last of them:")
    for each in found["evidence"]:
        say(f"    {each['subject']}  {each['id']}  {each['hash']}")


def _about(found: dict[str, Any]) -> str:
    named = (("tool", "tool"), ("principal", "by"), ("workflow_id", "run"))
    return " ".join(f"{word} {found[member]}" for member, word in named if found[member]) or "the tenant"


def _print_breakers(found: list[dict[str, Any]]) -> None:
    rows = [(each["name"], each["state"], each["until"], each["rule"], each["anomaly"]) for each in found]
    table(("name", "state", "until", "rule", "anomaly"), rows, empty="nothing is or was blocked")


def _print_breaker(found: dict[str, Any]) -> None:
    say(f"{found['name']} is {found['state']}")
    say(f"  blocked {found['since']} until {found['until']} by rule {found['rule']}: {found['reason']}")
    note(f"more: agentflow anomalies show {found['anomaly']}")
