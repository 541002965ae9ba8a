"""Starting the child of one call and seeing it to its end: pipes, bounds, kills. Blocking; runs in a thread of its own.

The child ends itself in time; this side does not rely on it. What is read is bounded: 64 KiB are kept of each of
standard output and error and the rest is only counted, a call that writes more than its profile allows is ended.
"""

import contextlib
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from agentflow.payloads import Usage
from agentflow.project import Grant
from agentflow_executor.execution import Execution, Reason, Reply
from agentflow_executor.profile import ExecProfile

KEPT = 64 * 1024
"""Bytes kept of each of standard output and error."""

GRACE = 2.0
"""Seconds a guard gets to end what it guards, before it is killed itself."""

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""All that a tool finds in its environment."""

_CHILD = str(Path(__file__).with_name("child.py"))
_FRAME = 64 * 1024
"""Bytes of the answer beside the output itself."""


class _Guarded(msgspec.Struct, frozen=True, tag_field="kind", tag="guard"):
    """The guard's first word."""

    tool: int
    workdir: str


class _Ended(msgspec.Struct, frozen=True, tag_field="kind", tag="end"):
    """The guard's last word."""

    reason: Reason
    exit_code: int | None
    cpu_ms: float
    max_rss_kib: int
    left: int


_Word = _Guarded | _Ended


