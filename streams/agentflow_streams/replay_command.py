"""`agentflow replay`. Light at import: the program's help imports it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, is_terminal, note, say
from agentflow.cli.session import open_transport
from agentflow.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime

    from agentflow_streams.fidelity import ReplayReport
    from agentflow_streams.replay import Progress

DIVERGED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "replay",
        epilog=examples(
            "agentflow replay ticket-4711",
            "agentflow replay --all --since 24h --json | jq .replay",
            "agentflow replay --dump ticket.json ticket-4711",
            "agentflow replay --file ticket.json",
        ),
    )(replay)


@command
async def replay(
    *,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="The runs.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs, in one pass over their stream.")] = False,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="With --all: what was decided since: 30m, 2h, 7d, RFC 3339.", show_default=False
        ),
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="What was decided until then; as --since.", show_default=False)
    ] = "",
    from_seq: Annotated[
        int, typer.Option(min=1, help="With --all: from this sequence of AF_MESSAGES on, such as a noted one.")
    ] = 1,
    to_seq: Annotated[
        int | None, typer.Option(min=0, help="Up to this sequence of AF_MESSAGES.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Replay recorded histories from a file; needs no mesh.", show_default=False),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", help="Write the recorded histories to a file instead.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Decide recorded runs again and compare.

    Every decision is made again from the recorded inputs, with the recorded clock, ids and seed, and compared byte for
    byte with what is stored, and so is every command it sends. Nothing is written, no tool runs, no secret is read. The
    first divergence of a run is shown with both decisions and the values the conditions read. Ends with 1 when a run
    differs or cannot be replayed.
    """
    names = runs or []
    _check(names, every=every, window=bool(since or from_seq > 1), file=file, dump=dump)
    if dump is not None:
        written = await _dump(dump, names, nats_url)
        emit({"dump": written}, as_json=as_json, render=lambda _: say(f"{written['runs']} runs kept in {dump}"))
        return
    report = await (_from_file(file, names) if file else _from_mesh(nats_url, names, since, until, from_seq, to_seq))
    from agentflow_streams.replay_render import print_replay

    emit(report, as_json=as_json, render=print_replay)
    if not report.ok:
        raise typer.Exit(DIVERGED)


def _check(names: list[str], *, every: bool, window: bool, file: Path | None, dump: Path | None) -> None:
    """Refuse what cannot be meant."""
    problem = ""
    if file is not None and dump is not None:
        problem = "--file and --dump exclude each other"
    elif names and every:
        problem = "name runs, or give --all, not both"
    elif not names and not every and file is None:
        problem = "which runs? Name them, or give --all"
    elif window and (not every or file is not None or dump is not None):
        problem = "--since and --from-seq go with --all: a named run is replayed from its beginning"
    if problem:
        raise InputError(problem, code="usage.replay", hint="agentflow replay --help")


async def _from_mesh(
    nats_url: str | None, names: list[str], since: str, until: str, from_seq: int, to_seq: int | None
) -> "ReplayReport":
    from agentflow_streams.replay import replay_runs

    after, before = _moment(since), _moment(until)
    async with open_transport(nats_url) as transport:
        return await replay_runs(
            transport,
            runs=names,
            since=after,
            until=before,
            from_seq=from_seq,
            to_seq=to_seq,
            progress=None if names else _progress(),
        )


def _moment(text: str) -> "datetime | None":
    from agentflow.clock import SystemClock
    from agentflow_streams.since import parse_since

    return parse_since(text, SystemClock().now()) if text else None


async def _from_file(file: Path, names: list[str]) -> "ReplayReport":
    import asyncio

    from agentflow_streams.recordings import decode
    from agentflow_streams.replay import replay_histories

    try:
        data = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}", code="recording.unreadable", path=str(file)) from error
    return await replay_histories(decode(data, str(file)), names)


async def _dump(path: Path, names: list[str], nats_url: str | None) -> dict[str, object]:
    import asyncio

    from agentflow_streams.readonly import ReadOnly
    from agentflow_streams.recorder import record_runs
    from agentflow_streams.recordings import encode

    async with open_transport(nats_url) as transport:
        histories = await record_runs(ReadOnly(transport), names)
    data = encode(histories)
    try:
        await asyncio.to_thread(path.write_bytes, data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", code="recording.unwritable", path=str(path)) from error
    return {"file": str(path), "runs": len(histories.runs), "messages": len(histories.messages), "bytes": len(data)}


def _progress() -> "Progress":
    """A line that is written over on a terminal, a line a tenth elsewhere; both on stderr."""
    told = -1

    def advance(done: int, total: int) -> None:
        nonlocal told
        if is_terminal(sys.stderr):
            sys.stderr.write(f"\r{done} of {total} messages" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif (tenth := done * 10 // max(1, total)) != told:
            told = tenth
            note(f"{done} of {total} messages")

    return advance
