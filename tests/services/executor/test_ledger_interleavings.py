"""The ledger under every interleaving hypothesis finds: executors killed, frozen and doubled at any point.

The world is simulated: a log with expected sequences, an effect that can be counted, children that act on their own until
their intent expires (by a clock that may be off by the slack), and executors that follow `decide` one step at a time. An
executor that is not stepped is frozen; one that is dropped was killed, and its child with it.

Proved for compensable and irreversible tools: the effect never happens twice; `completed` means that it happened, `failed`
and `refused` that it did not, `unknown` is only said where there is no check that can tell. For all tools: left alone, every
call ends.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentflow.clock import format_time
from agentflow.payloads import AuditIntent, AuditReconciled, Failure
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
CRASHED = Failure("tool.crashed", "Crashed", "gone", "tool")
REFUSED = Failure("card.blocked", "StepError", "no", "input")

Ending = Literal["answered", "vouched", "crashed", "running"]


@dataclass
class Child:
    """A sandboxed process: it may act, once, while it lives."""

    expires: datetime
    skew: timedelta
    acted: bool = False
    ending: Ending = "running"

    def alive(self, now: datetime) -> bool:
        """Whether it can still act, by its own host's clock."""
        return self.ending == "running" and now < self.expires + self.skew


Steps = Generator[str, None, datetime | None]
"""An executor at work; it returns when the call is answered (None) or has to wait (until when)."""


@dataclass
class Executor:
    """One delivery in the hands of one process."""

    steps: Steps = field(init=False)
    child: Child | None = None


@dataclass
class World:
    """What is true, whoever knows it."""

    effect: Effect
    check: Literal["none", "truthful", "cannot tell"]
    now: datetime = START
    log: list[Record] = field(default_factory=list)
    effects: int = 0
    deadline: datetime = START + timedelta(hours=1)
    answers: list[Record] = field(default_factory=list)

    def append(self, record: Record, seq: int) -> bool:
        """Store behind `seq`, or refuse: the server's check."""
        if len(self.log) != seq:
            return False
        self.log.append(record)
        return True

    def ledger(self) -> Ledger:
        """The fold of what is stored."""
        return reduce(evolve, self.log, Ledger())

    @property
    def situation(self) -> Situation:
        """What an executor knows about the call."""
        return Situation("send", "ab" * 32, self.effect, self.check != "none", self.deadline)


def work(world: World, me: Executor, *, first: bool, skew: timedelta) -> Steps:
    """Follow the ledger, with a place to be killed or frozen at between any two steps."""
    ledger, seq = (Ledger(), 0) if first else (world.ledger(), len(world.log))
    hand: Hand | None = None
    while True:
        action = decide(ledger, world.situation, world.now, hand)
        yield type(action).__name__
        record: Record
        match action:
            case Answer(outcome):
                world.answers.append(outcome)
                return None
            case Wait(until):
                return until
            case Conclude(outcome):
                record = outcome
            case Check():
                happened = world.effects > 0 if world.check == "truthful" else None
                record = AuditReconciled("send", happened, result={"output": {}} if happened else {})
                yield "checked"
            case Run(execution, needs_intent):
                expires = min(world.now + WALL, world.deadline)
                if needs_intent:
                    intent = intent_of(world, execution, expires)
                    if not world.append(intent, seq):
                        ledger, seq = world.ledger(), len(world.log)
                        continue
                    ledger, seq = evolve(ledger, intent), seq + 1
                    yield "intent stored"
                hand = yield from execute(world, me, execution, Child(expires, skew))
                continue
        if world.append(record, seq):
            ledger, seq = evolve(ledger, record), seq + 1
            yield "stored"
        else:
            ledger, seq = world.ledger(), len(world.log)


def intent_of(world: World, execution: int, expires: datetime) -> AuditIntent:
    """The intent of one execution."""
    return AuditIntent("send", "1", world.effect, "agent", "ab" * 32, "cd" * 32, execution, format_time(expires))


def execute(world: World, me: Executor, execution: int, child: Child) -> Generator[str, None, Hand]:
    """Start a child, wait for its end, and keep what was seen."""
    if world.now >= child.expires:
        return Hand(execution, failed(world.situation, CRASHED), certain=True)
    me.child = child
    while child.alive(world.now):
        yield "running"
    me.child = None
    match child.ending:
        case "answered":
            return Hand(execution, completed(world.situation, {"output": {}}), certain=True)
        case "vouched":
            return Hand(execution, failed(world.situation, REFUSED), certain=True)
    return Hand(execution, failed(world.situation, CRASHED), certain=False)


