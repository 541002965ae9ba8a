"""What every command shares: results on stdout, the rest on stderr, errors as one line or one document."""

import asyncio
import io
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from agentflow.cli import output
from agentflow.cli.output import (
    JsonFlag,
    command,
    describe,
    did_you_mean,
    emit,
    emit_line,
    examples,
    exit_code,
    paint,
    plain,
    table,
    understood,
)
from agentflow.errors import (
    AgentflowError,
    ConfigError,
    Conflict,
    Denied,
    InputError,
    MeshError,
    NotStored,
    OutcomeUnknown,
    RunFailed,
    RunTimeout,
    Unreachable,
)


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Somebody looks at it."""
        return True


def look_at(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make stdout a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    return screen


def raising(error: BaseException) -> Any:
    """A command that ends with an error."""

    @command
    async def fails(as_json: JsonFlag = False) -> None:
        raise error

    return fails


def ended(function: Any, **arguments: Any) -> int:
    """The exit code a command ends with."""
    with pytest.raises(typer.Exit) as caught:
        function(**arguments)
    return caught.value.exit_code


# --- running -------------------------------------------------------------------------------------------------------


def test_async_and_blocking_commands_are_run_alike() -> None:
    """Typer by itself would not run the first at all."""
    ran = []

    @command
    async def one(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)

    @command
    def two(number: int) -> None:
        ran.append(number)

    one(1)
    two(2)
    assert [1, 2] == ran


def test_a_command_keeps_its_signature_and_its_help() -> None:
    """Typer makes the options of it."""

    @command
    async def one(number: int, as_json: JsonFlag = False) -> None:
        """What it does."""

    app = typer.Typer(rich_markup_mode=None)
    app.command()(one)
    shown = typer.main.get_command(app)
    assert "What it does." == shown.help
    assert {"number", "as_json"} <= {parameter.name for parameter in shown.params}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AgentflowError("x"), 1),
        (RunFailed("x"), 1),
        (InputError("x"), 2),
        (ConfigError("x"), 2),
        (NotStored("x"), 3),
        (Unreachable("x"), 4),
        (OutcomeUnknown("x"), 4),
        (MeshError("x"), 4),
        (RunTimeout("x"), 5),
        (Denied("x"), 6),
        (Conflict("x"), 7),
        (NotStored("x", code="mesh.no_responders"), 8),
        (ValueError("x"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    """Scripts tell them apart without reading."""
    assert code == exit_code(error) == ended(raising(error))


def test_an_interrupt_ends_with_130() -> None:
    """As a shell would say it."""

    @command
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert 130 == ended(interrupted)


def test_a_reader_that_went_away_ends_a_command_quietly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`agentflow runs | head -1` prints no error."""

    @command
    def printing() -> None:
        raise BrokenPipeError

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert 141 == ended(printing)


def test_a_command_may_end_with_a_code_of_its_own() -> None:
    """It is passed on."""

    @command
    async def failing() -> None:
        raise typer.Exit(42)

    assert 42 == ended(failing)


# --- errors --------------------------------------------------------------------------------------------------------


def test_an_error_is_a_line_with_its_code_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, and nothing on stdout."""
    ended(raising(NotStored("no run 'x'", code="run.unknown", hint="did you mean y?")))

    out, err = capsys.readouterr()
    assert ("", "error[run.unknown]: no run 'x'\nhint: did you mean y?\n") == (out, err)


def test_with_json_an_error_is_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, with its fields as JSON types, and nothing on stderr."""
    error = Conflict("taken", hint="choose another", path=Path("/x"), stored=datetime(2026, 1, 1, tzinfo=UTC), count=3)
    ended(raising(error), as_json=True)

    out, err = capsys.readouterr()
    assert "" == err
    assert {
        "error": {
            "code": "mesh.conflict",
            "message": "taken",
            "hint": "choose another",
            "fields": {"path": "/x", "stored": "2026-01-01 00:00:00+00:00", "count": 3},
        }
    } == json.loads(out)


def test_an_error_nobody_expected_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    """With how to see more."""
    assert 1 == ended(raising(KeyError("x")))

    err = capsys.readouterr().err
    assert "error[internal]: KeyError: 'x'" in err
    assert "AF_DEBUG=1" in err
    assert "Traceback" not in err


def test_a_traceback_is_shown_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, beside the line."""
    monkeypatch.setenv("AF_DEBUG", "1")
    ended(raising(KeyError("x")))

    assert "Traceback" in capsys.readouterr().err


def test_an_error_without_facts_has_no_empty_members() -> None:
    """Only what there is."""
    assert {"code": "agentflow.error", "message": "x"} == describe(AgentflowError("x"))


# --- results -------------------------------------------------------------------------------------------------------


class Structure(msgspec.Struct):
    """A struct."""

    name: str
    at: Path


@dataclass
class Record:
    """A dataclass."""

    name: str
    inner: Structure


def test_a_result_is_one_json_document_or_what_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Never both."""
    emit({"a": [1, "ä"]}, as_json=True, render=lambda _: pytest.fail("rendered"))
    assert '{"a": [1, "ä"]}\n' == capsys.readouterr().out

    emit({"a": 1}, as_json=False, render=lambda found: output.say(f"a is {found['a']}"))
    assert "a is 1\n" == capsys.readouterr().out


