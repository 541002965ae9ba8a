"""Results of engines as plain JSON: every part checked, counted, and in a fixed order."""

import datetime
import json
from typing import Any

import pytest
from celpy import celtypes
from hypothesis import given

from agentflow_planner.conditions.celpy_values import ABSENT, TypeName, cel_value, failure, kind, lookup, made, same
from agentflow_planner.conditions.python import _unwrapped
from agentflow_planner.conditions.results import MAX_LEVELS, MAX_PARTS, Plain, finite, kind_name, text_key
from agentflow_planner.errors import EvaluationFailed
from tests.services.planner.expressions import JSON


def plain(value: Any) -> Any:
    """A value whose parts are Python's already."""
    return Plain(lambda each: each).convert(value)


def refused(value: Any) -> str:
    """The code a value is refused with."""
    with pytest.raises(EvaluationFailed) as caught:
        plain(value)
    return caught.value.error_code


@given(JSON)
def test_json_stays_what_it_is(value: Any) -> None:
    """But for the order of keys."""
    assert plain(value) == value
    assert json.dumps(plain(value)) == json.dumps(value, sort_keys=True)


@given(JSON)
def test_json_goes_through_cel_pythons_values_and_back(value: Any) -> None:
    """Nothing is lost, and nothing of the engine's is left."""
    back = Plain(_unwrapped).convert(cel_value(value))
    assert back == value
    assert repr(back) == repr(plain(value))


@given(JSON, JSON)
def test_equality_of_cel_values_is_that_of_json(left: Any, right: Any) -> None:
    """For values without numbers of two kinds or truth values it is Python's own."""
    a, b = cel_value(left), cel_value(right)
    assert same(a, a)
    assert same(a, b) == same(b, a)
    if repr(left) == repr(right):
        assert same(a, b)
    if same(a, b):
        assert kind(a) == kind(b) or {kind(a), kind(b)} <= {"int", "uint", "double"}


@pytest.mark.parametrize(
    "value",
    [float("inf"), float("nan"), [float("-inf")], {"a": {"b": float("nan")}}, b"x", bytearray(b"x"), {1: 2}, {None: 1},
     datetime.timedelta(1), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), int, object()],
)  # fmt: skip
def test_what_is_no_json_is_refused(value: Any) -> None:
    """Wherever in the result it stands."""
    assert refused(value) == "condition.not_json"


def test_results_are_bounded_in_parts_and_levels() -> None:
    """Counted at every place a value stands, since that is how often it would be written."""
    shared = list(range(1000))
    assert refused([shared] * (MAX_PARTS // 1000 + 1)) == "condition.too_large"
    deep: Any = 0
    for _ in range(MAX_LEVELS):
        deep = [deep]
    assert plain(deep) == deep
    assert refused([deep]) == "condition.too_large"


@pytest.mark.parametrize(
    ("value", "name"),
    [(b"", "bytes"), (datetime.timedelta(1), "a duration"), (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "a timestamp"),
     (celtypes.TimestampType("2026-01-01T00:00:00Z"), "a timestamp"), (celtypes.DurationType("1s"), "a duration"),
     (celtypes.BytesType(b""), "bytes"), (int, "a type")],
)  # fmt: skip
def test_kinds_without_json_are_named(value: Any, name: str) -> None:
    """In the words of the language."""
    assert kind_name(value) == name


def test_small_checks() -> None:
    """A finite number and a text key pass as they are."""
    assert finite(1.5) == 1.5
    assert text_key("a") == "a"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "bool"),
        (1, "int"),
        (2**63, "uint"),
        (1.0, "double"),
        ("a", "string"),
        (None, "null"),
        ([], "list"),
        ({}, "map"),
    ],
)
def test_values_of_cel_python_know_their_kinds(value: Any, name: str) -> None:
    """Which Python's own classes do not: its bool is an int."""
    assert kind(cel_value(value)) == name
    assert kind(TypeName("int")) == "type"
    assert kind(failure("x")) == "unknown"
    assert kind(object()) == "unknown"


def test_numbers_are_kept_in_their_ranges() -> None:
    """What leaves them is an error as a value."""
    assert made("int", 2**63 - 1) == cel_value(2**63 - 1)
    assert kind(made("int", 2**63)) == "unknown"
    assert kind(made("uint", -1)) == "unknown"
    assert kind(made("uint", 2**64 - 1)) == "uint"
    assert kind(made("double", 1)) == "double"


def test_keys_are_looked_up_by_equality() -> None:
    """A whole double finds an int; a text finds only a text."""
    mapping = cel_value({"1": "text"})
    dict.update(mapping, {cel_value(1): cel_value("one")})
    assert lookup(mapping, cel_value(1.0)) == "one"
    assert lookup(mapping, cel_value("1")) == "text"
    assert lookup(mapping, cel_value(True)) is ABSENT
    assert lookup(mapping, cel_value("2")) is ABSENT


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, object(), {1, 2}])
def test_values_cel_python_cannot_hold_are_refused(value: Any) -> None:
    """Before they become something else."""
    with pytest.raises(EvaluationFailed) as caught:
        cel_value(value)
    assert caught.value.error_code == "condition.not_json"
