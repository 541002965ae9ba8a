"""Dead letters and what became of them: what is read, and the envelopes a retry is made of. Pure.

A letter has place 0 of the chain `dead:<letter id>`. A retry is two envelopes, both functions of the letter, so that
retrying twice is retrying once:

    message.retried/1       place 1 of that chain, on `dead.<stream>.<consumer>.<letter id>`: that a person asked for it
    message.redelivered/1   on a subject the consumer takes, beside the original's: stands for the original message

Both subjects hold what they hold once. The original's own subject cannot be used: it may hold one message for ever, the
consumer has settled that one, and it may have expired; the letter has its bytes. Whoever takes a redelivery hands its
handler the original (`agentflow.mesh.retries`) and, when that is done with, stores `message.resolved/1` as place 2. If
it is given up again, that is another letter, whose `retry_of` names the first.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agentflow import subjects
from agentflow.envelope import ChainPlace, Sealed, sha256_hex, unseal
from agentflow.errors import EvidenceError, InputError
from agentflow.ids import derive_id
from agentflow.payloads import DeadLetter, MessageRedelivered, MessageResolved, MessageRetried, Payload
from agentflow.schemas import compose, decode_payload, payload_as

STREAM = "AF_DEAD"
OPERATOR = "operator"
"""Who asks for a retry."""

Status = Literal["open", "retried", "given up again", "resolved"]
"""`open`: nobody has done anything about it. `retried`: its consumer was told. `resolved`: that has handled it."""

HANDLE_NOTHING = frozenset({"strays", "detector"})
"""Consumers that only look at what passes: handing them a message again would do nothing."""

_ARTIFACT = "artifact:"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is stored."""

    sealed: Sealed
    content: DeadLetter
    seq: int
    """In `AF_DEAD`: a hint, never an identity."""
    stored: datetime

    @property
    def id(self) -> str:
        """Its id."""
        return self.sealed.envelope.id

    @property
    def case(self) -> str:
        """The subject of what becomes of it."""
        return subjects.dead_case(self.content.stream, self.content.consumer, self.id)

    @property
    def artifact(self) -> str:
        """The artifact that has the original body; empty where the letter itself has it."""
        body = self.content.body_base64
        return body.removeprefix(_ARTIFACT) if body.startswith(_ARTIFACT) else ""


@dataclass(slots=True)
class Case:
    """A letter and what became of it."""

    letter: Letter
    status: Status = "open"
    retried: str = ""
    """When, RFC 3339."""
    resolved: str = ""
    again: str = ""
    """The letter its retry ended in."""


def read_letter(body: bytes, subject: str, seq: int, stored: datetime) -> Letter:
    """The letter a stored message is; raises `InputError` for anything else."""
    sealed = unseal(body, subject)
    content = payload_as(sealed, DeadLetter)
    if subject != subjects.dead(content.stream, content.consumer):
        raise InputError(f"letter {sealed.envelope.id} is not stored on its own subject", code="dead.misplaced")
    return Letter(sealed, content, seq, stored)


def cases(messages: Iterable[tuple[bytes, str, int, datetime]]) -> dict[str, Case]:
    """Every letter by id, the oldest first, folded from `AF_DEAD`: body, subject, sequence and time of each message.

    What is no letter, and belongs to none, is left out: `agentflow verify` tells it.
    """
    found: dict[str, Case] = {}
    for body, subject, seq, stored in messages:
        try:
            sealed = unseal(body, subject)
            payload = decode_payload(sealed.envelope.schema, sealed.envelope.payload)
            if isinstance(payload, DeadLetter):
                letter = read_letter(body, subject, seq, stored)
                found.setdefault(letter.id, Case(letter))
                _given_up_again(found, letter)
            else:
                _take(found, sealed, payload)
        except InputError:
            continue
    return found


def _given_up_again(found: dict[str, Case], letter: Letter) -> None:
    before = found.get(letter.content.retry_of)
    if before is not None and before.letter.id != letter.id:
        before.status, before.again = "given up again", letter.id


def _take(found: dict[str, Case], sealed: Sealed, payload: Payload) -> None:
    """A record of a letter's case, if it rests on that letter and is on its subject."""
    if not isinstance(payload, MessageRetried | MessageResolved):
        return
    case = found.get(payload.letter)
    if (
        case is None
        or sealed.envelope.subject != case.letter.case
        or case.letter.sealed.ref not in sealed.envelope.causes
    ):
        return
    if isinstance(payload, MessageResolved):
        case.status, case.resolved = "resolved", sealed.envelope.ts
    elif case.status == "open":
        case.status, case.retried = "retried", sealed.envelope.ts


# --- the original --------------------------------------------------------------------------------------------------


