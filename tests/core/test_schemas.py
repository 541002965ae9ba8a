"""Payloads into envelopes and out of them."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentflow.envelope import MAX_INLINE_PAYLOAD, ChainPlace, Cost, Ref, claim_for, claim_in, encode_payload, unseal
from agentflow.errors import SchemaError
from agentflow.payloads import SCHEMAS, GoalSubmitted, Payload, RunSignalled, StepCompleted, StepRequested
from agentflow.schemas import compose, decode_payload, payload_as
from agentflow.testing import envelope
from tests.core.strategies import ulid
from tests.core.structs import instances

NOW = datetime(2026, 11, 20, 18, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "id": ulid(1),
    "subject": "workflows.run-1.in",
    "sender": "client",
    "to": "planner",
    "trace_id": "1" * 32,
    "span_id": "2" * 16,
    "ts": NOW,
    "place": ChainPlace("input:x:run-1"),
}


@given(st.sampled_from(sorted(SCHEMAS)).flatmap(lambda name: instances(SCHEMAS[name][0])))
def test_a_composed_envelope_holds_its_payload(payload: Payload) -> None:
    """Typed in, sealed, opened, typed out: the same, under the schema and type it always travels as."""
    sealed = compose(payload, **FACTS)
    opened = unseal(sealed.body, "workflows.run-1.in")

    assert (
        payload == payload_as(opened, type(payload)) == decode_payload(sealed.envelope.schema, opened.envelope.payload)
    )
    assert (type(payload), opened.envelope.type) == SCHEMAS[opened.envelope.schema]


def test_composing_fills_every_member() -> None:
    """What is given goes where it belongs; what is not is empty."""
    cause = Ref(ulid(2), "c" * 64)
    place = ChainPlace("decision:x", 3, "d" * 64)
    sealed = compose(
        GoalSubmitted("support"),
        **{**FACTS, "place": place},
        causes=(cause,),
        metadata={"workflow_id": "run-1"},
        cost=Cost(5, 0.5),
    )
    found = sealed.envelope

    assert ("decision:x", 3, "d" * 64) == (found.chain, found.chain_seq, found.prev_hash)
    assert ((cause,), {"workflow_id": "run-1"}, Cost(5, 0.5)) == (found.causes, found.metadata, found.cost)
    assert ("2026-11-20T18:00:00.000000Z", "client", "planner") == (found.ts, found.sender, found.to)
    assert ({}, Cost(), ()) == tuple(
        getattr(compose(GoalSubmitted("x"), **FACTS).envelope, name) for name in ("metadata", "cost", "causes")
    )


def test_a_time_may_be_given_as_it_is_written() -> None:
    """A decision's commands carry its very text."""
    text = "2026-11-20T18:00:00.000000Z"

    assert compose(GoalSubmitted("x"), **FACTS) == compose(GoalSubmitted("x"), **{**FACTS, "ts": text})


def test_a_payload_of_another_schema_is_refused() -> None:
    """Whoever expects a goal is not handed a signal."""
    sealed = envelope(RunSignalled("approve"), "workflows.run-1.in")

    with pytest.raises(SchemaError) as refused:
        payload_as(sealed, GoalSubmitted)

    assert ("schema.unexpected", "run.signalled/1", "GoalSubmitted") == (
        refused.value.error_code,
        refused.value.fields["found"],
        refused.value.fields["allowed"],
    )


@pytest.mark.parametrize(
    "payload",
    [
        replace(GoalSubmitted("x"), goal=7),
        replace(GoalSubmitted("x"), input=[1]),
        replace(StepRequested("w@1.0.0", "state", 1, {}, "deadline"), attempt="1"),
    ],
)
def test_a_payload_that_breaks_its_schema_is_refused_when_it_is_sealed(payload: Payload) -> None:
    """By its writer, not by whoever reads it for the next years."""
    with pytest.raises(SchemaError) as refused:
        compose(payload, **FACTS)

    assert "schema.mismatch" == refused.value.error_code


@pytest.mark.parametrize("value", [object(), "\ud800", {"a": {1, object()}}])
def test_a_payload_json_cannot_hold_is_refused_when_it_is_sealed(value: Any) -> None:
    """With an error of ours."""
    with pytest.raises(SchemaError) as refused:
        compose(StepCompleted(value), **FACTS)

    assert "value.not_json" == refused.value.error_code


# --- the inline limit ------------------------------------------------------------------------------------------------


def of_size(size: int) -> StepCompleted:
    """A payload of exactly so many bytes."""
    return StepCompleted("x" * (size - len(encode_payload(StepCompleted("")))))


def test_a_payload_of_128_kib_is_inline() -> None:
    """The largest that is."""
    payload = of_size(MAX_INLINE_PAYLOAD)
    sealed = compose(payload, **FACTS)

    assert claim_in(sealed.envelope.payload) is None
    assert payload == payload_as(sealed, StepCompleted)


def test_a_payload_of_one_byte_more_is_a_claim_check() -> None:
    """It names the bytes by their hash and size; the envelope stays small."""
    payload = of_size(MAX_INLINE_PAYLOAD + 1)
    sealed = compose(payload, **FACTS)

    assert claim_for(encode_payload(payload)) == claim_in(sealed.envelope.payload)
    assert "step.completed/1" == sealed.envelope.schema
    assert len(sealed.body) < 1500


def test_bytes_that_are_given_are_the_ones_sealed() -> None:
    """How a claim check gets in that was stored before."""
    raw = msgspec.Raw(encode_payload(claim_for(b"stored elsewhere")))

    assert bytes(raw) == bytes(compose(GoalSubmitted("x"), **FACTS, raw=raw).envelope.payload)


def test_a_claim_check_is_not_taken_for_the_payload() -> None:
    """Whoever decodes it without fetching is told."""
    sealed = compose(of_size(MAX_INLINE_PAYLOAD + 1), **FACTS)

    with pytest.raises(SchemaError):
        payload_as(sealed, StepCompleted)
