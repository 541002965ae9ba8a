"""Storing sealed envelopes so that the outcome is known (architecture, section 4).

One attempt of `Transport.publish` can end unknown; `store` turns it into one of two answers by repeating the same bytes
and reading back. Without an expected sequence the server's duplicate window helps (`Nats-Msg-Id` is the envelope's
hash); with one the subject's last message tells. A conflict alone does not mean that someone else won.
"""

import asyncio
import random  # noqa: TID251  # for jitter between processes: nothing is decided by it
from dataclasses import dataclass

from agentflow.envelope import Sealed, stored_hash, unseal
from agentflow.errors import (
    AgentflowError,
    Conflict,
    EnvelopeError,
    NondeterminismError,
    OutcomeUnknown,
    PublishFailed,
    Unreachable,
)
from agentflow.mesh.transport import Message, Stored, Transport
from agentflow.subjects import stream_of
from agentflow.telemetry.watching import Sending

ATTEMPT_TIMEOUT = 2.0
"""Seconds one attempt waits for the acknowledgement."""

PATIENCE = 30.0
"""Seconds until `store` gives up with `OutcomeUnknown` or `Unreachable`."""

MAX_STRANGERS = 20
"""Strangers' messages in the place of one result that are stepped over."""


@dataclass(frozen=True, slots=True)
class Landing:
    """What is stored at the place an envelope was meant for: the envelope itself, or an earlier attempt's."""

    stored: Stored
    sealed: Sealed
    adopted: bool


async def store(
    transport: Transport,
    sealed: Sealed,
    *,
    expect: int | None = None,
    headers: dict[str, str] | None = None,
    patience: float = PATIENCE,
) -> Stored:
    """Store an envelope on its own subject and return only when it is known to be there.

    Raises `Conflict` (field `stored`: the message that is there instead), `PublishFailed`, or, when `patience` seconds
    were not enough, `OutcomeUnknown` or `Unreachable`. Repeating the call with the same envelope is always safe.
    """
    sending = Sending(sealed)
    try:
        stored = await _persist(transport, sealed, expect, {**sending.headers, **(headers or {})}, patience, sending)
    except BaseException as error:
        sending.failed(error)
        raise
    sending.stored(stored)
    return stored


async def _persist(
    transport: Transport,
    sealed: Sealed,
    expect: int | None,
    headers: dict[str, str],
    patience: float,
    sending: Sending,
) -> Stored:
    """Attempts until the outcome is known or patience is at its end."""
    stream, loop = stream_of(sealed.envelope.subject), asyncio.get_running_loop()
    deadline, pause = loop.time() + patience, 0.05
    while True:
        try:
            return await _attempt(transport, sealed, stream, expect, headers)
        except (OutcomeUnknown, Unreachable) as error:
            sending.attempt_failed(error)
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311  # nobody has to guess a pause
        pause = min(pause * 2, 1.0)


async def _attempt(
    transport: Transport, sealed: Sealed, stream: str, expect: int | None, headers: dict[str, str]
) -> Stored:
    subject = sealed.envelope.subject
    try:
        stored = await transport.publish(
            subject,
            sealed.body,
            stream=stream,
            headers=headers,
            msg_id=sealed.hash if expect is None else None,
            expect=expect,
            timeout=ATTEMPT_TIMEOUT,
        )
    except (Conflict, OutcomeUnknown) as error:
        if expect is None:
            raise
        return await _read_back(transport, sealed, stream, expect, error)
    if stored.duplicate:
        there = await transport.get(stream, stored.seq)
        if there is None or there.body != sealed.body:
            raise PublishFailed(
                f"the server holds another message under the id of {subject}", code="mesh.id_taken", subject=subject
            )
    return stored


