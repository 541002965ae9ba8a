"""Pull consumption: order, settlement, redelivery, and never more in hand than there is room for."""

import asyncio
from dataclasses import replace

import pytest

from agentflow.errors import Conflict, MeshError
from agentflow.mesh.transport import Delivery, Transport
from tests.contract.meshes import Mesh, Worker, consumer, fill, stream
from tests.support.waiting import eventually, stays


@pytest.fixture(autouse=True)
async def events(transport: Transport) -> None:
    """A stream that takes `events.>`."""
    await transport.create_stream(stream())


async def test_messages_come_in_order_with_all_they_have(transport: Transport) -> None:
    """What was stored before the consumer existed and after, each with subject, body, headers, sequence and time."""
    await fill(transport, 3)
    async with Worker(await transport.consume(consumer()), acks=True) as worker:
        await transport.publish("events.b", b"\x00", stream="EVENTS", headers={"traceparent": "00-ab"})
        await eventually(lambda: len(worker.seen) == 4)

    for seq, delivery in enumerate(worker.seen, start=1):
        assert delivery.message == await transport.get("EVENTS", seq)
        assert 1 == delivery.deliveries
    assert "00-ab" == worker.seen[3].message.headers["traceparent"]


async def test_a_consumer_takes_what_its_filters_cover(transport: Transport) -> None:
    """Several patterns at once, in the order of the stream."""
    for subject in ("events.a.in", "events.a.out", "events.b.in", "events.c", "events.a.out"):
        await transport.publish(subject, subject.encode(), stream="EVENTS")

    async with Worker(await transport.consume(consumer("worker", "events.*.in", "events.c")), acks=True) as worker:
        await eventually(lambda: len(worker.seen) == 3)
        await stays(lambda: len(worker.seen) == 3)

    assert [b"events.a.in", b"events.b.in", b"events.c"] == worker.bodies


async def test_a_consumer_may_begin_with_what_is_new(transport: Transport) -> None:
    """With `start="new"` it passes over the history."""
    await fill(transport, 3)
    async with Worker(await transport.consume(consumer(start="new")), acks=True) as worker:
        await transport.publish("events.a", b"new", stream="EVENTS")
        await eventually(lambda: worker.seen)

    assert [b"new"] == worker.bodies


async def test_consumers_do_not_see_each_other(transport: Transport) -> None:
    """Two durable consumers of one stream each get everything."""
    bodies = await fill(transport, 5)
    async with (
        Worker(await transport.consume(consumer("one")), acks=True) as one,
        Worker(await transport.consume(consumer("two")), acks=True) as two,
    ):
        await eventually(lambda: len(one.seen) == len(two.seen) == 5)

    assert bodies == one.bodies == two.bodies


async def test_a_consumer_needs_its_stream(transport: Transport) -> None:
    """Consuming from a stream that does not exist is an error at once, not an endless wait."""
    with pytest.raises(MeshError):
        await transport.consume(replace(consumer(), stream="ELSEWHERE"))


async def test_a_long_backlog_is_worked_off(transport: Transport) -> None:
    """Five hundred messages through four slots, each once."""
    bodies = await fill(transport, 500)
    async with Worker(await transport.consume(consumer()), acks=True, capacity=4) as worker:
        await eventually(lambda: len(worker.seen) >= 500, within=20)
        await stays(lambda: len(worker.seen) == 500, during=0.1)

    assert bodies == worker.bodies


# --- settlement ------------------------------------------------------------------------------------------------------


