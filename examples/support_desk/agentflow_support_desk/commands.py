"""`agentflow demo`. Light at import: the program's help imports it."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentflow.cli.output import JsonFlag, command, emit, examples, is_terminal, note, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentflow_support_desk.chaos import Wish
    from agentflow_support_desk.demo import Outcome, Progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "demo",
        epilog=examples(
            "agentflow demo",
            "agentflow demo --limit 20 --json",
            "agentflow demo --chaos --seed 7",
            "agentflow demo --tickets queries.csv --examples labelled.csv",
        ),
    )(demo)


@command
async def demo(  # noqa: PLR0917  # a command's options; nobody passes them by position
    tickets: Annotated[
        Path | None,
        typer.Option("--tickets", help="CSV with a column `text` (and `category`). Default: the shipped tickets."),
    ] = None,
    learn_from: Annotated[
        Path | None,
        typer.Option("--examples", help="CSV with `text` and `category` to learn from. Default: the shipped examples."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Work only the first N tickets.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where everything is kept. Default: a new folder in the user data directory."),
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill and freeze processes while tickets are in flight.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="With --chaos: the same seed plans the same faults. Default: a new one."),
    ] = None,
    kills: Annotated[
        int | None, typer.Option("--kills", min=1, help="With --chaos: how often each process is killed. Default: 3.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Work a bank's support tickets through a mesh on this machine.

    Starts nats-server, planner, runtime, executor and detector as separate processes; each ticket is classified, looked up,
    answered or handed to a person. Needs no account and no key; with OPENAI_API_KEY or OPENAI_BASE_URL set, a model
    drafts the answers. Everything is kept in the data directory that is named at the end. Exit code 0 when every
    ticket was worked, nothing was lost or done twice, every stored message verifies, and every run, decided again from
    its record, is what was recorded.

    With --chaos two processes of each service share the work. Each of them and nats-server are killed (SIGKILL) while
    tickets are in flight, a runtime, an executor and a planner are frozen for five seconds; each fault is told on
    stderr. Then exit code 0 says besides that every fault fell on work and that every process came back.
    """
    import asyncio

    from agentflow_support_desk.classifier import check_examples
    from agentflow_support_desk.demo import run_demo
    from agentflow_support_desk.tickets import MATERIAL, load_examples, load_tickets

    wish = chaos_wish(chaos, seed, kills)
    work = await asyncio.to_thread(load_tickets, tickets or MATERIAL / "tickets.csv", limit)
    if learn_from is not None:
        check_examples(await asyncio.to_thread(load_examples, learn_from))
    directory = data_dir or new_data_dir()
    with progress_bar() as progress:
        outcome = await run_demo(work, directory, examples=learn_from, note=note, progress=progress, chaos=wish)
    emit(outcome.figures, as_json=as_json, render=lambda _: show(outcome))
    if not is_good(outcome):
        raise typer.Exit(1)


def chaos_wish(chaos: bool, seed: int | None, kills: int | None) -> "Wish | None":
    """The chaos that the flags ask for; raises `InputError` (`usage.exclusive`) for its flags without it."""
    import secrets

    from agentflow.errors import InputError
    from agentflow_support_desk.chaos import Wish

    if not chaos and (seed is not None or kills is not None):
        raise InputError("--seed and --kills go with --chaos", code="usage.exclusive")
    return Wish(secrets.randbelow(10_000) if seed is None else seed, kills or 3) if chaos else None


def new_data_dir() -> Path:
    """A folder of its own for a run, under the user's data directory."""
    import secrets
    import time

    import platformdirs

    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    return platformdirs.user_data_path("agentflow") / "demo" / name


def is_good(outcome: "Outcome") -> bool:
    """Whether the demo showed what it is meant to show."""
    figures = outcome.figures
    replayed = figures["replay"]["matched"] == figures["replay"]["runs"]
    sound = figures["verify"]["ok"] and replayed
    return bool(sound and not (figures["failed"] or figures["lost"] or figures["duplicates"] or failings(outcome)))


def failings(outcome: "Outcome") -> list[str]:
    """What a chaos run did not show; nothing for a quiet one."""
    from agentflow_support_desk.chaos_figures import shortcomings

    return shortcomings(outcome.figures) if "chaos" in outcome.figures else []


@contextlib.contextmanager
def progress_bar() -> "Iterator[Progress]":
    """A bar on a terminal, a line now and then elsewhere; both on stderr."""
    if not is_terminal(sys.stderr):
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("tickets"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tickets", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _line(done: int, total: int) -> None:
    if done and (done == total or done % 50 == 0):
        note(f"{done} of {total} tickets")


def show(outcome: "Outcome") -> None:
    """The summary for people."""
    figures, states = outcome.figures, outcome.states
    wall = figures["workflow_ms"]
    say(f"{figures['tickets']} tickets: {', '.join(f'{count} {state}' for state, count in states.items())}")
    if figures["accuracy"] is not None:
        say(f"understood rightly: {figures['accuracy']:.1%} of the labelled tickets")
    say(f"a ticket took {wall['p50']:.0f} ms (p50), {wall['p95']:.0f} ms (p95); {figures['workflows_per_s']} a second")
    say(f"effects lost: {figures['lost']}, done twice: {figures['duplicates']} (counted in the outbox and the cases)")
    say(f"anomalies found: {figures['anomalies']}, blocked for a while: {figures['blocked']} (tools or agents)")
    if "chaos" in figures:
        show_chaos(outcome)
    checked = figures["verify"]
    word = "all verify" if checked["ok"] else "DAMAGED"
    say(f"evidence: {checked['envelopes']} envelopes in {checked['chains']} chains: {word}")
    replayed = figures["replay"]
    word = "all match" if replayed["matched"] == replayed["runs"] else "THEY DIFFER"
    say(f"replay: {replayed['matched']} of {replayed['runs']} runs were decided again byte for byte: {word}")
    for sentence in (outcome.damages + outcome.divergences)[:10]:
        say(f"  {sentence}")
    for worked in outcome.worked:
        if worked.status != "completed":
            say(f"  {worked.run_id} {worked.status}: {worked.detail}")
    say(f"kept in {figures['data_dir']}")
    say()
    say("Look further:")
    mesh = outcome.desk.mesh
    say(f"  head -3 {outcome.desk.outbox}")
    say(f"  agentflow dev --project {outcome.desk.project} --data-dir {mesh}   # the same mesh again, then beside it:")
    say("  agentflow show ticket-0001 && agentflow verify --workflow ticket-0001 && agentflow replay ticket-0001")
    say("  agentflow anomalies && agentflow breakers")


def show_chaos(outcome: "Outcome") -> None:
    """The summary of the faults."""
    figures = outcome.figures
    killed = ", ".join(f"{process} {count}" for process, count in figures["kills"].items())
    recovery, restart = figures["recovery_ms"], figures["restart_ms"]
    say(f"killed: {killed}; frozen: {', '.join(figures['freezes'])} (seed {figures['chaos']['seed']})")
    say(f"in flight at each fault: at least {figures['in_flight']['least']} tickets")
    say(f"from a kill to the next ticket's end: {recovery['p50']:.0f} ms (p50), {recovery['max']:.0f} ms (max)")
    say(f"from a kill until the process was up: {restart['p50']:.0f} ms (p50), {restart['max']:.0f} ms (max)")
    say(f"effects cut off and resolved by their tool's check: {figures['reconciled']}; dead: {figures['dead_letters']}")
    for sentence in failings(outcome):
        say(f"  {sentence}")
