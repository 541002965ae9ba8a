"""The executor as a command: help, bad settings, a bad project, and a whole life against a real server."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.payloads import ToolCompleted
from agentflow.registry import REGISTRY
from agentflow.schemas import payload_as
from agentflow_executor.__main__ import main
from agentflow_executor.errors import SandboxUnavailable
from agentflow_executor.sandbox import ProcessSandbox
from agentflow_streams.provision import provision
from tests.services.executor.harness import Desk, ScriptedSandbox, call, catalog, planned
from tests.services.executor.worlds import AS_ROOT, NOBODY
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

PATHS = os.pathsep.join(path for path in sys.path if path)


def test_help_says_what_it_is_and_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags, settings, an example and the exit codes."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])

    said = capsys.readouterr().out
    assert 0 == caught.value.code
    assert all(word in said for word in ("--project", "--nats-url", "AF_SANDBOX", "example:", "exit codes"))


def test_an_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(["--nonsense"])

    assert 2 == caught.value.code
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AF_CONCURRENCY", "0", "AF_CONCURRENCY"),
        ("AF_SANDBOX", "gvisor", "not built yet"),
        ("AF_SANDBOX_UID", "0", "AF_SANDBOX_UID"),
        ("AF_CRASH_AT", "executor.never", "AF_CRASH_AT"),
        ("AF_PROJECT", "no/such/file.yaml", "no/such/file.yaml"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    """No traceback, and nothing was started. Tools never run as root: user 0 is refused."""
    monkeypatch.setenv(variable, value)

    assert 2 == main([])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("agentflow-executor: ")
    assert said in line


def test_a_bad_tool_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project file, and the tool in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    project = tmp_path / "agentflow.yaml"
    project.write_text("tools: [{use: 'missing_module:thing'}]")

    assert 2 == main(["--project", str(project)])
    assert f"{project}: tool missing_module:thing" in capsys.readouterr().err


def test_a_mesh_that_is_not_there_is_exit_code_4() -> None:
    """After the time a first connection may take."""
    done = _run(["--nats-url", "nats://127.0.0.1:1"], AF_CONNECT_TIMEOUT="0.3")

    assert 4 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr


def _run(arguments: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "agentflow_executor", *arguments]
    return subprocess.run(
        command, env={**environment, "PYTHONPATH": PATHS}, capture_output=True, text=True, check=False
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A provisioned server."""
    with NatsServer(tmp_path / "nats") as found:
        mesh = await JetStreamTransport.connect(found.url)
        await provision(mesh)
        await mesh.close()
        yield found


PROJECT = """
tools:
  - use: shop_tools:price
  - use: shop_tools:order
    grants: {orders: {path: orders.txt, mode: append}}
allow:
  agents: {clerk: [price]}
  workflows: {support: [order]}
"""
TOOLS = '''
"""Tools of a shop, next to its project file."""

from agentflow.tools import ToolContext, tool

@tool(effect="pure")
def price(ctx: ToolContext, item: str) -> dict[str, int]:
    """Look a price up."""
    return {"cents": len(item) * 100}

@tool(effect="irreversible", permissions=["fs.append:orders"])
def order(ctx: ToolContext, item: str) -> dict[str, str]:
    """Order an item."""
    ctx.files["orders"].write(f"{ctx.call_id} {item}\\n".encode())
    return {"ordered": item}
'''


async def test_a_process_serves_its_project_and_stops_on_sigterm(server: NatsServer, tmp_path: Path) -> None:
    """Tools next to the project file are found, calls are answered, SIGTERM ends it with 0, logs are JSON lines."""
    folder = tmp_path / "shop"
    folder.mkdir(mode=0o755)
    (folder / "agentflow.yaml").write_text(PROJECT)
    (folder / "shop_tools.py").write_text(TOOLS)
    mesh = await JetStreamTransport.connect(server.url)
    desk = Desk(mesh, catalog(), ScriptedSandbox())
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "agentflow_executor", "--project", str(folder / "agentflow.yaml")],
        *["--nats-url", server.url],
        env={"PYTHONPATH": PATHS, "AF_MONITOR_URL": server.monitor_url},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        registry = await mesh.bucket(REGISTRY)
        await eventually(lambda: registry.entries("executor."), "a registered executor", within=20)
        priced, ordered = call("price", {"item": "tea"}), planned("order", {"item": "tea"}, index=1)
        await desk.send(priced)
        await desk.send(ordered)
        answer = await eventually(lambda: desk.find_answer(priced), "an answer")
        await eventually(lambda: desk.find_answer(ordered), "an answer")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        await mesh.close()

    assert answer is not None
    assert ToolCompleted({"cents": 300}) == payload_as(answer, ToolCompleted)
    assert f"{ordered.envelope.id} tea\n" == (folder / "orders.txt").read_text()
    assert 0 == process.returncode
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert {"service.started", "executor.ready", "call.concluded", "service.stopped"} <= {
        line["event"] for line in lines
    }
    told = [line for line in lines if line["event"] == "call.concluded"]
    assert {priced.envelope.id, ordered.envelope.id} == {line["message_id"] for line in told}
    assert "tea" not in errors.decode(), "payloads are not logged"


# --- failing closed ------------------------------------------------------------------------------------------------

_WITHOUT_SETUID = """
import asyncio, ctypes, sys
assert ctypes.CDLL(None).prctl(24, 7, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SETUID: gone for whatever is started
from agentflow_executor.sandbox import ProcessSandbox

async def main():
    sandbox = ProcessSandbox(slots=1, uid=65534, tmp=sys.argv[1])
    try:
        await sandbox.probe()
    finally:
        sandbox.close()

try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can lose the right to change the user")
def test_root_that_may_not_change_the_user_runs_no_tool(workdirs: Path) -> None:
    """As in a container without that capability: rather no tool than one as root."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SETUID, str(workdirs)],
        env={"PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith(f"{SandboxUnavailable.__name__} the process sandbox cannot be set up here: "), done
    assert "PermissionError" in done.stdout
    assert [] == list(workdirs.iterdir())


async def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only Linux promises is not promised elsewhere."""
    monkeypatch.setattr(sys, "platform", "darwin")
    elsewhere = ProcessSandbox(slots=1, uid=NOBODY)
    try:
        with pytest.raises(SandboxUnavailable, match="needs Linux"):
            await elsewhere.probe()
    finally:
        elsewhere.close()
