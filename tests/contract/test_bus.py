"""The bus for applications: stored means stored, order is kept, nothing comes twice, an outage is waited out."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from agentflow.bus import MessageBus, StreamBus
from agentflow.cloudevents import from_stored
from agentflow.envelope import Sealed, unseal
from agentflow.errors import Conflict, MeshError
from agentflow.mesh.transport import Message, Transport
from agentflow.payloads import DeadLetter, Lifecycle
from agentflow.schemas import payload_as
from agentflow.testing import envelope
from tests.contract.meshes import Mesh, stream
from tests.support.waiting import eventually, stays

SUBJECT = "agents.worker.out"


def note(number: int, subject: str = SUBJECT) -> Sealed:
    """A numbered event."""
    return envelope(Lifecycle("worker", "one", "started", str(number)), subject, index=number)


@pytest.fixture(autouse=True)
async def streams(transport: Transport) -> None:
    """The streams of the mesh that these tests write to."""
    await transport.create_stream(stream("AF_AGENTS", "agents.>"))
    await transport.create_stream(stream("AF_DEAD", "dead.>"))
    await transport.create_stream(stream("OBJ_AF_ARTIFACTS", "$O.AF_ARTIFACTS.C.>", "$O.AF_ARTIFACTS.M.>"))


async def take(bus: StreamBus, count: int, durable: str = "reader", **more: Any) -> list[Any]:
    """The first `count` messages a subscriber is given; the last is acknowledged too, because one more is asked for."""
    found: list[Any] = []

    async def read() -> None:
        async with aclosing(bus.subscribe(SUBJECT, durable=durable, **more)) as messages:  # type: ignore[type-var]  # the protocol's iterator is a generator here
            async for message in messages:
                found.append(message)

    task = asyncio.create_task(read())
    try:
        await eventually(lambda: len(found) >= count, "messages")
        await stays(lambda: len(found) == count)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return found


async def test_what_is_published_is_read_again_in_order(transport: Transport) -> None:
    """By a subscriber and by replay, byte for byte, in the order of the calls that were made at once."""
    bus: MessageBus = StreamBus(transport)
    sent = [note(number) for number in range(20)]
    stored = await asyncio.gather(*(bus.publish(each) for each in sent))

    assert list(range(1, 21)) == [each.seq for each in stored]
    assert [each.body for each in sent] == [each.body for each in await bus.replay("AF_AGENTS")]
    assert isinstance(bus, StreamBus)
    assert [each.body for each in sent] == [each.body for each in await take(bus, 20)]


async def test_history_is_read_from_a_sequence_or_a_time(transport: Transport) -> None:
    """Both ends included; a time that is still to come finds nothing."""
    bus = StreamBus(transport)
    for number in range(4):
        await bus.publish(note(number))
    everything = await bus.replay("AF_AGENTS")

    assert everything[2:] == await bus.replay("AF_AGENTS", 3)
    assert [each for each in everything if each.time >= everything[2].time] == await bus.replay(
        "AF_AGENTS", everything[2].time
    )
    assert [] == await bus.replay("AF_AGENTS", everything[-1].time + timedelta(hours=1))


async def test_a_subscription_goes_on_where_it_was(transport: Transport) -> None:
    """What was finished does not come again under the same name; another name has a position of its own."""
    bus = StreamBus(transport)
    await bus.publish(note(0))
    assert 1 == len(await take(bus, 1))
    await bus.publish(note(1))

    assert [note(1).body] == [message.body for message in await take(bus, 1)]
    assert 2 == len(await take(bus, 2, durable="other"))


async def test_what_was_not_finished_comes_again(transport: Transport) -> None:
    """A subscriber that breaks out of its loop has not finished the message it was given."""
    bus = StreamBus(transport)
    await bus.publish(note(0))
    async with aclosing(bus.subscribe(SUBJECT, durable="reader")) as messages:  # type: ignore[type-var]  # as above
        async for message in messages:
            assert note(0).body == message.body
            break

    async with asyncio.timeout(30):
        assert [note(0).body] == [message.body for message in await take(bus, 1)]


async def test_an_envelope_that_is_stored_twice_is_given_once(transport: Transport) -> None:
    """It is one event; plain bodies that are alike are as many events as there are of them."""
    bus = StreamBus(transport)
    for body in (note(0).body, note(0).body, b"tick", b"tick"):
        await transport.publish(SUBJECT, body, stream="AF_AGENTS")

    assert [note(0).body, b"tick", b"tick"] == [message.body for message in await take(bus, 3)]


async def test_consumers_get_the_form_they_ask_for(transport: Transport) -> None:
    """CloudEvents, here; what cannot be given in that form becomes a dead letter and keeps nobody waiting."""
    bus = StreamBus(transport)
    await transport.publish(SUBJECT, b"no envelope", stream="AF_AGENTS")
    await bus.publish(note(7))

    def form(message: Message) -> dict[str, Any]:
        return from_stored(message.body, message.subject)

    (event,) = await take(bus, 1, form=form)
    assert ("agentflow.component.lifecycle.v1", {"component": "worker", "detail": "7"}) == (
        event["type"],
        {name: event["data"][name] for name in ("component", "detail")},
    )
    (dead,) = await bus.replay("AF_DEAD")
    letter = payload_as(unseal(dead.body, dead.subject), DeadLetter)
    assert ("envelope.not_sealed", "reader", SUBJECT) == (letter.code, letter.consumer, letter.subject)


async def test_a_refusal_reaches_the_publisher_and_nobody_else(transport: Transport) -> None:
    """A message the stream does not take fails its own publish; those behind it are stored."""
    bus = StreamBus(transport)
    foreign = note(1, "protocols.any.topic")
    refused, stored = await asyncio.gather(bus.publish(foreign), bus.publish(note(2)), return_exceptions=True)

    assert isinstance(refused, MeshError)
    assert not isinstance(refused, Conflict)
    assert 1 == len(await bus.replay("AF_AGENTS"))
    assert not isinstance(stored, BaseException)


async def test_a_lost_answer_is_no_lost_message(mesh: Mesh) -> None:
    """A publish that gets no answer is repeated with the same bytes and lands once."""
    bus = StreamBus(mesh.transport)
    with mesh.silence():
        publishing = asyncio.create_task(bus.publish(note(0)))
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await publishing

    assert [note(0).body] == [message.body for message in await bus.replay("AF_AGENTS")]
