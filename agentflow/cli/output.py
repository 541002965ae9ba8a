"""What every command shares: how it runs, what it prints where, and how it ends.

Used by the commands here and by those other distributions add (entry point group `agentflow.commands`):

    def register(app: typer.Typer) -> None:
        @app.command("things", help="…", epilog=examples("agentflow things --json"))
        @command
        async def things(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
            emit(found, as_json=as_json, render=show)

The rules (and `command` holds them, for blocking and async functions alike):

- results go to stdout, and only results; progress, hints and errors for people go to stderr;
- with `--json` stdout is one JSON document, or one a line where a command follows something; an error is that
  document: `{"error": {"code", "message", "hint"?, "fields"?}}`, so a caller parses one place and looks at the exit code;
- an error for people is `error[code]: message` and, where there is one, a line `hint: …`; never a traceback unless
  `AF_DEBUG=1` asks for one;
- exit codes: 0 ok, 1 failed, 2 usage or bad input, 3 not found, 4 no broker, 5 timed out, 6 denied, 7 conflict,
  8 no responders, 130 interrupted, 141 the reader of stdout went away;
- no colour and no animation off a terminal, or with `NO_COLOR`.

Light on purpose: `--help` imports this module, so it imports typer and nothing else that is heavy.
"""

import difflib
import functools
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, ParamSpec, TextIO

import typer

from agentflow.errors import AgentflowError, NotStored

P = ParamSpec("P")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, errors included.")]
"""Every command takes it, under the name `as_json`."""

NatsUrl = Annotated[
    str | None,
    typer.Option(
        "--nats-url",
        metavar="URL",
        help="The mesh's broker. Default: the settings, the last local mesh that is up, port 4222 here.",
        show_default=False,
    ),
]
"""Where the mesh is; `agentflow.cli.session` finds it when it is not given."""

INTERRUPTED, READER_GONE = 130, 141
_EXIT_BY_CODE = {"mesh.no_responders": 8}
_MISSING = re.compile(r"read of (\S+): 503|(stream|bucket|object store) (\S+) does not exist")


def command(function: Callable[P, Any]) -> Callable[P, None]:
    """Wrap a command: async functions are run, errors become one line or one JSON document and an exit code.

    Typer itself ignores `async def` without a word. The flag `--json` is the parameter `as_json`.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            outcome = function(*args, **kwargs)
            if inspect.iscoroutine(outcome):
                import asyncio

                asyncio.run(outcome)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(READER_GONE) from None
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, a person gets one line
            fail(error, as_json=bool(kwargs.get("as_json")))

    return run


def emit(result: Any, *, as_json: bool, render: Callable[[Any], None]) -> None:
    """Print a command's result: as one JSON document, or for people through `render`, which prints to stdout."""
    if as_json:
        say(json.dumps(result, default=plain, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
    else:
        render(result)


def emit_line(result: Any) -> None:
    """Print one JSON document on a line of its own and flush: for commands that follow something."""
    say(json.dumps(result, default=plain, ensure_ascii=False), flush=True)


def say(text: str = "", *, flush: bool = False) -> None:
    """Print a line of a result to stdout."""
    print(text, flush=flush)  # noqa: T201 - the console is what this module is


def note(text: str) -> None:
    """Print a hint or progress to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the console is what this module is


def fail(error: BaseException, *, as_json: bool) -> NoReturn:
    """Print an error where the caller looks for it, and end with its exit code."""
    if os.environ.get("AF_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    described = describe(understood(error))
    if as_json:
        emit_line({"error": described})
    else:
        head = paint(f"error[{described['code']}]:", "31;1", sys.stderr)
        note(f"{head} {described['message']}")
        if "hint" in described:
            note(f"hint: {described['hint']}")
    raise typer.Exit(exit_code(error)) from None


def understood(error: BaseException) -> BaseException:
    """The error as a person can act on it: a server without our streams answers a read with 503 and nothing else."""
    if not isinstance(error, NotStored) or error.error_code != NotStored.code:
        return error
    if (found := _MISSING.match(error.message)) is None:
        return error
    kind, name = found[2] or "stream", found[1] or found[3]
    plainer = NotStored(f"no {kind} {name} on this server")
    plainer.fields = {**error.fields, "hint": "agentflow streams apply"}
    return plainer


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the JSON object commands print: code, message, and where they exist hint and fields."""
    if not isinstance(error, AgentflowError):
        return {
            "code": "internal",
            "message": f"{type(error).__name__}: {error}",
            "hint": "this should not happen; AF_DEBUG=1 shows where it did",
        }
    found: dict[str, Any] = {"code": error.error_code, "message": error.message}
    fields = {name: plain(value) for name, value in error.fields.items() if name != "hint"}
    if hint := error.fields.get("hint"):
        found["hint"] = str(hint)
    if fields:
        found["fields"] = fields
    return found


def exit_code(error: BaseException) -> int:
    """The exit code an error ends a command with."""
    if isinstance(error, AgentflowError):
        return _EXIT_BY_CODE.get(error.error_code, error.exit_code)
    return 1


def plain(value: Any) -> Any:
    """A value as JSON types: structs and dataclasses as objects, anything JSON has no form for as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        import msgspec

        return msgspec.to_builtins(value, enc_hook=str)
    if fields := getattr(value, "__dataclass_fields__", None):
        return {name: plain(getattr(value, name)) for name in fields}
    return str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing") -> None:
    """Print rows to stdout: fitted to the terminal, or, off a terminal, whole and aligned for other programs."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    if is_terminal(sys.stdout):
        _rich_table(headers, cells)
        return
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    for line in [list(headers), *cells]:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream just now."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, ansi: str, stream: TextIO) -> str:
    """Colour `text` with an ANSI code on a terminal, or where `FORCE_COLOR` asks for it; never with `NO_COLOR`."""
    if os.environ.get("NO_COLOR") or not (is_terminal(stream) or os.environ.get("FORCE_COLOR")):
        return text
    return f"\x1b[{ansi}m{text}\x1b[0m"


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint that names what is close to `given`, or else what there is; empty when there is nothing."""
    names = sorted(set(known))
    if close := difflib.get_close_matches(given, names, n=3, cutoff=0.5):
        return "did you mean " + " or ".join(close) + "?"
    if not names:
        return ""
    return "there is " + ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
