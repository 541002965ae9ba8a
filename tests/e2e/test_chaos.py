"""`agentflow demo --chaos` as a user starts it: everything is killed, and every ticket is worked once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.pids import gone

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROCESSES = {
    "nats-server",
    *(f"{name}{n}" for name in ("planner", "runtime", "executor", "detector") for n in ("", "-2")),
}
TICKETS = 48


def started(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo as a process of its own."""
    argv = [sys.executable, "-m", "agentflow", "demo", "--chaos", "--json", "--data-dir", str(tmp_path / "demo")]
    return subprocess.Popen(
        [*argv, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def family(process: subprocess.Popen[str]) -> list[int]:
    """The processes below it."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def gone_soon(pids: list[int]) -> bool:
    """Whether all of them end within some seconds."""
    deadline = time.monotonic() + 20
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return all(map(gone, pids))


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_done_twice_while_everything_is_killed(tmp_path: Path) -> None:
    """Each process and the server are killed in flight; the desk's own files show each effect once."""
    with started(tmp_path, "--seed", "11", "--limit", str(TICKETS), "--kills", "1") as process:
        out, err = process.communicate(timeout=580)
    figures = json.loads(out)

    assert process.returncode == 0, out + err
    assert dict.fromkeys(PROCESSES, 1) == figures["kills"]
    assert ["executor", "planner", "runtime"] == sorted(name.removesuffix("-2") for name in figures["freezes"])
    assert (11, 1, TICKETS) == tuple(figures["chaos"][name] for name in ("seed", "kills", "tickets"))
    assert TICKETS == figures["tickets"] == figures["completed"] + figures["escalated"]
    assert (0, 0, 0, True) == (*(figures[name] for name in ("failed", "lost", "duplicates")), figures["verify"]["ok"])
    assert TICKETS == figures["replay"]["runs"] == figures["replay"]["matched"]
    assert 0 == figures["in_flight"]["idle_faults"] < figures["in_flight"]["least"]
    nothing = ("unknown", "doubled", "dead_letters", "reconciled_lost")
    assert dict.fromkeys(nothing, 0) == {name: figures[name] for name in nothing}
    assert {} == figures["unasked_ends"]
    assert 0 < figures["recovery_ms"]["p50"] <= figures["recovery_ms"]["max"] < 60_000
    effects = Counter(
        line["call_id"] for name in ("outbox", "cases") for line in lines(tmp_path / "demo" / f"{name}.jsonl")
    )
    assert {1} == set(effects.values())
    assert TICKETS == len(effects)
    assert sum(line.startswith("fault ") for line in err.splitlines()) == 12


@pytest.mark.timeout(300)
def test_an_interrupt_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    """While an executor stands still: it is continued, everything is stopped in order, and the exit code is 130."""
    with started(tmp_path, "--seed", "7") as process:
        try:
            assert process.stderr is not None
            seen = next(line for line in process.stderr if "freeze executor" in line)
            frozen = int(seen.partition("(pid ")[2].partition(")")[0])
            processes = family(process)
            assert frozen in processes
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    assert 130 == process.returncode, err
    assert "Traceback" not in err
    assert gone_soon(processes)
