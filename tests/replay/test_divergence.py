"""Differences are told by where they are; what kind of difference it is follows from that."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from agentflow.payloads import Evaluated, RunAdvanced
from agentflow_streams.divergence import (
    ABSENT,
    MAX_DIFFERENCES,
    Difference,
    compared,
    conditions_of,
    kind_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def follow(value: Any, pointer: str) -> Any:
    """What a JSON pointer leads to, by RFC 6901."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key, ABSENT)
        else:
            value = value[int(key)] if int(key) < len(value) else ABSENT
    return value


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    return repr(one) == repr(other) or (isinstance(one, dict) and () == compared(one, other))


@given(JSON)
def test_nothing_differs_from_itself(value: Any) -> None:
    """No difference between a value and a copy of it."""
    assert () == compared(value, value)


@given(JSON, JSON)
def test_every_difference_is_where_it_says(one: Any, other: Any) -> None:
    """Its pointer leads to its two sides; and where two values differ, some difference is told."""
    found = compared(one, other)
    for difference in found:
        assert difference.recorded == follow(one, difference.path)
        assert difference.decided == follow(other, difference.path)
    assert bool(found) != same(one, other)


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=4), st.data())
def test_a_change_is_found_at_its_place(value: dict[str, Any], data: st.DataObject) -> None:
    """One member changed, one difference told, and it names the member."""
    key = data.draw(st.sampled_from(sorted(value)))
    assume(value[key] != "changed")
    [difference] = compared(value, {**value, key: "changed"})
    assert f"/{key.replace('~', '~0').replace('/', '~1')}" == difference.path


def test_what_one_side_lacks_is_told_as_absent() -> None:
    """A member, and an item at the end of a list."""
    assert (Difference("/a", 1, ABSENT),) == compared({"a": 1}, {})
    assert (Difference("/l/1", ABSENT, 2),) == compared({"l": [1]}, {"l": [1, 2]})


def test_true_and_one_differ() -> None:
    """They are equal in Python and not in JSON."""
    assert (Difference("/a", True, 1),) == compared({"a": True}, {"a": 1})


def test_differences_are_bounded() -> None:
    """A decision that has nothing in common with the other does not fill the screen."""
    assert MAX_DIFFERENCES == len(compared(list(range(100)), [str(n) for n in range(100)]))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/envelope_hash", "/prev_hash"], "chain"),
        (["/chain_seq", "/prev_hash", "/envelope_hash"], "chain"),
        (["/envelope_hash", "/ts"], "clock"),
        (["/envelope_hash", "/ts", "/prev_hash"], "clock"),
        (["/ts", "/payload/retry_at", "/payload/timer/due"], "clock"),
        (["/id", "/span_id"], "ids"),
        (["/trace_id"], "ids"),
        (["/payload/seed"], "seed"),
        (["/payload/seed", "/payload/retry_at"], "seed"),
        (["/payload/state", "/ts"], "decision"),
        (["/payload/retry_at"], "decision"),
        (["/metadata/tenant"], "decision"),
        ([], "decision"),
    ],
)
def test_the_kind_follows_from_the_places(paths: list[str], expected: str) -> None:
    """A chain, a clock, an id or a seed alone; else what was decided."""
    assert expected == kind_of([Difference(path, 1, 2) for path in paths])


def test_conditions_of_both_sides_stand_together() -> None:
    """Also one that only one side came to."""
    one, two = Evaluated("a", True, "x", {"a": 1}), Evaluated("b", False, "y", {"b": 2})
    recorded = RunAdvanced(consumed=(), conditions=(one, two))
    decided = RunAdvanced(consumed=(), conditions=(two,))

    first, second = conditions_of(recorded, decided)
    assert ("a", one, None) == (first.expression, first.recorded, first.decided)
    assert ("b", two, two) == (second.expression, second.recorded, second.decided)
    assert () == conditions_of(None, None)
