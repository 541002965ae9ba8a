"""What a run of the demo amounts to: pure counting over what was recorded and what the files hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentflow_support_desk.desk import Effects
from agentflow_support_desk.tickets import Ticket

ANSWERED, ESCALATED, APOLOGISED = "answered", "escalated", "apologised"
"""The final states of the workflow."""

OFF_TOPIC = "off_topic"
"""The label of tickets that are about none of the intents: right is not to answer them."""


@dataclass(frozen=True, slots=True)
class Worked:
    """One ticket and what became of it."""

    ticket: Ticket
    run_id: str
    status: str
    """Of the run: completed, failed, cancelled, or what it was when the waiting ended."""
    state: str
    output: Mapping[str, Any]
    milliseconds: float | None
    """From the stored goal to the stored end, by the server's clock."""
    detail: str = ""
    begun: datetime | None = None
    """When the goal was stored, by the server's clock."""
    ended: datetime | None = None
    """When the end was stored, by the server's clock; None for a run that has not ended."""


def summarise(worked: Sequence[Worked], effects: Effects, seconds: float) -> dict[str, Any]:
    """The figures of a run; `seconds` is how long all tickets together took."""
    completed = [each for each in worked if each.status == "completed"]
    answered = {each.run_id for each in completed if each.state in (ANSWERED, APOLOGISED)}
    escalated = {each.run_id for each in completed if each.state == ESCALATED}
    labelled = [each for each in worked if each.ticket.category]
    right = sum(map(is_right, labelled))
    times = sorted(each.milliseconds for each in worked if each.milliseconds is not None)
    return {
        "tickets": len(worked),
        "completed": len(answered),
        "escalated": len(escalated),
        "failed": len(worked) - len(answered) - len(escalated),
        "accuracy": round(right / len(labelled), 4) if labelled else None,
        "workflow_ms": {"p50": percentile(times, 50), "p95": percentile(times, 95)},
        "workflows_per_s": round(len(worked) / seconds, 2) if seconds else 0.0,
        "lost": effects.lost(answered, escalated),
        "duplicates": effects.duplicates,
    }


def is_right(worked: Worked) -> bool:
    """Whether a ticket was understood: its intent was found, or, off topic, it was not answered."""
    if worked.ticket.category == OFF_TOPIC:
        return worked.state != ANSWERED
    return worked.output.get("intent") == worked.ticket.category


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of sorted values, rounded to a tenth; 0 for none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return round(ordered[max(0, rank - 1)], 1)


def by_state(worked: Iterable[Worked]) -> dict[str, int]:
    """How many tickets ended in each state."""
    found: dict[str, int] = {}
    for each in worked:
        found[each.state or each.status] = found.get(each.state or each.status, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
