"""A small world in which executors follow the effect ledger, as an immutable state and the steps that lead on from it.

Executors take one step at a time, and nobody has to be stepped: one that is not is frozen for as long, and one that never is
again was killed. The message is delivered to several of them. A child acts on its own, once, while it lives: until its intent
expires by its own clock, which may be behind by almost the slack. So it outlives its executor, though the sandbox promises
better: the ledger must not need that promise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, Literal

from agentflow.clock import format_time
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, Failure
from agentflow.registry import Effect
from agentflow_executor.ledger import (
    CLOCK_SLACK,
    Answer,
    Check,
    Conclude,
    Hand,
    Ledger,
    Record,
    Run,
    Situation,
    Wait,
    completed,
    decide,
    evolve,
    failed,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
WALL = timedelta(seconds=5)
SKEWS = (timedelta(0), CLOCK_SLACK * 0.9)
CRASHED = Failure("tool.crashed", "Crashed", "gone", "tool")
REFUSED = Failure("card.blocked", "StepError", "no", "input")

CheckKind = Literal["none", "truthful", "cannot tell"]
Ending = Literal["running", "answered", "vouched", "crashed"]


@dataclass(frozen=True)
class Rules:
    """What does not change."""

    effect: Effect
    check: CheckKind
    deadline: datetime = START + timedelta(hours=1)
    deliveries: int = 2
    """How often the message is delivered at most."""

    @property
    def situation(self) -> Situation:
        """What an executor knows about the call."""
        return Situation("send", "ab" * 32, self.effect, self.check != "none", self.deadline)

    @property
    def once(self) -> bool:
        """Whether the effect must not be repeated."""
        return self.effect in ("compensable", "irreversible")


@dataclass(frozen=True)
class Child:
    """A sandboxed process."""

    expires: datetime
    skew: timedelta
    acted: bool = False
    ending: Ending = "running"

    def alive(self, now: datetime) -> bool:
        """Whether it can still act."""
        return self.ending == "running" and now < self.expires + self.skew


@dataclass(frozen=True)
class Executor:
    """One delivery in the hands of one process."""

    known: int
    """How much of the log it has seen: the sequence it writes behind."""
    skew: timedelta
    pending: Record | None = None
    """What it is about to store."""
    starting: tuple[int, datetime] | None = None
    """The execution it is about to start, and when that expires."""
    running: int = 0
    child: Child | None = None
    hand: Hand | None = None


@dataclass(frozen=True)
class World:
    """What is true, whoever knows it."""

    rules: Rules
    now: datetime = START
    log: tuple[Record, ...] = ()
    effects: int = 0
    delivered: int = 0
    executors: tuple[Executor, ...] = ()
    answers: tuple[Record, ...] = ()
    waits: tuple[datetime, ...] = ()
    """When given-back messages come again."""

    @property
    def outcome(self) -> AuditOutcome | None:
        """The recorded outcome."""
        last = self.log[-1] if self.log else None
        return last if isinstance(last, AuditOutcome) else None

    def key(self) -> Any:
        """Two worlds with the same key go on in the same ways."""
        return (
            self.now,
            tuple(_name(record) for record in self.log),
            self.effects if self.rules.once else bool(self.effects),
            self.delivered,
            tuple(sorted(map(_executor_key, self.executors))),
            len(set(map(repr, self.answers))),
        )

    # --- steps -----------------------------------------------------------------------------------------------------

    def successors(self) -> Iterator["World"]:
        """Every world that can come next."""
        yield from self._deliveries()
        for index, executor in enumerate(self.executors):
            yield from self._steps(index, executor)
            if executor.child is not None and executor.child.alive(self.now):
                for world, child in self._acts(executor.child):
                    yield world._set(index, replace(executor, child=child))
        yield from self._times()

    def _deliveries(self) -> Iterator["World"]:
        if self.delivered >= self.rules.deliveries:
            return
        for skew in SKEWS if self.rules.once else SKEWS[:1]:
            fresh = Executor(0 if not self.delivered else len(self.log), skew)
            yield replace(self, delivered=self.delivered + 1, executors=(*self.executors, fresh))

    def _times(self) -> Iterator["World"]:
        """Jump to the next moment at which anything changes."""
        children = [executor.child for executor in self.executors if executor.child]
        intents = [record for record in self.log if isinstance(record, AuditIntent)]
        ends = [child.expires for child in children] + [datetime.fromisoformat(each.expires) for each in intents]
        moments = {moment for end in ends for moment in (end, end + CLOCK_SLACK)} | {self.rules.deadline}
        later = sorted(moment for moment in moments if moment > self.now)
        if later:
            yield replace(self, now=later[0])

    def _acts(self, child: Child) -> Iterator[tuple["World", Child]]:
        """What a living child may do next."""
        if not child.acted:
            yield replace(self, effects=self.effects + 1), replace(child, acted=True)
            yield self, replace(child, ending="vouched")
        else:
            yield self, replace(child, ending="answered")
        yield self, replace(child, ending="crashed")

    def _steps(self, index: int, executor: Executor) -> Iterator["World"]:
        """The next step of one executor, if it has one."""
        if executor.pending is not None:
            yield self._store(index, executor, executor.pending)
        elif executor.starting is not None:
            yield self._start(index, executor, *executor.starting)
        elif executor.child is not None:
            if not executor.child.alive(self.now):
                yield self._set(index, replace(executor, child=None, hand=self._seen(executor.running, executor.child)))
        else:
            yield self._decide(index, executor)

    def _decide(self, index: int, executor: Executor) -> "World":
        ledger = reduce(evolve, self.log[: executor.known], Ledger())
        match decide(ledger, self.rules.situation, self.now, executor.hand):
            case Answer(outcome):
                return replace(self._without(index), answers=(*self.answers, outcome))
            case Wait(until):
                return replace(self._without(index), waits=(*self.waits, until))
            case Conclude(outcome):
                return self._set(index, replace(executor, pending=outcome))
            case Check():
                return self._set(index, replace(executor, pending=self._checked()))
            case Run(execution, intent):
                expires = min(self.now + WALL, self.rules.deadline)
                pending = intent_of(self.rules.effect, execution, expires) if intent else None
                return self._set(index, replace(executor, pending=pending, starting=(execution, expires)))

    def _checked(self) -> AuditReconciled:
        happened = self.effects > 0 if self.rules.check == "truthful" else None
        return AuditReconciled("send", happened, result={"output": {}} if happened else {})

    def _store(self, index: int, executor: Executor, record: Record) -> "World":
        """Behind the sequence it knows, or not at all; then it reads what there is and forgets what it was about to do."""
        if len(self.log) == executor.known:
            told = replace(self, log=(*self.log, record))
            return told._set(index, replace(executor, known=executor.known + 1, pending=None))
        return self._set(index, replace(executor, known=len(self.log), pending=None, starting=None))

    def _start(self, index: int, executor: Executor, execution: int, expires: datetime) -> "World":
        child = Child(expires, executor.skew)
        if child.alive(self.now):
            return self._set(index, replace(executor, starting=None, running=execution, child=child))
        hand = Hand(execution, failed(self.rules.situation, CRASHED), certain=True)
        return self._set(index, replace(executor, starting=None, hand=hand))

    def _seen(self, execution: int, child: Child) -> Hand:
        """What an executor has in hand when its child has ended."""
        match child.ending:
            case "answered":
                return Hand(execution, completed(self.rules.situation, {"output": {}}), certain=True)
            case "vouched":
                return Hand(execution, failed(self.rules.situation, REFUSED), certain=True)
        return Hand(execution, failed(self.rules.situation, CRASHED), certain=False)

    def _set(self, index: int, executor: Executor) -> "World":
        return replace(self, executors=_put(self.executors, index, executor))

    def _without(self, index: int) -> "World":
        return replace(self, executors=self.executors[:index] + self.executors[index + 1 :])


def intent_of(effect: Effect, execution: int, expires: datetime) -> AuditIntent:
    """The intent of one execution."""
    return AuditIntent("send", "1", effect, "agent", "ab" * 32, "cd" * 32, execution, format_time(expires))


def _put(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])


def _name(record: Record | None) -> str:
    match record:
        case AuditIntent():
            return f"intent {record.execution} {record.expires}"
        case AuditReconciled():
            return f"reconciled {record.happened}"
        case AuditOutcome():
            return f"outcome {record.status} {record.error.code if record.error else ''}"
    return ""


def _executor_key(executor: Executor) -> str:
    hand = executor.hand and (executor.hand.execution, _name(executor.hand.outcome), executor.hand.certain)
    return repr(
        (
            executor.known,
            executor.skew,
            _name(executor.pending),
            executor.starting,
            executor.running,
            executor.child,
            hand,
        )
    )


# --- what must be true ---------------------------------------------------------------------------------------------


def broken(world: World) -> str:
    """Which promise a world breaks, or an empty string."""
    if len(set(map(repr, world.answers))) > 1:
        return "two answers differ"
    if not world.rules.once:
        refused = world.rules.effect == "idempotent" and world.outcome and world.outcome.status == "refused"
        return "reported as refused, but it happened" if refused and world.effects else ""
    if world.effects > 1:
        return "the effect happened twice"
    match world.outcome.status if world.outcome else "":
        case "completed" if world.effects != 1:
            return "completed, but nothing happened"
        case "failed" | "refused" if world.effects:
            return "reported as failed, but it happened"
        case "unknown" if world.rules.check == "truthful":
            return "unknown, though the check can tell"
    return ""


def left_alone(world: World) -> World:
    """The world when everybody dies, one executor is left in peace, and its tool works; fails if the call does not end."""
    world = replace(world, executors=(), rules=replace(world.rules, deliveries=99))
    for _ in range(4):
        world = replace(world, delivered=world.delivered + 1, executors=(Executor(len(world.log), timedelta(0)),))
        for _ in range(40):
            if not world.executors:
                break
            [executor] = world.executors
            if executor.child is not None and executor.child.ending == "running":
                done = replace(executor.child, acted=True, ending="answered")
                world = replace(world, effects=world.effects + 1, executors=(replace(executor, child=done),))
            else:
                [world] = world._steps(0, executor)
        if world.answers:
            return world
        world = replace(world, now=max(world.now, *world.waits))
    raise AssertionError(f"the call does not end: {world}")
