"""What only a real server can do: be killed, be away, freeze, and come back on the same port with the same data."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agentflow.errors import Conflict, MeshError, OutcomeUnknown, PublishFailed, ServerUnfit, Unreachable
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import ServiceSpec, Stored, Transport
from agentflow.testing import goal
from tests.contract.meshes import Worker, bucket, consumer, fill, stream
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually, stays


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that a test may kill and start again."""
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def transport(server: NatsServer) -> AsyncIterator[Transport]:
    """A connection to it, and a stream on disk."""
    connected = await JetStreamTransport.connect(server.url, name="contract", timeout=10)
    await connected.create_stream(stream(storage="file"))
    yield connected
    await connected.close()


async def restart(server: NatsServer, transport: Transport, away: float = 0.0) -> None:
    """Kill the server, let it be away, start it again, and return when the connection is back."""
    server.kill()
    await eventually(lambda: not transport.connected, "loss of the connection")
    await stays(lambda: not transport.connected, during=away)
    await asyncio.to_thread(server.start)
    await eventually(lambda: transport.connected, "connection")


async def test_the_connection_comes_back_by_itself(server: NatsServer, transport: Transport) -> None:
    """It is seen to be gone, `rtt` says so, nothing was closed for good, and afterwards all is as before."""
    await fill(transport, 3)
    server.kill()
    await eventually(lambda: not transport.connected)
    with pytest.raises(Unreachable):
        await transport.rtt(timeout=0.5)
    with pytest.raises(Unreachable):
        await transport.publish("events.a", b"", stream="EVENTS")
    await asyncio.to_thread(server.start)
    await eventually(lambda: transport.connected)

    assert await transport.rtt() < 2
    assert transport.closed_reason is None
    assert 3 == len([message async for message in transport.read("EVENTS")])


async def test_what_waits_for_a_server_that_dies_is_told_at_once(server: NatsServer, transport: Transport) -> None:
    """Requests and reads in flight end with the connection, as unknown, and not seconds later with their time-out."""
    await fill(transport, 3)
    loop = asyncio.get_running_loop()

    async def read() -> None:
        [message async for message in transport.read("EVENTS")]

    server.freeze()
    asked: list[asyncio.Task[object]] = [
        asyncio.create_task(transport.publish("events.a", b"", stream="EVENTS", timeout=60)),
        asyncio.create_task(transport.rtt(timeout=60)),
        asyncio.create_task(read()),
    ]
    await stays(lambda: not any(task.done() for task in asked), "waiting for a frozen server")
    server.kill()
    killed = loop.time()
    ended = await asyncio.gather(*asked, return_exceptions=True)

    assert [OutcomeUnknown, Unreachable, OutcomeUnknown] == [type(each) for each in ended]
    assert all("connection was lost" in str(each) for each in (ended[0], ended[2]))
    assert loop.time() - killed < 3.5
    await asyncio.to_thread(server.start)
    await eventually(lambda: transport.connected)
    assert 3 <= len([message async for message in transport.read("EVENTS")])


async def test_a_service_presents_itself_once_however_often_it_is_asked_to(
    server: NatsServer, transport: Transport
) -> None:
    """A presentation that was interrupted may be repeated."""
    for _ in range(2):
        await transport.serve(ServiceSpec("again", "1.0.0", "presents itself"))
    assert isinstance(transport, JetStreamTransport)

    assert 1 == len(transport._services)


async def test_consumers_go_on_after_a_restart(server: NatsServer, transport: Transport) -> None:
    """Two of them, without being told: everything stored before and after reaches each, soon."""
    one = Worker(await transport.consume(consumer("one", ack_wait=1.0)), acks=True)
    two = Worker(await transport.consume(consumer("two", ack_wait=1.0)), acks=True)
    async with one, two:
        await fill(transport, 5)
        await eventually(lambda: len(one.seen) >= 5 and len(two.seen) >= 5)
        await restart(server, transport)
        await fill(transport, 5, "events.b")
        await eventually(lambda: len(set(one.bodies)) == len(set(two.bodies)) == 10, within=8)


async def test_a_waiting_consumer_survives_a_long_absence(server: NatsServer, transport: Transport) -> None:
    """Its requests died with the server; nobody has to ask anew by hand."""
    async with Worker(await transport.consume(consumer(ack_wait=1.0)), acks=True) as worker:
        await stays(lambda: not worker.seen, during=0.1)
        await restart(server, transport, away=3.0)
        await fill(transport, 1)
        await eventually(lambda: worker.seen, within=8)


