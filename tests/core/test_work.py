"""Working off a consumer: every delivery is settled once, in the right way, and none is lost or looped for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentflow.envelope import unseal
from agentflow.errors import (
    Conflict,
    EvidenceError,
    InputError,
    MeshError,
    NondeterminismError,
    NotStored,
    OutcomeUnknown,
    SchemaError,
    Unreachable,
)
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Delivery, Message
from agentflow.mesh.work import LONGEST_PAUSE, GiveUp, Handle, Worker, WorkPolicy
from agentflow.payloads import DeadLetter
from agentflow.schemas import payload_as
from agentflow.testing import START, memory_mesh
from tests.contract.meshes import Worker as Taker
from tests.contract.meshes import consumer, fill, stream
from tests.support.waiting import eventually, stays


class Asked(list[tuple[Any, ...]]):
    """What somebody was asked to do, in order."""


class FakeDelivery:
    """A delivery that remembers how it was settled."""

    def __init__(self, number: int = 1, *, deliveries: int = 1, fails: MeshError | None = None) -> None:
        self.message = Message("EVENTS", number, f"events.{number}", b"body", START)
        self.deliveries = deliveries
        self.settled = Asked()
        self.signs = 0
        self._fails = fails

    async def ack(self) -> None:
        self.settled.append(("ack",))

    async def nak(self, delay: float = 0.0) -> None:
        self.settled.append(("nak", delay))

    async def in_progress(self) -> None:
        if self._fails:
            raise self._fails
        self.signs += 1

    async def term(self) -> None:
        self.settled.append(("term",))


class FakeConsumer:
    """A consumer that yields what it is given, as long as there are slots, until it is closed."""

    def __init__(self, *waiting: FakeDelivery, fails: Exception | None = None) -> None:
        self.waiting = list(waiting)
        self.closed = False
        self.slots: list[int] = []
        self._fails = fails

    async def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        while not self.closed:
            await asyncio.sleep(0.001)
            self.slots.append(slots())
            if self._fails and not self.waiting:
                raise self._fails
            if self.waiting and slots() > 0:
                yield self.waiting.pop(0)

    async def close(self) -> None:
        self.closed = True


class Log:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.lines = Asked()

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts))

    def exception(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts))


POLICY = WorkPolicy(concurrency=2, ack_wait=30, max_deliveries=3, retry_delay=0.25)


async def fine(_: Delivery) -> None:
    """A handler that has nothing to do."""


class GaveUp:
    """Records what is given up, or fails to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.records = Asked()
        self._error = error

    async def __call__(self, delivery: Delivery, code: str, reason: str) -> None:
        if self._error:
            raise self._error
        self.records.append((delivery.message.seq, code, reason))


@asynccontextmanager
async def working(
    consumer: FakeConsumer,
    handle: Handle,
    give_up: GiveUp | None = None,
    *,
    policy: WorkPolicy = POLICY,
    log: Any = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """A worker at work; stopped and drained at the end."""
    stop = asyncio.Event()
    worker = Worker(consumer, handle, give_up or GaveUp(), policy, log or Log())
    running = asyncio.create_task(worker.run(stop))
    try:
        yield running
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await asyncio.gather(running, return_exceptions=True)


def failing(error: Exception) -> Handle:
    """A handler that raises."""

    async def handle(_: Delivery) -> None:
        raise error

    return handle


# --- how a delivery is settled ---------------------------------------------------------------------------------------


async def test_a_handled_message_is_acknowledged_when_its_handler_returns() -> None:
    """And not a moment before."""
    delivery, go_on = FakeDelivery(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        await go_on.wait()

    async with working(FakeConsumer(delivery), handle):
        await stays(lambda: delivery.settled == [], "nothing settled", during=0.05)
        go_on.set()
        await eventually(lambda: delivery.settled, "settled")

    assert [("ack",)] == delivery.settled


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (Unreachable("x"), 1.0),
        (OutcomeUnknown("x"), 1.0),
        (NotStored("x"), 0.25),
        (Conflict("x"), 0.25),
        (MeshError("x"), 0.25),
    ],
)
async def test_a_mesh_error_gives_the_message_back(error: MeshError, delay: float) -> None:
    """After the time the error asks for, or the policy's; it is told why, and nothing is given up."""
    delivery, gave_up, log = FakeDelivery(7), GaveUp(), Log()

    async with working(FakeConsumer(delivery), failing(error), gave_up, log=log):
        await eventually(lambda: delivery.settled, "settled")

    assert [("nak", delay)] == delivery.settled
    assert [] == gave_up.records
    assert [("message.retry", {"subject": "events.7", "code": error.error_code, "why": "x"})] == log.lines


