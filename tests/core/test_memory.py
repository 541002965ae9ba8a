"""What the in-memory transport does beyond the contract: named brokers, time that jumps, loops and threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from agentflow.clock import SystemClock, format_time
from agentflow.errors import AgentflowError, PublishFailed, ServerUnfit, Unreachable
from agentflow.mesh.connect import connect
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.mesh.transport import ConsumerSpec, Delivery, ServiceSpec, Transport
from agentflow.testing import START, FixedClock, memory_mesh
from tests.support.waiting import eventually, stays

EVENTS = {"name": "EVENTS", "subjects": ["events.>"]}
TIMERS = {"name": "TIMERS", "subjects": ["timers.>"], "max_msgs_per_subject": 1}
TIMERS |= {"allow_msg_schedules": True, "allow_msg_ttl": True}
SECOND = 1_000_000_000


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands still."""
    return FixedClock()


@pytest.fixture
async def mesh(clock: FixedClock) -> AsyncIterator[MemoryTransport]:
    """A broker on that clock, with a stream of events and one of timers."""
    async with memory_mesh([EVENTS, TIMERS], clock=clock) as transport:
        yield transport


def spec(**more: Any) -> ConsumerSpec:
    """A consumer of all events."""
    return ConsumerSpec("EVENTS", "worker", ("events.>",), **{"ack_wait": 10.0, **more})


async def put(mesh: Transport, body: bytes = b"", subject: str = "events.a", **more: Any) -> int:
    """Store an event and return its sequence."""
    return (await mesh.publish(subject, body, stream=subject.partition(".")[0].upper(), **more)).seq


class Taker:
    """Keeps what a consumer hands out, until it is cancelled."""

    def __init__(self) -> None:
        self.seen: list[Delivery] = []
        self.task: asyncio.Task[None] | None = None

    async def take(self, transport: Transport, wanted: ConsumerSpec) -> None:
        """Begin."""
        deliveries = (await transport.consume(wanted)).deliveries(lambda: 100)

        async def run() -> None:
            async for delivery in deliveries:
                self.seen.append(delivery)

        self.task = asyncio.create_task(run())

    async def settle_down(self) -> list[tuple[int, int]]:
        """Let everything happen that can happen without time passing; what was seen: sequence and count."""
        for _ in range(20):
            await asyncio.sleep(0)
        return [(delivery.message.seq, delivery.deliveries) for delivery in self.seen]


@pytest.fixture
async def taker(mesh: MemoryTransport) -> AsyncIterator[Taker]:
    """Somebody who takes all events."""
    taking = Taker()
    await taking.take(mesh, spec())
    yield taking
    assert taking.task is not None
    taking.task.cancel()
    await asyncio.gather(taking.task, return_exceptions=True)


def test_it_is_a_transport() -> None:
    """As the type checker sees it, and so does whoever connects by URL."""
    transport: Transport = MemoryTransport()

    assert transport.connected


# --- brokers and connections -----------------------------------------------------------------------------------------


async def test_connections_by_name_share_a_broker() -> None:
    """`memory://desk` is the same place for the whole process, until it is forgotten."""
    one, two, other = await connect("memory://desk"), await connect("memory://desk"), await connect("memory://shop")
    try:
        await one.create_stream(EVENTS)
        await put(one, b"x")

        found = await two.last("EVENTS", "events.a")
        assert found is not None
        assert b"x" == found.body
        assert await other.stream_info("EVENTS") is None
    finally:
        for name in ("desk", "shop"):
            MemoryTransport.forget(name)
    assert await MemoryTransport.named("desk").stream_info("EVENTS") is None
    MemoryTransport.forget("desk")


async def test_a_named_broker_outlives_its_connections() -> None:
    """As a server does."""
    first = MemoryTransport.named("desk")
    try:
        await first.create_stream(EVENTS)
        await first.close()

        assert await MemoryTransport.named("desk").stream_info("EVENTS") is not None
    finally:
        MemoryTransport.forget("desk")


async def test_private_brokers_share_nothing() -> None:
    """Two transports made without a broker are two worlds."""
    one, two = MemoryTransport(), MemoryTransport()
    await one.create_stream(EVENTS)

    assert await two.stream_info("EVENTS") is None


async def test_a_connection_can_be_lost_for_good(mesh: MemoryTransport) -> None:
    """The far side throws it out: it says why, every call fails, other connections live, and closing is still fine."""
    other = MemoryTransport(mesh.broker)

    mesh.lose("authorisation expired")
    mesh.lose("again")

    assert "authorisation expired" == mesh.closed_reason
    assert not mesh.connected
    with pytest.raises(Unreachable):
        await put(mesh)
    assert 1 == await put(other)
    await mesh.close()
    assert "authorisation expired" == mesh.closed_reason


