"""Claim checks: a large payload is stored before the envelope that refers to it, and compared when it is fetched."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from agentflow import artifacts
from agentflow.artifacts import check_in, check_out, keep
from agentflow.envelope import MAX_INLINE_PAYLOAD, ClaimCheck, Sealed, claim_for, claim_in, encode_payload, seal
from agentflow.errors import EvidenceError, NotStored, SchemaError
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Objects
from agentflow.payloads import StepCompleted
from agentflow.testing import envelope, memory_mesh
from tests.contract.meshes import objects as object_store

SMALL = StepCompleted({"text": "short"})
LARGE = StepCompleted({"text": "x" * MAX_INLINE_PAYLOAD})
CLAIM = claim_for(encode_payload(LARGE))
SUBJECT = "workflows.run-1.results.c1"


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A broker with one object store."""
    async with memory_mesh([object_store("AF_ARTIFACTS")]) as transport:
        yield transport


@pytest.fixture
async def store(mesh: MemoryTransport) -> Objects:
    """The object store."""
    return await mesh.objects("AF_ARTIFACTS")


def claiming(claim: ClaimCheck) -> Sealed:
    """An envelope that refers to an artifact, as anybody may write one."""
    inline = envelope(SMALL, SUBJECT).envelope
    return seal(msgspec.structs.replace(inline, payload=msgspec.Raw(encode_payload(claim))))


async def test_a_small_payload_goes_in_as_it_is(store: Objects) -> None:
    """And nothing is stored for it."""
    raw = await check_in(store, SMALL)

    assert encode_payload(SMALL) == bytes(raw)
    assert not await store.has(claim_for(bytes(raw)).artifact)


async def test_a_large_payload_is_stored_before_it_is_referred_to(store: Objects) -> None:
    """What is sealed is its claim check, and the bytes are there by then."""
    raw = await check_in(store, LARGE)

    assert CLAIM == claim_in(raw)
    assert encode_payload(LARGE) == await store.get(CLAIM.artifact)


async def test_what_was_checked_in_is_checked_out(store: Objects) -> None:
    """Through the envelope that is stored, small or large, by way of `check_in` or of `keep`."""
    for payload in (SMALL, LARGE):
        sealed = envelope(payload, SUBJECT)
        await keep(store, sealed, payload)

        assert payload == await check_out(store, sealed.envelope)
        assert bytes(await check_in(store, payload)) == bytes(sealed.envelope.payload)


async def test_keeping_an_inline_payload_stores_nothing(store: Objects, mesh: MemoryTransport) -> None:
    """Only claim checks need the store."""
    await keep(store, envelope(SMALL, SUBJECT), SMALL)

    assert [] == [message async for message in mesh.read("OBJ_AF_ARTIFACTS")]


async def test_an_artifact_that_is_gone_is_told(store: Objects) -> None:
    """As something that is not stored, not as damage: it may come."""
    with pytest.raises(NotStored):
        await check_out(store, claiming(CLAIM).envelope)


@pytest.mark.parametrize(
    "data", [b"", encode_payload(SMALL), encode_payload(LARGE)[:-1], encode_payload(LARGE).replace(b"x", b"y", 1)]
)
async def test_an_altered_artifact_is_refused(store: Objects, data: bytes) -> None:
    """Emptied, exchanged, cut, or one byte changed: the hash that was sealed says so."""
    await store.put(CLAIM.artifact, data)

    with pytest.raises(EvidenceError) as refused:
        await check_out(store, claiming(CLAIM).envelope)

    assert "artifact.altered" == refused.value.error_code
    assert CLAIM.artifact == refused.value.fields["artifact"]


async def test_a_size_that_is_not_the_artifacts_is_refused(store: Objects) -> None:
    """Readers plan by it, so it is evidence too."""
    await check_in(store, LARGE)

    with pytest.raises(EvidenceError):
        await check_out(store, claiming(msgspec.structs.replace(CLAIM, size=1)).envelope)


async def test_a_claim_larger_than_any_artifact_is_not_fetched(store: Objects) -> None:
    """A stranger's claim does not make us load what we would never have stored."""
    await check_in(store, LARGE)
    claim = msgspec.structs.replace(CLAIM, size=artifacts.MAX_ARTIFACT + 1)

    with pytest.raises(SchemaError) as refused:
        await check_out(store, claiming(claim).envelope)

    assert "artifact.too_large" == refused.value.error_code


async def test_a_payload_above_the_limit_is_not_stored(store: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer is told, with both sizes."""
    assert 64 * 1024 * 1024 == artifacts.MAX_ARTIFACT
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT", CLAIM.size - 1)

    with pytest.raises(SchemaError) as refused:
        await check_in(store, LARGE)

    assert (CLAIM.size, CLAIM.size - 1) == (refused.value.fields["found"], refused.value.fields["allowed"])
    assert not await store.has(CLAIM.artifact)


@pytest.mark.parametrize("artifact", ["../../etc/passwd", "x" * 5000, "sha256-" + "0" * 64])
async def test_an_artifact_not_named_by_its_hash_is_not_looked_for(store: Objects, artifact: str) -> None:
    """It is refused as a payload of the wrong schema."""
    with pytest.raises(SchemaError) as refused:
        await check_out(store, claiming(msgspec.structs.replace(CLAIM, artifact=artifact)).envelope)

    assert "schema.mismatch" == refused.value.error_code


@pytest.mark.parametrize("data", [b"[]", b"\xff", b'{"output":1,"more":2}', b"{" * 100_000])
async def test_an_artifact_that_breaks_its_schema_is_refused(store: Objects, data: bytes) -> None:
    """The hash only says that the bytes are the ones sealed, not that they are good."""
    claim = claim_for(data)
    await store.put(claim.artifact, data)

    with pytest.raises(SchemaError) as refused:
        await check_out(store, claiming(claim).envelope)

    assert "schema.mismatch" == refused.value.error_code
