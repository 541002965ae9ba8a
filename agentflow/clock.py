"""Time as a port: cores are handed a time, shells ask a `Clock`."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a shell gets the time from; tests pass one that jumps (`agentflow.testing.FixedClock`)."""

    def now(self) -> datetime:
        """The present time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251  # this is the port: the only place that asks the machine


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, the form of an envelope's `ts`: `2026-11-20T18:00:00.000000Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The moment an RFC 3339 text names; raises `ValueError` when it names none or has no offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no UTC offset")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"time {text!r} is outside the years 1 to 9999 in UTC") from error
