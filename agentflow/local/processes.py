"""One supervised child process: started with a log file, stopped within a deadline, never left behind.

A child gets a session of its own, so that a Ctrl-C in the terminal reaches us alone and we stop things in order. Should
we be killed ourselves, the kernel kills the child: `PR_SET_PDEATHSIG`, set by a few lines of Python that then become the
program by `exec` (about 15 ms; `preexec_fn` is not safe beside threads). Linux only; elsewhere a child of a killed
parent lives on. The kernel watches the *thread* that started the child, so start children from one that stays.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentflow.errors import MeshError

POLL = 0.005
"""Seconds between looks at a child that is waited for."""

MAX_LOG = 16 * 1024 * 1024
"""Bytes above which a log is put aside (as `.log.1`) when its process is started."""

_GUARD = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"cannot run {sys.argv[2]}: {error.strerror}", file=sys.stderr)
    os._exit(126)
"""


class ChildProcess:
    """A child process and its log file (stdout and stderr, appended)."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start it; raises `MeshError` (`process.failed`) when not even that is possible."""
        if self.running:
            raise MeshError(f"{self.name} is running already (pid {self.pid})", code="process.running", name=self.name)
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if self.log.exists() and self.log.stat().st_size > MAX_LOG:
                self.log.replace(self.log.with_suffix(".log.1"))
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    guarded(self.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._env,
                    cwd=self._cwd,
                    pass_fds=self._keep_open,
                    start_new_session=True,
                )
        except OSError as error:
            raise MeshError(f"cannot start {self.name}: {error}", code="process.failed", name=self.name) from error

    def forget(self, variable: str) -> None:
        """Start it without an environment variable from now on; fine if it had none."""
        if self._env is not None:
            self._env.pop(variable, None)

    @property
    def pid(self) -> int:
        """Its process id; raises `MeshError` before the first start."""
        if self._process is None:
            raise MeshError(f"{self.name} was never started", code="process.not_started", name=self.name)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs just now."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with (minus the signal that killed it), or None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    async def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, or None when it still runs after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while self.running and (deadline is None or loop.time() < deadline):  # noqa: ASYNC110 - no event: it is a process
            await asyncio.sleep(POLL)
        return self.exit_code

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and wake it if it is frozen, or it would not hear; fine if it has ended."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def send(self, signum: int) -> None:
        """Send it a signal; fine if it has ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)

    async def stop(self, deadline: float = 10.0) -> int | None:
        """End it: SIGTERM, and SIGKILL after `deadline` seconds. Returns its exit code, None if it never ran."""
        self.terminate()
        if await self.wait(deadline) is None:
            await self.kill()
        return self.exit_code

    async def kill(self) -> None:
        """End it at once (SIGKILL), and return when it has ended."""
        self.send(signal.SIGKILL)
        await self.wait()

    def last_lines(self, count: int = 8) -> list[str]:
        """The last lines it logged since it was last started."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - 64 * 1024))
                return log.read().decode("utf-8", "replace").splitlines()[-count:]
        except OSError:
            return []


def guarded(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` so that it dies with this process."""
    if sys.platform != "linux":
        return list(argv)
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *argv]