def test_on_a_terminal_json_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    """People look at it there; lines of a stream stay lines."""
    screen = look_at(monkeypatch)
    emit({"a": 1}, as_json=True, render=print)
    emit_line({"a": 1})

    assert '{\n  "a": 1\n}\n{"a": 1}\n' == screen.getvalue()


def test_values_become_json_types() -> None:
    """Structs, dataclasses and collections as objects and arrays, the rest as text."""
    record = Record("r", Structure("s", Path("/x")))

    assert {"name": "r", "inner": {"name": "s", "at": "/x"}} == plain(record)
    assert {"1": [True, None, 1.5, "x"]} == plain({1: (True, None, 1.5, "x")})
    assert ["a"] == plain(frozenset({"a"}))
    assert json.dumps(plain({"e": ValueError("bad")}))


def test_off_a_terminal_a_table_is_whole_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is cut, whatever its width; no colour."""
    wide = "x" * 300
    table(("name", "text"), [("a", wide), ("longer", None)])

    assert f"name    text\na       {wide}\nlonger\n" == capsys.readouterr().out


def test_on_a_terminal_a_table_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And markup in a cell is text."""
    screen = look_at(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    table(("name", "text"), [("a", "x" * 60), ("[red]b[/red]", "y")])

    lines = screen.getvalue().splitlines()
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 40 for line in lines)
    assert any("[red]b[/red]" in line for line in lines)


def test_an_empty_table_says_so_beside_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads stdout gets nothing."""
    table(("name",), [], empty="no runs")

    assert ("", "no runs\n") == capsys.readouterr()


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    terminal: bool, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`NO_COLOR` is honoured."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert coloured == ("\x1b[" in paint("x", "31", Screen() if terminal else io.StringIO()))


# --- hints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("suport", ["support", "refund"], "did you mean support?"),
        ("x", ["b", "a"], "there is a, b"),
        ("x", [], ""),
        ("x", [f"long-name-{n:02}" for n in range(10)], "and 2 more"),
    ],
)
def test_a_typo_is_answered_with_what_is_close_or_what_there_is(given: str, known: list[str], expected: str) -> None:
    """And with nothing where there is nothing."""
    hint = did_you_mean(given, known)
    assert expected in hint
    assert bool(expected) == bool(hint)


def test_examples_keep_their_lines() -> None:
    """The help does not wrap them into one paragraph."""
    app = typer.Typer(rich_markup_mode=None)
    app.command(epilog=examples("agentflow one", "agentflow two --json"))(command(lambda: None))
    shown = typer.main.get_command(app)
    context = shown.make_context("agentflow", [], resilient_parsing=True)

    assert ["Examples:", "agentflow one", "agentflow two --json"] == [
        line.strip() for line in shown.get_help(context).splitlines()[-3:]
    ]


# --- a server without our streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fields", "expected"),
    [
        (
            "read of AF_MESSAGES: 503 \nNats-Subject: $JS",
            {"stream": "AF_MESSAGES"},
            "no stream AF_MESSAGES on this server",
        ),
        ("stream AF_MESSAGES does not exist", {"name": "AF_MESSAGES"}, "no stream AF_MESSAGES on this server"),
        ("bucket AF_CONFIG does not exist; is …", {"name": "KV_AF_CONFIG"}, "no bucket AF_CONFIG on this server"),
    ],
)
def test_a_server_without_our_streams_is_told_in_words(
    message: str, fields: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, how to make them, and the code and exit code there were."""
    assert 3 == ended(raising(NotStored(message, **fields)))
    assert f"error[mesh.not_stored]: {expected}\nhint: agentflow streams apply\n" == capsys.readouterr().err
    assert 3 == ended(raising(NotStored(message, **fields)), as_json=True)
    error = json.loads(capsys.readouterr().out)["error"]
    assert {
        "code": "mesh.not_stored",
        "message": expected,
        "hint": "agentflow streams apply",
        "fields": fields,
    } == error


@pytest.mark.parametrize(
    "error",
    [
        NotStored("get x in AF_CONFIG: not there"),
        NotStored("read of AF_MESSAGES: 408 timeout", stream="AF_MESSAGES"),
        NotStored("stream x does not exist", code="stream.unknown"),
        MeshError("read of AF_MESSAGES: 503"),
        ValueError("read of AF_MESSAGES: 503"),
    ],
)
def test_any_other_error_is_left_as_it_is(error: Exception) -> None:
    """Another code, another status, another class."""
    assert understood(error) is error
