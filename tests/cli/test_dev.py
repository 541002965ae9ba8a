"""`agentflow dev`: a mesh until Ctrl-C, and nothing left of it."""

import asyncio
import contextlib
import json
import os
import pty
import shlex
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentflow.cli import dev
from agentflow.definitions import Applied
from agentflow.local.mesh import LocalMesh
from agentflow.mesh.server_binary import Binary
from agentflow.registry import WorkflowDeclaration
from tests.cli.terminal import Terminal
from tests.support.pids import gone
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import agentflow.local.services as services
from agentflow.cli.app import main
from tests.local.conftest import StubProgram
services.installed_programs = lambda: {name: StubProgram(name, "stub") for name in services.REQUIRED}
main(sys.argv[1:])
"""
"""The program, with stubs for services, so that what is tested is the command."""


@contextlib.asynccontextmanager
async def program(*arguments: str, stdout: int = PIPE, **environment: str) -> AsyncIterator[Process]:
    """The command as a process; killed at the end, if it is still there."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        "dev",
        *arguments,
        stdout=stdout,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ready(process: Process) -> Any:
    """What it says when it is ready."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line, (await process.communicate())[1].decode()
    return json.loads(line)


def is_there(path: str) -> bool:
    """Whether a file or folder exists."""
    return Path(path).exists()


def family(process: Process) -> list[int]:
    """Its processes."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


async def end(process: Process, which: signal.Signals) -> tuple[int, str]:
    """Send it a signal; its exit code, and what it said to people."""
    process.send_signal(which)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err, err
    return process.returncode, err.decode()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_dev_runs_until_it_is_interrupted_and_leaves_no_process(which: signal.Signals, tmp_path: Path) -> None:
    """Exit code 0; where everything is was said in one line; the data is kept."""
    async with program("--json", "--port", "0", "--data-dir", str(tmp_path / "data")) as process:
        said = await ready(process)
        processes = family(process)
        code, err = await end(process, which)

    assert (True, str(tmp_path / "data"), str(tmp_path / "data" / "logs"), False) == (
        said["ready"],
        said["data_dir"],
        said["logs"],
        said["ephemeral"],
    )
    assert said["nats_url"].startswith("nats://127.0.0.1:")
    assert "agentflow submit GOAL --input '{}' --follow" == said["next"]
    assert {"planner", "executor"} == set(said["processes"])
    assert {pid for pids in said["processes"].values() for pid in pids} < set(processes)
    assert 0 == code
    assert f"everything is kept in {tmp_path / 'data'}" in err
    assert all(map(gone, processes))


async def test_other_commands_find_a_mesh_that_runs(tmp_path: Path) -> None:
    """Without being told where it is."""
    async with program("--json", "--port", "0", "--ephemeral") as process:
        said = await ready(process)
        doctor = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentflow", "doctor", "--json", stdout=PIPE, stderr=PIPE
        )
        out, _ = await doctor.communicate()
        await end(process, signal.SIGINT)

    report = json.loads(out)
    assert (said["nats_url"], "local mesh") == (report["mesh"], report["found_by"])
    broken = {each["check"] for each in report["findings"] if each["level"] == "error"}
    assert broken <= {"consumers"}  # the stubs attach to none
    assert not is_there(said["data_dir"])


async def test_an_interrupt_before_it_is_ready_stops_everything(tmp_path: Path) -> None:
    """Exit code 130."""
    async with program("--json", "--port", "0", "--data-dir", str(tmp_path / "data"), STUB_MODE="silent") as process:
        await eventually(lambda: len(family(process)) >= 3, "the services' start", within=60)
        processes = family(process)
        code, _ = await end(process, signal.SIGINT)

    assert 130 == code
    assert all(map(gone, processes))


async def test_a_service_that_fails_ends_dev_with_its_reason(tmp_path: Path) -> None:
    """Exit code 4, and nothing is left running."""
    async with program("--port", "0", "--data-dir", str(tmp_path / "data"), STUB_MODE="exit") as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)

    assert 4 == process.returncode
    assert b"error[service.exited]" in err
    assert b"the stub was told to fail" in err