class Interleavings(RuleBasedStateMachine):
    """Hypothesis decides who does what next."""

    @initialize(
        effect=st.sampled_from(["pure", "idempotent", "compensable", "irreversible"]),
        check=st.sampled_from(["none", "truthful", "cannot tell"]),
        minutes=st.sampled_from([0.05, 0.15, 60]),
    )
    def begin(self, effect: Effect, check: Literal["none", "truthful", "cannot tell"], minutes: float) -> None:
        """A call comes."""
        self.world = World(effect, check, deadline=START + timedelta(minutes=minutes))
        self.executors: list[Executor] = []
        self.delivered = 0

    @property
    def once(self) -> bool:
        """Whether the effect must not be repeated."""
        return self.world.effect in ("compensable", "irreversible")

    @precondition(lambda self: len(self.executors) < 4)
    @rule(skew=st.sampled_from([timedelta(0), CLOCK_SLACK / 2, CLOCK_SLACK]))
    def deliver(self, skew: timedelta) -> None:
        """The message is delivered, again or for the first time."""
        executor = Executor()
        executor.steps = work(self.world, executor, first=not self.delivered, skew=skew)
        self.delivered += 1
        self.executors.append(executor)

    @precondition(lambda self: self.executors)
    @rule(data=st.data(), count=st.integers(1, 6))
    def step(self, data: st.DataObject, count: int) -> None:
        """One executor goes on."""
        executor = data.draw(st.sampled_from(self.executors), "executor")
        for _ in range(count):
            try:
                next(executor.steps)
            except StopIteration:
                self.executors.remove(executor)
                return

    @precondition(lambda self: self.executors)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """One executor dies where it stands, and its child with it."""
        executor = data.draw(st.sampled_from(self.executors), "executor")
        if executor.child is not None:
            executor.child.ending = "crashed"
        self.executors.remove(executor)

    @precondition(lambda self: any(e.child for e in self.executors))
    @rule(data=st.data(), act=st.booleans(), ending=st.sampled_from(["answered", "vouched", "crashed", "running"]))
    def child(self, data: st.DataObject, act: bool, ending: Ending) -> None:
        """A child has its effect, or ends, or both; with an answer only after its effect."""
        children = [e.child for e in self.executors if e.child is not None]
        child = data.draw(st.sampled_from(children), "child")
        if not child.alive(self.world.now):
            return
        if act and not child.acted and ending != "vouched":
            child.acted = True
            self.world.effects += 1
        if ending == "answered" and not child.acted:
            ending = "crashed"
        if ending == "vouched" and child.acted:
            ending = "crashed"
        child.ending = ending

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.25, 1.0, 5.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.now += timedelta(seconds=seconds)

    @invariant()
    def never_twice(self) -> None:
        """An effect that must not be repeated is not."""
        if hasattr(self, "world") and self.once:
            assert self.world.effects <= 1

    @invariant()
    def one_answer(self) -> None:
        """Whoever answers gives the same answer."""
        if hasattr(self, "world"):
            assert all(answer == self.world.answers[0] for answer in self.world.answers)

    def teardown(self) -> None:
        """Left alone, the call ends, and what is said about it is true."""
        if not hasattr(self, "world"):
            return
        self.executors = [executor for executor in self.executors if executor.child is not None]
        for executor in self.executors:
            assert executor.child is not None
            executor.child.ending = "crashed"
        outcome = self._finish()
        if self.once:
            self._is_true(outcome.status)

    def _finish(self) -> "Record":
        for _ in range(10):
            last = Executor()
            last.steps = work(self.world, last, first=False, skew=timedelta(0))
            for _ in range(50):
                try:
                    next(last.steps)
                except StopIteration as end:
                    if end.value is None:
                        return self.world.answers[-1]
                    self.world.now = max(self.world.now, end.value)
                    break
                if last.child is not None:
                    last.child.acted, last.child.ending = True, "answered"
                    self.world.effects += 1
                    last.child = None
            else:
                break
        raise AssertionError("the call does not end")

    def _is_true(self, status: str) -> None:
        effects = self.world.effects
        match status:
            case "completed":
                assert effects == 1
            case "failed" | "refused":
                assert effects == 0
            case "unknown":
                assert self.world.check != "truthful"
        assert effects <= 1


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=settings().max_examples * 4, stateful_step_count=40)
