"""Retrying dead letters: telling a consumer (`retry`), and what the consumer makes of it (`Retries`).

`retry` stores the record before it tells the consumer, so a redelivery without a record is no retry, and doing it again
completes what a killed command left undone. `Retries` finds the letter, checks that it is this consumer's and that the
redelivery is exactly the one that follows from it, and hands out the original message. What does not check out stays
what it is, and the handler refuses it like any other stray.
"""

from agentflow.artifacts import MAX_ARTIFACT
from agentflow.clock import Clock, SystemClock, parse_time
from agentflow.envelope import Sealed, unseal
from agentflow.errors import Conflict, EvidenceError, InputError, NotStored
from agentflow.letters import (
    STREAM,
    Letter,
    original_body,
    read_letter,
    redelivered,
    redelivery_id,
    redelivery_subject,
    seal_redelivered,
    seal_resolved,
    seal_retried,
)
from agentflow.mesh.publishing import store, store_once
from agentflow.mesh.transport import Delivery, Message, Transport
from agentflow.payloads import MessageRedelivered, MessageResolved, MessageRetried
from agentflow.registry import ARTIFACTS
from agentflow.schemas import decode_payload, payload_as
from agentflow.subjects import dead

TIMER_LIFE = {"Nats-TTL": "720h"}
"""Headers of what is redelivered on `AF_TIMERS`, which nothing else removes."""


class RetriedDelivery:
    """The delivery of a redelivery, with the original message in its place."""

    def __init__(self, transport: Transport, inner: Delivery, letter: Letter, original: Message, clock: Clock) -> None:
        self._transport, self._inner, self._letter, self._clock = transport, inner, letter, clock
        self._settled = False
        self.message = original

    @property
    def letter_id(self) -> str:
        """The letter it comes from."""
        return self._letter.id

    @property
    def deliveries(self) -> int:
        """Never 1: the original was delivered before, and what it left behind has to be looked for."""
        return self._inner.deliveries + 1

    async def ack(self) -> None:
        """Done: the letter is resolved. Raises `MeshError` where that cannot be stored; then it comes again."""
        if self._settled:
            return
        await resolve(self._transport, self._letter, self._inner.deliveries, self._clock)
        self._settled = True
        await self._inner.ack()

    async def nak(self, delay: float = 0.0) -> None:
        """Again, after `delay` seconds."""
        self._settled = True
        await self._inner.nak(delay)

    async def in_progress(self) -> None:
        """Still working."""
        await self._inner.in_progress()

    async def term(self) -> None:
        """Given up again; another letter says so."""
        self._settled = True
        await self._inner.term()


class Retries:
    """Redeliveries for one consumer."""

    def __init__(self, transport: Transport, consumer: str, clock: Clock | None = None) -> None:
        self._transport, self._consumer, self._clock = transport, consumer, clock or SystemClock()

    async def resolve(self, delivery: Delivery) -> Delivery | None:
        """The delivery itself; or of a redelivery the original's; or None for one that needs nothing done here.

        Raises `EvidenceError` (`dead.body_damaged`) where the original is gone, and `MeshError`.
        """
        found = redelivered(delivery.message.body, delivery.message.subject)
        if found is None:
            return delivery
        sealed, named = found
        if (named.consumer, named.stream) != (self._consumer, delivery.message.stream):
            return None
        letter = await find_letter(self._transport, named)
        if letter is None or not _follows(sealed, letter):
            return delivery
        last = await _last_of(self._transport, letter)
        if last is None:
            return delivery  # nobody asked for it
        if last.envelope.schema == "message.resolved/1":
            return None
        return RetriedDelivery(self._transport, delivery, letter, await original(self._transport, letter), self._clock)


async def original(transport: Transport, letter: Letter) -> Message:
    """The message a letter is about, from what the letter keeps of it; its headers are gone.

    Raises `EvidenceError` (`dead.body_damaged`).
    """
    content = letter.content
    data: bytes | None = None
    if letter.artifact:
        try:
            data = await (await transport.objects(ARTIFACTS)).get(letter.artifact)
        except NotStored:
            data = None
    body = original_body(letter, data if data is None or len(data) <= MAX_ARTIFACT else None)
    return Message(content.stream, content.seq, content.subject, body, parse_time(letter.sealed.envelope.ts))


