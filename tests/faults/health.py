"""I12: what services say of their health, written down beside what a test knows to be true at that moment.

A service that announces an address in its registry entry (`detail.http`) is asked for `/readyz`. One that announces
none counts as ready while its registry entry is kept alive: that is all it says of itself.
"""

import asyncio
import contextlib
import http.client
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from agentflow.errors import MeshError
from agentflow.mesh.transport import Transport
from agentflow.registry import REGISTRY, Heartbeat
from tests.faults.verdicts import Verdict, judged

SERVICES = frozenset({"planner", "runtime", "executor", "detector"})


@dataclass(frozen=True, slots=True)
class Observation:
    """What one service said at one moment."""

    moment: str
    service: str
    expected: bool
    ready: bool
    how: str
    """`readyz` or `registry`."""


@dataclass(slots=True)
class Health:
    """Asks services how they are."""

    addresses: dict[int, str] = field(default_factory=dict)
    """Process id to `host:port`, of those that announce one."""
    observations: list[Observation] = field(default_factory=list)

    async def learn(self, transport: Transport) -> None:
        """Remember the addresses; asking must not need the broker."""
        for beat in await heartbeats(transport):
            if address := beat.detail.get("http"):
                self.addresses[beat.pid] = urllib.parse.urlsplit(str(address)).netloc or str(address)

    async def observe(
        self, moment: str, expected: bool, pids: Mapping[str, int], transport: Transport | None = None
    ) -> None:
        """Ask every service, and write down what it says; `transport` is None while there is no broker to ask."""
        alive = {beat.pid for beat in await heartbeats(transport)} if transport is not None else set()
        for service, pid in pids.items():
            if address := self.addresses.get(pid):
                ready, how = await asyncio.to_thread(readyz, address), "readyz"
            else:
                ready, how = pid in alive, "registry"
            self.observations.append(Observation(moment, service, expected, ready, how))

    async def says(self, expected: bool, pids: Mapping[str, int], transport: Transport | None = None) -> bool:
        """Whether every service says so now; nothing is written down. For waiting."""
        look = Health(self.addresses)
        await look.observe("", expected, pids, transport)
        return all(each.ready is expected for each in look.observations)


def readyz(address: str) -> bool:
    """Whether `/readyz` answers 200. Blocks: run in a thread."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def pages(address: str) -> dict[str, bytes]:
    """Whatever a service shows. Blocks: run in a thread."""
    found = {}
    for page in ("/metrics", "/readyz", "/healthz"):
        connection = http.client.HTTPConnection(address, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", page)
            found[f"{address}{page}"] = connection.getresponse().read()
        connection.close()
    return found


async def heartbeats(transport: Transport) -> list[Heartbeat]:
    """The services that are in the registry now; none while it cannot be asked."""
    try:
        registry = await transport.bucket(REGISTRY)
        entries = await registry.entries()
    except MeshError:
        return []
    beats = [msgspec.json.decode(entry.value, type=Heartbeat) for entry in entries]
    return [beat for beat in beats if beat.kind in SERVICES]


def health_is_true(observations: Iterable[Observation]) -> Verdict:
    """I12: whoever cannot make progress does not say that it is ready, and whoever can does."""
    seen = list(observations)
    violations = [
        f"{each.moment}: {each.service} says it is {'ready' if each.ready else 'not ready'} ({each.how})"
        for each in seen
        if each.ready is not each.expected
    ]
    return judged("I12", len(seen), violations, "nobody was asked")
