"""Replay of one run: every recorded decision is made again from what was recorded, and compared byte for byte. Pure.

`RunReplay` takes a run's messages in stream order. Which input a decision is about it reads in the decision; the order
in which a planner took its inputs is therefore the recorded one, whatever order they were stored in. After a divergence
the run is folded on as it is recorded, so that every later decision is judged by itself.

What a decision sends is made again as well and handed to the caller, who knows what is stored: `confirm` or `compare`.
"""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from agentflow.envelope import ChainPlace, Sealed
from agentflow.errors import AgentflowError
from agentflow.payloads import TERMINAL, Consumed, Payload
from agentflow_streams.deciders import DEFAULT, Arrival, Deciders, Recorded, Redecided, Rerun, Unreplayable
from agentflow_streams.decisions import consumed_by, definition_of, hashes_of, loosely
from agentflow_streams.divergence import Divergence, Kind, compared, conditions_of, decoded, kind_of

Verdict = Literal["matched", "diverged", "not_replayable"]
"""What becomes of a run."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one run."""

    workflow: str
    verdict: Verdict
    ended: bool
    decisions: int
    """Recorded decisions, whether they could be made again or not."""
    matched: int
    """Those that were made again byte for byte, with all they send."""
    commands: int = 0
    """Stored commands that were made again byte for byte."""
    expired: int = 0
    """Commands that match what their decision lists, and that the mesh keeps no longer."""
    pending: int = 0
    """Inputs that no decision has consumed yet, and that change something."""
    divergence: Divergence | None = None
    code: str = ""
    """Why it could not be replayed to its end: stable, such as `input.missing`."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A command as its decision makes it."""

    sealed: Sealed
    index: int
    by: Arrival
    """The decision."""
    decision: str

    @property
    def subject(self) -> str:
        """Where it is stored, once."""
        return self.sealed.envelope.subject


