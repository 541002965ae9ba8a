"""Moments as people give them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import format_time
from agentflow.errors import InputError
from agentflow_streams.since import parse_since

NOW = datetime(2026, 11, 20, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        (" 1.5h ", timedelta(minutes=90)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_counts_back_from_now(text: str, ago: timedelta) -> None:
    """The units people write."""
    assert NOW - ago == parse_since(text, NOW)


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_a_time_is_taken_as_it_is_written(moment: datetime) -> None:
    """The form of an envelope's `ts` goes in again."""
    assert moment == parse_since(format_time(moment), NOW)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "2 hours", "-2h", "2026-11-20", "2026-11-20T18:00:00", "9" * 30 + "d", "999999999d"]
)
def test_anything_else_is_refused(text: str) -> None:
    """With what is allowed; a time without an offset means different moments to different people."""
    with pytest.raises(InputError, match="30m, 2h, 7d") as caught:
        parse_since(text, NOW)
    assert "since.invalid" == caught.value.error_code