class ChildRun:
    """One child, from start to end; `run` once, `stop` from any thread."""

    def __init__(self, request: dict[str, Any], profile: ExecProfile) -> None:
        self._request, self._profile = request, profile
        self._reason: Reason = ""
        self._asked_at: float | None = None
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._said = {"result": bytearray(), "status": bytearray()}
        self._written = 0
        self._open: set[str] = set()
        self._pipes: dict[str, int] = {}
        self._input = memoryview(b"")
        self._stopped = False
        self._wake: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the child and all it started, soon; one that was not started yet ends at once."""
        with self._lock:
            self._stopped = True
            if self._wake is not None:
                os.write(self._wake[1], b"x")

    def run(self) -> Execution:
        """Start the child, wait for its end, and say what came of it."""
        started = time.monotonic()
        with contextlib.ExitStack() as cleanup:
            self._open_wake(cleanup)
            try:
                child = self._start(cleanup)
            except OSError as error:
                return self._never(f"{type(error).__name__}: {error}")
            cleanup.callback(self._bury, child)
            self._watch(child, started + self._profile.wall_seconds + GRACE)
        return self._execution((time.monotonic() - started) * 1000)

    # --- start -----------------------------------------------------------------------------------------------------

    def _start(self, cleanup: contextlib.ExitStack) -> "subprocess.Popen[bytes]":
        """Open what is granted, start the child with it, and keep only this side's ends of the pipes."""
        theirs = cleanup.enter_context(contextlib.ExitStack())
        grants = {name: self._grant(name, grant, theirs) for name, grant in self._profile.grants.items()}
        fds = {}
        for name in ("result", "status"):
            self._pipes[name], write = os.pipe()
            cleanup.callback(os.close, self._pipes[name])
            theirs.callback(os.close, write)
            fds[f"{name}_fd"] = write
        self._input = memoryview(msgspec.json.encode({**self._request, **fds, "grants": grants}))
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=[*fds.values(), *(grant["fd"] for grant in grants.values())],
        )
        theirs.close()
        return child

    def _grant(self, name: str, grant: Grant, theirs: contextlib.ExitStack) -> dict[str, Any]:
        """Open a granted file with this process's rights. A check is given it for reading only: it must not act."""
        mode = "read" if self._request["mode"] == "check" else grant.mode
        flags = os.O_RDWR | os.O_APPEND if mode == "append" else os.O_RDONLY
        if grant.mode == "append":
            flags |= os.O_CREAT
        fd = os.open(grant.path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        theirs.callback(os.close, fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PermissionError(f"grant {name!r} is not a regular file")
        os.set_blocking(fd, True)
        return {"fd": fd, "mode": mode}

    # --- watch -----------------------------------------------------------------------------------------------------

    def _watch(self, child: "subprocess.Popen[bytes]", ends: float) -> None:
        """Feed and read the child until its guard has gone."""
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        with selectors.DefaultSelector() as selector:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE, "stdin")
            sources: dict[str, IO[bytes] | int] = {"stdout": child.stdout, "stderr": child.stderr, **self._pipes}
            for name, source in sources.items():
                selector.register(source, selectors.EVENT_READ, name)
            self._open = set(sources) - {"wake"}
            while self._open:
                for key, _ in selector.select(self._patience(child, ends)):
                    if not self._serve(key.data, key.fd, child):
                        selector.unregister(key.fileobj)

    def _patience(self, child: "subprocess.Popen[bytes]", ends: float) -> float:
        """Seconds until something has to be done about a child that does not end; does it when they are over."""
        now = time.monotonic()
        if self._asked_at is None and now >= ends:
            self._ask_to_end(child, "silent")
        if self._asked_at is not None:
            if now >= self._asked_at + GRACE:
                self._kill(child)
                return 0.05
            return self._asked_at + GRACE - now
        return ends - now

    def _serve(self, name: str, fd: int, child: "subprocess.Popen[bytes]") -> bool:
        """Move what is ready; whether this side of the child is still open."""
        if name == "stdin":
            return self._feed(fd, child)
        data = os.read(fd, 65536)
        if name == "wake":
            self._ask_to_end(child, "stopped")
            return False
        if data and self._take(name, data, child):
            return True
        self._open.discard(name)
        if name == "status" and not self._ended():
            self._kill(child)
        return False

    def _feed(self, fd: int, child: "subprocess.Popen[bytes]") -> bool:
        try:
            self._input = self._input[os.write(fd, self._input[:65536]) :]
        except BlockingIOError:
            return True
        except OSError:
            self._input = self._input[:0]
        if self._input:
            return True
        assert child.stdin is not None
        child.stdin.close()
        return False

    def _take(self, name: str, data: bytes, child: "subprocess.Popen[bytes]") -> bool:
        """Keep what was read, or end a call that says too much; whether to read on."""
        if name in self._said:
            if len(self._said[name]) + len(data) > self._profile.result_bytes + _FRAME:
                self._ask_to_end(child, "result")
                return name == "status"
            self._said[name] += data
            return True
        self._written += len(data)
        self._kept[name] += data[: KEPT - len(self._kept[name])]
        if self._written > self._profile.output_bytes:
            self._ask_to_end(child, "output")
            return False
        return True

    # --- end -------------------------------------------------------------------------------------------------------

    def _ask_to_end(self, child: "subprocess.Popen[bytes]", reason: Reason) -> None:
        """Tell the guard to end everything; the first reason is the one that counts."""
        if self._asked_at is None:
            self._reason, self._asked_at = reason, time.monotonic()
            child.terminate()

    def _kill(self, child: "subprocess.Popen[bytes]") -> None:
        """The guard itself does not end: kill it, and the group of the tool process."""
        child.kill()
        guarded = self._guarded()
        if guarded is not None:
            with contextlib.suppress(OSError):
                os.killpg(guarded.tool, signal.SIGKILL)
        self._open.clear()

    def _bury(self, child: "subprocess.Popen[bytes]") -> None:
        """Reap the child, close its pipes, and remove its folder if the guard could not."""
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        guarded = self._guarded()
        if guarded is not None:
            shutil.rmtree(guarded.workdir, ignore_errors=True)

    def _open_wake(self, cleanup: contextlib.ExitStack) -> None:
        """A pipe of this process to itself, by which another thread ends the wait."""
        with self._lock:
            self._wake = os.pipe()
            self._pipes["wake"] = self._wake[0]
            if self._stopped:
                os.write(self._wake[1], b"x")
        cleanup.callback(self._close_wake)

    def _close_wake(self) -> None:
        with self._lock:
            for fd in self._wake or ():
                os.close(fd)
            self._wake = None

    # --- what came of it -------------------------------------------------------------------------------------------

    def _words(self, pipe: str, kind: Any) -> list[Any]:
        """The well-formed lines of a pipe; a tool can write whatever it likes on its own."""
        words = []
        for line in bytes(self._said[pipe]).split(b"\n"):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                words.append(msgspec.json.decode(line, type=kind))
        return words

    def _guarded(self) -> _Guarded | None:
        return next((word for word in self._words("status", _Word) if isinstance(word, _Guarded)), None)

    def _ended(self) -> _Ended | None:
        return next((word for word in self._words("status", _Word) if isinstance(word, _Ended)), None)

    def _execution(self, wall_ms: float) -> Execution:
        said: list[Reply] = self._words("result", Reply)
        replies = [reply for reply in said if reply.kind != "started"]
        end = self._ended() or _Ended("silent", None, 0.0, 0, 0)
        return Execution(
            reply=replies[-1] if replies else None,
            started=len(said) > len(replies),
            exit_code=end.exit_code,
            reason=self._reason or end.reason,
            usage=Usage(wall_ms, end.cpu_ms, end.max_rss_kib, self._written),
            stdout=bytes(self._kept["stdout"]),
            stderr=bytes(self._kept["stderr"]),
            left=end.left,
        )

    def _never(self, message: str) -> Execution:
        return Execution(Reply("unavailable", message=message), False, None, "", Usage(0.0))
