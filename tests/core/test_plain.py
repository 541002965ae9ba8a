"""Values JSON would change or drop are refused with their place, before anything is made of them."""

import enum
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from agentflow.envelope import encode_payload
from agentflow.errors import SchemaError
from agentflow.plain import MAX_DEPTH, check_plain
from tests.core.strategies import AWKWARD_NUMBERS, AWKWARD_TEXTS, json_values

NOW = datetime(2026, 11, 20, 18, tzinfo=UTC)


@given(json_values)
def test_values_json_keeps_pass(value: Any) -> None:
    """And they are indeed kept."""
    check_plain(value)

    assert value == json.loads(encode_payload(value))


class Colour(enum.StrEnum):
    """A text with a name."""

    RED = "red"


@pytest.mark.parametrize("value", [*AWKWARD_NUMBERS, *AWKWARD_TEXTS, None, True, (1, [2]), Colour.RED])
def test_the_awkward_values_pass(value: Any) -> None:
    """Limits included: 64 bits either way, every Unicode text; tuples are lists."""
    check_plain({"a": [value]})


class Hostile:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (math.nan, "value.not_json"),
        (math.inf, "value.not_json"),
        (-math.inf, "value.not_json"),
        (2**64, "value.not_json"),
        (-(2**63) - 1, "value.not_json"),
        (10**5000, "value.not_json"),
        (b"bytes", "value.not_json"),
        ({1, 2}, "value.not_json"),
        (object(), "value.not_json"),
        (Hostile(), "value.not_json"),
        (1j, "value.not_json"),
        (NOW, "value.not_json"),
        ("\ud800", "value.not_json"),
        ("a\udfff", "value.not_json"),
        ({1: 2}, "value.key"),
        ({None: 2}, "value.key"),
        ({"\ud800": 2}, "value.key"),
        ({10**5000: 2}, "value.key"),
        ({(Hostile(),): 2}, "value.key"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_json_would_change_or_drop_is_refused_with_its_place(value: Any, code: str) -> None:
    """At any depth; the place is named as one would write it, and the value is shown cut, if it can be shown."""
    with pytest.raises(SchemaError) as refused:
        check_plain({"list": [0, {"deep": value}]}, "output")

    assert code == refused.value.error_code
    assert "output.list[1].deep" == refused.value.fields["where"]
    assert str(refused.value).startswith("output.list[1].deep ")
    assert len(str(refused.value)) < 250


def nested(depth: int) -> Any:
    """A list in a list, so many times."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_has_a_limit() -> None:
    """64 levels pass and 65 do not, nor does a value that holds itself."""
    check_plain(nested(MAX_DEPTH))
    endless: list[Any] = []
    endless.append(endless)

    for value in (nested(MAX_DEPTH + 1), nested(900), endless, {"a": endless}):
        with pytest.raises(SchemaError) as refused:
            check_plain(value)
        assert "value.too_deep" == refused.value.error_code


def test_the_place_of_a_long_key_is_cut() -> None:
    """A key of a megabyte does not become a message of a megabyte."""
    with pytest.raises(SchemaError) as refused:
        check_plain({"k" * 1_000_000: math.nan})

    assert len(str(refused.value)) < 300
