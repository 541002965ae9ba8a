"""Which local meshes are up, so that other commands find them: a small file for each, under the user's state directory.

A file counts while the process that wrote it lives; start times tell a process from a later one with the same id.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["dev", "demo"]


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A local mesh as others see it."""

    kind: Kind
    pid: int
    """The process that runs it."""
    process_started: str
    """What the kernel says about that process's start."""
    since: str
    """RFC 3339."""
    url: str
    monitor_url: str
    data_dir: str

    @property
    def alive(self) -> bool:
        """Whether the process that runs it still does."""
        return process_start(self.pid) == self.process_started


def state_directory() -> Path:
    """Where the files are."""
    import platformdirs

    return platformdirs.user_state_path("agentflow") / "meshes"


def process_start(pid: int) -> str | None:
    """A word for when a process started, or None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return "unknown"
    return None


def announce(mesh: RunningMesh) -> None:
    """Let others find the mesh; where its files cannot be written they will not, and that is all."""
    text = json.dumps(asdict(mesh), indent=2)
    with contextlib.suppress(OSError):
        (Path(mesh.data_dir) / "mesh.json").write_text(text, "utf-8")
    with contextlib.suppress(OSError):
        directory = state_directory()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{mesh.pid}.json").write_text(text, "utf-8")


def withdraw(mesh: RunningMesh) -> None:
    """Take the files away again; fine if they are gone."""
    for path in (Path(mesh.data_dir) / "mesh.json", state_directory() / f"{mesh.pid}.json"):
        with contextlib.suppress(OSError):
            path.unlink()


def meshes_alive() -> list[RunningMesh]:
    """The local meshes that are up, the latest first."""
    return sorted((mesh for mesh in _announced() if mesh.alive), key=lambda mesh: mesh.since, reverse=True)


def _announced() -> Iterator[RunningMesh]:
    for path in state_directory().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield RunningMesh(**json.loads(path.read_text("utf-8")))