@pytest.mark.parametrize(
    ("deliveries", "retry_delay", "delay"),
    [
        (1, 0.25, 1.0),
        (2, 0.25, 2.0),
        (4, 0.25, 8.0),
        (5, 0.25, LONGEST_PAUSE),
        (90, 0.25, LONGEST_PAUSE),
        (1, 60.0, 60.0),
        (9, 60.0, 60.0),
    ],
)
async def test_an_outage_does_not_use_a_messages_deliveries_up(
    deliveries: int, retry_delay: float, delay: float
) -> None:
    """Each time it waits twice as long, up to a limit; a policy that waits longer anyway is kept to."""
    delivery = FakeDelivery(deliveries=deliveries)
    policy = WorkPolicy(concurrency=1, ack_wait=30, max_deliveries=100, retry_delay=retry_delay)

    async with working(FakeConsumer(delivery), failing(Unreachable("x")), policy=policy):
        await eventually(lambda: delivery.settled, "settled")

    assert [("nak", delay)] == delivery.settled


@pytest.mark.parametrize(
    "error", [ValueError("bug"), KeyError("k"), RecursionError(), TimeoutError(), ExceptionGroup("g", [OSError()])]
)
async def test_any_other_error_gives_the_message_back_too(error: Exception) -> None:
    """The process lives on, and the log has the traceback."""
    delivery, log = FakeDelivery(7, deliveries=2), Log()

    async with working(FakeConsumer(delivery), failing(error), log=log) as running:
        await eventually(lambda: delivery.settled, "settled")
        assert not running.done()

    assert [("nak", 0.25)] == delivery.settled
    assert [("message.failed", {"subject": "events.7", "deliveries": 2})] == log.lines


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad"), "input.invalid"),
        (SchemaError("bad", code="schema.mismatch"), "schema.mismatch"),
        (EvidenceError("bad"), "evidence.damaged"),
        (NondeterminismError("bad"), "handler.nondeterministic"),
    ],
)
async def test_what_can_never_be_handled_is_given_up_at_once(error: Exception, code: str) -> None:
    """Recorded first, then ended: it would fail the same way every time."""
    delivery, gave_up, log = FakeDelivery(7), GaveUp(), Log()

    async with working(FakeConsumer(delivery), failing(error), gave_up, log=log):
        await eventually(lambda: delivery.settled, "settled")

    assert [(7, code, "bad")] == gave_up.records
    assert [("term",)] == delivery.settled
    assert "message.refused" == log.lines[0][0]


@pytest.mark.parametrize("trouble", [Unreachable("x"), SchemaError("x"), ValueError("x")])
@pytest.mark.parametrize("deliveries", [1, 4])
async def test_what_cannot_be_recorded_is_not_given_up(trouble: Exception, deliveries: int) -> None:
    """Whatever keeps the dead letter from being stored, the message comes again: never silence."""
    delivery, log = FakeDelivery(deliveries=deliveries), Log()

    async with working(FakeConsumer(delivery), failing(InputError("bad")), GaveUp(trouble), log=log):
        await eventually(lambda: delivery.settled, "settled")

    assert ["nak"] == [settled[0] for settled in delivery.settled]
    assert log.lines


