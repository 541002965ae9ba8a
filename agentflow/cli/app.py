"""The program `agentflow`: its commands put together, and the one place where it ends.

Commands of other distributions come in by the entry point group `agentflow.commands`: a light `register(app)` each.
Everything imported here is imported by `agentflow --help`, so the modules are light and do their imports inside.
"""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from agentflow.cli import apply, config, dev, doctor, runs, session, steer, version, why
from agentflow.cli.output import INTERRUPTED, emit_line, note, paint
from agentflow.errors import ConfigError

COMMANDS = "agentflow.commands"
USAGE = 2


def build() -> typer.Typer:
    """The whole program, commands of other distributions included."""
    app = typer.Typer(
        name="agentflow",
        help="Run AI agents on NATS JetStream: durable, verifiable, replayable.",
        epilog="Start with: agentflow dev. Every command takes --json and --help.",
        rich_markup_mode=None,  # drawing the help with rich would take 150 ms
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for module in (dev, apply, runs, steer, why, doctor, version, config):
        module.register(app)
    _add_plugins(app)
    return app


def _root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
    nats_context: Annotated[
        str,
        typer.Option("--context", metavar="NAME", help="Context of the nats CLI to connect with.", show_default=False),
    ] = "",
) -> None:
    session.use_context(nats_context)
    if show_version:
        version.show_version()
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _add_plugins(app: typer.Typer) -> None:
    for point in sorted(importlib.metadata.entry_points(group=COMMANDS), key=lambda point: point.name):
        try:
            point.load()(app)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in does, the other commands work
            note(f"warning: commands of {point.name!r} are not available: {type(error).__name__}: {error}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and end the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the program; returns its exit code."""
    try:
        with _traced():
            ended = build()(args=list(arguments), prog_name="agentflow", standalone_mode=False)
    except TyperException as error:
        return _usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except ConfigError as error:  # of the tracing itself: a command tells its own
        note(f"{paint(f'error[{error.error_code}]:', '31;1', sys.stderr)} {error}")
        return error.exit_code
    return ended if isinstance(ended, int) else 0


def _traced() -> contextlib.AbstractContextManager[object]:
    """Spans of what a command does, such as submitting a goal; its stdout belongs to its results."""
    if not (os.environ.get("AF_TRACES") or os.environ.get("OTEL_TRACES_EXPORTER")):
        return contextlib.nullcontext()
    from agentflow.telemetry.tracing import traced

    return traced("agentflow-cli", traces=os.environ.get("AF_TRACES"), console=sys.stderr)


def _usage(error: TyperException, arguments: Sequence[str]) -> int:
    """What was typed is no command, or not one like that."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path if context else 'agentflow'} --help"
    if "--json" in arguments:
        emit_line({"error": {"code": "usage", "message": message, "hint": hint}})
    else:
        note(f"{paint('error[usage]:', '31;1', sys.stderr)} {message}")
        note(f"hint: {hint}")
    if os.environ.get("AF_DEBUG") == "1":
        raise error
    return error.exit_code
