"""`agentflow dev` with real services: one that is killed in the middle of a run is started again, and the run ends right."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.client import Client
from tests.e2e.desks import LedgerDesk
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def dev(desk: LedgerDesk) -> AsyncIterator[Process]:
    """The command as a process; killed at the end, if it is still there."""
    arguments = ["--json", "--port", "0", "--project", str(desk.project), "--data-dir", str(desk.directory / "mesh")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentflow", "dev", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(process: Process, event: str, name: str) -> dict[str, Any]:
    """The next such event on its stdout; the events before it are passed over."""
    assert process.stdout is not None
    async with asyncio.timeout(90):
        while line := await process.stdout.readline():
            found: dict[str, Any] = json.loads(line)
            if (found.get("event"), found.get("process")) == (event, name):
                return found
    raise AssertionError(f"it ended without a word of {name}")


async def test_a_runtime_that_is_killed_in_a_run_comes_back_and_ends_it(tmp_path: Path) -> None:
    """The handler runs again in the new process; people and programs are told what happened, and how long it took."""
    desk = LedgerDesk(tmp_path)
    desk.lay_out()
    project = yaml.safe_load(desk.project.read_text())
    project["agents"][0]["settings"]["pause"] = 2
    desk.project.write_text(yaml.safe_dump(project))
    async with dev(desk) as process:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 90))
        async with Client.connect(ready["nats_url"]) as client:
            run = await client.submit("booking", {"amount": 20}, id="run-1")
            await eventually(lambda: desk.handler_runs, "the handler's run", within=60)
            [pid] = ready["processes"]["runtime"]
            os.kill(pid, signal.SIGKILL)
            ended, up = await said(process, "ended", "runtime"), await said(process, "up", "runtime")

            assert {"booked": 20, "receipt": 21} == await run.result(timeout=90)
            assert [20, 21] == desk.ledger
            assert 2 == len(desk.handler_runs)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 60)

    assert (-9, "SIGKILL", 0.5) == (ended["exit_code"], ended["signal"], ended["pause"])
    assert up["pid"] != pid
    assert up["down"] > 0.5
    assert "runtime was killed by SIGKILL: starting it again in 0.5 s" in err.decode()
    assert "runtime is up again after" in err.decode()
    assert 0 == process.returncode
