"""What the process sandbox holds where it runs, and what it cannot hold anywhere. Pure."""

from typing import Any

ALWAYS = ("memory", "processor time", "wall time", "processes", "open files", "file size", "no core dumps")
"""Of each process, by resource limits and a guard, with or without rights."""

NEVER = ("network", "system calls", "what is readable by everybody", "the memory of several processes together")
"""Needs namespaces, cgroups or a container."""


def as_detail(uid: int | None) -> dict[str, Any]:
    """For the executor's registry entry; `uid` is the user tools run as, None where that is the executor's own."""
    own = f"a user of its own ({uid})" if uid is not None else ""
    holds = [*ALWAYS, *([own, "files of other users"] if own else [])]
    lacks = [*NEVER, *([] if own else ["the executor's own files and processes"])]
    return {"holds": holds, "lacks": lacks, "own_user": bool(own)}
