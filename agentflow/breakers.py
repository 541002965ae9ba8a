"""Breakers: what the detector has blocked, as the bucket `AF_BREAKERS` holds it. Pure.

One key for each tool, agent or workflow that ever was blocked. A breaker is open until its `until`, by which it closes
by itself; one that an operator took back stays as a note, so that nobody trips it again for the same finding. An
executor reads the keys of a call before it executes anything.
"""

from datetime import datetime

import msgspec

from agentflow.clock import parse_time
from agentflow.errors import EvidenceError, SubjectError
from agentflow.ids import check_token
from agentflow.registry import BREAKERS


class Breaker(msgspec.Struct, frozen=True):
    """What a key of the bucket holds."""

    until: str
    """RFC 3339, by the server's clock: from then on it is closed."""
    since: str
    """RFC 3339: when what tripped it was stored."""
    rule: str
    anomaly: str
    """Id of the `tool.anomaly` that tripped it."""
    reason: str
    reset: bool = False
    """An operator closed it; findings from before that do not trip it again."""


def tool_breaker(tool_id: str) -> str:
    """Key of a tool's breaker; raises `SubjectError` for an id no tool can have."""
    return f"tool.{check_token(tool_id, 'tool id')}"


def principal_breaker(principal: str) -> str:
    """Key of the breaker of who calls: `agent.<id>`, or `workflow.<name>` for the states of a workflow's runs."""
    kind, colon, name = principal.partition(":")
    if colon and kind == "workflow":
        return f"workflow.{check_token(name, 'workflow name')}"
    return f"agent.{check_token(principal, 'agent id')}"


def breaker_keys(tool: str, principal: str) -> tuple[str, ...]:
    """The keys that may block a call; what is no id has none, and is refused for being none."""
    found = []
    for key, value in ((tool_breaker, tool), (principal_breaker, principal)):
        try:
            found.append(key(value))
        except SubjectError:
            continue
    return tuple(found)


def read_breaker(key: str, value: bytes) -> Breaker:
    """A stored value; raises `EvidenceError` (`breaker.unreadable`)."""
    try:
        found = msgspec.json.decode(value, type=Breaker)
        parse_time(found.until)
        parse_time(found.since)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EvidenceError(f"{key} in {BREAKERS} holds no breaker", code="breaker.unreadable", key=key) from error
    return found


def is_open(breaker: Breaker, now: datetime) -> bool:
    """Whether it blocks at `now`."""
    return not breaker.reset and now < parse_time(breaker.until)
