"""A pure world around the planner's core: it stores decisions, answers commands and fires timers, without a broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agentflow import subjects
from agentflow.chain import handling_chain
from agentflow.clock import format_time, parse_time
from agentflow.envelope import ChainPlace, Sealed
from agentflow.ids import derive_id, new_id
from agentflow.mesh.transport import Message
from agentflow.payloads import (
    CancelRequested,
    Decision,
    Failure,
    GoalSubmitted,
    Payload,
    RunSignalled,
    StepCompleted,
    StepFailed,
)
from agentflow.schemas import compose
from agentflow_planner.arrivals import read_input
from agentflow_planner.conditions import engine_for
from agentflow_planner.definition import Definition, RetryDef, StateDef, TransitionDef
from agentflow_planner.machine import Decided, Ignored, Verdict, decide
from agentflow_planner.plan import Plan, compile_plan
from agentflow_planner.runs import Input, Problem, RunState, evolve, key_of
from agentflow_planner.sealing import seal_commands, seal_decision, seal_timer

START = datetime(2026, 1, 1, tzinfo=UTC)
ENGINE = engine_for("python")


def definition(states: Mapping[str, StateDef], **more: Any) -> Definition:
    """A definition of the given states; `done` is final unless said otherwise."""
    members: dict[str, Any] = {
        "name": "sample",
        "version": "1.0.0",
        "initial_state": next(iter(states)),
        "final_states": ("done",),
        "states": dict(states),
        **more,
    }
    return Definition(**members)


def plan_of(states: Mapping[str, StateDef], **more: Any) -> Plan:
    """A compiled plan of the given states."""
    return compile_plan(definition(states, **more), "0" * 64, ENGINE)


def step(name: str, on_success: str = "done", **more: Any) -> StateDef:
    """A state with an agent of the same name."""
    return StateDef(name=name, agent=more.pop("agent", name), on_success=on_success, **more)


def branch(name: str, *ways: tuple[str, str | None], **more: Any) -> StateDef:
    """A state with conditional transitions."""
    return StateDef(name=name, agent=name, transitions=tuple(TransitionDef(to, when) for to, when in ways), **more)


def retries(attempts: int, backoff: float = 1.0) -> RetryDef:
    """A retry rule."""
    return RetryDef(max_attempts=attempts, backoff=backoff)


@dataclass(slots=True)
class World:
    """One run, its stored messages and its clock."""

    plan: Plan | Problem | None
    workflow_id: str = "w-1"
    state: RunState = field(default_factory=lambda: RunState("w-1"))
    now: datetime = START
    seq: int = 0
    log: list[tuple[Sealed, Any, RunState]] = field(default_factory=list)
    """Every decision: as stored, its payload, the state after it."""
    inputs: dict[str, Input] = field(default_factory=dict)
    commands: list[Sealed] = field(default_factory=list)
    results: dict[str, Message] = field(default_factory=dict)

    def message(self, subject: str, body: bytes) -> Message:
        """Store a message."""
        self.seq += 1
        self.now += timedelta(milliseconds=1)
        return Message("AF_MESSAGES", self.seq, subject, body, self.now)

    def take(self, subject: str, body: bytes) -> Verdict:
        """Store a message, decide about it, and record the decision. A result is stored once: it comes again as it is."""
        given = read_input(self.results.get(subject) or self.message(subject, body))
        if given.kind == "result":
            self.results.setdefault(subject, Message("AF_MESSAGES", given.ref.seq, subject, body, given.time))
        if key_of(given.ref) in self.state.consumed:
            return Ignored("consumed")
        self.inputs[key_of(given.ref)] = given
        return self.settle(given)

    def settle(self, given: Input) -> Verdict:
        """Decide about an input and record what was decided."""
        verdict = decide(self.state, given, self.plan)
        if isinstance(verdict, Decided):
            sealed = seal_decision(self.state, given, verdict.recorded)
            self.seq += 1
            self.state = evolve(self.state, sealed, verdict.recorded, {key_of(given.ref): given}, self.seq)
            self.log.append((sealed, verdict.recorded, self.state))
            self.commands.extend(self._sent(sealed, verdict.recorded, self.state))
        return verdict

    def _sent(self, sealed: Sealed, recorded: Any, after: RunState) -> list[Sealed]:
        if not isinstance(recorded, Decision) or not isinstance(self.plan, Plan):
            return []
        return [command for command, _ in seal_commands(self.plan, after, sealed, recorded)]

    # --- what the outside does ---------------------------------------------------------------------------------

    def client(self, payload: Payload, name: str = "goal") -> Verdict:
        """A client's envelope on the run's `in` subject."""
        made = new_id(self.now, lambda count: f"{name}{self.seq:06}".encode().ljust(count, b"x")[:count])
        subject = subjects.workflow_in(self.workflow_id)
        sealed = compose(
            payload,
            id=made,
            subject=subject,
            sender="client",
            to=self.workflow_id,
            trace_id="0" * 31 + "1",
            span_id="0" * 15 + "1",
            ts=self.now,
            place=ChainPlace(f"input:{made}"),
            metadata={"workflow_id": self.workflow_id, "tenant": "default"},
        )
        return self.take(subject, sealed.body)

    def submit(self, **given: Any) -> Verdict:
        """Submit the goal."""
        return self.client(GoalSubmitted(goal="sample", input=given))

    def signal(self, name: str, **data: Any) -> Verdict:
        """Signal the run."""
        return self.client(RunSignalled(name=name, data=data), "sig")

    def cancel(self, reason: str = "enough") -> Verdict:
        """Cancel the run."""
        return self.client(CancelRequested(reason=reason), "can")

    def answer(self, output: Any, command: Sealed | None = None) -> Verdict:
        """The agent of the last command returns `output`."""
        return self.reply(StepCompleted(output=output), command)

    def fail(self, code: str = "boom", *, retryable: bool = True, command: Sealed | None = None) -> Verdict:
        """The agent of the last command fails."""
        failure = Failure(code=code, type="Boom", message="it broke", blame="agent", retryable=retryable)
        return self.reply(StepFailed(error=failure), command)

    def reply(self, payload: Payload, command: Sealed | None = None, maker: str = "") -> Verdict:
        """A result on the subject of a command."""
        cause = command or self.commands[-1]
        made = derive_id(cause.envelope.id, "agent", "result")
        subject = subjects.workflow_result(self.workflow_id, cause.envelope.id)
        sealed = compose(
            payload,
            id=made,
            subject=subject,
            sender=maker or cause.envelope.to,
            to="planner",
            trace_id=cause.envelope.trace_id,
            span_id="0" * 15 + "2",
            ts=self.now,
            place=handling_chain(cause),
            causes=(cause.ref,),
            metadata=dict(cause.envelope.metadata),
        )
        return self.take(subject, sealed.body)

    def fire(self) -> Verdict:
        """The run's timer comes due."""
        assert self.state.timer is not None
        wanted = self.state.timer.id
        sealed, recorded, after = next(
            entry for entry in self.log if getattr(entry[1], "timer", None) is not None and entry[1].timer.id == wanted
        )
        timer = seal_timer(after, sealed, recorded.timer)
        self.now = max(self.now, parse_time(self.state.timer.due))
        return self.take(timer.sealed.envelope.subject, timer.sealed.body)

    def refold(self) -> RunState:
        """The state folded again from what was stored, as a planner that starts does it."""
        state = RunState(self.workflow_id)
        for sealed, recorded, after in self.log:
            known = {
                key_of(c): self.inputs[key_of(c)] for c in recorded.consumed if self.inputs[key_of(c)].kind != "timer"
            }
            state = evolve(state, sealed, recorded, known, after.out_seq)
        return state

    @property
    def reasons(self) -> list[str]:
        """The reason of every decision, or its schema where it has none."""
        return [getattr(recorded, "reason", sealed.envelope.schema) for sealed, recorded, _ in self.log]

    @property
    def schemas(self) -> list[str]:
        """The schema of every decision."""
        return [sealed.envelope.schema for sealed, _, _ in self.log]


def seconds_after_start(moment: str) -> float:
    """How long after the world's start a recorded time is."""
    return (parse_time(moment) - START).total_seconds()


def stamp(seconds: float) -> str:
    """The recorded form of a time after the world's start."""
    return format_time(START + timedelta(seconds=seconds))
