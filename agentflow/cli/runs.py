"""`agentflow submit`, `watch`, `runs` and `show`: giving work and looking at it."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from agentflow.cli.output import (
    INTERRUPTED,
    JsonFlag,
    NatsUrl,
    command,
    did_you_mean,
    emit,
    emit_line,
    examples,
    note,
    paint,
    say,
    table,
)
from agentflow.cli.session import open_client

if TYPE_CHECKING:
    from agentflow.client import Client
    from agentflow.errors import NotStored
    from agentflow.run import Run
    from agentflow.runs import RunEvent, RunState, Status

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", min=0, metavar="SECONDS", help="Stop watching then, with exit code 5.", show_default=False
    ),
]
STATUSES = ("submitted", "running", "completed", "failed", "cancelled", "rejected")
_COLOURS = {"completed": "32", "failed": "31", "rejected": "31", "cancelled": "33", "running": "36"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "submit",
        epilog=examples(
            """agentflow submit support --input '{"text": "my card never came"}' --follow""",
            "agentflow submit support@1.2.0 --input @ticket.json --id ticket-4711",
            "jq .ticket queue.json | agentflow submit support --input - --json",
        ),
    )(submit)
    app.command("watch", epilog=examples("agentflow watch ticket-4711", "agentflow watch ticket-4711 --json"))(watch)
    app.command(
        "runs", epilog=examples("agentflow runs --status running", "agentflow runs --workflow support --limit 5 --json")
    )(runs)
    app.command("show", epilog=examples("agentflow show ticket-4711", "agentflow show ticket-4711 --json"))(show)


@command
async def submit(
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="NAME (its latest version) or NAME@VERSION.")],
    input: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="An object: JSON, @FILE, or - for stdin.")
    ] = "{}",
    id: Annotated[
        str | None,
        typer.Option("--id", help="The run's id; the same goal under it again is the same run.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch the run to its end.")] = False,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Start a run of a workflow.

    The goal is stored when this ends; with --follow the run is watched to its end, as `agentflow watch` does.
    """
    from agentflow.cli.arguments import json_object

    given = json_object(input, "--input")
    async with open_client(nats_url) as client:
        definition = await _resolved(client, goal)
        run = await client.submit(goal, given, id=id)
        submitted = {"run": run.id, "workflow": definition, "stored": True}
        if follow:
            if as_json:
                emit_line(submitted)
            else:
                note(f"run {run.id} of {definition}")
            await _follow(client, run, timeout, as_json=as_json)
            return
    emit(submitted, as_json=as_json, render=_print_submitted)


async def _resolved(client: "Client", goal: str) -> str:
    """`name@version` of what a goal asks for now; a goal that would be rejected is not even sent."""
    from agentflow.definitions import resolve_goal
    from agentflow.errors import NotStored

    try:
        declaration = await resolve_goal(client.transport, goal)
    except NotStored as error:
        names, versions = error.fields.get("names"), error.fields.get("versions")
        if versions or not isinstance(names, list):
            raise
        hint = did_you_mean(goal, names) or "nothing is applied yet: agentflow apply FILE"
        raise NotStored(error.message, code=error.error_code, goal=goal, names=names, hint=hint) from error
    return f"{declaration.name}@{declaration.version}"


def _print_submitted(submitted: dict[str, Any]) -> None:
    say(submitted["run"])
    note(f"stored as a run of {submitted['workflow']}; agentflow watch {submitted['run']}")


