"""Retrying dead letters, on both brokers: the same handler gets the same bytes again, once for each letter."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from agentflow import letters, subjects
from agentflow.clock import SystemClock
from agentflow.envelope import sha256_hex
from agentflow.errors import EvidenceError, InputError, MeshError
from agentflow.letters import Case, Letter, cases, seal_redelivered, seal_retried
from agentflow.mesh.deadletters import MAX_INLINE_BODY, write_dead_letter
from agentflow.mesh.publishing import store
from agentflow.mesh.retries import RetriedDelivery, Retries, retry
from agentflow.mesh.transport import ConsumerSpec, Delivery, Transport
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import ARTIFACTS
from tests.contract.meshes import objects, stream
from tests.support.waiting import eventually, stays

NAME = "agent-helper"
SPEC = ConsumerSpec("AF_AGENTS", NAME, ("agents.helper.in", "agents.helper.in.>"), ack_wait=5)
CLOCK = SystemClock()


@pytest.fixture(autouse=True)
async def mesh_streams(transport: Transport) -> None:
    """Where agents are told things, where dead letters go, and artifacts."""
    await transport.create_stream(stream("AF_AGENTS", "agents.>"))
    await transport.create_stream(stream("AF_DEAD", "dead.>"))
    await transport.create_stream(objects(ARTIFACTS))


@dataclass
class Handler:
    """Fails as long as it is told to, and keeps what it was given."""

    transport: Transport
    fails: bool = True
    seen: list[Delivery] = field(default_factory=list)

    async def handle(self, delivery: Delivery) -> None:
        self.seen.append(delivery)
        if self.fails:
            raise InputError("poison", code="test.poison")

    async def give_up(self, delivery: Delivery, code: str, reason: str) -> None:
        await write_dead_letter(self.transport, delivery, NAME, "runtime", code, reason)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.seen]


@asynccontextmanager
async def working(handler: Handler, *, name: str = NAME, max_deliveries: int = 3) -> AsyncIterator[None]:
    """A consumer that is worked off inside the block."""
    transport, stop = handler.transport, asyncio.Event()
    spec = ConsumerSpec(SPEC.stream, name, SPEC.filters, ack_wait=SPEC.ack_wait)
    worker = Worker(
        await transport.consume(spec),
        handler.handle,
        handler.give_up,
        WorkPolicy(4, 5.0, max_deliveries, retry_delay=0.05),
        structlog.get_logger(),
        Retries(transport, name),
    )
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def known(transport: Transport) -> list[Case]:
    """The letters there are, and what became of each."""
    return list(cases([(m.body, m.subject, m.seq, m.time) async for m in transport.read(letters.STREAM)]).values())


async def has_letters(transport: Transport, count: int) -> list[Case]:
    """Wait until there are so many letters."""
    found: list[Case] = []

    async def there() -> bool:
        found[:] = await known(transport)
        return len(found) == count

    await until(there)
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for an asynchronous condition."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  # what is waited for is on a broker
            await asyncio.sleep(0.02)


async def is_resolved(transport: Transport) -> bool:
    """Whether the first letter is."""
    return (await known(transport))[0].status == "resolved"


async def poison(transport: Transport, body: bytes = b"poison", subject: str = "agents.helper.in") -> Letter:
    """A message that was given up by a handler that is gone again."""
    await transport.publish(subject, body, stream="AF_AGENTS")
    async with working(Handler(transport)):
        return (await has_letters(transport, 1))[0].letter


async def test_a_retried_message_comes_to_the_same_handler_once(transport: Transport) -> None:
    """With its bytes and its subject, however often the retry is asked for, and never as a first delivery."""
    letter = await poison(transport)
    _, before = await retry(transport, letter, CLOCK)
    _, again = await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)

    async with working(handler):
        await until(lambda: is_resolved(transport))
        await stays(lambda: len(handler.seen) == 1, during=0.5)

    assert (False, True) == (before, again)
    (given,) = handler.seen
    assert (b"poison", "agents.helper.in", letter.content.seq) == (
        given.message.body,
        given.message.subject,
        given.message.seq,
    )
    assert isinstance(given, RetriedDelivery)
    assert given.deliveries > 1


async def test_what_was_handled_is_not_handled_again(transport: Transport) -> None:
    """A redelivery that comes back after it was resolved is acknowledged and nothing else."""
    letter = await poison(transport)
    record, _ = await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)
    async with working(handler):
        await until(lambda: is_resolved(transport))
    fresh = Handler(transport, fails=False)
    redelivery = seal_redelivered(letter, record)
    message = await transport.last("AF_AGENTS", redelivery.envelope.subject)
    assert message is not None

    assert await Retries(transport, NAME).resolve(FakeDelivery(message)) is None
    assert [] == fresh.seen


@dataclass
class FakeDelivery:
    """A delivery of a message that is stored."""

    message: Any
    deliveries: int = 1

    async def ack(self) -> None:
        """Nothing."""

    async def nak(self, delay: float = 0.0) -> None:
        """Nothing."""

    async def in_progress(self) -> None:
        """Nothing."""

    async def term(self) -> None:
        """Nothing."""


async def test_a_retry_that_fails_again_is_another_letter(transport: Transport) -> None:
    """Which names the first, and can be retried itself."""
    letter = await poison(transport)
    await retry(transport, letter, CLOCK)
    async with working(Handler(transport)):
        first, second = await has_letters(transport, 2)

    assert ("given up again", second.letter.id) == (first.status, first.again)
    assert ("open", letter.id) == (second.status, second.letter.content.retry_of)
    await retry(transport, second.letter, CLOCK)
    handler = Handler(transport, fails=False)
    async with working(handler):
        await eventually(lambda: handler.bodies == [b"poison"], within=30)


async def test_a_retry_that_keeps_failing_ends(transport: Transport) -> None:
    """A handler's own error is counted like any other delivery; the limit holds for the retry from its start."""
    letter = await poison(transport)
    await retry(transport, letter, CLOCK)

    class Broken(Handler):
        async def handle(self, delivery: Delivery) -> None:
            self.seen.append(delivery)
            raise RuntimeError

    handler = Broken(transport)
    async with working(handler, max_deliveries=2):
        _, second = await has_letters(transport, 2)

    assert ("delivery.exhausted", 2) == (second.letter.content.code, len(handler.seen))


