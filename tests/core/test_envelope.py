"""What is sealed opens again, and says to every reader what it says to us."""

import json
from dataclasses import FrozenInstanceError
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import (
    MAX_ENVELOPE,
    MAX_INLINE_PAYLOAD,
    ZERO_HASH,
    ChainPlace,
    Envelope,
    Ref,
    Sealed,
    claim_for,
    claim_in,
    encode_payload,
    seal,
    sha256_hex,
    stored_hash,
    traceparent,
    unseal,
)
from agentflow.errors import EnvelopeError, SchemaError
from tests.core import wire as independent
from tests.core.strategies import POOL, digest, draft, drafts, json_values, numbers, sealed_bodies
from tests.support.profiles import wire


@wire
@given(drafts())
def test_what_is_sealed_opens_again(given_draft: Envelope) -> None:
    """The same envelope, hash and bytes; and without our code: the hash in front is sha256 of "{" and all behind byte 84."""
    sealed = seal(given_draft)

    assert sealed == unseal(sealed.body, given_draft.subject)
    assert given_draft == sealed.envelope
    assert independent.verifies(sealed.body)


@given(drafts())
def test_the_stored_bytes_are_json_with_the_members_given(given_draft: Envelope) -> None:
    """Every member under its documented name, in the documented order, for whoever has only a JSON parser."""
    sealed = seal(given_draft)
    found = independent.members_of(sealed.body)

    assert independent.with_hash(independent.rest_of(sealed.body)) == sealed.body
    assert (sealed.hash, sealed.hash) == stored_hash(sealed.body)
    assert list(independent.MEMBERS) == list(found)
    assert given_draft.id == found["id"]
    assert (given_draft.sender, given_draft.to) == (found["from"], found["to"])
    assert given_draft.metadata == found["metadata"]
    assert json.loads(bytes(given_draft.payload)) == found["payload"]
    assert [{"id": cause.id, "hash": cause.hash} for cause in given_draft.causes] == found["causes"]


@wire
@given(sealed_bodies, numbers)
def test_other_writers_may_order_and_space_members_as_they_like(body: bytes, way: int) -> None:
    """No canonical form is asked for: any JSON with the right members behind the right hash verifies, and says the same."""
    order = sorted(independent.MEMBERS, key=lambda member: digest(way, member))
    other = independent.rewritten(body, order=order, indent=(None, 0, 1, "\t")[way % 4], ensure_ascii=way % 3 == 0)
    ours, theirs = unseal(body).envelope, unseal(other).envelope

    assert json.loads(bytes(ours.payload)) == json.loads(bytes(theirs.payload))
    assert msgspec.structs.replace(ours, payload=msgspec.Raw()) == msgspec.structs.replace(
        theirs, payload=msgspec.Raw()
    )


def test_members_that_have_defaults_may_be_left_out_by_other_writers() -> None:
    """`metadata`, `cost` and `causes` are empty where nobody wrote them."""
    members = [name for name in independent.MEMBERS if name not in ("metadata", "cost", "causes")]

    envelope = unseal(independent.rewritten(POOL[0].body, order=members)).envelope

    assert ({}, 0, 0.0, ()) == (envelope.metadata, envelope.cost.tokens, envelope.cost.dollars, envelope.causes)


def test_space_may_follow_the_hash_and_the_end() -> None:
    """The prefix is fixed to the byte; behind it JSON's own freedom begins."""
    rest = independent.rest_of(POOL[0].body)

    opened = unseal(independent.with_hash(b"{ \n\t" + rest[1:-1] + b" } \r\n"))

    assert POOL[0].envelope == opened.envelope
    assert POOL[0].hash != opened.hash


def test_the_envelope_returned_by_seal_is_what_a_reader_finds() -> None:
    """Python values that JSON writes as another type come back as that type at once, not only after storing."""
    sealed = seal(draft(1, metadata={"pair": (1, 2), "by_number": {3: "x"}}))

    assert {"pair": [1, 2], "by_number": {"3": "x"}} == sealed.envelope.metadata
    assert sealed == unseal(sealed.body)


def test_envelopes_cannot_be_changed_after_sealing() -> None:
    """Struct and sealed pair are frozen."""
    for name in Envelope.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(POOL[0].envelope, name, "x")
    for name in ("envelope", "hash", "body"):
        with pytest.raises(FrozenInstanceError):
            setattr(POOL[0], name, "x")


# --- sizes -----------------------------------------------------------------------------------------------------------


def filled(size: int) -> Envelope:
    """A draft whose body has exactly `size` bytes."""
    empty = len(seal(draft(2, payload={"fill": ""})).body)
    return draft(2, payload={"fill": "x" * (size - empty)})


def test_an_envelope_may_have_512_kib() -> None:
    """The largest body is stored and opened."""
    sealed = seal(filled(MAX_ENVELOPE))

    assert 512 * 1024 == MAX_ENVELOPE == len(sealed.body)
    assert sealed == unseal(sealed.body)


def test_one_byte_more_is_refused_by_the_writer() -> None:
    """Before it is sent, with the size that was found and the one allowed."""
    with pytest.raises(EnvelopeError) as refused:
        seal(filled(MAX_ENVELOPE + 1))

    assert "envelope.too_large" == refused.value.error_code
    assert (MAX_ENVELOPE + 1, MAX_ENVELOPE) == (refused.value.fields["found"], refused.value.fields["allowed"])


def test_one_byte_more_is_refused_by_the_reader() -> None:
    """Before it is hashed or parsed, whoever wrote it."""
    body = seal(filled(MAX_ENVELOPE)).body

    with pytest.raises(EnvelopeError) as refused:
        unseal(independent.with_hash(independent.rest_of(body)[:-1] + b" }"))

    assert "envelope.too_large" == refused.value.error_code


