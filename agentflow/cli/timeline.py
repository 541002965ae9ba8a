"""A run's events for people, a line each, and as JSON objects."""

from typing import Any

from agentflow.cli.output import plain
from agentflow.payloads import (
    CancelRequested,
    Decision,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunCompleted,
    RunSignalled,
    StepFailed,
    TimerDue,
    ToolFailed,
)
from agentflow.runs import RunEvent

_WIDTH = 100


def in_a_line(event: RunEvent) -> str:
    """Time, what it is, and what it says."""
    return f"{short_time(event.ts)}  {event.schema.partition('/')[0]:<18} {detail(event.payload)}".rstrip()


def detail(payload: Payload | dict[str, Any]) -> str:
    """What a payload says, in a few words."""
    match payload:
        case GoalSubmitted(goal=goal):
            return goal
        case RunSignalled(name=name):
            return repr(name)
        case CancelRequested(reason=reason):
            return reason
        case GoalAccepted() as accepted:
            return f"{accepted.definition.name}@{accepted.definition.version}{_move(accepted)}"
        case RunCompleted(output=output):
            return shorten(output)
        case Decision() as decision:
            return f"{decision.reason}{_move(decision)}{_failure(decision)}".strip()
        case GoalRejected(message=message) | InputRejected(message=message):
            return message
        case StepFailed(error=error) | ToolFailed(error=error):
            return f"{error.message} ({error.code}, {error.blame})"
        case TimerDue(state=state):
            return state
    output = payload.get("output", payload) if isinstance(payload, dict) else getattr(payload, "output", None)
    return shorten(output)


def _move(decision: Decision) -> str:
    attempt = f" (attempt {decision.attempt})" if decision.attempt > 1 else ""
    waits = f", waits for the signal {decision.waits_for!r}" if decision.waits_for else ""
    return f" → {decision.state}{attempt}{waits}" if decision.state else waits


def _failure(decision: Decision) -> str:
    return f": {decision.error.message} ({decision.error.code})" if decision.error else ""


def shorten(value: object) -> str:
    """A JSON value in a line."""
    import json

    text = json.dumps(plain(value), ensure_ascii=False)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def short_time(ts: str) -> str:
    """`2026-11-20T18:00:01.123456Z` as `2026-11-20 18:00:01.123`."""
    return ts[:23].replace("T", " ") if ts else ""


def as_object(event: RunEvent) -> dict[str, Any]:
    """An event as JSON: the payload whole, and of the envelope what names it."""
    envelope = event.envelope
    named = {} if envelope is None else {"id": envelope.id, "from": envelope.sender, "to": envelope.to}
    return {
        "seq": event.seq,
        "subject": event.subject,
        "schema": event.schema,
        "ts": event.ts,
        **named,
        "payload": plain(event.payload),
    }
