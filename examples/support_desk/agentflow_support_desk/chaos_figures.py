"""What a chaos run amounts to: pure counting over the faults, the tickets' times, the audit and the desk's own files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentflow.payloads import AuditOutcome, AuditReconciled, Payload
from agentflow_support_desk.chaos_plan import Fault
from agentflow_support_desk.figures import Worked, percentile


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done to a process."""

    process: str
    fault: Fault
    pid: int
    at: datetime
    back: datetime
    """When the process was at work again: up, or no longer frozen."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit says about calls that were found with an intent and no outcome."""

    happened: frozenset[str]
    """Calls whose effect had happened, by the tool's own check."""
    not_happened: frozenset[str]
    """Calls whose effect had not: they ran again."""
    undecided: frozenset[str]
    """Calls that ended as unknown, for a person to decide."""

    @property
    def reconciled(self) -> frozenset[str]:
        """Calls that were resolved by their check."""
        return (self.happened | self.not_happened) - self.undecided


def audit(records: Iterable[tuple[str, Payload]]) -> Audited:
    """Fold the audit's records, each with its call's id."""
    happened, not_happened, undecided = set[str](), set[str](), set[str]()
    for call, record in records:
        match record:
            case AuditReconciled(happened=True):
                happened.add(call)
            case AuditReconciled(happened=False):
                not_happened.add(call)
            case AuditOutcome(status="unknown"):
                undecided.add(call)
    return Audited(frozenset(happened), frozenset(not_happened), frozenset(undecided))


def chaos_figures(
    struck: Sequence[Struck],
    worked: Sequence[Worked],
    audited: Audited,
    lines: Mapping[str, int],
    *,
    dead_letters: int,
    unasked: Sequence[str],
) -> dict[str, Any]:
    """The figures beside those of a quiet run; `lines` counts the lines of the desk's files, by call id.

    `unasked` are ends of processes that nobody caused. `doubled` counts calls with more than one line, be they
    reconciled or not, and `reconciled_lost` reconciled ones without any.
    """
    kills = [each for each in struck if each.fault == "kill"]
    ends = sorted(each.ended for each in worked if each.ended is not None)
    recovered = [_milliseconds(each.at, end) for each in kills if (end := _next(ends, each.at)) is not None]
    back = [_milliseconds(each.at, each.back) for each in kills]
    flights = [in_flight(worked, each.at) for each in struck]
    return {
        "kills": dict(sorted(Counter(each.process for each in kills).items())),
        "freezes": dict(sorted(Counter(each.process for each in struck if each.fault == "freeze").items())),
        "in_flight": {"least": min(flights, default=0), "idle_faults": flights.count(0)},
        "recovery_ms": _spread(recovered),
        "restart_ms": _spread(back),
        "reconciled": len(audited.reconciled),
        "reconciled_happened": len(audited.happened),
        "reconciled_lost": sum(not lines.get(call) for call in audited.reconciled),
        "unknown": len(audited.undecided),
        "doubled": sum(count > 1 for count in lines.values()),
        "dead_letters": dead_letters,
        "unasked_ends": dict(sorted(Counter(unasked).items())),
    }


def in_flight(worked: Iterable[Worked], at: datetime) -> int:
    """How many tickets were in work at a moment, by the server's clock."""
    return sum(
        each.begun is not None and each.begun <= at and (each.ended is None or each.ended > at) for each in worked
    )


def shortcomings(figures: Mapping[str, Any]) -> list[str]:
    """What a chaos run did not show that it is meant to show, as sentences; none is right."""
    checks = (
        (figures["in_flight"]["idle_faults"], "faults fell while no ticket was in flight: they prove nothing"),
        (figures["doubled"], "tool calls took effect more than once"),
        (figures["reconciled_lost"], "calls were resolved by their check and have no effect in the files"),
        (figures["unknown"], "calls ended as unknown"),
        (figures["dead_letters"], "messages were given up (agentflow dead ls)"),
        (sum(figures["unasked_ends"].values()), "processes ended without having been killed"),
    )
    return [f"{count} {what}" for count, what in checks if count]


def _next(ends: Sequence[datetime], at: datetime) -> datetime | None:
    return next((end for end in ends if end > at), None)


def _milliseconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() * 1000


def _spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": percentile(ordered, 50), "max": percentile(ordered, 100)}
