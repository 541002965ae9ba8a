"""The examples, as a newcomer runs them: `agentflow dev`, and beside it the two programs."""

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

import psutil
import pytest

from tests.support.pids import gone

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
PROJECT = EXAMPLES / "three_steps" / "agentflow.yaml"


async def run(*command: str, **environment: str) -> tuple[int, str, str]:
    """Run a program to its end; exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def dev(tmp_path: Path) -> AsyncIterator[tuple[Process, Any]]:
    """`agentflow dev` with the example's project: the process, and what it says when it is ready."""
    arguments = ("dev", "--project", str(PROJECT), "--port", "0", "--data-dir", str(tmp_path / "data"), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentflow", *arguments, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 90)
        assert line, (await process.communicate())[1].decode()
        yield process, json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(("name", "most"), [("three_steps.py", 15), ("three_steps_blocking.py", 10)])
def test_the_examples_are_short(name: str, most: int) -> None:
    """A three-step workflow is no more work than this."""
    assert len((EXAMPLES / name).read_text().splitlines()) <= most


async def test_a_newcomers_first_minutes(tmp_path: Path) -> None:
    """The mesh starts, both programs get their result, the commands show the runs, and Ctrl-C leaves nothing behind."""
    async with dev(tmp_path) as (process, ready):
        assert ["three-steps@1.0.0"] == ready["workflows"]
        family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        for name in ("three_steps.py", "three_steps_blocking.py"):
            result = await run(str(EXAMPLES / name), AF_NATS_URL=ready["nats_url"])
            assert (0, "hello mesh (2 words)\n", "") == result

        submit = ("-m", "agentflow", "submit", "three-steps", "--id", "run-1", "--follow", "--json")
        code, out, err = await run(*submit, "--input", '{"text": " one  two three "}')
        documents = [json.loads(line) for line in out.splitlines()]
        assert (0, "") == (code, err)
        assert ("completed", "one two three (3 words)", 3) == (
            documents[-1]["run"]["status"],
            documents[-1]["run"]["output"],
            documents[-1]["run"]["steps"],
        )

        code, out, err = await run("-m", "agentflow", "runs", "--status", "completed", "--json")
        assert (0, 3, "") == (code, len(json.loads(out)), err)
        code, out, err = await run("-m", "agentflow", "doctor", "--json")
        assert (0, "", True) == (code, err, json.loads(out)["ok"])

        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 60)
    assert 0 == process.returncode
    assert all(map(gone, family))


async def test_an_input_that_does_not_fit_is_rejected_with_its_reason(tmp_path: Path) -> None:
    """The run never begins, and the command fails."""
    async with dev(tmp_path):
        code, out, err = await run("-m", "agentflow", "submit", "three-steps", "--input", '{"txt": 1}', "--follow")

    assert 1 == code
    assert "goal.rejected" in out
    assert "text" in err
    assert "Traceback" not in err
