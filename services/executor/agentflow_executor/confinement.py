"""What the tool process does to itself before any code of a tool is loaded.

Traps this code knows:

- the parent-death signal is cleared by a change of user, so it is set after it;
- the interpreter may live below a folder the unprivileged user may not pass (`/root` is 0700). Such folders of `sys.path`
  are opened before, and named `/proc/self/fd/N` from then on; packages imported earlier keep their old `__path__`, so
  those are renamed too. Through such a descriptor a tool can also reach the world-readable neighbours of the folder.
  A folder that is closed to others itself is left out;
- a file size limit counts the whole file, so it is raised by the size of the files granted for appending;
- a limit on processes counts all that the user has, so it is raised by those it has already.
"""

import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Mapping
from typing import Any

from agentflow_executor.linux import die_with, share_arenas, tasks_of

_FOR_ALL = stat.S_IROTH | stat.S_IXOTH
"""What a folder must allow everybody, so that modules are found in it."""

Request = dict[str, Any]
"""What `agentflow_executor.sandbox` asks for; see `request_for` there."""


def confine(request: Request, workdir: str) -> None:
    """Put everything in force that holds the tool; raises where a part of it cannot be had."""
    guard = os.getppid()
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.setpgid(0, 0)
    os.close(request["status_fd"])
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(workdir)
    os.umask(0o077)
    uid = request["uid"]
    request["closed"] = use_paths(request["paths"], uid)
    share_arenas(2)
    limit(request)
    if uid is not None:
        drop(uid)
    die_with(guard, signal.SIGKILL)
    _arm_alarm(request)


def limit(request: Request) -> None:
    """Resource limits, for this process and whatever it starts."""
    appended = [os.fstat(g["fd"]).st_size for g in request["grants"].values() if g["mode"] == "append"]
    uid = os.getuid() if request["uid"] is None else request["uid"]
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["file_bytes"] + max(appended, default=0),
        resource.RLIMIT_NPROC: tasks_of(uid) + request["processes"],
        resource.RLIMIT_NOFILE: request["open_files"] + max(int(fd) for fd in os.listdir("/proc/self/fd")),
        resource.RLIMIT_CPU: request["cpu_seconds"],
    }
    for kind, wanted in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        grace = 1 if kind == resource.RLIMIT_CPU and value == wanted else 0  # SIGXCPU first, SIGKILL a second later
        resource.setrlimit(kind, (value, value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)))


def drop(uid: int) -> None:
    """Become the unprivileged user, for good; raises `OSError` where that did not work."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid) or os.getgroups():
        raise PermissionError(f"still user {os.getresuid()}, group {os.getresgid()}, groups {os.getgroups()}")


def use_paths(paths: list[str], uid: int | None) -> list[str]:
    """Make `sys.path` the given folders, by a descriptor where the unprivileged user could not reach them by name.

    Returns the folders left out, because they are closed to that user themselves.
    """
    names = {path: _by_descriptor(path) for path in _unreachable(paths, uid)}
    closed = [path for path, name in names.items() if not name]
    sys.path[:] = [names.get(path, path) for path in paths if path not in closed]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        where = getattr(module, "__path__", None)
        if isinstance(where, list):
            where[:] = [_renamed(folder, names) for folder in where]
    return closed


def _unreachable(paths: list[str], uid: int | None) -> list[str]:
    """The folders the unprivileged user cannot enter by name, asked of the kernel as that user."""
    if uid is None:
        return []
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return [path for path in paths if not _passable(path)]
    finally:
        os.seteuid(0)
        os.setegid(0)


def _passable(path: str) -> bool:
    try:
        os.stat(f"{path}/.")
    except OSError:
        return False
    return True


def _by_descriptor(path: str) -> str:
    """Another name of a folder, or an empty one where that would not help."""
    if not os.path.isdir(path) or os.stat(path).st_mode & _FOR_ALL != _FOR_ALL:
        return ""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"


def _renamed(folder: str, names: Mapping[str, str]) -> str:
    for path in sorted(filter(names.get, names), key=len, reverse=True):
        if folder == path or folder.startswith(f"{path}/"):
            return names[path] + folder[len(path) :]
    return folder


def expired(request: Request) -> bool:
    """Whether nothing may be done for this call any more."""
    return bool(time.clock_gettime(time.CLOCK_BOOTTIME) >= request["expires"])


def _arm_alarm(request: Request) -> None:
    """The process's own end, should the guard be gone: SIGALRM, whose default action kills."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    left = min(request["wall_seconds"], request["expires"] - time.clock_gettime(time.CLOCK_BOOTTIME))
    signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
