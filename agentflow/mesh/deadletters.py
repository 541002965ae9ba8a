"""Dead letters: messages a consumer gave up, with their bytes and the reason, on `dead.<stream>.<consumer>`.

Each is written once: its id does not depend on how often the message was delivered, and a letter that is there already
is not stored again, however long ago that was. What is there is read once by each process, and then only what is new.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import msgspec

from agentflow import subjects
from agentflow.envelope import ChainPlace, claim_for, encode_payload, sha256_hex, unseal
from agentflow.errors import InputError, NotStored
from agentflow.ids import new_id
from agentflow.mesh.publishing import store
from agentflow.mesh.retries import RetriedDelivery
from agentflow.mesh.transport import Delivery, Message, Stored, Transport
from agentflow.payloads import DeadLetter
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose

MAX_INLINE_BODY = 80_000
"""Bytes of the original message that are kept inside the letter; a larger one is kept as an artifact.

In base64, beside a subject and a reason of nothing but escapes, that stays below what an envelope holds inline."""

_AS_FIRST = 1
"""The number of deliveries a letter's identity is made with, whatever it was."""


@dataclass(slots=True)
class _Written:
    """The letters on one subject, as far as they were read."""

    read: int = 0
    seqs: dict[str, int] = field(default_factory=dict)
    """Where each is, by id."""


_WRITTEN: "WeakKeyDictionary[Transport, dict[str, _Written]]" = WeakKeyDictionary()


async def write_dead_letter(
    transport: Transport, delivery: Delivery, consumer: str, sender: str, code: str, reason: str
) -> Stored:
    """Store a dead letter and return when it is stored. Its bytes depend on nothing but the delivery and the reason.

    One that is there already, from this delivery or another of the same message, is returned as a duplicate. Raises the errors of `agentflow.mesh.publishing.store`.
    """
    message = delivery.message
    body = base64.b64encode(message.body).decode()
    if len(message.body) > MAX_INLINE_BODY:
        claim = claim_for(message.body)
        await (await transport.objects(ARTIFACTS)).put(claim.artifact, message.body)
        body = f"artifact:{claim.artifact}"
    letter = DeadLetter(
        stream=message.stream,
        consumer=consumer,
        seq=message.seq,
        subject=_text(message.subject, 500),
        deliveries=delivery.deliveries,
        code=code,
        reason=_text(reason, 2000),
        body_base64=body,
        retry_of=delivery.letter_id if isinstance(delivery, RetriedDelivery) else "",
    )
    trace = sha256_hex(encode_payload(msgspec.structs.replace(letter, deliveries=_AS_FIRST)))
    identity = hashlib.sha256(f"{consumer}|{trace}".encode()).digest()
    letter_id = new_id(message.time, lambda count: identity[:count])
    subject = subjects.dead(message.stream, consumer)
    there = await _find(transport, subject, letter_id)
    if there is not None:
        return Stored(subjects.stream_of(subject), there, duplicate=True)
    sealed = compose(
        letter,
        id=letter_id,
        subject=subject,
        sender=sender,
        to="operator",
        trace_id=trace[:32],
        span_id=trace[:16],
        ts=message.time,
        place=ChainPlace(f"dead:{letter_id}"),
    )
    return await store(transport, sealed)


async def _find(transport: Transport, subject: str, letter_id: str) -> int | None:
    """The sequence of a letter that is stored, also by another process, or None."""
    written = _WRITTEN.setdefault(transport, {}).setdefault(subject, _Written())
    try:
        async for message in transport.read(subjects.stream_of(subject), subject, start=written.read + 1):
            _note(written, message)
    except NotStored:
        return None  # there is no such stream: whoever stores the letter is told
    return written.seqs.get(letter_id)


def _note(written: _Written, message: Message) -> None:
    try:
        sealed = unseal(message.body, message.subject)
        if sealed.envelope.schema == "message.dead/1":
            written.seqs.setdefault(sealed.envelope.id, message.seq)
    except InputError:
        pass  # a stranger's: it is no letter
    written.read = max(written.read, message.seq)


def _text(text: str, limit: int) -> str:
    """What fits, with what is no Unicode escaped: a letter must not fail because of its reason."""
    return text[:limit].encode(errors="backslashreplace").decode()
