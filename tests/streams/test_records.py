"""One message judged by itself."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import MAX_ENVELOPE, claim_for, encode_payload, looks_sealed, seal, sha256_hex
from agentflow.payloads import GoalSubmitted, Lifecycle
from agentflow.testing import envelope, goal
from agentflow_streams.records import is_open_input, open_record, with_artifact
from tests.support.profiles import wire

GOAL = goal("support", {"text": "my card never came"})
LARGE = goal("support", {"text": "x" * 200_000})


def test_a_sealed_envelope_on_its_subject_is_clean() -> None:
    """With its payload, typed."""
    record = open_record("AF_MESSAGES", 7, "workflows.run-1.in", GOAL.body)

    assert (None, "", GOAL) == (record.damage, record.detail, record.sealed)
    assert GoalSubmitted("support", {"text": "my card never came"}) == record.payload
    assert sha256_hex(GOAL.body) == record.raw_hash


@wire
@given(st.binary(max_size=2000))
def test_any_bytes_are_judged(body: bytes) -> None:
    """Nothing that a stranger stores makes the verifier fail."""
    record = open_record("AF_MESSAGES", 1, "workflows.run-1.in", body)

    assert record.damage == ("edited" if looks_sealed(body) else "foreign")
    assert record.detail
    assert record.sealed is None


@wire
@given(st.data())
def test_an_envelope_with_edited_bytes_is_recognised(data: st.DataObject) -> None:
    """One run of bytes, anywhere, replaced by any other: it was an envelope, and its bytes are not the ones sealed."""
    start = data.draw(st.integers(0, len(GOAL.body) - 1))
    length = data.draw(st.integers(1, 4))
    more = data.draw(st.binary(max_size=4))
    body = GOAL.body[:start] + more + GOAL.body[start + length :]
    if body == GOAL.body:
        return
    record = open_record("AF_MESSAGES", 1, "workflows.run-1.in", body)

    assert "edited" == record.damage


def test_an_edited_envelope_still_says_where_it_was() -> None:
    """Its place, from bytes nobody vouches for: to tell one damage instead of several."""
    body = GOAL.body.replace(b"my card", b"my cart")
    trace = open_record("AF_MESSAGES", 1, "workflows.run-1.in", body).trace

    assert trace is not None
    assert (GOAL.envelope.id, GOAL.envelope.chain, 0, GOAL.envelope.prev_hash) == (
        trace.id,
        trace.chain,
        trace.place,
        trace.prev_hash,
    )
    assert (GOAL.hash, sha256_hex(b"{" + body[84:])) == (trace.claimed, trace.actual)


def test_a_payload_that_looks_like_a_place_does_not_mislead() -> None:
    """The place is read behind the payload, whatever a client writes into it."""
    trap = '"chain":"workflow:x:y","chain_seq":7,"prev_hash":"' + "1" * 64 + '"'
    sealed = goal("support", {"text": "plain", "trap": [trap]})
    body = sealed.body.replace(b"plain", b"plane")
    trace = open_record("AF_MESSAGES", 1, "workflows.run-1.in", body).trace

    assert trace is not None
    assert (sealed.envelope.chain, 0) == (trace.chain, trace.place)


def test_an_envelope_elsewhere_is_moved() -> None:
    """It says where it belongs."""
    record = open_record("AF_MESSAGES", 1, "workflows.other.in", GOAL.body)

    assert "moved" == record.damage
    assert "workflows.run-1.in" in record.detail
    assert GOAL == record.sealed


def test_an_envelope_above_the_limit_is_not_one() -> None:
    """Whoever stores that did not seal it."""
    body = GOAL.body + b" " * MAX_ENVELOPE

    assert "edited" == open_record("AF_MESSAGES", 1, "workflows.run-1.in", body).damage


@pytest.mark.parametrize(
    ("changes", "damage", "words"),
    [
        ({"payload": msgspec.Raw(b'{"goal":7}')}, "foreign", "breaks goal.submitted/1"),
        ({"payload": msgspec.Raw(b'{"goal":"a","more":1}')}, "foreign", "breaks goal.submitted/1"),
        ({"type": "event"}, "foreign", "travels as request"),
        ({"schema": "goal.submitted/2"}, None, "goal.submitted/2 is not known here"),
    ],
)
def test_a_payload_is_held_to_its_schema(changes: dict[str, object], damage: str | None, words: str) -> None:
    """A schema that is not known cannot be checked, which is said and is no damage."""
    sealed = seal(msgspec.structs.replace(GOAL.envelope, **changes))
    record = open_record("AF_MESSAGES", 1, "workflows.run-1.in", sealed.body)

    assert damage == record.damage
    assert words in record.detail


def test_a_claim_check_is_open_until_its_artifact_is_seen() -> None:
    """The envelope carries the artifact's hash."""
    record = open_record("AF_MESSAGES", 1, "workflows.run-1.in", LARGE.body)
    payload = encode_payload(GoalSubmitted("support", {"text": "x" * 200_000}))

    assert claim_for(payload) == record.claim
    assert record.payload is None
    assert GoalSubmitted("support", {"text": "x" * 200_000}) == with_artifact(record, payload).payload


@pytest.mark.parametrize(("data", "damage"), [(None, "missing"), (b"", "edited"), (b'{"goal":"other"}', "edited")])
def test_an_artifact_that_is_not_the_one_sealed_is_damage(data: bytes | None, damage: str) -> None:
    """Gone, or changed."""
    record = with_artifact(open_record("AF_MESSAGES", 1, "workflows.run-1.in", LARGE.body), data)

    assert damage == record.damage
    assert "artifact sha256-" in record.detail


def test_an_artifact_for_a_record_that_asks_for_none_changes_nothing() -> None:
    """There is nothing to compare it with."""
    record = open_record("AF_MESSAGES", 1, "workflows.run-1.in", GOAL.body)

    assert record == with_artifact(record, b"whatever")


@pytest.mark.parametrize(
    ("subject", "is_open"),
    [
        ("workflows.a.in", True),
        ("agents.a.in", True),
        ("agents.a.in.01", False),
        ("workflows.a.out", False),
        ("workflows.a.results.1", False),
        ("tools.calls.1", False),
        ("elsewhere.in", False),
        ("workflows.a b.in", False),
    ],
)
def test_only_open_inputs_may_hold_what_the_mesh_did_not_write(subject: str, is_open: bool) -> None:
    """A request to an agent on a subject of its own is stored once, by the planner."""
    assert is_open == is_open_input(subject)


def test_a_lifecycle_event_is_clean() -> None:
    """Envelopes without a run are envelopes too."""
    sealed = envelope(Lifecycle("a", "i", "started"), "agents.a.out")

    assert open_record("AF_AGENTS", 1, "agents.a.out", sealed.body).damage is None
    assert "component.lifecycle/1" == json.loads(sealed.body)["schema"]