async def test_a_stopped_broker_is_unreachable_and_loses_nothing(mesh: MemoryTransport, taker: Taker) -> None:
    """Nothing is stored, nothing is delivered; afterwards the backlog comes."""
    await put(mesh)
    mesh.broker.stop()
    with pytest.raises(Unreachable):
        await put(mesh)
    with pytest.raises(Unreachable):
        await mesh.rtt()
    assert not mesh.connected
    assert [] == await taker.settle_down()

    mesh.broker.start()

    assert [(1, 1)] == await taker.settle_down()


async def test_an_ack_that_cannot_be_sent_is_lost(mesh: MemoryTransport, clock: FixedClock, taker: Taker) -> None:
    """So the message comes again: every handler has to expect that."""
    await put(mesh)
    await taker.settle_down()
    mesh.broker.stop()
    await taker.seen[0].ack()
    mesh.broker.start()

    clock.advance(10)

    assert [(1, 1), (1, 2)] == await taker.settle_down()


@pytest.mark.parametrize(
    "setting",
    [
        {"retention": "workqueue"},
        {"mirror": {"name": "OTHER"}},
        {"sources": [{"name": "OTHER"}]},
        {"subject_transform": {"src": ">", "dest": "a.>"}},
        {"allow_msg_counter": True},
        {"sealed": True},
    ],
)
async def test_what_memory_cannot_do_is_refused(setting: dict[str, Any]) -> None:
    """A test that passes because a setting was ignored would prove nothing."""
    with pytest.raises(ServerUnfit) as refused:
        await MemoryTransport().create_stream({**EVENTS, **setting})

    assert "memory.unsupported" == refused.value.error_code


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_a_fault_strikes_the_first_publish_it_covers(mesh: MemoryTransport) -> None:
    """Others pass, in the order they were planned each is used once, and what is left can be seen and cleared."""
    faults = mesh.broker.faults
    faults.disconnect("events.b")
    faults.drop("events.*", times=2)

    await put(mesh, subject="timers.x")
    outcomes = [await outcome(put(mesh, subject=f"events.{name}")) for name in "abbab"]

    assert ["mesh.outcome_unknown", "mesh.unreachable", "mesh.outcome_unknown", "stored", "stored"] == outcomes
    assert [] == list(faults.planned)
    faults.lose_ack()
    assert ["lost_ack"] == [fault.kind for fault in faults.planned]
    faults.clear()
    assert "stored" == await outcome(put(mesh))


async def outcome(publish: Any) -> str:
    """What became of it: `stored` or an error's code."""
    try:
        await publish
    except AgentflowError as error:
        return error.error_code
    return "stored"


async def test_the_three_faults_of_an_unknown_outcome_differ_in_what_is_stored(
    mesh: MemoryTransport, clock: FixedClock
) -> None:
    """Lost acknowledgement: stored. Dropped: never. Late: once its time has come, by the broker's clock."""
    faults = mesh.broker.faults
    faults.lose_ack("events.a")
    faults.drop("events.b")
    faults.delay(5, "events.c")
    for name in "abc":
        assert "mesh.outcome_unknown" == await outcome(put(mesh, subject=f"events.{name}"))

    before = [message.subject async for message in mesh.read("EVENTS")]
    clock.advance(5)
    after = [message async for message in mesh.read("EVENTS")]

    assert ["events.a"] == before
    assert ["events.a", "events.c"] == [message.subject for message in after]
    assert START + timedelta(seconds=5) == after[1].time


async def test_a_late_publish_whose_expectation_broke_is_not_stored(mesh: MemoryTransport, clock: FixedClock) -> None:
    """The guard is checked when it lands."""
    mesh.broker.faults.delay(5)
    assert "mesh.outcome_unknown" == await outcome(put(mesh, b"late", expect=0))
    await put(mesh, b"first", expect=0)

    clock.advance(5)

    assert [b"first"] == [message.body async for message in mesh.read("EVENTS")]


async def test_a_lost_acknowledgement_still_tells_of_a_conflict(mesh: MemoryTransport) -> None:
    """What the broker refuses it refuses: there was an answer to lose only for what it took."""
    await put(mesh)
    mesh.broker.faults.lose_ack()

    assert "mesh.conflict" == await outcome(put(mesh, expect=0))


# --- time ------------------------------------------------------------------------------------------------------------


async def test_messages_have_the_time_of_the_clock(mesh: MemoryTransport, clock: FixedClock) -> None:
    """And so do streams."""
    await put(mesh)
    clock.advance(1.5)
    await put(mesh)

    info = await mesh.stream_info("EVENTS")
    assert info is not None
    assert START == info.created
    times = [message.time async for message in mesh.read("EVENTS")]
    assert [START, START + timedelta(seconds=1.5)] == times


