"""Moments as people give them: `2h`, `30m`, `7d`, or RFC 3339. Pure."""

import re
from datetime import datetime, timedelta

from agentflow.clock import parse_time
from agentflow.errors import InputError

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(s|m|h|d)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_since(text: str, now: datetime) -> datetime:
    """The moment `text` names, counted back from `now` for a duration; raises `InputError` (`since.invalid`)."""
    try:
        if ago := _AGO.match(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return parse_time(text.strip())
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"--since is {text!r}; allowed is a time such as 2026-11-20T18:00:00Z or a duration such as 30m, 2h, 7d",
            code="since.invalid",
            found=text[:80],
            allowed="RFC 3339 with an offset, or a number and s, m, h or d",
        ) from error
