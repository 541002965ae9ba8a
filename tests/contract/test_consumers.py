"""Durable consumers as they are told: what they take, how far they are, and who is active."""

import pytest

from agentflow.mesh.transport import ConsumerInfo, ConsumerSpec, Transport
from tests.contract.meshes import Worker, consumer, fill, stream
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
async def events(transport: Transport) -> None:
    """A stream that takes `events.>`."""
    await transport.create_stream(stream())


async def only(transport: Transport) -> ConsumerInfo:
    """The one there is."""
    (found,) = await transport.consumers("EVENTS")
    return found


async def test_a_stream_without_consumers_has_none(transport: Transport) -> None:
    """Nor has one that is not there."""
    assert [] == list(await transport.consumers("EVENTS"))
    assert [] == list(await transport.consumers("ELSEWHERE"))


async def test_consumers_are_told_by_name(transport: Transport) -> None:
    """With their filters, sorted."""
    for name in ("b", "a"):
        taken = await transport.consume(consumer(name, "events.z", "events.a"))
        await taken.close()

    found = await transport.consumers("EVENTS")
    assert [("EVENTS", "a", ("events.a", "events.z")), ("EVENTS", "b", ("events.a", "events.z"))] == [
        (each.stream, each.name, each.filters) for each in found
    ]
    assert {("explicit", -1)} == {(each.config["ack_policy"], each.config["max_deliver"]) for each in found}


async def test_how_far_a_consumer_is(transport: Transport) -> None:
    """What waits, what is in hand, and up to where everything is settled."""
    await fill(transport, 2, "events.other")
    await fill(transport, 5)
    async with Worker(await transport.consume(consumer("worker", "events.a")), capacity=2) as worker:
        await eventually(lambda: len(worker.seen) == 2)

        async def in_hand() -> bool:
            info = await only(transport)
            return (info.pending, info.unsettled, info.delivered_seq) == (3, 2, 4)

        await eventually(in_hand, within=10)
        await worker.ack(*worker.seen)
        await eventually(lambda: len(worker.seen) == 4)
        await worker.ack(*worker.seen[2:])
        await eventually(lambda: len(worker.seen) == 5)
        await worker.ack(worker.seen[4])

        async def done() -> bool:
            info = await only(transport)
            return (info.pending, info.unsettled, info.ack_floor) == (0, 0, 7)

        await eventually(done, within=10)


async def test_of_a_pinned_one_it_is_told_whether_somebody_is_active(transport: Transport) -> None:
    """Of any other there is always."""
    pinned = ConsumerSpec("EVENTS", "pinned", ("events.>",), pinned=True)
    taken = await transport.consume(pinned)
    assert (True, False) == ((await only(transport)).pinned, (await only(transport)).active)

    await fill(transport, 1)
    async with Worker(taken, acks=True) as worker:
        await eventually(lambda: worker.seen)
        assert (await only(transport)).active
