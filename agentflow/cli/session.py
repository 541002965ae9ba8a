"""Where a command finds its mesh, and how it connects.

In this order: `--nats-url`, `--context`, `AF_NATS_URL`, `NATS_URL`, `NATS_CONTEXT`, `.env`, the files of settings, the
local mesh (`agentflow dev`, `agentflow demo`) that was started last and is up, port 4222 on this machine.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentflow.errors import Unreachable
from agentflow.local.running import RunningMesh, meshes_alive

if TYPE_CHECKING:
    from agentflow.client import Client
    from agentflow.mesh.transport import Transport

DEFAULT_URL = "nats://127.0.0.1:4222"
CONNECT_TIMEOUT = 3.0
"""Seconds a command tries to reach the broker."""


@dataclass(frozen=True, slots=True)
class Located:
    """A mesh, and how it was found."""

    url: str
    origin: str
    """`--nats-url`, `--context`, the name of a variable, `file:line`, `local mesh` or `default`."""
    monitor_url: str = ""
    data_dir: str = ""
    """Where its data is, when it is a local mesh."""


_chosen = {"context": ""}


def use_context(name: str) -> None:
    """Take the mesh of a context of the nats CLI, for the rest of this process: `agentflow --context NAME …`."""
    _chosen["context"] = name


def locate(given: str | None, environment: Mapping[str, str] | None = None) -> Located:
    """The mesh a command means; raises `ConfigError` where the settings that say so are not usable."""
    from agentflow.configuration.layers import Surroundings
    from agentflow.settings import MeshSettings, read

    around = Surroundings.here(environment, _chosen["context"])
    settings, origins = read(MeshSettings, around, nats_url=given)
    if origin := origins.get("nats_url"):
        named = "--nats-url" if origin.layer == "flag" and given else origin.where
        return _known(settings.nats_url) or Located(settings.nats_url, named, settings.monitor_url)
    if meshes := meshes_alive():
        return _located(meshes[0])
    return Located(DEFAULT_URL, "default", settings.monitor_url)


def _known(url: str) -> Located | None:
    """The local mesh with that address, of which more is known than the address."""
    return next((_located(mesh) for mesh in meshes_alive() if mesh.url == url), None)


def _located(mesh: RunningMesh) -> Located:
    return Located(mesh.url, "local mesh", mesh.monitor_url, mesh.data_dir)


@contextlib.asynccontextmanager
async def open_transport(given: str | None) -> AsyncIterator["Transport"]:
    """A connection to the mesh a command means; raises `Unreachable` with what to do about it."""
    from agentflow.masking import mask_url
    from agentflow.mesh.connect import connect

    located = locate(given)
    try:
        transport = await connect(located.url, name="agentflow-cli", timeout=CONNECT_TIMEOUT)
    except Unreachable as error:
        raise Unreachable(
            f"no mesh answers at {mask_url(located.url)} ({located.origin})",
            url=mask_url(located.url),
            origin=located.origin,
            hint="start one with `agentflow dev`, or say where it is with --nats-url or AF_NATS_URL",
        ) from error
    try:
        yield transport
    finally:
        await transport.close()


@contextlib.asynccontextmanager
async def open_client(given: str | None) -> AsyncIterator["Client"]:
    """A client of the mesh a command means."""
    from agentflow.client import Client

    async with open_transport(given) as transport:
        yield Client(transport)
