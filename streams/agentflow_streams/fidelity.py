"""What a replay amounts to: `ReplayFidelity`, the share of recorded decisions that were made again byte for byte. Pure."""

from typing import NamedTuple

import msgspec

from agentflow_streams.divergence import Divergence
from agentflow_streams.replaying import Outcome, Verdict

MAX_TOLD = 1_000
"""Divergences, and runs that cannot be replayed, that a report tells one by one."""


class Figures(msgspec.Struct, frozen=True):
    """The counts."""

    runs: int
    """Runs that decided anything."""
    matched: int
    """Runs of which every decision and every command was made again byte for byte."""
    diverged: int
    not_replayable: int
    """Runs of which something is missing or altered that a decision rests on. Never a match."""
    open: int
    """Runs that have not ended; what they are is what they were when they were read."""
    decisions: int
    """Recorded decisions."""
    matched_decisions: int
    commands: int
    """Stored commands that were made again byte for byte."""
    expired_commands: int
    """Commands that match what their decision lists, and that the mesh keeps no longer."""
    pending: int
    """Inputs that change something, and that no decision has consumed yet."""
    fidelity: float | None
    """`matched_decisions` of `decisions`; None where there are none."""
    from_seq: int
    to_seq: int
    """Sequences of AF_MESSAGES that were read; a later replay may begin behind them."""


class Stopped(msgspec.Struct, frozen=True):
    """A run that cannot be decided again to its end."""

    workflow: str
    code: str
    detail: str


class ReplayReport(msgspec.Struct, frozen=True):
    """The result."""

    replay: Figures
    divergences: tuple[Divergence, ...] = ()
    """The first of each run."""
    not_replayable: tuple[Stopped, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every run matched."""
        return self.replay.matched == self.replay.runs

    def sentences(self) -> list[str]:
        """What is not right, one sentence each."""
        diverged = [f"{each.workflow} decision {each.index} {each.kind}: {each.detail}" for each in self.divergences]
        return diverged + [f"{each.workflow} {each.code}: {each.detail}" for each in self.not_replayable]


class _Row(NamedTuple):
    """What is kept of every run."""

    verdict: Verdict
    ended: bool
    decisions: int
    matched: int
    commands: int
    expired: int
    pending: int


class Tally:
    """Counts outcomes; one can be taken back as long as its run is not counted anew."""

    def __init__(self) -> None:
        self._counted: dict[str, _Row] = {}
        self._told: dict[str, Outcome] = {}

    def __contains__(self, run: str) -> bool:
        return run in self._counted

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of a run."""
        o = outcome
        row = _Row(o.verdict, o.ended, o.decisions, o.matched, o.commands, o.expired, o.pending)
        self._counted[o.workflow] = row
        if o.verdict != "matched":
            self._told[o.workflow] = outcome

    def forget(self, run: str) -> None:
        """Take back the outcome of a run."""
        self._counted.pop(run, None)
        self._told.pop(run, None)

    def report(self, from_seq: int, to_seq: int) -> ReplayReport:
        """What was counted."""
        rows = list(self._counted.values())
        verdicts = [row.verdict for row in rows]
        decisions, matched = sum(row.decisions for row in rows), sum(row.matched for row in rows)
        told = sorted(self._told.values(), key=lambda outcome: outcome.workflow)
        figures = Figures(
            runs=len(rows),
            matched=verdicts.count("matched"),
            diverged=verdicts.count("diverged"),
            not_replayable=verdicts.count("not_replayable"),
            open=sum(not row.ended for row in rows),
            decisions=decisions,
            matched_decisions=matched,
            commands=sum(row.commands for row in rows),
            expired_commands=sum(row.expired for row in rows),
            pending=sum(row.pending for row in rows),
            fidelity=matched / decisions if decisions else None,
            from_seq=from_seq,
            to_seq=to_seq,
        )
        stopped = [Stopped(o.workflow, o.code, o.detail) for o in told if o.verdict == "not_replayable"]
        divergences = [o.divergence for o in told if o.divergence is not None]
        return ReplayReport(figures, tuple(divergences[:MAX_TOLD]), tuple(stopped[:MAX_TOLD]))
