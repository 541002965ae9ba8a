"""Times on the wire: one form, no machine behind it."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import Clock, SystemClock, format_time, parse_time
from tests.core.strategies import moments
from tests.support.profiles import wire

ANY_MOMENT = st.datetimes(timezones=st.just(UTC))
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@wire
@given(moments)
def test_a_time_survives_being_written(moment: datetime) -> None:
    """To the microsecond, in 27 characters that sort as the times do."""
    text = format_time(moment)

    assert moment == parse_time(text)
    assert (27, "T", "Z") == (len(text), text[10], text[-1])
    assert (text < format_time(moment + timedelta(microseconds=1))) is True


@given(ANY_MOMENT)
def test_any_year_has_the_same_form(moment: datetime) -> None:
    """From year 1 to 9999, with leading zeros."""
    text = format_time(moment)

    assert 27 == len(text)
    assert moment == parse_time(text)


@given(moments, OFFSETS)
def test_a_time_is_written_in_utc_wherever_it_was_taken(moment: datetime, zone: timezone) -> None:
    """The same moment has one text, and any offset is understood."""
    assert format_time(moment) == format_time(moment.astimezone(zone))
    assert moment == parse_time(moment.astimezone(zone).isoformat())


def test_the_documented_form() -> None:
    """The example of the documentation."""
    assert "2026-11-20T18:00:00.000000Z" == format_time(datetime(2026, 11, 20, 18, tzinfo=UTC))
    assert "0001-01-01T00:00:00.000001Z" == format_time(datetime(1, 1, 1, microsecond=1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T18:00:00Z", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2026-11-20T18:00:00.5+01:00", datetime(2026, 11, 20, 17, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-20T18:00:00.123456789Z", datetime(2026, 11, 20, 18, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-20 18:00:00-00:30", datetime(2026, 11, 20, 18, 30, tzinfo=UTC)),
    ],
)
def test_other_writers_precision_and_offset_are_understood(text: str, expected: datetime) -> None:
    """Deadlines come from clients in other languages; what is finer than a microsecond is cut."""
    assert expected == parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-20",
        "2026-11-20T18:00:00",
        "2026-02-30T00:00:00Z",
        "2026-11-20T25:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "1700000000",
        "\ud800",
        "2026-11-20T18:00:00Z\n",
    ],
)
def test_what_names_no_moment_is_a_value_error(text: str) -> None:
    """No other error, so that callers translate one: no offset, no such day, outside the years there are."""
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever a client writes for a deadline."""
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert timedelta(0) == moment.utcoffset()


def test_the_system_clock_is_aware_and_runs() -> None:
    """It is in UTC and not behind the machine's own idea of now."""
    clock: Clock = SystemClock()
    before = time.time()  # noqa: TID251  # compared with the port

    now = clock.now()

    assert timedelta(0) == now.utcoffset()
    assert abs(now.timestamp() - before) < 60
    assert clock.now() >= now