async def test_on_a_terminal_a_box_says_where_everything_is(tmp_path: Path) -> None:
    """With the next commands."""
    main_end, other_end = pty.openpty()
    try:
        async with program(
            "--port", "0", "--data-dir", str(tmp_path), stdout=other_end, COLUMNS="200", TERM="xterm"
        ) as process:
            shown = ""
            while "╰" not in shown:
                shown += (await asyncio.wait_for(asyncio.to_thread(os.read, main_end, 65536), 60)).decode()
            await end(process, signal.SIGINT)
    finally:
        os.close(main_end)
        os.close(other_end)

    lines = shown.splitlines()
    assert 1 == len({len(line) for line in lines if line.startswith(("╭", "│", "╰"))})
    for text in ("nats://127.0.0.1:", str(tmp_path), "agentflow submit", "agentflow doctor", "Ctrl-C"):
        assert text in shown


# --- what it is given ----------------------------------------------------------------------------------------------


def test_data_dir_and_ephemeral_exclude_each_other(terminal: Terminal, tmp_path: Path) -> None:
    """One or the other."""
    ended = terminal("dev", "--ephemeral", "--data-dir", str(tmp_path))

    assert 2 == ended.code
    assert "error[usage.exclusive]" in ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [("agents: 7", "array"), ("bogus: 1", "bogus"), ("a: [", "agentflow.yaml"), ("tools: [{}]", "use")],
)
def test_a_project_file_that_is_wrong_is_named(text: str, words: str, terminal: Terminal, tmp_path: Path) -> None:
    """Before anything is started."""
    (tmp_path / "agentflow.yaml").write_text(text)
    ended = terminal("dev", "--project", str(tmp_path / "agentflow.yaml"), "--port", "0")

    assert 2 == ended.code
    assert "error[project.invalid]" in ended.err
    assert words in ended.err


def test_a_missing_binary_is_one_clear_message(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4."""
    monkeypatch.setenv("AF_NATS_SERVER_BIN", "/nowhere/nats-server")
    monkeypatch.chdir(tmp_path)
    ended = terminal("dev", "--ephemeral")

    assert 4 == ended.code
    assert "error[server.not_found]: cannot start a local mesh: AF_NATS_SERVER_BIN=/nowhere/nats-server" in ended.err
    assert "hint: pip install 'agentflow-mesh[embedded]'" in ended.err


def test_the_project_of_the_present_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is one."""
    monkeypatch.chdir(tmp_path)
    assert dev.project_here() is None
    (tmp_path / "agentflow.yaml").write_text("")
    assert Path("agentflow.yaml") == dev.project_here()


def test_data_is_kept_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG specification has it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert tmp_path / "agentflow" / "dev" == dev.default_data_dir()


def test_off_a_terminal_the_box_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """For logs and for other programs."""
    dev.box(["one", "two"])

    assert "one\ntwo\n" == capsys.readouterr().out


def test_the_next_command_is_one_that_the_workflow_takes(tmp_path: Path) -> None:
    """The keys its definition requires are filled, and the shell sees one word."""
    (tmp_path / "agentflow.yaml").write_text("workflows: [flow.yaml]\n")
    schema = {"type": "object", "required": ["ticket's", "n"], "properties": {"n": {"type": "integer"}, "o": {}}}
    (tmp_path / "flow.yaml").write_text(json.dumps({"input_schema": schema}))
    mesh = LocalMesh(tmp_path / "data", project=tmp_path / "agentflow.yaml")
    mesh.server.binary = Binary(Path("nats-server"), "PATH")
    mesh.applied.append(Applied(WorkflowDeclaration("flow", "1.0.0", "fsm", "0" * 64, ""), new=True))
    words = shlex.split(dev.describe(mesh)["next"])

    assert ["agentflow", "submit", "flow", "--input"] == words[:4]
    assert {"ticket's": "…", "n": 1} == json.loads(words[4])
    assert ["--follow"] == words[5:]