async def settle_first(transport: Transport, how: str, ack_wait: float = 0.8) -> Worker:
    """Deliver one message, settle it the first time as said and the next times with an ack; the worker still runs."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    worker = await Worker(await transport.consume(consumer(ack_wait=ack_wait))).__aenter__()
    await eventually(lambda: worker.seen)
    await getattr(worker.seen[0], how)()
    return worker


@pytest.mark.parametrize("how", ["ack", "term"])
async def test_what_is_settled_does_not_come_again(transport: Transport, how: str) -> None:
    """Neither after an ack nor after it was given up, however long one waits."""
    worker = await settle_first(transport, how)

    await stays(lambda: len(worker.seen) == 1, during=1.7)
    await worker.stop()


async def test_what_is_refused_comes_again_at_once(transport: Transport) -> None:
    """A nak without delay: long before the ack wait ends, and counted."""
    worker = await settle_first(transport, "nak", ack_wait=30)

    await eventually(lambda: len(worker.seen) == 2)
    await worker.stop()

    assert [1, 2] == worker.counts
    assert worker.seen[0].message == worker.seen[1].message


async def test_what_is_refused_with_a_delay_comes_when_that_is_over(transport: Transport) -> None:
    """Not before, and not only after the ack wait; others are not held up meanwhile."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    async with Worker(await transport.consume(consumer(ack_wait=30))) as worker:
        await eventually(lambda: worker.seen)
        await worker.seen[0].nak(delay=1.0)
        refused = asyncio.get_running_loop().time()
        await transport.publish("events.a", b"y", stream="EVENTS")
        await eventually(lambda: len(worker.seen) == 3)
        passed = asyncio.get_running_loop().time() - refused

    assert [b"x", b"y", b"x"] == worker.bodies
    assert [1, 1, 2] == worker.counts
    assert 0.9 < passed < 10


async def test_what_is_not_settled_comes_again_and_is_counted(transport: Transport) -> None:
    """After each ack wait once more, with a growing count, for as long as nobody settles it."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    async with Worker(await transport.consume(consumer(ack_wait=0.2))) as worker:
        await eventually(lambda: len(worker.seen) == 4)
        await worker.seen[3].ack()
        seen = len(worker.seen)
        await stays(lambda: len(worker.seen) <= seen + 1, during=0.6)

    assert list(range(1, len(worker.seen) + 1)) == worker.counts


async def test_a_sign_of_life_keeps_a_message_in_hand(transport: Transport) -> None:
    """While its holder says it is in progress, it goes to nobody else, nearly three ack waits long; then it does."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    async with Worker(await transport.consume(consumer(ack_wait=1.0))) as worker:
        await eventually(lambda: worker.seen)
        for _ in range(9):
            await worker.seen[0].in_progress()
            await stays(lambda: len(worker.seen) == 1)
        await eventually(lambda: len(worker.seen) == 2)
        await worker.seen[1].ack()

    assert [1, 2] == worker.counts


