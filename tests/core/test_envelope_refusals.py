"""What is not a sealed envelope is refused: always as `EnvelopeError`, with a code that stays, and quickly.

Two attackers are tried: one who edits stored bytes, and one who also puts the right hash in front of whatever he made.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import Envelope, Sealed, claim_in, seal, stored_hash, unseal
from agentflow.errors import EnvelopeError, InputError
from tests.core import wire as independent
from tests.core.strategies import AWKWARD_TEXTS, POOL, draft, numbers, sealed_bodies
from tests.support.profiles import wire

CODES = {
    "envelope.not_sealed",
    "envelope.too_large",
    "envelope.hash_mismatch",
    "envelope.malformed",
    "envelope.duplicate_key",
    "envelope.member_invalid",
    "envelope.moved",
}
"""Every code there is; callers match on them."""

LENGTH_OF_HASH = 64
ONE = POOL[0]


def refusal(action: Callable[[], Any]) -> EnvelopeError:
    """The error an action is refused with; it must be ours, with a known code and a message of bearable length."""
    with pytest.raises(EnvelopeError) as refused:
        action()
    assert refused.value.error_code in CODES
    assert len(str(refused.value)) < 600
    return refused.value


def code_of(body: bytes, subject: str | None = None) -> str:
    """The code a body is refused with."""
    return refusal(lambda: unseal(body, subject)).error_code


def opened_or_code(body: bytes) -> tuple[Sealed | None, str]:
    """The envelope, or the code it is refused with."""
    try:
        return unseal(body), ""
    except EnvelopeError as error:
        return None, error.error_code


# --- bytes that were changed after sealing ---------------------------------------------------------------------------


def test_no_byte_of_an_envelope_can_be_changed_unnoticed() -> None:
    """Exhaustive for one envelope: every place, every other value of the byte there."""
    body = bytearray(ONE.body)
    unnoticed: list[tuple[int, int]] = []
    for place, original in enumerate(ONE.body):
        for value in range(256):
            body[place] = value
            hashes = stored_hash(bytes(body))
            if value != original and hashes is not None and hashes[0] == hashes[1]:
                unnoticed.append((place, value))
        body[place] = original

    assert [] == unnoticed


@wire
@given(sealed_bodies, numbers, st.integers(1, 255))
def test_a_changed_byte_is_refused(body: bytes, place: int, difference: int) -> None:
    """In the prefix as `envelope.not_sealed` or a wrong hash, behind it as a wrong hash."""
    changed = bytearray(body)
    changed[place % len(body)] ^= difference

    code = code_of(bytes(changed))

    assert not independent.verifies(bytes(changed))
    assert code in {"envelope.not_sealed", "envelope.hash_mismatch"}
    assert place % len(body) < independent.PREFIX or code == "envelope.hash_mismatch"


@wire
@given(sealed_bodies, numbers, st.binary(max_size=3))
def test_a_cut_or_lengthened_body_is_refused(body: bytes, length: int, more: bytes) -> None:
    """Nothing may be missing at the end, and nothing may follow, not even a space."""
    assert code_of(body[: length % len(body)]) in {"envelope.not_sealed", "envelope.hash_mismatch"}
    if more:
        assert "envelope.hash_mismatch" == code_of(body + more)


@given(sealed_bodies)
def test_a_body_without_its_first_byte_is_not_sealed(body: bytes) -> None:
    """Nor is one with something in front: the hash has its fixed place."""
    for other in (body[1:], b" " + body, b"\xef\xbb\xbf" + body, body.replace(b'":"', b'": "', 1), b"[" + body + b"]"):
        assert "envelope.not_sealed" == code_of(other)


@given(sealed_bodies, sealed_bodies)
def test_the_hash_of_another_envelope_is_refused(mine: bytes, theirs: bytes) -> None:
    """Hashes cannot be exchanged."""
    mixed = theirs[: independent.PREFIX] + mine[independent.PREFIX :]

    if mine == theirs:
        assert mine == unseal(mixed).body
    else:
        assert "envelope.hash_mismatch" == code_of(mixed)


@wire
@given(st.sampled_from(POOL), st.sampled_from(POOL))
def test_an_envelope_is_refused_on_another_subject(sealed: Sealed, other: Sealed) -> None:
    """Copied to where it was not meant to be stored, it does not verify there."""
    meant, found = sealed.envelope.subject, other.envelope.subject
    if meant == found:
        assert sealed == unseal(sealed.body, found)
        return

    error = refusal(lambda: unseal(sealed.body, found))

    assert ("envelope.moved", meant, found) == (error.error_code, error.fields["allowed"], error.fields["found"])


@pytest.mark.parametrize(
    "subject", ["", "workflows.run-0.in ", "workflows.run-0.in\n", "workflows.run-0.*", "Workflows.run-0.in"]
)
def test_a_subject_is_compared_to_the_letter(subject: str) -> None:
    """No pattern, no trimming, no case folding."""
    assert "workflows.run-0.in" == ONE.envelope.subject
    assert "envelope.moved" == code_of(ONE.body, subject)


# --- bytes that were changed and hashed again ------------------------------------------------------------------------


@wire
@given(sealed_bodies, numbers, st.integers(0, 255))
def test_a_change_that_was_hashed_again_is_refused_or_means_what_it_says(body: bytes, place: int, value: int) -> None:
    """Either it is no envelope, or we find in it exactly what any other reader finds: no second meaning."""
    rest = bytearray(independent.rest_of(body))
    rest[1 + place % (len(rest) - 1)] = value
    forged = independent.with_hash(bytes(rest))
    opened, code = opened_or_code(forged)
    if opened is None:
        assert code in CODES
        return

    members = independent.members_of(forged)
    assert forged == opened.body
    assert members["metadata"] == opened.envelope.metadata
    assert (members["id"], members["from"], members["to"]) == (
        opened.envelope.id,
        opened.envelope.sender,
        opened.envelope.to,
    )
    assert members["payload"] == msgspec.json.decode(opened.envelope.payload)


@given(sealed_bodies, numbers)
def test_a_cut_body_that_was_hashed_again_is_malformed(body: bytes, length: int) -> None:
    """A JSON object ends where it ends."""
    rest = independent.rest_of(body)

    assert "envelope.malformed" == code_of(independent.with_hash(rest[: 1 + length % (len(rest) - 1)]))


@wire
@given(sealed_bodies, st.sampled_from(independent.MEMBERS), st.booleans(), st.booleans())
def test_a_member_that_stands_twice_is_refused(body: bytes, member: str, first: bool, same: bool) -> None:
    """Readers differ in which of two counts. Not even the same value twice is let through."""
    value = independent.members_of(body)[member] if same else independent.members_of(POOL[5].body)[member]
    again = msgspec.json.encode({member: value})[1:-1]
    rest = independent.rest_of(body)
    doubled = b"{" + again + b"," + rest[1:] if first else rest[:-1] + b"," + again + b"}"

    assert "envelope.duplicate_key" == code_of(independent.with_hash(doubled))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"payload":{', b'"payload":{"a":1,"a":1,'),
        (b'"payload":{', b'"payload":{"in":{"a":1,"b":2,"a":3},'),
        (b'"payload":{', b'"payload":{"in":[{"\\u0061":1,"a":1}],'),
        (b'"metadata":{', b'"metadata":{"a":1,"a":2,'),
        (b'"cost":{', b'"cost":{"tokens":1,'),
        (b'"to":', b'"\\u0074o":"x","to":'),
    ],
)
def test_a_key_that_stands_twice_further_in_is_refused(old: bytes, new: bytes) -> None:
    """At every depth, and however the key is written."""
    assert "envelope.duplicate_key" == code_of(independent.edited(ONE.body, old, new))


PATCHES: list[tuple[str, bytes, bytes, str]] = [
    ("a member nobody knows", b'"to":', b'"priority":1,"to":', "envelope.malformed"),
    ("a member with a name of 100,000 letters", b'"to":', b'"' + b"n" * 100_000 + b'":1,"to":', "envelope.malformed"),
    ("a member in another case", b'"to":', b'"TO":', "envelope.malformed"),
    ("the hash once more", b'"to":', b'"envelope_hash":"","to":', "envelope.malformed"),
    ("a comma too many", b'"to":', b',"to":', "envelope.malformed"),
    ("an unquoted key", b'"to":', b"to:", "envelope.malformed"),
    ("a comment", b'"to":', b'/* */"to":', "envelope.malformed"),
    ("a line break in a text", b'"to":"', b'"to":"\n', "envelope.malformed"),
    ("bytes that are no UTF-8 in a member", b'"to":"', b'"to":"\xff', "envelope.malformed"),
    ("bytes that are no UTF-8 in the payload", b'"payload":{', b'"payload":{"a":"\xc3\x28",', "envelope.malformed"),
    ("bytes that are no UTF-8 in a key", b'"metadata":{', b'"metadata":{"\xed\xa0\x80":1,', "envelope.malformed"),
    ("half a surrogate pair", b'"to":"', b'"to":"\\ud800', "envelope.malformed"),
    ("half a surrogate pair in the payload", b'"payload":{', b'"payload":{"a":"\\udc00\\ud800",', "envelope.malformed"),
    ("NaN", b'"payload":{', b'"payload":{"a":NaN,', "envelope.malformed"),
    ("infinity", b'"payload":{', b'"payload":{"a":-Infinity,', "envelope.malformed"),
    ("1e400 in the payload", b'"payload":{', b'"payload":{"a":1e400,', "envelope.malformed"),
    ("1e400 in metadata", b'"metadata":{', b'"metadata":{"a":1e400,', "envelope.malformed"),
    ("100,000 digits in the payload", b'"payload":{', b'"payload":{"a":' + b"7" * 100_000 + b",", "envelope.malformed"),
    ("100,000 digits in metadata", b'"metadata":{', b'"metadata":{"a":-' + b"7" * 100_000 + b",", "envelope.malformed"),
    ("100,000 digits of a place", b'"chain_seq":', b'"chain_seq":' + b"7" * 100_000, "envelope.malformed"),
    ("100,000 open arrays", b'"payload":{', b'"payload":{"a":' + b"[" * 100_000, "envelope.malformed"),
    ("100,000 levels", b'"metadata":{', b'"metadata":{"a":' + b"[" * 10**5 + b"]" * 10**5 + b",", "envelope.malformed"),
    ("100,000 levels of objects", b'"payload":{', b'"payload":' + b'{"":' * 100_000 + b"{", "envelope.malformed"),
    ("a place that is a fraction", b'"chain_seq":0', b'"chain_seq":0.5', "envelope.malformed"),
    ("a place that is true", b'"chain_seq":0', b'"chain_seq":true', "envelope.malformed"),
    ("a type there is not", b'"type":"request"', b'"type":"order"', "envelope.malformed"),
    ("a payload that is a list", b'"payload":{"":0}', b'"payload":[]', "envelope.member_invalid"),
    ("a payload that is null", b'"payload":{"":0}', b'"payload":null', "envelope.member_invalid"),
    ("metadata that is a list", b'"metadata":{"workflow_id":""}', b'"metadata":[]', "envelope.malformed"),
    ("a cause without a hash", b'"causes":[', b'"causes":[{"id":"01KDVDNA0031GFVX1A47NTMKHK"}', "envelope.malformed"),
]


@pytest.mark.parametrize(("old", "new", "code"), [patch[1:] for patch in PATCHES], ids=[patch[0] for patch in PATCHES])
def test_hostile_bytes_behind_a_right_hash_are_refused(old: bytes, new: bytes, code: str) -> None:
    """With their code, within a second, and with a message that does not repeat them at length."""
    started = time.perf_counter()

    assert code == code_of(independent.edited(ONE.body, old, new))
    assert time.perf_counter() - started < 1


MEMBERS: list[tuple[str, object]] = [
    ("id", ""),
    ("id", "01kdvdna0031gfvx1a47ntmkhk"),
    ("id", "81KDVDNA0031GFVX1A47NTMKHK"),
    ("id", "01KDVDNA0031GFVX1A47NTMKHK\n"),
    ("id", "01KDVDNA0031GFVX1A47NTMKHU"),
    ("subject", ""),
    ("subject", "workflows.*.in"),
    ("subject", "workflows.a.b.c"),
    ("subject", "stored.workflows.run-1.out"),
    ("subject", "workflows.run-1.in\n"),
    ("schema", "goal.submitted"),
    ("schema", "goal.submitted/0"),
    ("schema", "goal.submitted/01"),
    ("schema", "goal/1"),
    ("schema", "Goal.submitted/1"),
    ("schema", "goal.submitted/1\n"),
    ("schema", "goal.submitted/10000"),
    ("trace_id", "0" * 31),
    ("trace_id", "A" * 32),
    ("span_id", "0" * 17),
    ("span_id", "g" * 16),
    ("prev_hash", "0" * 63),
    ("prev_hash", "F" * 64),
    ("prev_hash", "0" * 64 + "\n"),
    ("chain", ""),
    ("chain", "c" * 201),
    ("chain_seq", -1),
    ("chain_seq", 2**53),
    ("chain_seq", 10**30),
    ("ts", ""),
    ("ts", "2026-11-20T18:00:00Z"),
    ("ts", "2026-11-20T18:00:00.000000+00:00"),
    ("ts", "2026-11-20T18:00:00.000000000Z"),
    ("ts", "2026-11-20 18:00:00.000000Z"),
    ("ts", "2026-11-20T18:00:00,000000Z"),
    ("ts", "2026-W47-5T18:00:00.000000Z"),
    ("ts", "2026-02-30T18:00:00.000000Z"),
    ("ts", "2026-11-20T25:00:00.000000Z"),
    ("ts", "0000-11-20T18:00:00.000000Z"),
    ("ts", "٢٠٢٦-11-20T18:00:00.000000Z"),
    ("causes", [{"id": "x", "hash": "0" * 64}]),
    ("causes", [{"id": "01KDVDNA0031GFVX1A47NTMKHK", "hash": "x"}]),
]


@pytest.mark.parametrize(("member", "value"), MEMBERS)
def test_a_member_outside_its_form_is_refused_by_name(member: str, value: object) -> None:
    """By the reader, whoever wrote it; the refusal names the member and what is allowed."""
    members = {**independent.members_of(ONE.body), member: value}
    error = refusal(lambda: unseal(independent.with_hash(msgspec.json.encode(members))))

    assert ("envelope.member_invalid", member) == (error.error_code, error.fields["member"])
    assert str(error.fields["allowed"]) in error.message


@pytest.mark.parametrize(("member", "value"), [pair for pair in MEMBERS if pair[0] != "causes"])
def test_the_writer_refuses_the_same_members(member: str, value: object) -> None:
    """Nothing is sealed that could not be opened."""
    bad = msgspec.structs.replace(draft(1), **{member: value})

    assert member == refusal(lambda: seal(bad)).fields["member"]


@pytest.mark.parametrize("member", [name for name in independent.MEMBERS if name not in ("metadata", "cost", "causes")])
def test_a_member_that_is_missing_is_refused(member: str) -> None:
    """All but three have no default."""
    members = independent.members_of(ONE.body)
    del members[member]

    assert "envelope.malformed" == code_of(independent.with_hash(msgspec.json.encode(members)))


@pytest.mark.parametrize("wrong", [None, True, 7, 0.5, [], {}])
@pytest.mark.parametrize("member", [*("id", "subject", "schema", "type", "from", "to", "trace_id"), "ts", "chain"])
def test_a_text_member_of_another_type_is_refused(member: str, wrong: object) -> None:
    """Nothing is converted."""
    members = {**independent.members_of(ONE.body), member: wrong}

    assert "envelope.malformed" == code_of(independent.with_hash(msgspec.json.encode(members)))


RAW_PAYLOADS = [
    b"",
    b"[]",
    b'{"a":',
    b'{"a":1}x',
    b'{},"to":"other"',
    b'{},"metadata":{"workflow_id":"other"}',
    b'{"a":1,"a":2}',
    b'{"a":"\xff"}',
]


@pytest.mark.parametrize("payload", RAW_PAYLOADS)
def test_a_payload_cannot_break_out_of_its_member(payload: bytes) -> None:
    """Payload bytes are stored as they are given, so the writer reads what it made before anybody stores it."""
    bad: Envelope = msgspec.structs.replace(draft(1), payload=msgspec.Raw(payload))

    refusal(lambda: seal(bad))


def test_a_type_nobody_knows_is_not_sealed() -> None:
    """Types are held at run time too: agents are written without a type checker."""
    bad: Envelope = msgspec.structs.replace(draft(1), type="order")

    assert "envelope.malformed" == refusal(lambda: seal(bad)).error_code


def test_infinite_cost_is_not_sealed() -> None:
    """JSON would write it as null, which no reader takes for a cost."""
    bad: Envelope = msgspec.structs.replace(draft(1), cost=msgspec.structs.replace(draft(1).cost, dollars=float("inf")))

    assert "envelope.malformed" == refusal(lambda: seal(bad)).error_code


# --- junk ------------------------------------------------------------------------------------------------------------

FRAGMENTS = (
    *(
        b'{"envelope_hash":"',
        b'"' + b"0" * LENGTH_OF_HASH + b'",',
        b'{"',
        b'"',
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b"null",
    ),
    *(
        b"NaN",
        b"1e400",
        b"-",
        b"9" * 400,
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\x00",
        b" \n",
        b"[" * 2000,
    ),
    *(text.encode() for text in AWKWARD_TEXTS[:8]),
)
junk = st.one_of(st.binary(max_size=120), st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join))


@wire
@given(junk, st.booleans())
def test_junk_is_refused_as_input_and_as_nothing_else(body: bytes, hashed: bool) -> None:
    """Whatever arrives, no other error escapes: what cannot be read is refused, never a crash of the reader."""
    if hashed:
        body = independent.with_hash(b"{" + body)
    with pytest.raises(InputError):
        unseal(body)
    assert claim_in(body) is None
    found = stored_hash(body)
    assert (found is not None and found[0] == found[1]) == independent.verifies(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b'"envelope_hash"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'{"envelope_hash":null}',
        b'{"envelope_hash":"' + b"0" * 64 + b'"}',
        b'{"envelope_hash":"' + b"0" * 63 + b'",}',
        b'{"envelope_hash":"' + b"A" * 64 + b'",}',
        b"[" * 100_000,
        b"9" * 100_000,
        b'{"goal":"support","input":{}}',
    ],
)
def test_what_does_not_begin_as_sealed_is_told_apart(body: bytes) -> None:
    """A plain body may be a plain publisher's, so it has a code of its own."""
    assert "envelope.not_sealed" == code_of(body)
    assert stored_hash(body) is None
