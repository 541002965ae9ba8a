"""When a breaker is set: never twice for one finding, never to an earlier end, never against an operator. Pure."""

from datetime import datetime

from agentflow.breakers import Breaker
from agentflow.clock import parse_time


def tripped(there: Breaker | None, written: datetime | None, wanted: Breaker) -> Breaker | None:
    """What to write for a finding's breaker, or None where what is there stands.

    `written` is when the server stored what is there. A reset keeps what was found before it from blocking again.
    """
    if there is None:
        return wanted
    if there.anomaly == wanted.anomaly:
        return None
    if there.reset and written is not None and parse_time(wanted.since) <= written:
        return None
    if not there.reset and parse_time(wanted.until) <= parse_time(there.until):
        return None
    return wanted
