"""Dead letters: messages a consumer gave up, with their bytes and the reason, on `dead.<stream>.<consumer>`."""

import base64
import hashlib

from agentflow import subjects
from agentflow.envelope import ChainPlace, claim_for, encode_payload, sha256_hex
from agentflow.ids import new_id
from agentflow.mesh.publishing import store
from agentflow.mesh.retries import RetriedDelivery
from agentflow.mesh.transport import Delivery, Stored, Transport
from agentflow.payloads import DeadLetter
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose

MAX_INLINE_BODY = 80_000
"""Bytes of the original message that are kept inside the letter; a larger one is kept as an artifact.

In base64, beside a subject and a reason of nothing but escapes, that stays below what an envelope holds inline."""


async def write_dead_letter(
    transport: Transport, delivery: Delivery, consumer: str, sender: str, code: str, reason: str
) -> Stored:
    """Store a dead letter and return when it is stored. Its bytes depend on nothing but the delivery and the reason.

    Raises the errors of `agentflow.mesh.publishing.store`.
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
    trace = sha256_hex(encode_payload(letter))
    identity = hashlib.sha256(f"{consumer}|{trace}".encode()).digest()
    letter_id = new_id(message.time, lambda count: identity[:count])
    sealed = compose(
        letter,
        id=letter_id,
        subject=subjects.dead(message.stream, consumer),
        sender=sender,
        to="operator",
        trace_id=trace[:32],
        span_id=trace[:16],
        ts=message.time,
        place=ChainPlace(f"dead:{letter_id}"),
    )
    return await store(transport, sealed)


def _text(text: str, limit: int) -> str:
    """What fits, with what is no Unicode escaped: a letter must not fail because of its reason."""
    return text[:limit].encode(errors="backslashreplace").decode()
