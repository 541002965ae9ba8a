"""What the invariant checker says: one verdict for each invariant, and a report that cannot pass by looking away."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["held", "violated", "not applicable"]

TITLES = {
    "I1": "no acknowledged message is lost",
    "I2": "nothing is applied twice",
    "I3": "unknown stays unknown",
    "I4": "the chains verify from genesis to head",
    "I5": "folding again gives the live state",
    "I6": "replay has no side effects",
    "I7": "every run ends, or is parked with a reason",
    "I8": "the participants of a transaction agree",
    "I9": "budgets are never exceeded",
    "I10": "nothing stays behind",
    "I11": "no secret appears anywhere",
    "I12": "health tells the truth",
}
"""The twelve, by their ids."""

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one invariant."""

    id: str
    outcome: Outcome
    examined: int
    """How many things were looked at; what looked at nothing did not hold."""
    details: tuple[str, ...] = ()
    """Violations, or why it is not applicable."""

    def __str__(self) -> str:
        shown = [*self.details[:MAX_SHOWN], *(["…"] if len(self.details) > MAX_SHOWN else [])]
        lines = [f"{self.id:4} {self.outcome:14} {self.examined:6} examined  {TITLES[self.id]}", *shown]
        return "\n       ".join(lines)


def judged(invariant: str, examined: int, violations: Iterable[str], nothing: str = "nothing to look at") -> Verdict:
    """Violated if there are violations, held if something was examined, else not applicable for the reason `nothing`."""
    found = tuple(violations)
    if found:
        return Verdict(invariant, "violated", examined, found)
    if not examined:
        return Verdict(invariant, "not applicable", 0, (nothing,))
    return Verdict(invariant, "held", examined)


def not_built(invariant: str, reason: str) -> Verdict:
    """An invariant about something the mesh does not have yet."""
    return Verdict(invariant, "not applicable", 0, (reason,))


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts of one check."""

    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))

    @property
    def ok(self) -> bool:
        """Whether nothing is violated and something was examined."""
        return not self.violated and bool(self.examined)

    @property
    def violated(self) -> tuple[str, ...]:
        """The ids of the violated invariants."""
        return tuple(verdict.id for verdict in self.verdicts if verdict.outcome == "violated")

    @property
    def examined(self) -> frozenset[str]:
        """The ids of the invariants that were really looked at."""
        return frozenset(verdict.id for verdict in self.verdicts if verdict.examined)

    def verdict(self, invariant: str) -> Verdict:
        """The verdict about one invariant."""
        return next(verdict for verdict in self.verdicts if verdict.id == invariant)

    def require(self, *expected: str) -> None:
        """Fail with the whole report unless everything holds and the `expected` invariants were examined."""
        missing = sorted(set(expected) - self.examined)
        assert self.ok, f"violated: {', '.join(self.violated) or 'nothing was examined'}\n{self}"
        assert not missing, f"not examined: {', '.join(missing)}\n{self}"


def counted(things: Sequence[object], limit: int = 3) -> str:
    """A few things, and how many more there are."""
    shown = ", ".join(map(str, things[:limit]))
    return shown if len(things) <= limit else f"{shown} and {len(things) - limit} more"
