"""How much room the streams of a local mesh reserve: all they are declared with, or a part of it on a small disk.

JetStream refuses to create streams whose limits exceed what it may store (three quarters of the free disk, unless told
otherwise). A mesh on a laptop or in a container starts all the same, with smaller streams. What was chosen is kept
beside the data, so that the streams of a directory are compared with what they were made with.
"""

import contextlib
from pathlib import Path

NEEDED = 6 * 1024**3
"""Bytes the streams reserve at most when they have all they are declared with."""

SMALLEST = 1 / 64
"""The least part of it that a mesh is started with."""


def capacity_for(directory: Path, max_storage: int) -> float:
    """The factor on what streams reserve: as chosen before for this directory, or as large as `max_storage` allows."""
    if (chosen := remembered(directory)) is not None:
        return chosen
    capacity = 1.0
    while capacity > SMALLEST and capacity * NEEDED > max_storage:
        capacity /= 2
    with contextlib.suppress(OSError):
        _file(directory).write_text(str(capacity), "utf-8")
    return capacity


def remembered(directory: Path) -> float | None:
    """The factor that was chosen for a data directory, or None."""
    try:
        found = float(_file(directory).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if SMALLEST <= found <= 1.0 else None


def _file(directory: Path) -> Path:
    return directory / "run" / "capacity"
