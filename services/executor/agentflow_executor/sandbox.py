"""Running a tool in a process of its own (`AF_SANDBOX=process`), behind the protocol `Sandbox` that others can keep too.

What the process sandbox holds a tool to: its own session and process group, an environment of `PATH` and `LANG`, an empty
private working folder that is removed afterwards, granted files as descriptors and no other inherited file, limits on
wall time, CPU, address space, processes, open files, file size, output and result, no new privileges, no core dumps, and,
where the executor is root, an unprivileged user. Everything the tool started ends with the call, also when the executor
is killed. Every part is set up before the tool is loaded, or the tool does not run (`sandbox.unavailable`).

What it does not contain, and a tool must therefore be trusted with:

- the network: a tool reaches whatever the machine reaches, whatever its permissions say;
- reading: files and folders that everybody may read (`/etc/passwd`, installed packages, the world-readable neighbours of
  the folders it imports from), and `/proc`, which shows that other processes exist;
- writing: folders that everybody may write to, such as `/tmp`, within the file size limit; a file granted for appending
  can be rewritten by a hostile tool, for a descriptor opened to append can also be truncated;
- other tools: those that run at the same time share the unprivileged user and can signal each other; where the executor
  is not root, a tool has all the rights of the executor's user and can end its own guard;
- memory and disk as a whole: the limits are on each process and on each file, and a tool may have several of both;
- system calls, which are not filtered, and a race: a tool that does nothing but fork is ended a process at a time, held
  back by its limit on processes alone.

Linux only: without a parent-death signal and a subreaper nothing could be promised about what is left behind.
"""

import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from agentflow.clock import Clock, SystemClock
from agentflow.errors import ConfigError
from agentflow.registry import ToolDeclaration
from agentflow.tools import ToolSchema
from agentflow_executor.errors import SandboxUnavailable
from agentflow_executor.execution import Execution, judge
from agentflow_executor.launch import ChildRun
from agentflow_executor.profile import ExecProfile, Policies, StaticProfileCompiler

Mode = Literal["call", "check", "probe"]
"""Run the tool, ask its check, or only show that the sandbox can be set up."""

KNOWN = ("process", "docker", "gvisor")
"""Names `AF_SANDBOX` may have; only the first is built so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """One execution to make."""

    use: str
    """`module:tool`."""
    mode: Mode
    call_id: str
    profile: ExecProfile
    expires: datetime
    """Nothing acts for this job after it."""
    input: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Sandbox(Protocol):
    """Runs jobs, each confined to its profile."""

    uid: int | None
    """The user tools run as, or None where they run as the executor's own."""
    clock: Clock
    """The clock that `Job.expires` is told by."""

    async def execute(self, job: Job) -> Execution:
        """Run a job to its end; never raises for what the job does. Cancelling ends the job and all it started."""
        ...

    async def probe(self, uses: Sequence[str] = (), memory_mib: int = 512) -> None:
        """Set the sandbox up once and load tools (`module:tool`) in it, without calling any.

        Raises `SandboxUnavailable` where that cannot be done.
        """
        ...

    def close(self) -> None:
        """End everything that still runs."""
        ...


def make_sandbox(name: str, *, slots: int, uid: int, paths: Sequence[str] | None = None) -> Sandbox:
    """The sandbox `AF_SANDBOX` names, for `slots` jobs at once; raises `ConfigError` for one that is not there.

    `uid` is the user tools run as where the executor is root.
    """
    if name == "process":
        return ProcessSandbox(slots=slots, uid=uid, paths=paths)
    what = "not built yet" if name in KNOWN else "unknown"
    raise ConfigError(
        f"AF_SANDBOX: sandbox {name!r} is {what}; allowed is 'process'", code="sandbox.unsupported", found=name
    )


class ProcessSandbox:
    """The sandbox made of a child process; see the module's docstring for what it holds and what it does not."""

    def __init__(self, *, slots: int, uid: int, paths: Sequence[str] | None = None, tmp: str | None = None) -> None:
        self.uid = uid if os.geteuid() == 0 else None
        self.clock: Clock = SystemClock()
        self._paths = list(paths) if paths is not None else import_paths(sys.path)
        self._tmp = tmp or tempfile.gettempdir()
        # The thread that starts a child waits for it: the parent-death signal follows the thread.
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="sandbox")
        self._running: set[ChildRun] = set()
        self._lock = threading.Lock()

    async def execute(self, job: Job) -> Execution:
        """Run a job in a thread that starts the child and waits for it."""
        run = ChildRun(request_for(job, self._paths, self._tmp, self.uid, self.clock.now()), job.profile)
        with self._lock:
            self._running.add(run)
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._run, run)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            run.stop()
            raise

    def _run(self, run: ChildRun) -> Execution:
        try:
            return run.run()
        finally:
            with self._lock:
                self._running.discard(run)

    async def probe(self, uses: Sequence[str] = (), memory_mib: int = 512) -> None:
        """Start a child that confines itself and loads the tools."""
        if not sys.platform.startswith("linux"):
            raise SandboxUnavailable(f"the process sandbox needs Linux, found {sys.platform}", found=sys.platform)
        declaration = ToolDeclaration("probe", "probe", "1.0.0", "", {}, {}, ("none",), "pure", 30.0)
        policies = Policies(uid=self.uid, memory_mib=memory_mib)
        profile = StaticProfileCompiler().compile("executor", ToolSchema(declaration), policies)
        never = datetime.max.replace(tzinfo=UTC)
        found = await self.execute(Job("", "probe", "probe", profile, never, {"uses": list(uses)}))
        verdict = judge(found)
        if verdict.failure is not None:
            said = f"{verdict.failure.type}: {verdict.failure.message}"
            raise SandboxUnavailable(f"the process sandbox cannot be set up here: {said}", found=said)

    def close(self) -> None:
        """Stop what runs, and take nothing new."""
        with self._lock:
            for run in self._running:
                run.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def import_paths(entries: Sequence[str]) -> list[str]:
    """The entries of a `sys.path` that exist, absolute, in order, each once."""
    absolute = [os.path.abspath(entry) for entry in entries]
    return [path for path in dict.fromkeys(absolute) if os.path.exists(path)]


def request_for(job: Job, paths: Sequence[str], tmp: str, uid: int | None, now: datetime) -> dict[str, Any]:
    """What the child reads from its standard input, but for the descriptors, which `ChildRun` adds.

    `expires` is given by the clock since the machine's boot, which nobody sets: the wall clock may be wrong, or jump.
    """
    profile = job.profile
    return {
        "use": job.use,
        "mode": job.mode,
        "call_id": job.call_id,
        "input": msgspec.to_builtins(job.input),
        "settings": msgspec.to_builtins(job.settings),
        "expires": time.clock_gettime(time.CLOCK_BOOTTIME) + (job.expires - now).total_seconds(),
        "paths": list(paths),
        "tmp": tmp,
        "uid": uid,
        "parent": os.getpid(),
        "wall_seconds": profile.wall_seconds,
        "cpu_seconds": profile.cpu_seconds,
        "memory_bytes": profile.memory_bytes,
        "processes": profile.processes,
        "open_files": profile.open_files,
        "file_bytes": profile.file_bytes,
        "result_bytes": profile.result_bytes,
    }
