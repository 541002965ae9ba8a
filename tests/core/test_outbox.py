"""The queue between an application and a broker that is away, and envelopes in the form of CloudEvents."""

import asyncio

import msgspec
import pytest

from agentflow.bus import StreamBus
from agentflow.cloudevents import from_stored
from agentflow.envelope import Sealed
from agentflow.errors import EnvelopeError, MeshError
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.outbox import Outbox
from agentflow.payloads import Lifecycle
from agentflow.testing import envelope
from tests.support.waiting import eventually

SUBJECT = "agents.worker.out"


def note(number: int, subject: str = SUBJECT) -> Sealed:
    """A numbered event."""
    return envelope(Lifecycle("worker", "one", "started", str(number)), subject, index=number)


async def memory() -> tuple[MemoryBroker, MemoryTransport]:
    """A broker whose faults can be chosen, with the stream of agents."""
    broker = MemoryBroker()
    transport = MemoryTransport(broker)
    await transport.create_stream({"name": "AF_AGENTS", "subjects": ["agents.>"], "storage": "memory"})
    return broker, transport


async def test_an_outage_fills_the_queue_and_the_queue_pushes_back() -> None:
    """Who brings more than there is room for waits; when the broker is back everything is stored, in order, once."""
    broker, transport = await memory()
    broker.faults.disconnect(times=8)
    outbox = Outbox(transport, capacity=3)
    futures = [await outbox.put(note(number)) for number in range(3)]
    pushed = asyncio.create_task(outbox.put(note(3)))
    await asyncio.sleep(0)
    assert (3, False) == (len(outbox), pushed.done())

    async with asyncio.timeout(30):
        stored = await asyncio.gather(*futures, await pushed)

    assert [1, 2, 3, 4] == [each.seq for each in stored]
    assert (0, 4) == (len(outbox), len([message async for message in transport.read("AF_AGENTS")]))


async def test_subjects_do_not_wait_for_each_other() -> None:
    """Trouble with one subject does not keep the others from being stored."""
    broker, transport = await memory()
    broker.faults.disconnect("agents.ill.out", times=10_000)
    outbox = Outbox(transport)
    ill = await outbox.put(note(0, "agents.ill.out"))
    async with asyncio.timeout(30):
        await (await outbox.put(note(1)))

    assert (False, 1) == (ill.done(), len(outbox))
    await outbox.close()


async def test_closing_tells_those_who_wait() -> None:
    """Whoever waits for an answer gets one; afterwards nothing is taken."""
    broker, transport = await memory()
    broker.faults.disconnect(times=10_000)
    bus = StreamBus(transport, capacity=1)
    waiting = asyncio.create_task(bus.publish(note(0)))
    pushed = asyncio.create_task(bus.publish(note(1)))
    await eventually(lambda: len(bus._outbox) == 1)
    await bus.close()
    await bus.close()

    for task in (waiting, pushed):
        with pytest.raises(MeshError) as raised:
            await asyncio.wait_for(task, 30)
        assert "bus.closed" == raised.value.error_code


def test_a_cloud_event_carries_what_proves_it() -> None:
    """The required attributes, our extensions (lower-case letters and digits only), and the payload as it is stored."""
    sealed = note(1)
    event = from_stored(sealed.body, SUBJECT)

    assert {"specversion", "id", "source", "type"} <= set(event)
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in event)
    assert (sealed.hash, "1.0", sealed.envelope.id) == (event["envelopehash"], event["specversion"], event["id"])
    assert msgspec.json.decode(sealed.envelope.payload) == event["data"]
    with pytest.raises(EnvelopeError):
        from_stored(sealed.body, "agents.other.out")


async def test_a_connection_closed_for_good_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes back on it; whoever waits is told, and the next one too."""
    broker, transport = await memory()
    broker.faults.disconnect(times=10_000)
    monkeypatch.setattr("agentflow.outbox.PATIENCE", 0.05)
    monkeypatch.setattr(MemoryTransport, "closed_reason", property(lambda _: "closed"))
    bus = StreamBus(transport)

    for number in range(2):
        with pytest.raises(MeshError):
            await asyncio.wait_for(bus.publish(note(number)), 30)
