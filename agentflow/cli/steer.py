"""`agentflow signal` and `cancel`: steering a run. They end when what they say is stored."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, note, say
from agentflow.cli.runs import RunId, with_suggestions
from agentflow.cli.session import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentflow.run import Run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "signal",
        epilog=examples(
            "agentflow signal ticket-4711 approved",
            """agentflow signal ticket-4711 approved --data '{"by": "ann"}'""",
        ),
    )(signal)
    app.command(
        "cancel", epilog=examples("agentflow cancel ticket-4711", "agentflow cancel ticket-4711 --reason 'a duplicate'")
    )(cancel)


@command
async def signal(
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)],
    data: Annotated[str, typer.Option("--data", "-d", metavar="JSON", help="An object: JSON, @FILE, or -.")] = "{}",
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Tell a run of an outside event.

    This ends when the signal is stored.
    """
    from agentflow.cli.arguments import json_object

    given = json_object(data, "--data")
    await _tell(run, nats_url, lambda handle: handle.signal(name, given))
    emit({"run": run, "signal": name, "stored": True}, as_json=as_json, render=_print_signal)


def _print_signal(told: dict[str, Any]) -> None:
    say(f"the signal {told['signal']!r} is stored for run {told['run']}")


@command
async def cancel(
    run: RunId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept with the run.")] = "",
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Ask for a run's end.

    Nothing new is started then; this ends when the request is stored.
    """
    await _tell(run, nats_url, lambda handle: handle.cancel(reason))
    emit({"run": run, "cancel": reason, "stored": True}, as_json=as_json, render=_print_cancel)


def _print_cancel(told: dict[str, Any]) -> None:
    say(f"the cancel is stored for run {told['run']}")
    note(f"the run ends when its planner has taken note: agentflow watch {told['run']}")


async def _tell(run_id: str, nats_url: str | None, tell: "Callable[[Run], Awaitable[None]]") -> None:
    from agentflow.errors import NotStored

    async with open_client(nats_url) as client:
        try:
            await tell(client.run(run_id))
        except NotStored as error:
            raise await with_suggestions(client, error, run_id) from error