async def test_no_time_passes_by_itself(mesh: MemoryTransport, taker: Taker) -> None:
    """On a clock that stands still nothing is ever delivered twice."""
    await put(mesh)
    await eventually(lambda: taker.seen)

    await stays(lambda: len(taker.seen) == 1, during=0.2)


async def test_advancing_delivers_what_nobody_settled(mesh: MemoryTransport, clock: FixedClock, taker: Taker) -> None:
    """At the ack wait, not a moment before; a sign of life starts it anew."""
    await put(mesh)
    await taker.settle_down()
    clock.advance(9.999)
    await taker.seen[0].in_progress()
    clock.advance(9.999)
    assert [(1, 1)] == await taker.settle_down()

    clock.advance(0.001)

    assert [(1, 1), (1, 2)] == await taker.settle_down()


async def test_messages_come_again_in_the_order_they_fell_due(
    mesh: MemoryTransport, clock: FixedClock, taker: Taker
) -> None:
    """One jump over several delays: the earliest first."""
    for _ in range(3):
        await put(mesh)
    await taker.settle_down()
    for delivery, delay in zip(list(taker.seen), (3.0, 1.0, 2.0), strict=True):
        await delivery.nak(delay)

    clock.advance(60)

    assert [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (1, 2)] == await taker.settle_down()


async def test_timers_fire_in_order_and_at_their_time(mesh: MemoryTransport, clock: FixedClock) -> None:
    """A jump of a day fires all that was due, each stored with the moment it was due at."""
    for name, minutes in (("a", 30), ("b", 10), ("c", 20), ("d", 60 * 48)):
        due = START + timedelta(minutes=minutes)
        await arm(mesh, name, due)

    clock.advance(60 * 60 * 24)

    fired = [message async for message in mesh.read("TIMERS", "timers.due.>")]
    assert ["timers.due.b", "timers.due.c", "timers.due.a"] == [message.subject for message in fired]
    assert [10, 20, 30] == [(message.time - START).total_seconds() / 60 for message in fired]
    assert await mesh.last("TIMERS", "timers.set.d") is not None


async def arm(mesh: MemoryTransport, name: str, due: datetime) -> None:
    """Set a timer."""
    headers = {"Nats-Schedule": f"@at {format_time(due)}", "Nats-Schedule-Target": f"timers.due.{name}"}
    await mesh.publish(f"timers.set.{name}", b"", stream="TIMERS", headers=headers)


async def test_a_timer_wakes_a_consumer(clock: FixedClock, mesh: MemoryTransport) -> None:
    """Whoever waits for due timers gets one when the clock reaches it."""
    taking = Taker()
    await taking.take(mesh, ConsumerSpec("TIMERS", "timers", ("timers.due.>",)))
    await arm(mesh, "a", START + timedelta(hours=1))
    clock.advance(3599)
    assert [] == await taking.settle_down()
    clock.advance(1)

    assert [(2, 1)] == await taking.settle_down()
    assert taking.task is not None
    taking.task.cancel()


async def test_what_is_too_old_is_gone(clock: FixedClock) -> None:
    """`max_age` of the stream, and the duplicate window, which is never longer than that."""
    async with memory_mesh([{**EVENTS, "max_age": 60 * SECOND}], clock=clock) as mesh:
        await put(mesh, msg_id="one")
        clock.advance(30)
        await put(mesh, msg_id="one")
        await put(mesh)
        clock.advance(30)

        assert [2] == [message.seq async for message in mesh.read("EVENTS")]
        assert 3 == await put(mesh, msg_id="one")
        info = await mesh.stream_info("EVENTS")
        assert info is not None
        assert 60 * SECOND == info.config["duplicate_window"]


async def test_a_heartbeat_bucket_forgets_who_stops(clock: FixedClock) -> None:
    """Six seconds after the last beat the key is gone; its marker goes, too."""
    age = {"max_age": 6 * SECOND, "subject_delete_marker_ttl": 6 * SECOND, "allow_msg_ttl": True}
    config = {"name": "KV_LIVE", "subjects": ["$KV.LIVE.>"], "max_msgs_per_subject": 1, **age}
    async with memory_mesh([config], clock=clock) as mesh:
        live = await mesh.bucket("LIVE")
        for _ in range(5):
            await live.put("beats", b"")
            clock.advance(3)
        assert await live.get("beats") is not None

        clock.advance(3)

        assert await live.get("beats") is None
        assert [] == list(await live.entries())
        clock.advance(6)
        info = await mesh.stream_info("KV_LIVE")
        assert info is not None
        assert 0 == info.messages


async def test_with_the_machines_clock_time_passes() -> None:
    """Waiting consumers set real timers."""
    async with memory_mesh([EVENTS]) as mesh:
        taking = Taker()
        await taking.take(mesh, spec(ack_wait=0.05))
        await put(mesh)
        await eventually(lambda: len(taking.seen) >= 3)
        assert taking.task is not None
        taking.task.cancel()


