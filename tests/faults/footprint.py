"""I10: what exists before and after, on this machine and on the server; the difference is what was left behind.

The machine may be busy with other things, so only what is ours is looked at: descendants of this process and processes
that live in our temporary folder, files below it, mounts, control groups and network namespaces that carry our names.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agentflow.errors import MeshError
from agentflow.mesh.transport import Transport
from tests.faults.verdicts import Verdict, judged

MOUNTS = Path("/proc/self/mountinfo")
GROUPS = Path("/sys/fs/cgroup")
NAMESPACES = Path("/run/netns")
OURS = ("agentflow", "aft-")
"""What control groups and namespaces of ours are called."""

MORE_FILES = 12
"""Files and sockets a service may have open beyond what it had; fewer than anything that grows with the work."""

PULLS_EACH = 2
"""Pull requests a process may have waiting on one consumer: the one it waits for, and one that keeps its place."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is of ours on this machine."""

    processes: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()

    def left_behind(self, before: "Machine") -> list[str]:
        """What is here now and was not before."""
        kinds = ("processes", "files", "mounts", "groups", "namespaces", "tasks")
        return [
            f"{kind}: {thing} stayed behind"
            for kind in kinds
            for thing in sorted(getattr(self, kind) - getattr(before, kind))
        ]


def look_around(temporary: Path) -> Machine:
    """What there is of ours now; `temporary` is the folder services get as their `TMPDIR`."""
    return Machine(
        processes=frozenset(_processes(temporary)),
        files=frozenset(str(path) for path in temporary.iterdir()) if temporary.exists() else frozenset(),
        mounts=frozenset(line.split(" ")[4] for line in _lines(MOUNTS) if _is_ours(line, temporary)),
        groups=frozenset(str(path) for path in _folders(GROUPS, 3) if path.name.startswith(OURS)),
        namespaces=frozenset(path.name for path in _folders(NAMESPACES, 1, files=True) if path.name.startswith(OURS)),
        tasks=frozenset(_tasks()),
    )


def _is_ours(line: str, temporary: Path) -> bool:
    return str(temporary.parent) in line or any(name in line for name in OURS)


def _processes(temporary: Path) -> list[str]:
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in mine or process.cwd().startswith(str(temporary)):
                found.append(f"{process.pid} {process.name()} {' '.join(process.cmdline())[-80:]}")
    return found


def _tasks() -> list[str]:
    try:
        current = asyncio.current_task()
        return [task.get_name() for task in asyncio.all_tasks() if task is not current]
    except RuntimeError:  # no loop runs
        return []


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _folders(root: Path, depth: int, *, files: bool = False) -> list[Path]:
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if path.is_dir() and not path.is_symlink():
                found.append(path)
                found += _folders(path, depth - 1) if depth > 1 else []
            elif files:
                found.append(path)
    return found


# --- the server and the services -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mesh:
    """What there is on the server and in the services."""

    consumers: Mapping[str, int] = field(default_factory=dict)
    """`STREAM/NAME` to its waiting pull requests."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Process to its open files and sockets."""
    children: Mapping[str, int] = field(default_factory=dict)
    """Process to its own children (sandboxes)."""


async def look_at_mesh(transport: Transport, pids: Mapping[str, int]) -> Mesh:
    """What there is now; `pids` are the services', by name."""
    files, children = {}, {}
    for name, pid in pids.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            files[name], children[name] = process.num_fds(), len(process.children(recursive=True))
    return Mesh(await _consumers(transport), files, children)


async def _consumers(transport: Transport) -> dict[str, int]:
    found = {}
    for stream in await transport.stream_names():
        with contextlib.suppress(MeshError, ValueError):
            answer: dict[str, Any] = json.loads(await transport.request(f"$JS.API.CONSUMER.LIST.{stream}", b"{}"))
            found.update({f"{stream}/{c['name']}": int(c.get("num_waiting", 0)) for c in answer.get("consumers") or ()})
    return found


def mesh_violations(before: Mesh, now: Mesh, processes: int) -> list[str]:
    """Consumers nobody made on purpose, pull requests without a process, files and children that grow."""
    found = [f"consumer {name} stayed behind" for name in now.consumers if name not in before.consumers]
    found += [f"consumer {name} is gone" for name in before.consumers if name not in now.consumers]
    most = max(1, processes) * PULLS_EACH
    found += [
        f"consumer {name} has {n} pulls waiting, at most {most} are right"
        for name, n in now.consumers.items()
        if n > most
    ]
    for name, count in now.files.items():
        if count > before.files.get(name, count) + MORE_FILES:
            found.append(f"{name} has {count} files open, and had {before.files[name]}")
    found += [f"{name} has {count} children, and nothing to do" for name, count in now.children.items() if count]
    return found


def nothing_stays(before: Mesh, now: Mesh, processes: int, machine: Sequence[str] = ()) -> Verdict:
    """I10, while the mesh is up; `machine` is what `Machine.left_behind` found after it was stopped."""
    examined = len(now.consumers) + len(now.files)
    return judged("I10", examined, [*mesh_violations(before, now, processes), *machine], "no mesh to look at")