async def test_a_pinned_consumer_goes_on_after_a_restart(server: NatsServer, transport: Transport) -> None:
    """The pin it had is forgotten with the server; it gets another one."""
    spec = consumer(pinned=True, ack_wait=1.0)
    async with Worker(await transport.consume(spec), acks=True) as worker:
        await fill(transport, 1)
        await eventually(lambda: worker.seen)
        await restart(server, transport)
        await fill(transport, 2, "events.b")
        await eventually(lambda: len(set(worker.bodies)) == 3)


async def test_what_was_in_hand_comes_again_after_a_restart(server: NatsServer, transport: Transport) -> None:
    """A message that nobody settled before the kill is delivered once more."""
    async with Worker(await transport.consume(consumer(ack_wait=1.0))) as worker:
        await fill(transport, 1)
        await eventually(lambda: worker.seen)
        await restart(server, transport)
        await eventually(lambda: len(worker.seen) >= 2)
        await worker.seen[-1].ack()


async def test_followers_watchers_and_services_go_on_after_a_restart(server: NatsServer, transport: Transport) -> None:
    """Whatever was set up on the connection is set up again with it."""

    async def echo(body: bytes) -> bytes:
        return body

    await transport.create_stream(bucket(storage="file"))
    await transport.serve(ServiceSpec("echo", "1.0.0", "echoes", endpoints={"say": echo}))
    await transport.create_stream(stream("MORE", "more.>", republish={"src": "more.>", "dest": "stored.more.>"}))
    following = transport.follow("stored.more.>")
    await following.ready()
    state = await transport.bucket("STATE")
    seen: list[str] = []

    async def watch() -> None:
        async for entry in state.watch():
            seen.append(entry.key)

    watching = asyncio.create_task(watch())
    await state.put("before", b"")
    await eventually(lambda: seen == ["before"])

    await restart(server, transport)
    await transport.create_stream(stream("MORE", "more.>", republish={"src": "more.>", "dest": "stored.more.>"}))
    await state.put("after", b"")
    await transport.publish("more.a", b"x", stream="MORE")

    assert b"hi" == await transport.request("echo.say", b"hi")
    assert ("stored.more.a", b"x") == await following.next(timeout=5)
    await eventually(lambda: "after" in seen)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


# --- the three outcomes under fire -----------------------------------------------------------------------------------