async def test_a_late_ack_counts(transport: Transport) -> None:
    """After the message went out again the first holder's ack still settles it: holding one is no lock."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    async with Worker(await transport.consume(consumer(ack_wait=0.8))) as worker:
        await eventually(lambda: len(worker.seen) == 2)
        await worker.seen[0].ack()
        await worker.seen[1].ack()
        await stays(lambda: len(worker.seen) == 2, during=1.7)


async def test_what_its_stream_dropped_does_not_come_again(transport: Transport) -> None:
    """A message in hand that is replaced by a newer one of its subject is over; the consumer goes on."""
    await transport.create_stream(stream("LATEST", "latest.>", max_msgs_per_subject=1))
    spec = replace(consumer(ack_wait=0.8), stream="LATEST", filters=("latest.>",))
    async with Worker(await transport.consume(spec)) as worker:
        await transport.publish("latest.a", b"old", stream="LATEST")
        await eventually(lambda: worker.seen)
        await transport.publish("latest.a", b"new", stream="LATEST")
        await eventually(lambda: len(worker.seen) == 2)
        await worker.seen[1].ack()
        await stays(lambda: len(worker.seen) == 2, during=1.7)

    assert [b"old", b"new"] == worker.bodies


async def test_a_delivery_is_settled_once(transport: Transport) -> None:
    """What is said after the first settlement changes nothing."""
    await transport.publish("events.a", b"x", stream="EVENTS")
    async with Worker(await transport.consume(consumer())) as worker:
        await eventually(lambda: worker.seen)
        await worker.seen[0].ack()
        await worker.seen[0].nak()
        await worker.seen[0].ack()
        await stays(lambda: len(worker.seen) == 1)


async def test_redelivery_does_not_hold_up_what_is_new(transport: Transport) -> None:
    """A message that is refused again and again lets the others through, although there is one slot."""
    await fill(transport, 20)
    settled: set[int] = set()

    async with Worker(await transport.consume(consumer()), capacity=1) as worker:

        async def others_are_settled() -> bool:
            if worker.in_hand:
                delivery = worker.seen[-1]
                await (delivery.nak(delay=0.05) if delivery.message.seq == 1 else delivery.ack())
                settled.update({delivery.message.seq} - {1})
                worker.in_hand -= 1
            return len(settled) == 19

        await eventually(others_are_settled)

    assert settled == set(range(2, 21))
    assert all(delivery.deliveries == 1 for delivery in worker.seen if delivery.message.seq != 1)


# --- how much at once ------------------------------------------------------------------------------------------------


async def test_never_more_are_in_hand_than_there_are_slots(transport: Transport) -> None:
    """Three slots, twenty messages, nothing settled: three are handed out; with each ack one more."""
    await fill(transport, 20)
    async with Worker(await transport.consume(consumer()), capacity=3) as worker:
        await eventually(lambda: len(worker.seen) == 3)
        await stays(lambda: len(worker.seen) == 3)
        await worker.ack(*worker.seen[:2])
        await eventually(lambda: len(worker.seen) == 5)
        await stays(lambda: len(worker.seen) == 5)


async def test_without_slots_nothing_is_taken(transport: Transport) -> None:
    """No slot, no message; it comes as soon as there is room."""
    await fill(transport, 2)
    async with Worker(await transport.consume(consumer()), capacity=1) as worker:
        await eventually(lambda: worker.seen)
        await stays(lambda: len(worker.seen) == 1)
        await worker.ack(worker.seen[0])
        await eventually(lambda: len(worker.seen) == 2)


async def test_what_does_not_fit_is_left_to_others(mesh: Mesh) -> None:
    """A worker with two slots leaves the other eight to its neighbour, who need not wait for an ack wait to end."""
    other = await mesh.attach()
    await fill(mesh.transport, 10)
    async with Worker(await mesh.transport.consume(consumer()), capacity=2) as busy:
        await eventually(lambda: len(busy.seen) == 2)
        async with Worker(await other.consume(consumer()), acks=True) as free:
            await eventually(lambda: len(free.seen) == 8)

    assert list(range(1, 11)) == sorted(delivery.message.seq for delivery in busy.seen + free.seen)


async def test_the_limit_of_unsettled_messages_is_the_consumers(mesh: Mesh) -> None:
    """`max_ack_pending` counts over all attachments, whatever slots they have; an ack makes room for one more."""
    other, spec = await mesh.attach(), consumer(max_ack_pending=4)
    await fill(mesh.transport, 10)
    async with (
        Worker(await mesh.transport.consume(spec), capacity=3) as one,
        Worker(await other.consume(spec), capacity=3) as two,
    ):
        await eventually(lambda: len(one.seen) + len(two.seen) == 4)
        await stays(lambda: len(one.seen) + len(two.seen) == 4)
        holder = one if one.seen else two
        await holder.ack(holder.seen[0])
        await eventually(lambda: len(one.seen) + len(two.seen) == 5)
        await stays(lambda: len(one.seen) + len(two.seen) == 5)


async def test_a_message_waiting_out_its_delay_counts_as_unsettled(transport: Transport) -> None:
    """With room for one, the next comes only after the refused one was settled."""
    await fill(transport, 2)
    async with Worker(await transport.consume(consumer(max_ack_pending=1))) as worker:
        await eventually(lambda: worker.seen)
        await worker.seen[0].nak(delay=0.5)
        await eventually(lambda: len(worker.seen) == 2)
        await worker.seen[1].ack()
        await eventually(lambda: len(worker.seen) == 3)

    assert [1, 1, 2] == [delivery.message.seq for delivery in worker.seen]


# --- ending ----------------------------------------------------------------------------------------------------------


async def test_closing_gives_back_what_was_not_yielded(mesh: Mesh) -> None:
    """One of ten is taken, then the consumer is closed: another attachment gets the rest at once, none twice."""
    other = await mesh.attach()
    await fill(mesh.transport, 10)
    closing = await mesh.transport.consume(consumer())
    taken: list[Delivery] = []

    async with asyncio.timeout(10):
        async for delivery in closing.deliveries(lambda: 10 - len(taken)):
            taken.append(delivery)
            await delivery.ack()
            await closing.close()
    async with Worker(await other.consume(consumer()), acks=True) as worker:
        await eventually(lambda: len(worker.seen) + len(taken) == 10)
        await stays(lambda: len(worker.seen) + len(taken) == 10)

    assert list(range(1, 11)) == sorted(delivery.message.seq for delivery in taken + worker.seen)


async def test_closing_ends_a_wait_for_messages(transport: Transport) -> None:
    """Nobody is left waiting for a message that will not come; closing twice is fine."""
    closing = await transport.consume(consumer())
    async with Worker(closing) as worker:
        await stays(lambda: not worker.seen, during=0.1)
        await closing.close()
        await closing.close()


async def test_what_is_in_hand_when_the_consumer_closes_can_still_be_settled(mesh: Mesh) -> None:
    """A worker that drains acknowledges what it has after it stopped asking."""
    other, spec = await mesh.attach(), consumer(ack_wait=0.8)
    await fill(mesh.transport, 1)
    async with Worker(await mesh.transport.consume(spec)) as draining:
        await eventually(lambda: draining.seen)
    await draining.seen[0].ack()

    async with Worker(await other.consume(spec)) as worker:
        await stays(lambda: not worker.seen, during=1.5)


async def test_what_a_lost_process_held_moves_on_after_the_ack_wait(mesh: Mesh) -> None:
    """A connection that ends without settling leaves its messages to the others, and the count tells."""
    other, spec = await mesh.attach(), consumer(ack_wait=0.5)
    await fill(mesh.transport, 3)
    lost = await Worker(await other.consume(spec)).__aenter__()
    await eventually(lambda: len(lost.seen) == 3)
    lost.kill()
    await other.close()

    async with Worker(await mesh.transport.consume(spec), acks=True) as worker:
        await eventually(lambda: len(worker.seen) == 3)

    assert [1, 2, 3] == sorted(delivery.message.seq for delivery in worker.seen)
    assert [2, 2, 2] == worker.counts


# --- the durable consumer --------------------------------------------------------------------------------------------


async def test_a_durable_consumer_remembers_where_it_was(mesh: Mesh) -> None:
    """Whoever attaches later goes on behind what was acknowledged."""
    other = await mesh.attach()
    await fill(mesh.transport, 3)
    async with Worker(await mesh.transport.consume(consumer()), acks=True) as first:
        await eventually(lambda: len(first.seen) == 3)
    await mesh.transport.publish("events.a", b"later", stream="EVENTS")

    async with Worker(await other.consume(consumer()), acks=True) as second:
        await eventually(lambda: second.seen)
        await stays(lambda: len(second.seen) == 1)

    assert [b"later"] == second.bodies


async def test_attaching_again_reconciles_the_ack_wait(transport: Transport) -> None:
    """A shorter ack wait given by the second attachment is in force for what comes next."""
    await (await transport.consume(consumer(ack_wait=30))).close()
    await fill(transport, 1)

    async with Worker(await transport.consume(consumer(ack_wait=0.2))) as worker:
        await eventually(lambda: len(worker.seen) == 2, within=5)


async def test_attaching_again_reconciles_the_limit(transport: Transport) -> None:
    """So does another `max_ack_pending`."""
    await (await transport.consume(consumer(max_ack_pending=2))).close()
    await fill(transport, 10)

    async with Worker(await transport.consume(consumer(max_ack_pending=5))) as worker:
        await eventually(lambda: len(worker.seen) == 5)
        await stays(lambda: len(worker.seen) == 5)


async def test_attaching_with_another_filter_is_refused(transport: Transport) -> None:
    """What a durable consumer takes is never changed behind the back of those who share it."""
    await transport.consume(consumer("worker", "events.a"))

    with pytest.raises(Conflict) as conflict:
        await transport.consume(consumer("worker", "events.b"))

    assert "mesh.consumer_drift" == conflict.value.error_code


async def test_the_order_of_filters_does_not_matter(transport: Transport) -> None:
    """The same set of patterns is the same consumer."""
    await transport.consume(consumer("worker", "events.a", "events.b"))
    await transport.consume(consumer("worker", "events.b", "events.a"))


async def test_attaching_pinned_to_a_shared_consumer_is_refused(transport: Transport) -> None:
    """Whether one or many are active belongs to the consumer, too."""
    await transport.consume(consumer())

    with pytest.raises(Conflict) as conflict:
        await transport.consume(consumer(pinned=True))

    assert "mesh.consumer_drift" == conflict.value.error_code
