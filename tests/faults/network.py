"""A network namespace for services, joined to this machine by a wire that can lose packets in either direction.

Packets are lost by a wrong hardware address in the sender's neighbour table: they leave, and nobody takes them. That
needs neither a packet filter nor a queueing discipline, and neither end is told.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from agentflow.local.mesh import LocalMesh
from agentflow.local.processes import ChildProcess
from agentflow.local.services import Program

NOBODY = "02:00:00:00:00:99"
"""A hardware address nobody has."""


def can_make_namespaces() -> bool:
    """Whether this machine lets us make one: tried, because being root is not enough everywhere."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nsenter")):
        return False
    name = f"aft-probe-{os.getpid()}"
    command = [shutil.which("ip") or "ip", "netns"]
    if subprocess.run([*command, "add", name], capture_output=True, check=False).returncode:
        return False
    subprocess.run([*command, "del", name], capture_output=True, check=False)
    return True


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {output.decode()}"
    return output.decode()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace and its wire."""

    name: str
    mark: str
    """In the names of both ends of the wire."""
    here: str
    """Our address on the wire."""
    there: str
    """The services' address."""
    our_hardware: str
    their_hardware: str

    @classmethod
    @contextlib.asynccontextmanager
    async def made(cls, number: int) -> AsyncIterator[Self]:
        """A namespace for the time of a block; the number tells those of one process apart."""
        mark = f"{os.getpid()}-{number}"
        name, ours, theirs = f"aft-{mark}", f"a{mark}", f"b{mark}"
        block = f"10.213.{os.getpid() % 250}"
        here, there = f"{block}.{number * 4 + 1}", f"{block}.{number * 4 + 2}"
        await _run("ip", "netns", "add", name)
        try:
            await _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
            await _run("ip", "address", "add", f"{here}/30", "dev", ours)
            await _run("ip", "link", "set", ours, "up")
            await _run("ip", "-n", name, "link", "set", "lo", "up")
            await _run("ip", "-n", name, "address", "add", f"{there}/30", "dev", theirs)
            await _run("ip", "-n", name, "link", "set", theirs, "up")
            outside = await _run("ip", "-br", "link", "show", ours)
            inside = await _run("ip", "-n", name, "-br", "link", "show", theirs)
            network = cls(name, mark, here, there, outside.split()[2], inside.split()[2])
            await network.mend()
            yield network
        finally:
            await _run("ip", "netns", "del", name)  # the wire goes with it

    async def lose(self, *, to_broker: bool, to_services: bool) -> None:
        """Lose every packet of the given directions."""
        await self._point(NOBODY if to_broker else self.our_hardware, NOBODY if to_services else self.their_hardware)

    async def mend(self) -> None:
        """Lose nothing any more."""
        await self._point(self.our_hardware, self.their_hardware)

    async def _point(self, ours: str, theirs: str) -> None:
        inside, outside = f"b{self.mark}", f"a{self.mark}"
        fixed = ("nud", "permanent")
        await _run("ip", "-n", self.name, "neigh", "replace", self.here, "lladdr", ours, "dev", inside, *fixed)
        await _run("ip", "neigh", "replace", self.there, "lladdr", theirs, "dev", outside, *fixed)

    def entered(self, argv: Sequence[str]) -> list[str]:
        """A command line that runs `argv` inside; its process id stays what it is."""
        return [shutil.which("nsenter") or "nsenter", f"--net=/run/netns/{self.name}", *argv]


def mesh_in(network: Namespace) -> type[LocalMesh]:
    """A local mesh whose services live in a namespace."""

    class NamespacedMesh(LocalMesh):
        def _child(self, program: Program, name: str) -> ChildProcess:
            child = super()._child(program, name)
            child.argv = tuple(network.entered(child.argv))
            return child

    return NamespacedMesh
