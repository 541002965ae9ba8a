"""Values that leave a handler are JSON, exactly, or refused with the place that is wrong."""

import enum
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import encode_payload
from agentflow.errors import SchemaError
from agentflow_runtime import values
from agentflow_runtime.values import plain

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_a_json_value_stays_what_it_is(value: Any) -> None:
    """Nothing is lost or changed, and what is returned is what a reader of the bytes gets."""
    made = plain(value, "output")
    assert made == value
    assert json.loads(encode_payload(made)) == value


@given(st.dictionaries(texts, json_values, max_size=6), st.randoms(use_true_random=False))
def test_sorted_values_have_the_same_bytes_in_any_order(value: dict[str, Any], shuffler: Any) -> None:
    """The bytes of a tool's input do not depend on the order its keys were put in."""
    items = list(value.items())
    shuffler.shuffle(items)
    assert encode_payload(plain(dict(items), "input", sort=True)) == encode_payload(plain(value, "input", sort=True))


def test_output_keeps_the_order_of_its_keys() -> None:
    """People read outputs: they stay as the author ordered them."""
    assert list(plain({"b": 1, "a": 2}, "output")) == ["b", "a"]


class Number(float):
    """A number of another library, such as numpy's."""


class Color(enum.StrEnum):
    """Text with a type of its own."""

    RED = "red"


class Size(enum.IntEnum):
    """An integer with a type of its own."""

    BIG = 3


def test_subclasses_of_json_types_become_what_they_stand_for() -> None:
    """The codec would refuse them; their values are plain JSON."""
    made = plain({"share": Number(0.5), Color.RED: [Color.RED, Size.BIG], "pair": (1, 2)}, "output")
    assert made == {"share": 0.5, "red": ["red", 3], "pair": [1, 2]}
    assert [type(item) for item in (made["share"], *made["red"], made["pair"])] == [float, str, int, list]


@pytest.mark.parametrize(
    ("value", "code", "where"),
    [
        (math.nan, "value.not_json", "output"),
        ({"a": [1, math.inf]}, "value.not_json", "output.a[1]"),
        (2**64, "value.not_json", "output"),
        ({1: 2}, "value.key", "output"),
        ({"a": {1, 2}}, "value.not_json", "output.a"),
        (b"bytes", "value.not_json", "output"),
        (NotImplemented, "value.not_json", "output"),
        ("lone \ud800 surrogate", "value.not_json", "output"),
        ({"\udfff": 1}, "value.key", "output"),
    ],
    ids=repr,
)
def test_what_json_cannot_hold_is_refused_by_place(value: Any, code: str, where: str) -> None:
    """The error names the place, so that its author finds it."""
    with pytest.raises(SchemaError) as refused:
        plain(value, "output")
    assert (refused.value.error_code, refused.value.fields["where"]) == (code, where)


def test_a_value_that_holds_itself_is_refused() -> None:
    """A cycle ends at the depth allowed, not in a crash."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(SchemaError, match="nested deeper"):
        plain(value, "output")


def test_a_value_too_large_for_an_artifact_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on the JSON, and the error tells both sizes."""
    monkeypatch.setattr(values, "MAX_VALUE", 10)
    assert plain("12345678", "output") == "12345678"
    with pytest.raises(SchemaError) as refused:
        plain("123456789", "output")
    assert (refused.value.error_code, refused.value.fields["found"]) == ("value.too_large", 11)
