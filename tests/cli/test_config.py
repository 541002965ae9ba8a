"""`agentflow config`: what holds, where it comes from, and what is wrong."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agentflow.configuration.catalogue import settings
from agentflow.configuration.layers import Surroundings
from agentflow.configuration.resolving import check, resolve
from agentflow.settings import ServiceSettings
from tests.cli.terminal import Terminal

SECRET = "hunter2-secret"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without any file."""
    found = tmp_path / "here"
    found.mkdir()
    monkeypatch.chdir(found)
    return found


def row(document: Any, name: str) -> dict[str, Any]:
    """One setting of what `show --json` prints."""
    found: dict[str, Any] = next(each for each in document["settings"] if each["name"] == name)
    return found


def test_every_value_is_shown_with_its_origin(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one service, its own table included."""
    (folder / "agentflow.toml").write_text("heartbeat = 3\n[executor]\nconcurrency = 9\n")
    monkeypatch.setenv("AF_ACK_WAIT", "2")
    shown = terminal("config", "show", "--service", "executor", "--json").json

    file = folder / "agentflow.toml"
    assert [
        (2.0, "environment", "AF_ACK_WAIT"),
        (3.0, "agentflow.toml", f"{file}:1"),
        (9, "agentflow.toml", f"{file}:3"),
        (1, "default", ""),
    ] == [
        (each["value"], each["origin"], each["where"])
        for each in (row(shown, name) for name in ("ack_wait", "heartbeat", "concurrency", "replicas"))
    ]


def test_people_see_the_same(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with --origin the place."""
    monkeypatch.setenv("AF_ACK_WAIT", "2")

    plain, with_origin = terminal("config", "show"), terminal("config", "show", "--origin")

    assert "AF_ACK_WAIT" not in plain.out
    assert ["ack_wait", "2.0", "AF_ACK_WAIT"] == next(
        line.split() for line in with_origin.out.splitlines() if line.startswith("ack_wait")
    )


def test_no_secret_is_shown(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is set is; of an address the user is masked."""
    monkeypatch.setenv("AF_DB_DSN", f"postgresql://me:{SECRET}@db/mesh")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("AF_NATS_URL", f"nats://me:{SECRET}@host:4222")
    ended = terminal("config", "show", "--json")

    assert SECRET not in ended.out + ended.err
    assert ("***", "nats://***@host:4222") == (row(ended.json, "db_dsn")["value"], row(ended.json, "nats_url")["value"])
    key = next(each for each in ended.json["variables"] if each["name"] == "OPENAI_API_KEY")
    assert (True, None) == (key["set"], key["value"])
    assert SECRET not in "".join(terminal("config", "show", "--origin").out)


def test_what_nothing_reads_is_said(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it, and as a warning where it is set."""
    monkeypatch.setenv("AF_MODEL_BACKENDS", "openai,vllm")
    shown = terminal("config", "show", "--json").json

    assert (["openai", "vllm"], "not used by this version") == (
        row(shown, "model_backends")["value"],
        row(shown, "model_backends")["note"],
    )
    assert ["AF_MODEL_BACKENDS"] == [each["where"] for each in shown["warnings"]]
    assert "warning: AF_MODEL_BACKENDS: " in terminal("config", "show").err


def test_a_check_tells_everything_of_every_service(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors and warnings, each once; exit code 2."""
    (folder / "agentflow.toml").write_text('[planner]\ncel_engine = "lua"\n[executor]\nconcurency = 1\n')
    monkeypatch.setenv("AF_ACK_WAIT", "soon")
    monkeypatch.setenv("AF_HEARTBAET", "1")
    ended = terminal("config", "check", "--json")

    file = folder / "agentflow.toml"
    assert 2 == ended.code
    assert [f"{file}:2", f"{file}:4", "AF_ACK_WAIT"] == sorted(each["where"] for each in ended.json["problems"])
    assert ["AF_HEARTBAET"] == [each["where"] for each in ended.json["warnings"]]
    assert "did you mean AF_HEARTBEAT?" in terminal("config", "check").out


def test_settings_that_are_fine_are_said_to_be(terminal: Terminal) -> None:
    """With exit code 0."""
    assert (0, "the settings are usable\n") == (terminal("config", "check").code, terminal("config", "check").out)


def test_an_unknown_service_is_refused_with_a_suggestion(terminal: Terminal) -> None:
    """Before anything is read."""
    error = terminal("config", "show", "--service", "planer", "--json").json["error"]

    assert ("config.unknown_service", "did you mean planner?") == (error["code"], error["hint"])


def test_wrong_settings_end_any_command_that_needs_them(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is wrong, not with a connection to somewhere else."""
    monkeypatch.setenv("NATS_CONTEXT", "nowhere")
    ended = terminal("runs", "--json")

    assert (2, "config.invalid") == (ended.code, ended.json["error"]["code"])
    assert "NATS_CONTEXT" in ended.json["error"]["message"]


def test_a_context_may_be_named_before_the_command(terminal: Terminal, tmp_path: Path) -> None:
    """`agentflow --context NAME …`: its address is where the command looks."""
    contexts = tmp_path / "xdg_config_home" / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "office.json").write_text('{"url": "memory://nobody-here"}')
    ended = terminal("--context", "office", "doctor", "--json")

    assert ("memory://nobody-here", "--context") == (ended.json["mesh"], ended.json["found_by"])
    assert "--context" != terminal("doctor", "--json").json["found_by"]


def test_a_first_file_names_every_setting_and_sets_none(terminal: Terminal, folder: Path) -> None:
    """And with every line taken in, it is a file without a problem."""
    path = folder / "agentflow.toml"
    assert 0 == terminal("config", "init").code
    text = path.read_text()

    assert {name: {} for name in ("planner", "runtime", "executor", "streams")}.items() <= tomllib.loads(text).items()
    assert [] == [each.name for each in settings() if each.kind != "secret" and f"# {each.name} = " not in text]
    taken = [line[2:] if " = " in line and line.startswith("# ") else line for line in text.splitlines()]
    path.write_text("\n".join(line for line in taken if not line.endswith('= ""')))
    assert [] == check(Surroundings.here())
    assert () == resolve(ServiceSettings).problems


def test_a_file_that_is_there_is_kept(terminal: Terminal, folder: Path) -> None:
    """Unless --force says otherwise."""
    path = folder / "agentflow.toml"
    path.write_text("replicas = 3\n")

    assert 7 == terminal("config", "init").code
    assert "replicas = 3\n" == path.read_text()
    assert 0 == terminal("config", "init", "--force").code
    assert "replicas = 3\n" != path.read_text()


def test_colour_can_be_forced_and_forbidden(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    """`FORCE_COLOR` off a terminal; `NO_COLOR` is stronger."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in terminal("runs", "--nats-url", "nats://127.0.0.1:1").err

    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in terminal("runs", "--nats-url", "nats://127.0.0.1:1").err
