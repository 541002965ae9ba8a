"""Large payloads by reference: the claim check of architecture, section 3.1.

A payload above 128 KiB is put into the object store under the hash of its bytes before the envelope that refers to it
is sealed; whoever reads the envelope fetches it and compares the hash.
"""

import msgspec

from agentflow.envelope import MAX_INLINE_PAYLOAD, Envelope, Sealed, claim_for, claim_in, encode_payload
from agentflow.errors import EvidenceError, NotStored, SchemaError
from agentflow.mesh.transport import Objects
from agentflow.payloads import Payload
from agentflow.schemas import decode_payload, open_claim

MAX_ARTIFACT = 64 * 1024 * 1024
"""Bytes one artifact may have."""


async def check_in(objects: Objects, payload: Payload) -> msgspec.Raw:
    """The bytes to seal: the payload's own, or a claim check's after the payload was stored.

    Raises `SchemaError` (`artifact.too_large`) for a payload above `MAX_ARTIFACT`.
    """
    data = encode_payload(payload)
    if len(data) <= MAX_INLINE_PAYLOAD:
        return msgspec.Raw(data)
    _check_size(len(data), "payload")
    claim = claim_for(data)
    await objects.put(claim.artifact, data)
    return msgspec.Raw(encode_payload(claim))


async def keep(objects: Objects, sealed: Sealed, payload: Payload) -> None:
    """Store the payload of an envelope that was sealed with a claim check; does nothing for an inline one."""
    if claim_in(sealed.envelope.payload) is not None:
        await check_in(objects, payload)


async def check_out(objects: Objects, envelope: Envelope) -> Payload:
    """The typed payload of an envelope, fetched and compared with its hash when it is a claim check.

    Raises `SchemaError` for a payload that breaks its schema or is too large to be one, `NotStored` for an artifact
    that is gone, and `EvidenceError` for one whose bytes are not the ones sealed.
    """
    claim = claim_in(envelope.payload)
    if claim is None:
        return decode_payload(envelope.schema, envelope.payload)
    _check_size(claim.size, f"artifact {claim.artifact[:80]}")
    return open_claim(envelope, await objects.get(claim.artifact))


async def check_out_sent(objects: Objects, envelope: Envelope) -> Payload:
    """As `check_out`, for a message that was delivered: its payload was stored before it, so one that is gone stays so.

    Raises `EvidenceError` (`artifact.missing`) where `check_out` raises `NotStored`: to come again would not help.
    """
    try:
        return await check_out(objects, envelope)
    except NotStored as error:
        raise EvidenceError(f"the payload of envelope {envelope.id} is not there", code="artifact.missing") from error


def _check_size(size: int, what: str) -> None:
    if size > MAX_ARTIFACT:
        raise SchemaError(
            f"{what} has {size} bytes; allowed are {MAX_ARTIFACT}",
            code="artifact.too_large",
            found=size,
            allowed=MAX_ARTIFACT,
        )