@dataclass(slots=True)
class RunReplay:
    """One run while it is replayed."""

    workflow: str
    deciders: Deciders
    ended: bool = False
    _inputs: dict[int, Arrival] = field(default_factory=dict)
    """Stored and not consumed so far, by sequence."""
    _taken_before: set[int] = field(default_factory=set)
    """Consumed by a decision, by sequence."""
    _rerun: Rerun | None = None
    _planner: str = ""
    _place: ChainPlace | None = None
    _decisions: int = 0
    _wrong: set[int] = field(default_factory=set)
    _judged: int = 0
    _commands: int = 0
    _expired: int = 0
    _divergence: Divergence | None = None
    _stopped: Unreplayable | None = None

    def receive(self, arrival: Arrival) -> None:
        """An input of the run was stored."""
        self._inputs[arrival.seq] = arrival

    def spoil(self, arrival: Arrival, why: str) -> None:
        """Something was stored where decisions are that is none: the run cannot be followed further."""
        self._decisions += 1
        if self._stopped is None:
            self._diverge(self._decisions - 1, arrival, "", "unreadable", why)
            self._stopped = Unreplayable("history.unreadable", why)

    def decide(self, recorded: Recorded, definition: bytes | None = None, timer: Arrival | None = None) -> list[Sent]:
        """A decision was stored: make it again. Returns what it sends.

        `definition` are the bytes an accepted goal names, `timer` the fired timer that was consumed, where there is one.
        """
        index = self._decisions
        self._decisions += 1
        if self._stopped is not None:
            return []
        self.ended = self.ended or recorded.sealed.envelope.schema in TERMINAL - {"goal.rejected/1"}
        if not self._follows(index, recorded):
            return []
        made = self._redecide(recorded, definition, timer)
        self._place = recorded.next_place
        if isinstance(made, Unreplayable):
            self._stopped = made
            return []
        self._judge(index, recorded, made)
        by = recorded.sealed.envelope.id
        return [Sent(sealed, index, recorded.arrival, by) for sealed in made.sends]

    def confirm(self, _sent: Sent) -> None:
        """A command is stored as its decision makes it."""
        self._commands += 1

    def compare(self, sent: Sent, stored: bytes | None, *, expired: bool = False) -> None:
        """Compare a command with the bytes stored under its subject, None where there are none.

        `expired`: none need be there any more. What the last decision of an open run sends need not be there yet.
        """
        if stored == sent.sealed.body:
            self._commands += 1
        elif stored is not None:
            detail = f"what is stored on {sent.subject} is not the command that decision {sent.decision} makes"
            self._diverge(
                sent.index, sent.by, sent.decision, "command", detail, recorded=loosely(stored), decided=sent.sealed
            )
        elif expired:
            self._expired += 1
        elif self.ended or sent.index < self._decisions - 1:
            detail = f"nothing is stored on {sent.subject}, where decision {sent.decision} sends a command"
            self._diverge(sent.index, sent.by, sent.decision, "command_missing", detail, decided=sent.sealed)

    def outcome(self) -> Outcome:
        """What came of the run, as far as its messages were taken in."""
        verdict: Verdict = "diverged" if self._divergence else "not_replayable" if self._stopped else "matched"
        return Outcome(
            workflow=self.workflow,
            verdict=verdict,
            ended=self.ended,
            decisions=self._decisions,
            matched=self._judged - len(self._wrong),
            commands=self._commands,
            expired=self._expired,
            pending=self._pending() if verdict == "matched" else 0,
            divergence=self._divergence,
            code=self._stopped.code if self._stopped else "",
            detail=self._stopped.detail if self._stopped else "",
        )

    def _follows(self, index: int, recorded: Recorded) -> bool:
        """Whether the decision is the next of the chain, or the first of one; a gap ends the replay."""
        envelope, place = recorded.sealed.envelope, self._place
        expected = place.seq if place is not None and place.chain == envelope.chain else 0
        if envelope.chain_seq <= expected:
            return True
        if place is None:
            text = f"the first decision that is stored is number {envelope.chain_seq} of its run"
            self._stopped = Unreplayable("history.beginning_missing", text)
        else:
            detail = f"decision {expected} is not stored; this one is number {envelope.chain_seq}"
            self._diverge(index, recorded.arrival, envelope.id, "missing", detail, recorded=recorded)
            self._stopped = Unreplayable("history.gap", detail)
        return False

    def _redecide(
        self, recorded: Recorded, definition: bytes | None, timer: Arrival | None
    ) -> Redecided | Unreplayable:
        rerun = self._decider(recorded)
        if isinstance(rerun, Unreplayable):
            return rerun
        [consumed, *_] = consumed_by(recorded.payload)
        fired, again = consumed.subject.startswith("timers."), consumed.seq in self._taken_before
        given = timer if fired else None if again else self._taken(consumed)
        if isinstance(given, Unreplayable):
            return given
        try:
            return rerun.redecide(recorded, given, definition)
        except AgentflowError as error:
            return Unreplayable(error.error_code, error.message)
        except Exception as error:  # noqa: BLE001 - an altered record may lead a planner anywhere; it is never a match
            return Unreplayable("history.unfoldable", f"the planner fails on it: {type(error).__name__}: {error}")

    def _decider(self, recorded: Recorded) -> Rerun | Unreplayable:
        """The run's decider: of the planner its definition names."""
        ref = definition_of(recorded.payload)
        wanted = ref.planner if ref is not None else self._planner or DEFAULT
        if self._rerun is None:
            decider = self.deciders.get(wanted)
            if decider is None:
                return Unreplayable("decider.missing", f"no decider of the planner {wanted!r} is installed here")
            self._planner, self._rerun = wanted, decider.rerun(self.workflow)
        if wanted != self._planner:
            return Unreplayable("decider.changed", f"the run goes over from {self._planner!r} to {wanted!r}")
        return self._rerun

    def _taken(self, consumed: Consumed) -> Arrival | Unreplayable:
        """The input that a decision consumed: at the sequence it was read at, and what it was by its hash.

        The same bytes stored elsewhere are another input: they came at another time.
        """
        there = self._inputs.get(consumed.seq)
        if there is not None and there.subject == consumed.subject and consumed.hash in hashes_of(there.body):
            self._taken_before.add(consumed.seq)
            return self._inputs.pop(consumed.seq)
        if there is not None and there.subject == consumed.subject:
            text = f"input {consumed.id} on {consumed.subject} is not what it was (sequence {consumed.seq})"
            return Unreplayable("input.altered", text)
        text = f"input {consumed.id} on {consumed.subject} is not stored any more (sequence {consumed.seq})"
        return Unreplayable("input.missing", text)

    def _judge(self, index: int, recorded: Recorded, made: Redecided) -> None:
        """Compare one decision."""
        self._judged += 1
        if made.decided is not None and made.decided.body == recorded.arrival.body:
            return
        arrival, sealed = recorded.arrival, recorded.sealed
        if made.decided is None:
            detail = f"nothing would be decided about its input ({made.reason})"
            self._diverge(index, arrival, sealed.envelope.id, "extra", detail, recorded=recorded)
            return
        differences = compared(decoded(sealed, recorded.payload), decoded(made.decided, made.payload))
        kind: Kind = kind_of(differences) if recorded.intact else "edited"
        paths = ", ".join(each.path for each in differences if each.path != "/envelope_hash") or "the bytes alone"
        detail = f"differs in {paths}"
        id, decided, payload = sealed.envelope.id, made.decided, made.payload
        self._diverge(index, arrival, id, kind, detail, recorded=recorded, decided=decided, payload=payload)

    def _diverge(
        self,
        index: int,
        arrival: Arrival,
        decision: str,
        kind: Kind,
        detail: str,
        *,
        recorded: Recorded | Sealed | None = None,
        decided: Sealed | None = None,
        payload: Payload | None = None,
    ) -> None:
        """Note that a decision does not match; the first is told in full."""
        if index < self._judged:
            self._wrong.add(index)
        if self._divergence is not None:
            return
        known = recorded.payload if isinstance(recorded, Recorded) else None
        sealed = recorded.sealed if isinstance(recorded, Recorded) else recorded
        before = decoded(sealed, known) if sealed is not None else None
        now = decoded(decided, payload) if decided is not None else None
        self._divergence = Divergence(
            workflow=self.workflow,
            index=index,
            decision=decision,
            stream=arrival.stream,
            seq=arrival.seq,
            kind=kind,
            detail=detail,
            recorded=before,
            decided=now,
            differences=compared(before, now) if before is not None and now is not None else (),
            conditions=conditions_of(known, payload),
        )

    def _pending(self) -> int:
        if self._rerun is None:
            return len(self._inputs)
        return sum(self._rerun.would_decide(given) for given in self._inputs.values())