async def _read_back(transport: Transport, sealed: Sealed, stream: str, expect: int, error: AgentflowError) -> Stored:
    """Find out what a conflict or a silence means: ours, nobody's, or someone else's."""
    subject = sealed.envelope.subject
    there = await transport.last(stream, subject)
    if there is not None and there.body == sealed.body:
        return Stored(stream, there.seq, duplicate=True)
    if (there.seq if there else 0) == expect:
        raise OutcomeUnknown(f"no answer about {subject}, and it is not stored yet", subject=subject) from error
    raise Conflict(
        f"{subject} already holds another message (sequence {there.seq if there else 0}, expected {expect})",
        subject=subject,
        stored=there,
        expect=expect,
    ) from error


async def store_once(transport: Transport, sealed: Sealed, *, patience: float = PATIENCE) -> Landing:
    """Store an envelope on a subject that holds one message for ever, or adopt the one that is there.

    Adopted is an earlier attempt's envelope with the same id, causes and payload. The same id with another payload
    raises `NondeterminismError`; anything else under the subject raises `Conflict`.
    """
    try:
        stored = await store(transport, sealed, expect=0, patience=patience)
    except Conflict as conflict:
        there = conflict.fields["stored"]
        if not isinstance(there, Message):
            raise
        first = await transport.first(there.stream, there.subject)  # what was put behind it does not take its place
        there = first or there
        found = adopt(sealed, there, conflict)
        Sending(found).adopted()
        return Landing(Stored(there.stream, there.seq, duplicate=True), found, adopted=True)
    return Landing(stored, sealed, adopted=stored.duplicate)


async def store_result(transport: Transport, sealed: Sealed, *, patience: float = PATIENCE) -> Landing:
    """Store the one result of a request, or adopt the one that is there.

    Strangers' messages on its subject do not take its place: it is stored behind them, guarded by their sequence as it
    would be by none, so that there is one result all the same. Raises as `store_once`; `Conflict` when strangers keep
    coming faster.
    """
    expect, strangers = 0, 0
    while True:
        try:
            stored = await store(transport, sealed, expect=expect, patience=patience)
        except Conflict as conflict:
            there, last = await find_result(transport, sealed), conflict.fields["stored"]
            if there is not None:
                return Landing(Stored(there.stream, there.seq, duplicate=True), adopt(sealed, there, conflict), True)
            strangers += 1
            if not isinstance(last, Message) or strangers >= MAX_STRANGERS:
                raise
            expect = last.seq
        else:
            return Landing(stored, sealed, adopted=stored.duplicate)


async def find_result(transport: Transport, mine: Sealed) -> Message | None:
    """The result among whatever is stored on `mine`'s subject: from the same maker, about the same cause."""
    subject = mine.envelope.subject
    async for message in transport.read(stream_of(subject), subject):
        try:
            theirs = unseal(message.body, message.subject).envelope
        except EnvelopeError:
            continue
        same = (theirs.chain, theirs.sender) == (mine.envelope.chain, mine.envelope.sender)
        if same and theirs.causes[:1] == mine.envelope.causes[:1]:
            return message
    return None


def adopt(mine: Sealed, there: Message, conflict: Conflict) -> Sealed:
    """The stored envelope, if it is an earlier attempt at `mine`; raises otherwise."""
    try:
        theirs = unseal(there.body, there.subject)
    except EnvelopeError:
        raise conflict from None
    if theirs.envelope.id != mine.envelope.id or theirs.envelope.causes[:1] != mine.envelope.causes[:1]:
        raise conflict
    same = theirs.envelope.schema == mine.envelope.schema and bytes(theirs.envelope.payload) == bytes(
        mine.envelope.payload
    )
    if not same:
        raise NondeterminismError(
            f"{mine.envelope.subject} was {theirs.envelope.schema} before and differs now",
            subject=mine.envelope.subject,
            before=bytes(theirs.envelope.payload)[:2000].decode(errors="replace"),
            now=bytes(mine.envelope.payload)[:2000].decode(errors="replace"),
        )
    return theirs


def is_sealed(message: Message) -> bool:
    """Whether a stored message claims to be an envelope (it may still fail to verify)."""
    return stored_hash(message.body) is not None
