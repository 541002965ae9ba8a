"""What a real server stores and a client library chokes on: a malformed header block, and a consumer that is gone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.transport import ConsumerSpec
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

STREAM = {"name": "POISON", "subjects": ["poison.>"], "storage": "file", "allow_direct": True}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of the test's own."""
    with NatsServer(tmp_path) as running:
        yield running


async def raw_publish(url: str, subject: str, headers: bytes, body: bytes) -> None:
    """Publish by hand, with a header block no client would send."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write(b"HPUB %s %d %d\r\n" % (subject.encode(), len(headers), len(headers) + len(body)))
    writer.write(headers + body + b"\r\nPING\r\n")
    await writer.drain()
    while (await reader.readline()).strip() != b"PONG":
        pass
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("headers", [b"XXXX\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n", b"NATS/1.0\r\n: x\r\n\r\n"])
async def test_a_malformed_header_block_kills_neither_consumers_nor_readers(server: NatsServer, headers: bytes) -> None:
    """The message is delivered and read like any other, and so is everything behind it."""
    transport = await JetStreamTransport.connect(server.url, name="test")
    await transport.create_stream(STREAM)
    await transport.publish("poison.a", b"before", stream="POISON")
    await raw_publish(server.url, "poison.b", headers, b"poison")
    await transport.publish("poison.c", b"after", stream="POISON")
    consumer = await transport.consume(ConsumerSpec("POISON", "taker", ("poison.>",)))
    taken: list[bytes] = []

    async def take() -> None:
        async for delivery in consumer.deliveries(lambda: 8):
            taken.append(delivery.message.body)
            await delivery.ack()

    task = asyncio.create_task(take())
    await eventually(lambda: b"after" in taken, "the message behind the poison arrives")
    read = [message.body async for message in transport.read("POISON")]
    await consumer.close()
    await task
    assert {b"before", b"after"} <= set(taken)
    assert read[0] == b"before"
    assert read[-1] == b"after"
    assert await transport.rtt() < 2
    await transport.close()


async def test_a_consumer_that_was_deleted_is_made_again(server: NatsServer) -> None:
    """It starts over: what was handled comes again, and what is new comes too."""
    transport = await JetStreamTransport.connect(server.url, name="test")
    await transport.create_stream(STREAM)
    await transport.publish("poison.a", b"one", stream="POISON")
    consumer = await transport.consume(ConsumerSpec("POISON", "taker", ("poison.>",)))
    taken: list[bytes] = []

    async def take() -> None:
        async for delivery in consumer.deliveries(lambda: 8):
            taken.append(delivery.message.body)
            await delivery.ack()

    task = asyncio.create_task(take())
    await eventually(lambda: taken == [b"one"], "the first message arrives")
    await transport.request("$JS.API.CONSUMER.DELETE.POISON.taker", b"")
    await transport.publish("poison.b", b"two", stream="POISON")
    await eventually(lambda: b"two" in taken, "the second message arrives", within=20)
    await consumer.close()
    await task
    await transport.close()
