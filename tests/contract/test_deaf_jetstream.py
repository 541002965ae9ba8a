"""A process that can speak to the broker and not hear it: what is delivered to it is not delivered for ever."""

import asyncio
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.transport import ConsumerSpec
from tests.faults.proxy import Proxy
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

DEAF = 12.0
"""Seconds; without care a message is delivered once in each."""

FEW = 7
"""Deliveries of a message that nobody heard, and the one that was: fewer than make a dead letter."""


@pytest.mark.slow
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_deaf_process_does_not_use_up_the_deliveries_of_a_message(tmp_path: Path, pinned: bool) -> None:
    """It asks for nothing more until it hears the broker, so that the message is still in good standing then."""
    heard: list[int] = []
    with NatsServer(tmp_path) as server:
        async with Proxy.running() as proxy:
            proxy.target = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            speaker = await JetStreamTransport.connect(server.url)
            deaf = await JetStreamTransport.connect(f"nats://127.0.0.1:{proxy.port}")
            await speaker.create_stream({"name": "WORK", "subjects": ["work.>"]})
            consumer = await deaf.consume(ConsumerSpec("WORK", "worker", ("work.a",), pinned=pinned))

            async def listen() -> None:
                async for delivery in consumer.deliveries(lambda: 8):
                    heard.append(delivery.deliveries)
                    await delivery.ack()

            task = asyncio.create_task(listen())
            await speaker.publish("work.a", b"first", stream="WORK")
            await eventually(lambda: heard == [1], "the first message")
            proxy.hold("down")
            await speaker.publish("work.a", b"second", stream="WORK")
            await asyncio.sleep(DEAF)
            proxy.release()
            await eventually(lambda: len(heard) >= 2, "the second message", within=30)
            task.cancel()
            await deaf.close()
            await speaker.close()

    assert max(heard) <= FEW