async def test_a_retry_may_run_where_one_delivery_is_allowed(transport: Transport) -> None:
    """Its own deliveries count, not those of the original."""
    letter = await poison(transport)
    await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)

    async with working(handler, max_deliveries=1):
        await until(lambda: is_resolved(transport))
    assert [b"poison"] == handler.bodies


async def test_another_consumer_of_the_subject_is_not_told(transport: Transport) -> None:
    """It had the message, and did not give it up."""
    letter = await poison(transport)
    other = Handler(transport, fails=False)
    async with working(other, name="onlooker"):
        await eventually(lambda: len(other.seen) == 1, within=30)
        await retry(transport, letter, CLOCK)
        await stays(lambda: len(other.seen) == 1, during=0.5)

    assert [b"poison"] == other.bodies
    assert "retried" == (await known(transport))[0].status


async def test_a_large_message_comes_back_whole(transport: Transport) -> None:
    """From the artifact that keeps it."""
    body = b"\x00poison" * MAX_INLINE_BODY
    body = body[: MAX_INLINE_BODY + 1]
    letter = await poison(transport, body)
    assert f"sha256-{sha256_hex(body)}" == letter.artifact
    await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)

    async with working(handler):
        await eventually(lambda: handler.bodies == [body], within=30)


async def test_a_retry_nobody_recorded_is_a_stray(transport: Transport) -> None:
    """A redelivery without its record, or with another hash or id, stands for nothing and is refused as it is."""
    letter = await poison(transport)
    record = seal_retried(letter, CLOCK.now())
    await store(transport, seal_redelivered(letter, record), expect=0)
    handler = Handler(transport)

    async with working(handler):
        _, stray = await has_letters(transport, 2)
    assert stray.letter.content.retry_of == ""
    assert b"message.redelivered/1" in handler.bodies[0]


async def test_a_letter_whose_body_is_gone_cannot_be_retried(transport: Transport) -> None:
    """It is said before anything is stored."""
    letter = await poison(transport, b"x" * (MAX_INLINE_BODY + 1))
    missing = Letter(letter.sealed, letter.content, letter.seq, letter.stored)
    object.__setattr__(missing, "content", _with_artifact(letter, "artifact:sha256-" + "0" * 64))

    with pytest.raises(EvidenceError) as refused:
        await retry(transport, missing, CLOCK)
    assert "dead.body_damaged" == refused.value.error_code
    assert "open" == (await known(transport))[0].status


def _with_artifact(letter: Letter, body: str) -> Any:
    import msgspec

    return msgspec.structs.replace(letter.content, body_base64=body)


async def test_a_retry_killed_half_way_is_completed_by_the_next(transport: Transport) -> None:
    """The record first, then the redelivery: asking again stores what is missing and changes nothing else."""
    letter = await poison(transport)
    await store(transport, seal_retried(letter, CLOCK.now()), expect=0)
    _, before = await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)

    async with working(handler):
        await until(lambda: is_resolved(transport))
    assert before
    assert [b"poison"] == handler.bodies


async def test_two_who_retry_at_once_are_one(transport: Transport) -> None:
    """The broker decides whose record it is; both are told the same."""
    letter = await poison(transport)

    records = await asyncio.gather(*(retry(transport, letter, CLOCK) for _ in range(4)))
    assert 1 == len({record.hash for record, _ in records})
    subject = letters.redelivery_subject(letter)
    assert 1 == len([message async for message in transport.read("AF_AGENTS", subject)])
    assert 1 == len([message async for message in transport.read("AF_DEAD", letter.case)])


async def test_where_the_original_was_alone_on_its_subject_the_retry_is_beside_it(transport: Transport) -> None:
    """A step's own subject holds one message for ever."""
    letter = await poison(transport, subject=subjects.agent_in("helper", "step-1"))
    await retry(transport, letter, CLOCK)
    handler = Handler(transport, fails=False)

    async with working(handler):
        await eventually(lambda: handler.seen, within=30)
    assert "agents.helper.in.step-1" == handler.seen[0].message.subject


async def test_a_resolution_that_cannot_be_stored_is_not_forgotten(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message comes again, and is resolved then."""
    letter = await poison(transport)
    await retry(transport, letter, CLOCK)
    failures = [MeshError("no room", code="mesh.no_room")]
    from agentflow.mesh import retries as module

    real = module.resolve

    async def sometimes(*args: Any) -> None:
        if failures:
            raise failures.pop()
        await real(*args)

    monkeypatch.setattr(module, "resolve", sometimes)
    handler = Handler(transport, fails=False)
    async with working(handler):
        await until(lambda: is_resolved(transport))
    assert [b"poison", b"poison"] == handler.bodies
