"""What the sandbox asks of Linux beyond the `os` module: `prctl`, the parent-death signal, and who else runs.

Everything that runs inside the sandbox's processes imports the standard library only, until the tool itself is loaded.
"""

import ctypes
import os
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_CHILD_SUBREAPER: Final = 36
_M_ARENA_MAX: Final = -8


def prctl(option: int, value: int) -> None:
    """`prctl(2)`; raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def share_arenas(count: int) -> None:
    """Have glibc's threads share `count` heaps: each reserves 64 MiB of the address space that is limited."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library does without
        mallopt(_M_ARENA_MAX, count)


def die_with(parent: int, signum: signal.Signals) -> None:
    """Get `signum` when the parent ends; leaves at once if `parent` ended before that could be arranged.

    A change of user clears the arrangement, and it follows the thread that started this process, not the parent as a
    whole: that thread has to wait.
    """
    prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def children() -> list[int]:
    """This process's direct children, dead or alive."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as listing:
            return [int(pid) for pid in listing.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in processes() if parent_of(pid) == me]


def processes() -> list[int]:
    """Every process there is, as far as this one may see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent_of(pid: int) -> int:
    """The parent of a process, or 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as line:
            return int(line.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def tasks_of(uid: int) -> int:
    """Processes and threads the user has already: the limit counts them too."""
    tasks = 0
    for pid in processes():
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                tasks += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:  # it ended meanwhile, or is hidden
            tasks += 0
    return tasks