# --- too many deliveries ---------------------------------------------------------------------------------------------


async def test_a_message_delivered_too_often_is_given_up_before_it_is_handled() -> None:
    """A message that kills its process never reaches a later check."""
    delivery, gave_up, handled = FakeDelivery(7, deliveries=4), GaveUp(), Asked()

    async def handle(given: Delivery) -> None:
        handled.append((given.message.seq,))

    async with working(FakeConsumer(delivery), handle, gave_up):
        await eventually(lambda: delivery.settled, "settled")

    assert [] == handled
    assert [(7, "delivery.exhausted", "delivered 4 times; allowed are 3")] == gave_up.records
    assert [("term",)] == delivery.settled


async def test_the_last_allowed_delivery_is_handled() -> None:
    """The limit is what is allowed, not what is too much."""
    delivery, gave_up = FakeDelivery(deliveries=3), GaveUp()

    async with working(FakeConsumer(delivery), fine, gave_up):
        await eventually(lambda: delivery.settled, "settled")

    assert ([("ack",)], []) == (delivery.settled, gave_up.records)


# --- slots -----------------------------------------------------------------------------------------------------------


async def test_no_more_are_handled_at_once_than_there_are_slots() -> None:
    """The next begins when one ends; what does not fit is not even asked for."""
    deliveries = [FakeDelivery(number) for number in range(1, 8)]
    source, at_once, peak = FakeConsumer(*deliveries), 0, 0

    async def handle(_: Delivery) -> None:
        nonlocal at_once, peak
        at_once += 1
        peak = max(peak, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    async with working(source, handle):
        await eventually(lambda: all(each.settled for each in deliveries), "all settled")

    assert 2 == peak
    assert {0, 1, 2} == set(source.slots)


async def test_a_message_that_comes_again_while_it_is_in_hand_is_not_handled_beside_itself() -> None:
    """Neither handled twice nor given up, however often it comes; once the first is settled it is handled as any other."""
    begun: list[int] = []
    go_on = asyncio.Event()

    async def slow(delivery: Delivery) -> None:
        begun.append(delivery.message.seq)
        await go_on.wait()

    first, again, often, other = (
        FakeDelivery(1),
        FakeDelivery(1, deliveries=2),
        FakeDelivery(1, deliveries=9),
        FakeDelivery(2),
    )
    gave_up = GaveUp()
    consumer_ = FakeConsumer(first, again, often, other)
    async with working(consumer_, slow, gave_up):
        await eventually(lambda: begun == [1, 2])
        go_on.set()
        await eventually(lambda: first.settled and other.settled)
        late = FakeDelivery(1, deliveries=2)
        consumer_.waiting.append(late)
        await eventually(lambda: late.settled)

    assert ([("ack",)], [], [], [("ack",)]) == (first.settled, again.settled, often.settled, late.settled)
    assert [1, 2, 1] == begun
    assert [] == gave_up.records


async def test_a_slow_handler_does_not_hold_up_the_others() -> None:
    """One slot stays with it, the other goes on."""
    slow, others, never = FakeDelivery(1), [FakeDelivery(number) for number in range(2, 6)], asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        if delivery.message.seq == 1:
            await never.wait()

    async with working(FakeConsumer(slow, *others), handle):
        await eventually(lambda: all(each.settled for each in others), "the others settled")
        assert [] == slow.settled
        never.set()

    assert [("ack",)] == slow.settled


# --- keep-alive ------------------------------------------------------------------------------------------------------


async def test_work_in_hand_is_kept_alive() -> None:
    """Three times an ack wait, for as long as the handler runs and no longer."""
    delivery, go_on = FakeDelivery(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        await go_on.wait()

    policy = WorkPolicy(concurrency=1, ack_wait=0.06, max_deliveries=3)
    async with working(FakeConsumer(delivery), handle, policy=policy):
        await eventually(lambda: delivery.signs >= 5, "five signs of life")
        go_on.set()
        await eventually(lambda: delivery.settled, "settled")
        signs = delivery.signs
        await stays(lambda: delivery.signs <= signs + 1, "no more signs", during=0.1)


async def test_one_that_cannot_be_told_does_not_end_the_keep_alive_of_others() -> None:
    """The connection may be down for one moment only."""
    deaf, other = FakeDelivery(1, fails=Unreachable("x")), FakeDelivery(2)
    go_on = asyncio.Event()

    async def handle(_: Delivery) -> None:
        await go_on.wait()

    policy = WorkPolicy(concurrency=2, ack_wait=0.06, max_deliveries=3)
    async with working(FakeConsumer(deaf, other), handle, policy=policy):
        await eventually(lambda: other.signs >= 5, "signs of life of the other")
        go_on.set()

    assert ([("ack",)], [("ack",)]) == (deaf.settled, other.settled)


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_stopping_finishes_what_is_in_hand() -> None:
    """The consumer asks for nothing more, the handler ends in peace, kept alive meanwhile, and then the worker does."""
    first, second, go_on, stop = FakeDelivery(1), FakeDelivery(2), asyncio.Event(), asyncio.Event()
    source, policy = FakeConsumer(first), WorkPolicy(concurrency=1, ack_wait=0.06, max_deliveries=3)

    async def handle(_: Delivery) -> None:
        await go_on.wait()

    running = asyncio.create_task(Worker(source, handle, GaveUp(), policy, Log()).run(stop))
    await eventually(lambda: not source.waiting, "taken")
    source.waiting.append(second)
    stop.set()
    await eventually(lambda: source.closed, "closed")
    signs = first.signs
    await eventually(lambda: first.signs > signs, "a sign of life while draining")
    assert not running.done()
    go_on.set()
    async with asyncio.timeout(5):
        await running

    assert ([("ack",)], []) == (first.settled, second.settled)


async def test_cancelling_drops_what_is_in_hand() -> None:
    """Nothing is settled that was not done, so it moves on after the ack wait; the handler sees the cancellation."""
    delivery, begun, cleaned = FakeDelivery(), asyncio.Event(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with working(FakeConsumer(delivery), handle) as running:
        await begun.wait()
        running.cancel()
        await eventually(running.done, "ended")

    assert cleaned.is_set()
    assert [] == delivery.settled


async def test_a_consumer_that_fails_ends_the_worker() -> None:
    """With its error, and without leaving handlers behind."""
    cleaned = asyncio.Event()

    async def handle(_: Delivery) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    worker = Worker(FakeConsumer(FakeDelivery(), fails=MeshError("gone")), handle, GaveUp(), POLICY, Log())
    with pytest.raises(MeshError, match="gone"):
        await worker.run(asyncio.Event())

    assert cleaned.is_set()


# --- with a broker ---------------------------------------------------------------------------------------------------

DEAD = stream("AF_DEAD", "dead.>")
QUICK = WorkPolicy(concurrency=4, ack_wait=30, max_deliveries=3, retry_delay=0.01)


@asynccontextmanager
async def service(
    mesh: MemoryTransport, handle: Handle, policy: WorkPolicy = QUICK, **more: Any
) -> AsyncIterator[None]:
    """A worker on a durable consumer, which writes dead letters."""

    async def give_up(delivery: Delivery, code: str, reason: str) -> None:
        await write_dead_letter(mesh, delivery, "worker", "tester", code, reason)

    stop = asyncio.Event()
    worker = Worker(await mesh.consume(consumer(**more)), handle, give_up, policy, Log())
    running = asyncio.create_task(worker.run(stop))
    yield
    stop.set()
    async with asyncio.timeout(10):
        await running


async def letters(mesh: MemoryTransport) -> list[DeadLetter]:
    """The dead letters there are."""
    return [payload_as(unseal(message.body), DeadLetter) async for message in mesh.read("AF_DEAD")]


async def test_everything_stored_is_handled_once() -> None:
    """Over several slots, in whatever order they end; nothing is left, and nothing comes again."""
    handled: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(0)
        handled.append(delivery.message.body)

    async with memory_mesh([stream(), DEAD]) as mesh:
        bodies = await fill(mesh, 50)
        async with service(mesh, handle):
            await eventually(lambda: len(handled) == 50, "all handled")
        async with service(mesh, handle):
            await stays(lambda: len(handled) == 50, "nothing again", during=0.1)

    assert sorted(bodies) == sorted(handled)


async def test_a_poison_message_becomes_a_dead_letter_and_the_others_go_on() -> None:
    """It is tried as often as allowed, then kept with its bytes and the reason."""
    tried, handled = Asked(), Asked()

    async def handle(delivery: Delivery) -> None:
        if delivery.message.seq == 2:
            tried.append((delivery.deliveries,))
            raise ValueError("poison")
        handled.append((delivery.message.seq,))

    async with memory_mesh([stream(), DEAD]) as mesh:
        await fill(mesh, 4)
        async with service(mesh, handle):
            found = await eventually(lambda: letters(mesh), "a dead letter")
            await stays(lambda: len(tried) == 3, "no more tries", during=0.1)

    assert [(1,), (2,), (3,)] == tried
    assert {(1,), (3,), (4,)} == set(handled)
    assert [("delivery.exhausted", 2, 4)] == [(letter.code, letter.seq, letter.deliveries) for letter in found]


async def taken_and_killed(mesh: MemoryTransport) -> int:
    """A process takes a message and dies with it in hand; returns how often it had been delivered."""
    victim = await Taker(await mesh.consume(consumer(ack_wait=0.05))).__aenter__()
    await eventually(lambda: victim.seen, "taken")
    victim.kill()
    return victim.seen[0].deliveries


async def test_a_message_that_kills_its_process_is_given_up_too() -> None:
    """Each time the process dies inside the handler, as one with a lost attachment does; the next one counts on."""
    tried = Asked()

    async with memory_mesh([stream(), DEAD]) as mesh:
        await fill(mesh, 1)
        for _ in range(3):
            tried.append((await taken_and_killed(mesh),))

        async with service(mesh, failing(AssertionError("handled once more")), ack_wait=0.05):
            found = await eventually(lambda: letters(mesh), "a dead letter")

    assert [(1,), (2,), (3,)] == tried
    assert [4] == [letter.deliveries for letter in found]


async def test_a_lost_dead_letter_is_written_again() -> None:
    """An unreachable stream of dead letters holds the message up, and loses nothing."""
    async with memory_mesh([stream(), DEAD]) as mesh:
        await fill(mesh, 1)
        mesh.broker.faults.disconnect("dead.>")
        async with service(mesh, failing(InputError("bad", code="input.bad"))):
            found = await eventually(lambda: letters(mesh), "a dead letter")

    assert [("input.bad", "bad")] == [(letter.code, letter.reason) for letter in found]


async def test_a_long_handler_is_not_delivered_again_elsewhere() -> None:
    """Kept alive well past the ack wait, with a second process waiting for work."""
    begun, go_on = Asked(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        begun.append((delivery.deliveries,))
        await go_on.wait()

    policy = WorkPolicy(concurrency=1, ack_wait=0.15, max_deliveries=3)
    async with memory_mesh([stream(), DEAD]) as mesh:
        await fill(mesh, 1)
        async with service(mesh, handle, policy, ack_wait=0.15), service(mesh, handle, policy, ack_wait=0.15):
            await eventually(lambda: begun, "begun")
            await stays(lambda: begun == [(1,)], "one delivery", during=0.5)
            go_on.set()

    assert [(1,)] == begun