async def find_letter(transport: Transport, named: MessageRedelivered) -> Letter | None:
    """The letter with that id and hash: where the hint says, or anywhere on its subject."""
    subject = dead(named.stream, named.consumer)
    hinted = await transport.get(STREAM, named.seq)
    if hinted is not None and (letter := _letter(hinted, named)) is not None:
        return letter
    async for message in transport.read(STREAM, subject):
        if (letter := _letter(message, named)) is not None:
            return letter
    return None


def _letter(message: Message, named: MessageRedelivered) -> Letter | None:
    try:
        letter = read_letter(message.body, message.subject, message.seq, message.time)
    except InputError:
        return None
    return letter if (letter.id, letter.sealed.hash) == (named.letter, named.hash) else None


def _follows(sealed: Sealed, letter: Letter) -> bool:
    """Whether a redelivery is the one a letter has."""
    try:
        expected = redelivery_id(letter.id), redelivery_subject(letter)
    except InputError:
        return False
    return (sealed.envelope.id, sealed.envelope.subject) == expected


async def _last_of(transport: Transport, letter: Letter) -> Sealed | None:
    """The last record of a letter's case that is one."""
    message = await transport.last(STREAM, letter.case)
    if message is None:
        return None
    sealed = unseal(message.body, message.subject)
    payload = decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    fits = isinstance(payload, MessageRetried | MessageResolved) and letter.sealed.ref in sealed.envelope.causes
    if not fits:
        raise EvidenceError(f"{letter.case} holds something else than the letter's case", code="dead.case_damaged")
    return sealed


async def retry(transport: Transport, letter: Letter, clock: Clock) -> tuple[Sealed, bool]:
    """Have a letter's message handled again; returns the record, and whether somebody had asked for it before.

    Returns when record and redelivery are stored. Repeating it changes nothing. Raises `InputError`
    (`dead.not_retryable`), `EvidenceError`, `Conflict` (`dead.case_taken`) and the errors of `store`.
    """
    redelivery_subject(letter)
    await original(transport, letter)
    retried = await _first_of(transport, letter)
    before = retried is not None
    if retried is None:
        landing = await store_once(transport, seal_retried(letter, clock.now()))
        retried, before = landing.sealed, landing.adopted
    telling = seal_redelivered(letter, retried)
    headers = TIMER_LIFE if telling.envelope.subject.startswith("timers.") else None
    try:
        await store(transport, telling, expect=0, headers=headers)
    except Conflict as conflict:
        raise Conflict(
            f"{telling.envelope.subject} holds another message",
            code="dead.case_taken",
            subject=telling.envelope.subject,
        ) from conflict
    return retried, before


async def _first_of(transport: Transport, letter: Letter) -> Sealed | None:
    """The stored record that a letter was retried."""
    message = await transport.first(STREAM, letter.case)
    if message is None:
        return None
    sealed = unseal(message.body, message.subject)
    payload_as(sealed, MessageRetried)
    return sealed


async def resolve(transport: Transport, letter: Letter, deliveries: int, clock: Clock) -> None:
    """Record that a letter's message was handled, once; raises `MeshError` where that cannot be stored."""
    first = await transport.first(STREAM, letter.case)
    if first is None:
        raise EvidenceError(f"the record of the retry of {letter.id} is gone", code="dead.case_damaged")
    retried = unseal(first.body, first.subject)
    resolved = seal_resolved(letter, retried, deliveries, clock.now())
    try:
        await store(transport, resolved, expect=first.seq)
    except Conflict as conflict:
        last = await _last_of(transport, letter)
        if last is None or last.envelope.schema != "message.resolved/1":
            raise EvidenceError(f"{letter.case} is damaged", code="dead.case_damaged") from conflict