@command
async def watch(run: RunId, timeout: Timeout = None, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Watch a run to its end.

    Begins with what has happened so far. Exit code 0 if the run completed, 1 if it did not, 5 after --timeout.
    """
    async with open_client(nats_url) as client:
        await _follow(client, client.run(run), timeout, as_json=as_json)


async def _follow(client: "Client", run: "Run", timeout: float | None, *, as_json: bool) -> None:
    """Print events as they come, and how the run ended."""
    import asyncio

    from agentflow.errors import NotStored, RunTimeout

    try:
        async with asyncio.timeout(timeout):
            async for event in run.events():
                _print_event(event, as_json=as_json)
        state = await run.state()
    except TimeoutError:
        state = await run.state()
        raise RunTimeout(
            f"run {run.id} has not ended after {timeout:g} s: it waits for {state.waiting_for}",
            run_id=run.id,
            state=state,
            hint=f"it goes on: agentflow watch {run.id}",
        ) from None
    except asyncio.CancelledError:
        note(f"the run goes on: agentflow watch {run.id}")
        raise typer.Exit(INTERRUPTED) from None
    except NotStored as error:
        raise await with_suggestions(client, error, run.id) from error
    _print_end(state, as_json=as_json)


def _print_event(event: "RunEvent", *, as_json: bool) -> None:
    from agentflow.cli.timeline import as_object, in_a_line

    if as_json:
        emit_line({"event": as_object(event)})
    else:
        say(in_a_line(event), flush=True)


def _print_end(state: "RunState", *, as_json: bool) -> None:
    """The last line, and the exit code."""
    import json

    if as_json:
        emit_line({"run": state})
    elif state.status == "completed":
        say(json.dumps(state.output, indent=2, ensure_ascii=False))
    else:
        error = state.error
        note(f"{painted(state.status)}{f': {error.message} ({error.code})' if error else ''}")
    if state.status != "completed":
        raise typer.Exit(1)


@command
async def runs(
    status: Annotated[
        str | None, typer.Option("--status", help=f"One of {', '.join(STATUSES)}.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", help="NAME or NAME@VERSION.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest.")] = 20,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """List runs, the newest first."""
    from agentflow.errors import InputError

    if status is not None and status not in STATUSES:
        raise InputError(
            f"there is no status {status!r}", code="status.unknown", found=status, hint=did_you_mean(status, STATUSES)
        )
    async with open_client(nats_url) as client:
        found = await client.runs(status=cast("Status | None", status), workflow=workflow, limit=limit)
        if workflow is not None and not found:
            await _note_unknown(client, workflow)
    emit(found, as_json=as_json, render=_print_runs)


async def _note_unknown(client: "Client", workflow: str) -> None:
    """Say so when nothing of that name was ever applied: a filter is easily misspelt."""
    from agentflow.definitions import list_definitions

    names = {each.name for each in await list_definitions(client.transport)}
    if workflow.partition("@")[0] not in names:
        note(f"no definition {workflow!r} is applied; {did_you_mean(workflow, names) or 'nothing is'}")


def _print_runs(found: list["RunState"]) -> None:
    from agentflow.cli.timeline import short_time

    rows = [
        (state.id, state.workflow, state.status, state.state, state.steps, short_time(state.submitted), _about(state))
        for state in found
    ]
    table(("run", "workflow", "status", "state", "steps", "submitted", "waits for"), rows, empty="no runs")


def _about(state: "RunState") -> str:
    if state.status in ("failed", "rejected") and state.error is not None:
        return f"({state.error.code})"
    return state.waiting_for


@command
async def show(run: RunId, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Show all there is about a run.

    Where it stands, what it waits for, and every message that is stored about it.
    """
    from agentflow import subjects
    from agentflow.cli.timeline import as_object
    from agentflow.errors import NotStored
    from agentflow.run import STREAM, stored_event
    from agentflow.runs import fold

    async with open_client(nats_url) as client:
        handle = client.run(run)
        try:
            await handle.state()
        except NotStored as error:
            raise await with_suggestions(client, error, run) from error
        messages = client.transport.read(STREAM, subjects.workflow_all(handle.id))
        events = [await stored_event(client.transport, message) async for message in messages]
    state = fold(run, events)
    if as_json:
        emit({"run": state, "events": [as_object(event) for event in events]}, as_json=True, render=say)
    else:
        _print_state(state, events)


def _print_state(state: "RunState", events: list["RunEvent"]) -> None:
    import json

    from agentflow.cli.timeline import in_a_line

    facts = [
        ("run", state.id),
        ("workflow", state.workflow),
        ("status", painted(state.status)),
        ("state", f"{state.state} (attempt {state.attempt})" if state.attempt else state.state),
        ("waits for", state.waiting_for),
        ("submitted", state.submitted),
        ("updated", state.updated),
        ("steps", str(state.steps)),
        ("error", f"{state.error.message} ({state.error.code}, {state.error.blame})" if state.error else ""),
        ("output", json.dumps(state.output, ensure_ascii=False) if state.status == "completed" else ""),
    ]
    for name, value in facts:
        if value:
            say(f"{name:<10} {value}")
    say()
    for event in events:
        say(in_a_line(event))


def painted(status: str) -> str:
    """A status in its colour."""
    import sys

    return paint(status, _COLOURS.get(status, "0"), sys.stdout)


async def with_suggestions(client: "Client", error: "NotStored", run_id: str) -> "NotStored":
    """The error, with the ids that are close to the one given."""
    from agentflow import subjects
    from agentflow.errors import MeshError, NotStored
    from agentflow.run import STREAM

    if error.error_code != "run.unknown":
        return error
    known: set[str] = set()
    try:
        async for message in client.transport.read(STREAM, "workflows.*.in"):
            known.add(subjects.parse(message.subject).owner)
    except NotStored as missing:
        return missing  # no run is known where there is no stream of them
    except MeshError:
        pass
    hint = did_you_mean(run_id, known) or "there are no runs yet: agentflow submit GOAL"
    return NotStored(error.message, code=error.error_code, run_id=run_id, hint=hint)
