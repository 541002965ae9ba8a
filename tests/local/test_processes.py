"""One child process: started, stopped, killed, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import MeshError
from agentflow.local import processes
from agentflow.local.processes import ChildProcess
from tests.support.pids import gone, parent_of_one
from tests.support.waiting import eventually

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('ready', flush=True)
time.sleep(60)
"""


def child(tmp_path: Path, code: str, **more: Any) -> ChildProcess:
    """A child that runs a line of Python."""
    return ChildProcess("child", [sys.executable, "-c", code], log=tmp_path / "logs" / "child.log", **more)


async def logged(process: ChildProcess, text: str) -> None:
    """Wait until it has logged something."""
    await eventually(lambda: text in "\n".join(process.last_lines()), f"{text!r} in the log")


async def test_what_it_prints_goes_to_its_log(tmp_path: Path) -> None:
    """Both streams, and only the part of this start counts as its last lines."""
    process = child(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)")
    for _ in range(2):
        process.start()
        assert 0 == await process.wait(10)

        assert {"out", "err"} == set(process.last_lines())
    assert 4 == len(process.log.read_text().splitlines())


async def test_it_ends_on_sigterm(tmp_path: Path) -> None:
    """And tells its exit code; stopping it again does nothing."""
    process = child(tmp_path, POLITE)
    process.start()
    await logged(process, "ready")
    assert process.running
    assert process.exit_code is None

    assert 0 == await process.stop()
    assert not process.running
    assert 0 == await process.stop()


async def test_what_does_not_listen_is_killed_at_the_deadline(tmp_path: Path) -> None:
    """A stop ends, whatever the child does."""
    process = child(tmp_path, STUBBORN)
    process.start()
    await logged(process, "deaf")

    before = time.monotonic()
    assert -signal.SIGKILL == await process.stop(deadline=0.2)
    assert time.monotonic() - before < 5


async def test_a_wait_has_a_deadline(tmp_path: Path) -> None:
    """None means that it still runs."""
    process = child(tmp_path, POLITE)
    process.start()
    assert await process.wait(0.05) is None

    await process.kill()
    assert -signal.SIGKILL == process.exit_code


async def test_a_ctrl_c_in_the_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    """A child has a session of its own, so that we stop things in order."""
    process = child(tmp_path, POLITE)
    process.start()

    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    await process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives nobody a chance to clean up; the kernel does."""
    parent_code = f"""
import asyncio, time
from pathlib import Path
from typing import Any
from agentflow.local.processes import ChildProcess
process = ChildProcess("child", [{sys.executable!r}, "-c", {STUBBORN!r}], log=Path({str(tmp_path / "child.log")!r}))
process.start()
print(process.pid, flush=True)
time.sleep(60)
"""
    parent, pid = await parent_of_one(parent_code)
    await eventually(lambda: "deaf" in (tmp_path / "child.log").read_text(), "the child's start")
    assert not gone(pid)
    parent.kill()
    await parent.wait()

    await eventually(lambda: gone(pid), "the end of the child", within=5)


@pytest.mark.skipif(sys.platform != "linux", reason="the guard is Linux's")
async def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    """The parent may die between the fork and the guard's request to the kernel."""
    guarded = processes.guarded([sys.executable, "-c", "print('started')"])
    orphan = [part if part != str(os.getpid()) else "1" for part in guarded]

    done = await asyncio.to_thread(subprocess.run, orphan, capture_output=True, text=True, check=False)
    assert (1, "") == (done.returncode, done.stdout)


async def test_a_program_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    """In its log, without a traceback."""
    process = ChildProcess("child", [str(tmp_path / "absent")], log=tmp_path / "child.log")
    process.start()

    assert 126 == await process.wait(10)
    assert [f"cannot run {tmp_path / 'absent'}: No such file or directory"] == process.last_lines()


async def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Nothing is started then."""
    (tmp_path / "logs").write_text("a file where a folder should be")
    process = child(tmp_path, POLITE)

    with pytest.raises(MeshError) as caught:
        process.start()
    assert "process.failed" == caught.value.error_code
    assert not process.running
    assert [] == process.last_lines()


async def test_it_runs_once_at_a_time(tmp_path: Path) -> None:
    """A second start while it runs is a mistake."""
    process = child(tmp_path, POLITE)
    with pytest.raises(MeshError, match="never started"):
        assert process.pid
    process.start()
    with pytest.raises(MeshError, match="running already"):
        process.start()

    await process.kill()


async def test_it_gets_the_environment_and_folder_it_was_given(tmp_path: Path) -> None:
    """And no other; a variable can be taken away for its next life."""
    code = "import os; print(os.environ.get('AF_CRASH_AT'), os.getcwd())"
    process = child(tmp_path, code, env={**os.environ, "AF_CRASH_AT": "here"}, cwd=tmp_path)
    process.start()
    await process.wait(10)
    assert [f"here {tmp_path}"] == process.last_lines()

    process.forget("AF_CRASH_AT")
    process.start()
    await process.wait(10)
    assert [f"None {tmp_path}"] == process.last_lines()


async def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One old one is kept, so that a mesh that is started daily does not fill the disk."""
    monkeypatch.setattr(processes, "MAX_LOG", 100)
    process = child(tmp_path, "print('x' * 200)")
    for _ in range(3):
        process.start()
        await process.wait(10)

    assert ["child.log", "child.log.1"] == sorted(path.name for path in process.log.parent.iterdir())


async def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    """And bytes that are no text do not matter."""
    process = child(tmp_path, "import sys; sys.stdout.buffer.write(b'\\xff\\n' * 100000 + b'last\\n')")
    process.start()
    await process.wait(10)

    assert ["\ufffd", "last"] == process.last_lines(2)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
async def test_a_frozen_process_hears_that_it_is_to_end(tmp_path: Path) -> None:
    """It is woken by the stop: it ends well, at once, and is not killed at the deadline."""
    process = child(tmp_path, POLITE)
    process.start()
    await logged(process, "ready")
    process.send(signal.SIGSTOP)
    begun = time.monotonic()

    assert 0 == await process.stop(deadline=30)
    assert time.monotonic() - begun < 20
