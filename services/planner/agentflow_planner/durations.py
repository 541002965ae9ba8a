"""Durations as people write them in definitions: `500ms`, `10s`, `5m`, `2h`, `1d`, or a number of seconds."""

import re

MAX_SECONDS = 3 * 86400.0
"""No wait is longer: every waiting state has a deadline well below the retention of its history."""

MIN_SECONDS = 0.001
"""What is shorter than a millisecond is a slip, not a duration."""

ALLOWED = ("500ms", "10s", "5m", "2h", "1d", "a number of seconds", "1ms to 3d")
"""What a finding about a duration shows."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)\Z")


def parse_duration(value: object, *, zero: bool = False) -> float:
    """Seconds; raises `ValueError` (the message says what is wrong) for what is no duration or outside 1ms to 3d.

    `zero` allows 0, for a wait that may be left out.
    """
    seconds = _seconds(value)
    if seconds == 0 and zero:
        return 0.0
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"a duration is between 1ms and 3d, and this is {seconds:g} seconds")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a duration")
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 1e18 else 1e18
    match = _FORM.match(value)
    if match is None:
        raise ValueError("not a duration")
    return round(float(match[1]) * _UNITS[match[2]] / 1000, 9)


def format_duration(seconds: float) -> str:
    """A duration in the largest unit that is exact: `90s`, `1d`, `250ms`."""
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 != seconds or not milliseconds:
        return f"{seconds:g}s"
    unit, size = next((unit, size) for unit, size in reversed(_UNITS.items()) if milliseconds % size == 0)
    return f"{milliseconds // size}{unit}"