def test_the_inline_limit_is_128_kib() -> None:
    """The figure of architecture, section 3.1."""
    assert 128 * 1024 == MAX_INLINE_PAYLOAD


# --- claim checks ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_a_claim_check_names_the_payload_by_its_bytes(payload: bytes) -> None:
    """Artifact, hash and size follow from the bytes; written as a payload it is recognised again."""
    claim = claim_for(payload)

    assert (f"sha256-{sha256_hex(payload)}", sha256_hex(payload), len(payload)) == (
        claim.artifact,
        claim.sha256,
        claim.size,
    )
    assert claim == claim_in(encode_payload(claim)) == claim_in(msgspec.Raw(encode_payload(claim)))


HEX = "ab" * 32


@pytest.mark.parametrize(
    "payload",
    [
        {"output": {"artifact": f"sha256-{HEX}", "sha256": HEX, "size": 1}},
        {"artifact": "../secrets", "sha256": HEX, "size": 1},
        {"artifact": "x" * 5000, "sha256": HEX, "size": 1},
        {"artifact": f"sha256-{HEX}", "sha256": "cd" * 32, "size": 1},
        {"artifact": f"sha256-{HEX.upper()}", "sha256": HEX.upper(), "size": 1},
        {"artifact": f"sha256-{HEX}\n", "sha256": f"{HEX}\n", "size": 1},
        {"artifact": f"sha256-{HEX}", "sha256": HEX, "size": -1},
        {"artifact": f"sha256-{HEX}", "sha256": HEX, "size": "1"},
        {"artifact": f"sha256-{HEX}", "sha256": HEX},
        {"artifact": f"sha256-{HEX}", "sha256": HEX, "size": 1, "more": True},
        {"artifact": 1, "sha256": 2, "size": 3},
    ],
)
def test_what_only_resembles_a_claim_check_is_none(payload: dict[str, Any]) -> None:
    """A stranger's text never becomes the name of an artifact: not a path, not a name too long for a subject."""
    assert claim_in(encode_payload(payload)) is None


@given(json_values)
def test_no_value_is_taken_for_a_claim_check(value: Any) -> None:
    """Looking for a claim check in any payload ends in None, and never in an error."""
    assert claim_in(encode_payload(value)) is None
    assert claim_in(b'{"artifact":' + encode_payload(value)) is None


@pytest.mark.parametrize("junk", [b'{"artifact":"\xff"', b'{"artifact":"a","x":' + b"[" * 100_000])
def test_broken_bytes_are_no_claim_check(junk: bytes) -> None:
    """Neither bytes that are no text nor bottomless nesting escape as another error."""
    assert claim_in(junk) is None


# --- what else hangs on a sealed envelope ----------------------------------------------------------------------------


def test_a_reference_is_id_and_hash() -> None:
    """What `causes` and chains hold of an envelope."""
    assert Ref(POOL[3].envelope.id, POOL[3].hash) == POOL[3].ref


@pytest.mark.parametrize(
    ("metadata", "expected"), [({"workflow_id": "run-1"}, "run-1"), ({"workflow_id": 7}, ""), ({}, "")]
)
def test_the_run_of_an_envelope_is_a_text_or_nothing(metadata: dict[str, Any], expected: str) -> None:
    """Metadata is open, so its members are looked at with care."""
    assert expected == seal(draft(1, metadata=metadata)).workflow_id


def test_the_trace_context_is_w3c() -> None:
    """Version 00, both ids, sampled."""
    envelope = POOL[1].envelope

    assert f"00-{envelope.trace_id}-{envelope.span_id}-01" == traceparent(envelope)


def test_a_chain_begins_at_place_zero_on_the_zero_hash() -> None:
    """Unless it rests on something."""
    assert ChainPlace("c", 0, "0" * 64) == ChainPlace("c") == ChainPlace("c", 0, ZERO_HASH)


@given(drafts())
def test_the_next_place_rests_on_the_hash_before(given_draft: Envelope) -> None:
    """One further, on the same chain, with the stored hash."""
    sealed = seal(given_draft)

    assert ChainPlace("c", given_draft.chain_seq + 1, sealed.hash) == ChainPlace("c").after(sealed)


# --- payload bytes ---------------------------------------------------------------------------------------------------


@given(json_values)
def test_payload_bytes_hold_the_value(value: Any) -> None:
    """What is encoded reads back the same with another JSON parser."""
    assert value == json.loads(encode_payload(value))


@pytest.mark.parametrize(
    "value", [object(), {"a": {1, object()}}, "\ud800", {"\udfff": 1}, type("Text", (str,), {})("x"), 1j]
)
def test_what_json_cannot_hold_is_refused_as_input(value: Any) -> None:
    """No codec's own error escapes."""
    with pytest.raises(SchemaError) as refused:
        encode_payload(value)

    assert "value.not_json" == refused.value.error_code


def test_a_value_that_holds_itself_is_refused() -> None:
    """It would be written for ever."""
    value: list[Any] = []
    value.append(value)

    with pytest.raises(SchemaError):
        encode_payload(value)


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": "\ud800"}, {"x": 1j}])
def test_metadata_that_json_cannot_hold_is_refused_when_it_is_sealed(metadata: dict[str, Any]) -> None:
    """With the code for an envelope that cannot be written."""
    with pytest.raises(EnvelopeError) as refused:
        seal(draft(1, metadata=metadata))

    assert "envelope.malformed" == refused.value.error_code


def test_sealing_twice_makes_the_same_bytes() -> None:
    """Nothing but the draft goes into them."""
    first: Sealed = seal(draft(5, payload={"a": 1}, metadata={"b": 2}))

    assert first == seal(draft(5, payload={"a": 1}, metadata={"b": 2}))