async def test_any_other_clock_will_do() -> None:
    """One that only tells the time is asked for it; here it runs a thousand times as fast."""
    started = SystemClock().now()

    class Fast:
        def now(self) -> datetime:
            return started + (SystemClock().now() - started) * 1000

    async with memory_mesh([TIMERS], clock=Fast()) as mesh:
        await arm(mesh, "a", started + timedelta(seconds=100))

        async def fired() -> bool:
            return await mesh.last("TIMERS", "timers.due.a") is not None

        assert await eventually(fired, within=5)


async def test_the_same_calls_make_the_same_history() -> None:
    """Nothing depends on the machine: two brokers that are treated alike hold the same, times included."""

    async def history() -> list[object]:
        clock = FixedClock()
        async with memory_mesh([EVENTS, TIMERS], clock=clock) as mesh:
            for number in range(5):
                await put(mesh, str(number).encode())
                await arm(mesh, str(number), START + timedelta(seconds=10 - number))
                clock.advance(1)
            clock.advance(10)
            return [[message async for message in mesh.read(name)] for name in ("EVENTS", "TIMERS")]

    assert await history() == await history()


# --- loops and threads -----------------------------------------------------------------------------------------------


def test_a_broker_belongs_to_no_event_loop() -> None:
    """What one loop stored another reads, after the first is closed; a consumer of the first is no obstacle."""
    broker = MemoryBroker()

    async def first() -> None:
        transport = MemoryTransport(broker)
        await transport.create_stream(EVENTS)
        taking = Taker()
        await taking.take(transport, spec())
        await taking.settle_down()

    async def second() -> list[tuple[int, int]]:
        transport = MemoryTransport(broker)
        taking = Taker()
        await taking.take(transport, spec())
        await put(transport)
        seen = await taking.settle_down()
        assert taking.task is not None
        taking.task.cancel()
        return seen

    asyncio.run(first())

    assert [(1, 1)] == asyncio.run(second())


def test_threads_with_loops_of_their_own_share_a_broker() -> None:
    """One thread works off what another stores and answers its requests; each message is handled once."""
    broker, ready, done = MemoryBroker(), threading.Event(), threading.Event()
    handled: list[int] = []

    async def double(body: bytes) -> bytes:
        return body * 2

    async def work() -> None:
        transport = MemoryTransport(broker)
        await transport.create_stream(EVENTS)
        await transport.serve(ServiceSpec("calc", "1.0.0", "", endpoints={"double": double}))
        consumer = await transport.consume(spec())
        ready.set()
        async for delivery in consumer.deliveries(lambda: 4):
            handled.append(delivery.message.seq)
            await delivery.ack()
            if len(handled) == 200:
                await eventually(done.is_set)
                await consumer.close()

    async def ask() -> bytes:
        transport = MemoryTransport(broker)
        for _ in range(200):
            await put(transport)
        answer = await transport.request("calc.double", b"ab", timeout=10)
        done.set()
        return answer

    worker = threading.Thread(target=in_a_loop(work), daemon=True)
    worker.start()
    assert ready.wait(10)

    assert b"abab" == asyncio.run(ask())
    worker.join(10)
    assert list(range(1, 201)) == handled


def in_a_loop(work: Callable[[], Any]) -> Callable[[], None]:
    """A thread's body that runs a coroutine."""

    def run() -> None:
        asyncio.run(work())

    return run


async def test_a_cancelled_taker_gives_up_its_place(mesh: MemoryTransport) -> None:
    """The active one of a pinned consumer is cancelled, as at the end of a process: the next one takes over."""
    pinned = ConsumerSpec("EVENTS", "pinned", ("events.>",), pinned=True)
    one, two = Taker(), Taker()
    await one.take(mesh, pinned)
    await one.settle_down()
    await two.take(mesh, pinned)
    await put(mesh)
    assert [(1, 1)] == await one.settle_down()
    assert [] == await two.settle_down()
    assert one.task is not None
    assert two.task is not None
    await one.seen[0].ack()

    one.task.cancel()
    await put(mesh)

    assert [(2, 1)] == await two.settle_down()
    two.task.cancel()


async def test_a_publisher_lets_others_run(mesh: MemoryTransport) -> None:
    """A loop of publishes does not starve the loop: what runs beside it gets its turns."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(beside())
    for _ in range(50):
        await put(mesh)
    task.cancel()

    assert turns >= 50


async def test_a_refused_plain_request_is_an_error(mesh: MemoryTransport) -> None:
    """A request to a full stream is not answered as if it were stored."""
    await mesh.create_stream({"name": "FULL", "subjects": ["full.>"], "max_msgs": 1, "discard": "new"})
    await mesh.request("full.a", b"")

    with pytest.raises(PublishFailed):
        await mesh.request("full.a", b"")
