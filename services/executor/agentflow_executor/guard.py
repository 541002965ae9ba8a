"""The guard of one call: the process between the executor and the tool, which ends everything below it.

    executor ── guard ── tool process ── whatever the tool starts
                  │            └ confines itself, loads the tool, answers on `result` (`confinement`, `calling`)
                  └ ends everything below it: at the wall limit, at `expires`, when the executor dies, and after the tool

The guard is a child subreaper: processes a tool leaves behind (forked twice, in a session of their own) become its
children and are killed before it ends. So nothing acts for a call after its `expires`, even where the executor is
frozen or dead; the effect ledger rests on that. What the guard saw goes to the executor on the pipe `status`.

The guard keeps the executor's user. Where that is root, a tool cannot signal it; where it is not, a hostile tool can.
"""

import json
import os
import resource
import signal
import sys
import time
from typing import NoReturn

from agentflow_executor.confinement import Request, confine, expired
from agentflow_executor.linux import PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, children, die_with, prctl
from agentflow_executor.pipes import MESSAGE, say, write_line

PATIENCE = 0.25
"""Seconds between two looks at the clocks: a machine that was suspended must not outlive `expires`."""


def serve(request: Request) -> NoReturn:
    """Guard one call from start to end, and leave."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    workdir = f"{request['tmp']}/agentflow-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        die_with(request["parent"], signal.SIGTERM)
        _make_workdir(workdir, request["uid"])
        tool = os.fork()
    except OSError as error:
        say(request["result_fd"], kind="unavailable", message=f"guard: {error}")
        _remove(workdir)
        os._exit(1)
    if tool == 0:
        tool_process(request, workdir)
    Guard(request, tool, workdir).run()
    os._exit(0)


def tool_process(request: Request, workdir: str) -> NoReturn:
    """Confine this process, run the call, answer, and leave."""
    result = request["result_fd"]
    try:
        confine(request, workdir)
        from agentflow_executor.calling import error_of, run_call
    except Exception as error:  # noqa: BLE001 - fail closed, whatever the reason
        say(result, kind="unavailable", message=f"{type(error).__name__}: {error}"[:MESSAGE])
        os._exit(1)
    code = 0
    try:
        write_line(result, json.dumps({"kind": "expired"}).encode() if expired(request) else run_call(request))
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException as error:  # noqa: BLE001 - nothing may leave by way of the guard's code
        say(result, **error_of(error))
    os._exit(code & 0xFF)


def _make_workdir(path: str, uid: int | None) -> None:
    os.mkdir(path, 0o700)
    if uid is not None:
        os.chown(path, uid, uid)


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        import shutil

        shutil.rmtree(path, ignore_errors=True)


class Guard:
    """Waits for the tool process, ends it and all it started, and says what it saw."""

    def __init__(self, request: Request, tool: int, workdir: str) -> None:
        self._request, self._tool, self._workdir = request, tool, workdir
        self._exit: int | None = None
        self._ends = time.monotonic() + request["wall_seconds"]

    def run(self) -> None:
        """Stay until nothing is left to guard."""
        status = self._request["status_fd"]
        for fd in (0, 1, 2, self._request["result_fd"], *(grant["fd"] for grant in self._request["grants"].values())):
            os.close(fd)
        say(status, kind="guard", tool=self._tool, workdir=self._workdir)
        reason = self._wait()
        left = self._end_all()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        _remove(self._workdir)
        say(
            status,
            kind="end",
            reason=reason,
            exit_code=self._exit,
            cpu_ms=(used.ru_utime + used.ru_stime) * 1000,
            max_rss_kib=used.ru_maxrss,
            left=left,
        )

    def _wait(self) -> str:
        """Until the tool process ended by itself (an empty reason) or has to be ended."""
        expires = self._request["expires"]
        while True:
            if self._reap() or self._exit is not None:
                return ""
            left = min(self._ends - time.monotonic(), expires - time.clock_gettime(time.CLOCK_BOOTTIME))
            if left <= 0:
                return "timeout"
            caught = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, min(left, PATIENCE))
            if caught is not None and caught.si_signo == signal.SIGTERM:
                return "stopped"

    def _reap(self) -> bool:
        """Collect every child that ended; whether none is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == self._tool:
                    self._exit = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return True

    def _end_all(self) -> int:
        """Kill children, and the orphans that become children by it, until there are none; how many were left over."""
        left: set[int] = set()
        while not self._reap():
            left.update(children())
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        return len(left - {self._tool})
