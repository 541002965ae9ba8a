"""Payloads and their schemas: closed, versioned, and the same after being stored."""

import json
import re
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import MessageType, encode_payload
from agentflow.errors import SchemaError
from agentflow.payloads import SCHEMAS, TERMINAL, Decision, Failure, GoalSubmitted, Payload, schema_of
from agentflow.schemas import decode_payload
from tests.core.strategies import numbers, object_of, texts
from tests.core.structs import instances
from tests.core.test_golden import PAYLOADS
from tests.support.profiles import wire

GRAMMAR = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+/[1-9][0-9]{0,3}")

NAMES = sorted(SCHEMAS)
schemas = pytest.mark.parametrize("schema", NAMES)
names = st.sampled_from(NAMES)


def test_every_schema_name_has_the_grammar() -> None:
    """`noun.verb/version`, so that a name from outside can be told from junk before it is looked up."""
    assert [] == [name for name in NAMES if not GRAMMAR.fullmatch(name)]


def test_every_payload_travels_as_a_type_of_the_wire() -> None:
    """And each struct under one name only: a payload says by itself what it is."""
    assert {kind for _, kind in SCHEMAS.values()} <= set(get_args(MessageType))
    assert len(SCHEMAS) == len({struct for struct, _ in SCHEMAS.values()})


def test_what_ends_a_run_is_known_and_answers() -> None:
    """Terminal schemas exist, and travel as responses: a client waits for them."""
    assert {"response"} == {SCHEMAS[name][1] for name in TERMINAL}
    assert {"run.completed/1", "run.failed/1", "run.cancelled/1", "goal.rejected/1"} == TERMINAL


@schemas
def test_payloads_are_frozen_and_closed(schema: str) -> None:
    """Each struct by itself: neither is inherited by accident."""
    struct = SCHEMAS[schema][0]

    assert issubclass(struct, Payload)
    assert struct.__struct_config__.frozen
    assert struct.__struct_config__.forbid_unknown_fields
    assert not struct.__struct_config__.omit_defaults


@schemas
@given(st.data())
def test_a_payload_is_the_same_after_being_stored(schema: str, data: st.DataObject) -> None:
    """Any instance of any schema, with and without the members that have defaults."""
    payload = data.draw(instances(SCHEMAS[schema][0]))
    stored = encode_payload(payload)

    assert schema == schema_of(payload)
    assert payload == decode_payload(schema, stored) == decode_payload(schema, msgspec.Raw(stored))
    assert stored == encode_payload(decode_payload(schema, stored))


@wire
@given(names, texts, numbers)
def test_an_unknown_member_is_refused(schema: str, member: str, value: int) -> None:
    """Whatever it is called and holds: a newer writer's payload is never half understood."""
    known = {field.encode_name for field in msgspec.structs.fields(SCHEMAS[schema][0])}
    members = {**json.loads(PAYLOADS[schema]), member if member not in known else f"{member}_": object_of(value)}

    with pytest.raises(SchemaError) as refused:
        decode_payload(schema, encode_payload(members))

    assert "schema.mismatch" == refused.value.error_code
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("step.failed/1", ("error",)),
        ("goal.accepted/1", ("definition",)),
        ("run.advanced/1", ("consumed", 0)),
        ("tool.failed/1", ("error",)),
    ],
)
def test_an_unknown_member_further_in_is_refused(schema: str, path: tuple[Any, ...]) -> None:
    """The structs inside payloads are closed too."""
    members = json.loads(PAYLOADS[schema])
    inner = members
    for step in path:
        inner = inner[step]
    inner["new"] = 1

    with pytest.raises(SchemaError):
        decode_payload(schema, encode_payload(members))


@schemas
def test_a_required_member_cannot_be_left_out(schema: str) -> None:
    """Each of them, one at a time."""
    members = json.loads(PAYLOADS[schema])
    for field in msgspec.structs.fields(SCHEMAS[schema][0]):
        if field.required:
            left = {name: value for name, value in members.items() if name != field.encode_name}
            with pytest.raises(SchemaError):
                decode_payload(schema, encode_payload(left))


@schemas
@pytest.mark.parametrize("wrong", [b"null", b"[]", b"7", b'"x"', b"true", b"", b"{", b"\xff", b"{}x", b"[" * 100_000])
def test_what_is_no_object_is_no_payload(schema: str, wrong: bytes) -> None:
    """Of any schema, and with our own error."""
    with pytest.raises(SchemaError) as refused:
        decode_payload(schema, wrong)

    assert "schema.mismatch" == refused.value.error_code


@pytest.mark.parametrize(
    "payload",
    [
        b'{"goal":7}',
        b'{"goal":null}',
        b'{"goal":"x","input":[]}',
        b'{"goal":"x","input":{"a":1e400}}',
        b'{"goal":"x","input":{"a":' + b"7" * 100_000 + b"}}",
        b'{"goal":"\xff"}',
        b'{"goal":"\\ud800"}',
        b'{"goal":"x","' + b"n" * 100_000 + b'":1}',
    ],
)
def test_hostile_payload_bytes_are_refused_with_a_bounded_message(payload: bytes) -> None:
    """Bytes from an artifact were never inside an envelope, so they are looked at with the same care."""
    with pytest.raises(SchemaError) as refused:
        decode_payload("goal.submitted/1", payload)

    assert "schema.mismatch" == refused.value.error_code
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "schema", ["", "goal.submitted", "goal.submitted/2", "Goal.submitted/1", "x" * 100_000, "\ud800"]
)
def test_a_schema_nobody_knows_is_refused_with_those_there_are(schema: str) -> None:
    """A newer version is not guessed at."""
    with pytest.raises(SchemaError) as refused:
        decode_payload(schema, b"{}")

    assert "schema.unknown" == refused.value.error_code
    assert "goal.submitted/1" in str(refused.value.fields["allowed"])
    assert len(str(refused.value)) < 400


def test_a_struct_that_travels_only_inside_others_has_no_schema() -> None:
    """Asking for one is refused, not answered with another error."""
    for payload in (Failure("c", "T", "m", "agent"), Decision(consumed=())):
        with pytest.raises(SchemaError) as refused:
            schema_of(payload)
        assert "schema.unknown" == refused.value.error_code


def test_a_payload_cannot_be_changed() -> None:
    """It is what was stored."""
    payload = GoalSubmitted("support")

    for name in GoalSubmitted.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(payload, name, "other")
