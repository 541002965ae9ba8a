"""D15: services and broker cannot hear each other, in both directions or in one, for a while; and then they can.

Through a proxy that holds everything back (nothing is closed, what was sent arrives when the way is free again), and,
where the machine lets us, through a network namespace whose packets really are lost. The ten minutes' partition is in
`test_long.py`.
"""

import time
from pathlib import Path

import pytest

from tests.faults.invariants import ALWAYS
from tests.faults.network import Namespace, can_make_namespaces
from tests.faults.proxy import Direction
from tests.faults.world import LOG, World, fault_world, side_by_side
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(420)]

DETECTED = 30.0
"""Seconds until services know that nobody answers; each then tries to connect anew."""

BACK = 30.0
"""Seconds from the end of a partition until work is done again; on an idle machine below 3."""


async def lasting(seconds: float, since: float) -> None:
    """Wait until so many seconds have passed since a moment."""
    await eventually(lambda: time.monotonic() - since >= seconds, f"{seconds} s", within=seconds + 10)


async def works_again(world: World) -> float:
    """Seconds until a run that is submitted now has its first effect."""
    begun, done = time.monotonic(), len(world.desk.ledger)
    await world.submit(1)
    await world.ended(done + 1, within=BACK)
    return time.monotonic() - begun


async def partitioned(directory: Path, held: tuple[Direction, ...], seconds: float) -> None:
    """A world whose services and broker cannot hear each other for a while."""
    async with fault_world(directory, proxied=True, alone=False) as world:
        proxy = world.proxy
        assert proxy is not None
        await world.submit(6)
        await world.ended(2)
        connections, begun = proxy.connections, time.monotonic()
        proxy.hold(*held)
        await world.submit(2)
        if seconds > DETECTED:
            every = connections + len(world.pids())
            await eventually(lambda: proxy.connections >= every, "every service tries anew", within=DETECTED)
            LOG.info("%s: noticed by all after %.1f s", held, time.monotonic() - begun)
            await world.witness.health.observe("partition", False, world.pids())
        await lasting(seconds, begun)
        proxy.release()
        LOG.info("%s for %.0f s: works again after %.1f s", held, seconds, await works_again(world))
        await recovered(world)


async def recovered(world: World) -> None:
    """No service had to be started again, and everything holds."""
    assert all(child.running for child in world.mesh.processes())
    report = await world.aftermath()
    report.require(*ALWAYS)
    await world.expect_exact_effects()


@pytest.mark.parametrize("seconds", [5.0, 60.0])
async def test_a_partition_is_noticed_and_survived(tmp_path: Path, seconds: float) -> None:
    """Nothing that was under way is lost or done twice, whoever could not be heard, and however long."""
    await side_by_side(
        tmp_path,
        lambda folder: partitioned(folder, ("up", "down"), seconds),
        lambda folder: partitioned(folder, ("up",), seconds),
        lambda folder: partitioned(folder, ("down",), seconds),
    )


async def test_a_connection_that_is_cut_again_and_again_is_made_again(tmp_path: Path) -> None:
    """Twenty resets under load."""
    async with fault_world(tmp_path, proxied=True) as world:
        assert world.proxy is not None
        for _ in range(20):
            done = len(world.desk.ledger)
            await world.submit(1)
            world.proxy.cut()
            await world.ended(done + 1)
        await recovered(world)


async def lossy(directory: Path, number: int, *, to_broker: bool, to_services: bool) -> None:
    """A world whose services live in a network of their own, whose wire loses every packet for 40 seconds."""
    async with (
        Namespace.made(number) as network,
        fault_world(directory, namespace=network, alone=False) as world,
    ):
        await world.submit(6)
        await world.ended(2)
        begun = time.monotonic()
        await network.lose(to_broker=to_broker, to_services=to_services)
        await world.submit(2)
        await lasting(40.0, begun)
        await network.mend()
        LOG.info("lost %s %s: works again after %.1f s", to_broker, to_services, await works_again(world))
        await recovered(world)


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces need root, ip and nsenter")
async def test_packets_that_are_really_lost_are_survived(tmp_path: Path) -> None:
    """Both ways, or one way only; neither end is told."""
    await side_by_side(
        tmp_path,
        lambda folder: lossy(folder, 1, to_broker=True, to_services=True),
        lambda folder: lossy(folder, 2, to_broker=True, to_services=False),
        lambda folder: lossy(folder, 3, to_broker=False, to_services=True),
    )
