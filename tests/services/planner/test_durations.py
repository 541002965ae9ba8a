"""Durations in definitions: what people write, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.durations import MAX_SECONDS, MIN_SECONDS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("3d", 259200.0),
        ("1.5s", 1.5),
        ("0.25h", 900.0),
        ("1ms", 0.001),
        (30, 30.0),
        (0.5, 0.5),
    ],
)
def test_durations_are_read_in_seconds(written: object, seconds: float) -> None:
    """Every unit, fractions, and plain numbers, which are seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "10",
        "10 s",
        "-1s",
        "+1s",
        "1w",
        "10min",
        "1h30m",
        "1e3s",
        "１s",
        ".5s",
        "1.s",
        "nan",
        None,
        True,
        [],
        {},
    ],
)
def test_anything_else_is_no_duration(written: object) -> None:
    """Nothing is guessed: not the unit, not the sign, not what a truth value could mean."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    "written", ["0s", 0, "0.5ms", "73h", "4d", 259200.001, -1, float("inf"), float("nan"), 10**400]
)
def test_durations_outside_the_bounds_are_refused(written: object) -> None:
    """From a millisecond to three days, so that every wait ends well before its history does."""
    with pytest.raises(ValueError, match=r"between 1ms and 3d|not a duration"):
        parse_duration(written)


def test_a_backoff_may_be_left_out_with_zero() -> None:
    """Zero is allowed where a wait is optional, and only there."""
    assert parse_duration("0s", zero=True) == 0.0
    assert parse_duration(0, zero=True) == 0.0
    with pytest.raises(ValueError, match="between"):
        parse_duration(-0.5, zero=True)


@given(st.integers(1, int(MAX_SECONDS * 1000)))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    """`format_duration` is exact for whole milliseconds, the finest a definition can say."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400.0, "1d"), (90.0, "90s"), (5400.0, "90m"), (7200.0, "2h"), (0.25, "250ms"), (1.5, "1500ms")],
)
def test_durations_are_written_in_the_largest_exact_unit(seconds: float, text: str) -> None:
    """People read `2h` faster than `7200s`."""
    assert format_duration(seconds) == text


@given(st.floats(MIN_SECONDS, MAX_SECONDS))
def test_numbers_of_seconds_are_taken_as_they_are(seconds: float) -> None:
    """A number within the bounds is not rounded."""
    assert parse_duration(seconds) == seconds