class Writer:
    """Publishes numbered messages one after the other and notes what it was told about each."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport, self._subject = transport, f"events.{name}"
        self.stored: dict[bytes, Stored] = {}
        self.failed: set[bytes] = set()
        self.unknown: set[bytes] = set()

    async def run(self, going: Callable[[], bool]) -> None:
        """Write while `going`."""
        number = 0
        while going():
            number += 1
            body = f"{self._subject} {number}".encode()
            try:
                self.stored[body] = await self._transport.publish(self._subject, body, stream="EVENTS", timeout=0.5)
            except OutcomeUnknown:
                self.unknown.add(body)
            except (Unreachable, PublishFailed):
                self.failed.add(body)
                await asyncio.sleep(0.01)  # not connected: leave the loop to the others


async def more_is_stored(writers: list[Writer]) -> None:
    """Wait until the writers have had fifty more acknowledgements."""
    before = sum(len(writer.stored) for writer in writers)
    await eventually(lambda: sum(len(writer.stored) for writer in writers) > before + 50)


async def test_every_publish_of_an_outage_ends_in_one_of_three_outcomes(
    server: NatsServer, transport: Transport
) -> None:
    """Ten writers, three kills: what was acknowledged is there under its sequence, what failed is not, nothing is twice."""
    writers = [Writer(transport, str(number)) for number in range(10)]
    writing = True
    tasks = [asyncio.create_task(writer.run(lambda: writing)) for writer in writers]
    for away in (0.0, 0.5, 1.0):
        await more_is_stored(writers)
        await restart(server, transport, away)
    writing = False
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)

    found = {message.seq: message.body async for message in transport.read("EVENTS")}
    bodies = list(found.values())
    assert len(bodies) == len(set(bodies))
    for writer in writers:
        assert {stored.seq: body for body, stored in writer.stored.items()}.items() <= found.items()
        assert not writer.failed & set(bodies)
    assert set(bodies) <= {body for writer in writers for body in (*writer.stored, *writer.unknown)}


async def test_envelopes_stored_through_an_outage_are_there_once(server: NatsServer, transport: Transport) -> None:
    """`store` repeats the same bytes until it knows: with an id, and with an expected sequence."""
    await transport.create_stream(stream("AF_MESSAGES", "workflows.>", storage="file"))
    goals = [goal("support", workflow_id=f"run-{number}") for number in range(40)]

    async def store_one(number: int) -> Stored:
        await asyncio.sleep(number * 0.01)
        return await store(transport, goals[number], expect=0 if number % 2 else None, patience=20)

    storing = asyncio.gather(*(store_one(number) for number in range(40)))
    await restart(server, transport, away=0.3)
    answers = await storing

    found = {message.seq: message.body async for message in transport.read("AF_MESSAGES")}
    assert {stored.seq: sealed.body for stored, sealed in zip(answers, goals, strict=True)} == found


async def test_a_duplicate_is_recognised_across_a_restart(server: NatsServer, transport: Transport) -> None:
    """The window is rebuilt from what is on disk."""
    await transport.publish("events.a", b"x", stream="EVENTS", msg_id="one")
    await restart(server, transport)

    again = await transport.publish("events.a", b"x", stream="EVENTS", msg_id="one")

    assert Stored("EVENTS", 1, duplicate=True) == again


async def test_an_expected_sequence_holds_across_a_restart(server: NatsServer, transport: Transport) -> None:
    """What was stored is there for every later writer."""
    await transport.publish("events.a", b"x", stream="EVENTS", expect=0)
    await restart(server, transport)

    with pytest.raises(Conflict):
        await transport.publish("events.a", b"y", stream="EVENTS", expect=0)


async def test_a_frozen_server_is_noticed(server: NatsServer, transport: Transport) -> None:
    """The connection is up and nobody answers: calls end at their timeout, and go on when it thaws."""
    server.freeze()
    try:
        with pytest.raises(Unreachable):
            await transport.rtt(timeout=0.3)
        with pytest.raises(OutcomeUnknown):
            await transport.request("events.a", b"", timeout=0.3)
    finally:
        server.thaw()

    assert await transport.rtt() < 2


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_connecting_to_nobody_ends_after_the_timeout(server: NatsServer) -> None:
    """With `Unreachable`, and not much later."""
    server.kill()
    loop = asyncio.get_running_loop()
    before = loop.time()

    with pytest.raises(Unreachable):
        await JetStreamTransport.connect(server.url, timeout=0.5)

    assert loop.time() - before < 3


async def test_connecting_waits_for_a_server_that_is_starting(server: NatsServer) -> None:
    """Processes may be started in any order."""
    server.kill()
    connecting = asyncio.create_task(JetStreamTransport.connect(server.url, timeout=10))
    await stays(lambda: not connecting.done())
    await asyncio.to_thread(server.start)

    connected = await connecting
    assert await connected.rtt() < 2
    await connected.close()


async def test_a_dead_server_does_not_hold_up_the_end_of_a_process(server: NatsServer, transport: Transport) -> None:
    """Closing is bounded, with consumers and messages in hand."""
    async with Worker(await transport.consume(consumer())) as worker:
        await fill(transport, 3)
        await eventually(lambda: len(worker.seen) == 3)
        server.freeze()
        try:
            async with asyncio.timeout(8):
                await transport.close()
        finally:
            server.thaw()


# --- whether it is fit -----------------------------------------------------------------------------------------------


async def test_a_server_that_syncs_before_it_acknowledges_is_fit(server: NatsServer, transport: Transport) -> None:
    """Its own account of its configuration, over the monitoring port, is the proof."""
    await transport.require_durable(server.monitor_url)


@pytest.mark.parametrize("monitored", [True, False], ids=["not set", "not provable"])
async def test_a_server_that_cannot_be_shown_to_sync_is_unfit(tmp_path: Path, monitored: bool) -> None:
    """Either it says that it does not, or nobody could ask."""
    with NatsServer(tmp_path / "nats", sync='"2m"') as server:
        connected = await JetStreamTransport.connect(server.url, timeout=10)
        try:
            with pytest.raises(ServerUnfit):
                await connected.require_durable(server.monitor_url if monitored else "")
        finally:
            await connected.close()


async def test_a_closed_transport_takes_no_consumers(transport: Transport) -> None:
    """The error is one of ours."""
    await transport.close()

    with pytest.raises(MeshError):
        await transport.consume(consumer())
