"""The commands this distribution adds to `agentflow`: `streams`, `verify` and (in `dead`) `dead`.

Light on purpose: `agentflow --help` imports this module, so everything heavy is imported where it is used.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, is_terminal, note
from agentflow.cli.session import open_transport
from agentflow_streams import dead

if TYPE_CHECKING:
    from agentflow.mesh.transport import Transport
    from agentflow_streams.findings import Verification
    from agentflow_streams.verification import Progress

CONFLICT, DAMAGED = 7, 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    streams = typer.Typer(help="Look at the streams and buckets of the mesh, or make them.", rich_markup_mode=None)
    streams.callback(invoke_without_command=True, epilog=examples("agentflow streams", "agentflow streams --json"))(
        _all
    )
    streams.command("ls", epilog=examples("agentflow streams ls", "agentflow streams ls --json | jq '.[].drift'"))(ls)
    streams.command(
        "apply",
        epilog=examples(
            "agentflow streams apply", "agentflow streams apply --replicas 3", "agentflow streams apply --update --json"
        ),
    )(apply)
    app.add_typer(streams, name="streams")
    app.command(
        "verify",
        epilog=examples(
            "agentflow verify",
            "agentflow verify --workflow ticket-4711",
            "agentflow verify --stream AF_AUDIT --since 24h",
            "agentflow verify --json | jq .damages",
        ),
    )(verify)
    dead.register(app)


def _all(context: typer.Context, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Look at the streams and buckets of the mesh, or make them."""
    if context.invoked_subcommand is None:
        ls(as_json=as_json, nats_url=nats_url)


@command
async def ls(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """List the streams and buckets: how full they are, and whether they are as the mesh needs them."""
    from agentflow_streams.render import print_streams

    async with open_transport(nats_url) as transport:
        found = await _survey(transport)
    emit(found, as_json=as_json, render=print_streams)


@command
async def apply(
    update: Annotated[bool, typer.Option("--update", help="Mend what differs from the definitions.")] = False,
    replicas: Annotated[int | None, typer.Option(help="Replicas of each stream (AF_REPLICAS).", min=1, max=5)] = None,
    heartbeat: Annotated[float | None, typer.Option(help="Seconds between heartbeats (AF_HEARTBEAT).")] = None,
    capacity: Annotated[float | None, typer.Option(help="Factor on the room each reserves (AF_CAPACITY).")] = None,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Create the streams and buckets that are missing, and tell what differs from the definitions.

    Nothing that exists is changed without --update, and no limit is narrowed where that would drop messages. Ends with
    7 where a setting that protects evidence still differs.
    """
    from agentflow.settings import load
    from agentflow_streams.provision import provision
    from agentflow_streams.render import print_provisioned
    from agentflow_streams.settings import ProvisionSettings

    settings = load(ProvisionSettings, replicas=replicas, heartbeat=heartbeat, capacity=capacity)
    async with open_transport(nats_url) as transport:
        report = await provision(
            transport,
            replicas=settings.replicas,
            registry_ttl=settings.registry_ttl,
            capacity=settings.capacity,
            update=update,
        )
    emit({"safe": report.safe, "streams": report.streams}, as_json=as_json, render=print_provisioned)
    if report.drift and not update:
        note("hint: `agentflow streams apply --update` mends what may be mended")
    if not report.safe:
        raise typer.Exit(CONFLICT)


@command
async def verify(
    workflow: Annotated[
        str, typer.Option("--workflow", "-w", metavar="ID", help="Only this run.", show_default=False)
    ] = "",
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", "-s", metavar="NAME", help="Only this stream; repeatable.", show_default=False),
    ] = None,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Only what was stored since: 30m, 2h, 7d, or RFC 3339.", show_default=False),
    ] = "",
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Check the recorded history.

    Every hash over the stored bytes, every chain, and that whatever is referred to is there. Says what is damaged,
    where and how, and what it cannot vouch for. Ends with 1 when anything is damaged.
    """
    from agentflow_streams.render import print_verification

    result = await _verify(nats_url, workflow, stream or [], since)
    emit(result, as_json=as_json, render=print_verification)
    if not result.ok:
        raise typer.Exit(DAMAGED)


async def _verify(nats_url: str | None, workflow: str, streams: list[str], since: str) -> "Verification":
    from agentflow.clock import SystemClock
    from agentflow_streams import verification
    from agentflow_streams.since import parse_since

    now = SystemClock().now()
    moment = parse_since(since, now) if since else None
    async with open_transport(nats_url) as transport:
        with _Shown() as progress:
            return await verification.verify(
                transport, now=now, workflow=workflow, streams=streams, since=moment, progress=progress
            )


async def _survey(transport: "Transport") -> list[dict[str, Any]]:
    from agentflow.settings import load
    from agentflow_streams.definitions import definitions, fitted
    from agentflow_streams.provision import survey
    from agentflow_streams.settings import ProvisionSettings

    chosen = load(ProvisionSettings)
    wanted = [
        fitted(each, replicas=chosen.replicas, registry_ttl=chosen.registry_ttl, capacity=chosen.capacity)
        for each in definitions()
    ]
    found = []
    for each in await survey(transport, wanted):
        info = each.info
        found.append(
            {
                "name": each.name,
                "exists": info is not None,
                "subjects": list(info.config.get("subjects", [])) if info else [],
                "messages": info.messages if info else 0,
                "bytes": info.bytes if info else 0,
                "max_bytes": info.config.get("max_bytes", -1) if info else 0,
                "first_seq": info.first_seq if info else 0,
                "last_seq": info.last_seq if info else 0,
                "consumers": info.consumers if info else 0,
                "drift": [drift.sentence for drift in each.drift],
                "safe": info is not None and not any(drift.protected for drift in each.drift),
            }
        )
    return found


class _Shown:
    """A progress bar on stderr for whoever looks at a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Progress | None":
        if not is_terminal(sys.stderr):
            return None
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._bar.start()
        return self._advance

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _advance(self, stream: str, done: int, total: int) -> None:
        if stream not in self._tasks:
            self._tasks[stream] = self._bar.add_task(stream, total=total)
        self._bar.update(self._tasks[stream], completed=done)