def original_body(letter: Letter, artifact: bytes | None = None) -> bytes:
    """The bytes of the message that was given up; raises `EvidenceError` where they are not there or not those."""
    if letter.artifact:
        if artifact is None or f"sha256-{sha256_hex(artifact)}" != letter.artifact:
            raise EvidenceError(
                f"artifact {letter.artifact} of letter {letter.id} is not there or not what was kept",
                code="dead.body_damaged",
                artifact=letter.artifact,
            )
        return artifact
    try:
        return base64.b64decode(letter.content.body_base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceError(f"the body in letter {letter.id} is damaged", code="dead.body_damaged") from error


def redelivery_subject(letter: Letter) -> str:
    """A subject of its own that the consumer of the original takes too.

    Raises `InputError` (`dead.not_retryable`) where the original lay on a subject that no consumer takes, or was given
    up by a consumer that handles nothing.
    """
    if letter.content.consumer in HANDLE_NOTHING:
        raise InputError(
            f"letter {letter.id} is by {letter.content.consumer!r}, which handles no messages: correct the message that "
            f"{letter.content.subject[:80]!r} held and publish it again",
            code="dead.not_retryable",
            subject=letter.content.subject,
        )
    id = redelivery_id(letter.id)
    try:
        place = subjects.parse(letter.content.subject)
        if subjects.stream_of(letter.content.subject) == letter.content.stream:
            match place.kind:
                case "agent.in":
                    return subjects.agent_in(place.owner, id)
                case "tool.call":
                    return subjects.tool_call(id)
                case "workflow.in" | "workflow.result":
                    return subjects.workflow_result(place.owner, id)
                case "timer.due":
                    return f"{letter.content.subject.rpartition('.')[0]}.{id}"
    except InputError:
        pass
    raise InputError(
        f"letter {letter.id} is about a message on {letter.content.subject[:80]!r}, which no consumer would take again",
        code="dead.not_retryable",
        subject=letter.content.subject,
    )


def redelivery_id(letter_id: str) -> str:
    """The id of the one redelivery of a letter's message."""
    return derive_id(letter_id, OPERATOR, "redeliver")


# --- what a retry stores -------------------------------------------------------------------------------------------


def seal_retried(letter: Letter, ts: datetime) -> Sealed:
    """That a person asked for it: place 1 of the letter's chain."""
    return _seal(
        MessageRetried(letter.id, redelivery_subject(letter)),
        letter,
        id=derive_id(letter.id, OPERATOR, "retry"),
        subject=letter.case,
        sender=OPERATOR,
        ts=ts,
        place=ChainPlace(letter.sealed.envelope.chain).after(letter.sealed),
    )


def seal_redelivered(letter: Letter, retried: Sealed) -> Sealed:
    """What tells the consumer; the same bytes whoever makes it, from the stored record of the retry."""
    content = letter.content
    return _seal(
        MessageRedelivered(letter.id, letter.sealed.hash, letter.seq, content.stream, content.consumer),
        letter,
        id=redelivery_id(letter.id),
        subject=redelivery_subject(letter),
        sender=OPERATOR,
        ts=retried.envelope.ts,
        place=ChainPlace(f"redelivery:{letter.id}"),
        cause=retried,
    )


def seal_resolved(letter: Letter, retried: Sealed, deliveries: int, ts: datetime) -> Sealed:
    """That the consumer has handled it: place 2 of the letter's chain."""
    return _seal(
        MessageResolved(letter.id, deliveries),
        letter,
        id=derive_id(letter.id, letter.content.consumer, "resolved"),
        subject=letter.case,
        sender=letter.content.consumer,
        ts=ts,
        place=ChainPlace(retried.envelope.chain).after(retried),
        cause=retried,
    )


def _seal(
    payload: Payload,
    letter: Letter,
    *,
    id: str,
    subject: str,
    sender: str,
    ts: datetime | str,
    place: ChainPlace,
    cause: Sealed | None = None,
) -> Sealed:
    causes = (letter.sealed.ref, *((cause.ref,) if cause else ()))
    return compose(
        payload,
        id=id,
        subject=subject,
        sender=sender,
        to=letter.content.consumer,
        trace_id=letter.sealed.envelope.trace_id,
        span_id=hashlib.sha256(id.encode()).hexdigest()[:16],
        ts=ts,
        place=place,
        causes=causes,
    )


def redelivered(body: bytes, subject: str) -> tuple[Sealed, MessageRedelivered] | None:
    """The redelivery a message is, or None. Cheap for all that is none."""
    if b'"message.redelivered/1"' not in body[:1024]:
        return None
    try:
        sealed = unseal(body, subject)
        return sealed, payload_as(sealed, MessageRedelivered)
    except InputError:
        return None
