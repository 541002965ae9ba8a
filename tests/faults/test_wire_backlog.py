"""D21: a consumer that is slower than what comes in: bounded memory, a lag that can be seen, and back-pressure."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from agentflow import logs
from agentflow.errors import PublishFailed
from agentflow.mesh.connect import connect
from agentflow.mesh.transport import ConsumerSpec, Delivery, Transport
from agentflow.mesh.work import Worker, WorkPolicy
from tests.plain.rawnats import RawNats
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

LOG = logging.getLogger("faults")
BACKLOG = 100_000
SLOTS = 16
BODY = b"x" * 1000

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that does not sync each message: the backlog is a means, not the point."""
    with NatsServer(tmp_path, sync="1m") as running:
        yield running


@contextlib.asynccontextmanager
async def attached(server: NatsServer) -> AsyncIterator[Transport]:
    """A connection to a server with a stream for the backlog."""
    transport = await connect(server.url, name="backlog")
    try:
        await transport.create_stream({"name": "AF_MESSAGES", "subjects": ["workflows.>"], "storage": "file"})
        yield transport
    finally:
        await transport.close()


def pile_up(url: str, count: int) -> None:
    """Publish without waiting for anything but the end."""
    with RawNats.to(url) as nats:
        for _ in range(count // 1000):
            nats.sock.sendall((b"PUB workflows.a.in %d\r\n%s\r\n" % (len(BODY), BODY)) * 1000)
        nats.ping()


async def lag(transport: Transport) -> int:
    """Messages the consumer has not been handed yet, as the server counts them."""
    [found] = [each for each in await transport.consumers("AF_MESSAGES") if each.name == "slow"]
    return found.pending


@pytest.mark.slow
async def test_a_backlog_of_a_hundred_thousand_stays_with_the_broker(server: NatsServer) -> None:
    """A process holds what it has slots for, the server says how much is left, and stopping is quick and clean."""
    async with attached(server) as transport:
        await asyncio.to_thread(pile_up, server.url, BACKLOG)
        spec = ConsumerSpec("AF_MESSAGES", "slow", ("workflows.*.in",), ack_wait=5.0, max_ack_pending=SLOTS * 2)
        in_hand = greatest = handled = 0

        async def handle(delivery: Delivery) -> None:
            nonlocal in_hand, greatest, handled
            in_hand += 1
            greatest = max(greatest, in_hand)
            await asyncio.sleep(0.01)
            in_hand, handled = in_hand - 1, handled + 1

        async def give_up(delivery: Delivery, code: str, reason: str) -> None:
            raise AssertionError(f"given up: {code}")

        stop, before = asyncio.Event(), psutil.Process().memory_info().rss
        worker = Worker(await transport.consume(spec), handle, give_up, WorkPolicy(SLOTS, 5.0, 8), logs.get("test"))
        working = asyncio.create_task(worker.run(stop))
        await eventually(lambda: handled > 2000, "two thousand are handled", within=120)
        seen, grown = await lag(transport), psutil.Process().memory_info().rss - before
        stop.set()
        await asyncio.wait_for(working, 30)
        LOG.info("backlog: %d handled, %d left, %.1f MiB grown, %d at once", handled, seen, grown / 2**20, greatest)
        assert greatest <= SLOTS
        assert BACKLOG - handled - SLOTS * 2 <= seen + 500
        assert seen > BACKLOG // 2
        assert grown < 32 * 2**20
        assert handled + await lag(transport) >= BACKLOG - SLOTS * 2


async def test_a_full_stream_tells_its_publisher_and_takes_again_what_there_is_room_for(server: NatsServer) -> None:
    """`discard: new`: nothing stored is lost for something new; the refusal is an error with a code, at once."""
    async with attached(server) as transport:
        full = {"name": "AF_AGENTS", "subjects": ["agents.>"], "max_bytes": 64 * 1024, "discard": "new"}
        await transport.create_stream(full)
        stored = 0

        async def fill() -> None:
            nonlocal stored
            while stored < 1000:
                await transport.publish("agents.a.in", BODY, stream="AF_AGENTS")
                stored += 1

        with pytest.raises(PublishFailed) as caught:
            await fill()
        info = await transport.stream_info("AF_AGENTS")
        assert info is not None
        assert (info.messages, caught.value.retry_after is None or caught.value.retry_after >= 0) == (stored, True)
        assert caught.value.error_code.startswith(("mesh.", "server."))
        await transport.rtt()
