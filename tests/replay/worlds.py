"""Runs with a record: the pure world of the planner's tests, which here keeps every message as a broker would.

Inputs may be held back and decided later, in any order, as a planner does that was killed or frozen meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from agentflow import subjects
from agentflow.envelope import Sealed, sha256_hex
from agentflow.mesh.transport import Message
from agentflow_planner.arrivals import read_input
from agentflow_planner.histories import identified, is_consumed
from agentflow_planner.machine import Decided, Ignored, Verdict
from agentflow_planner.parsing import parse_definition
from agentflow_planner.plan import Plan, compile_plan
from agentflow_planner.redeciding import Deciding
from agentflow_planner.runs import Input
from agentflow_streams.deciders import Arrival, Decider
from agentflow_streams.decisions import consumed_by, definition_of, read_decision
from agentflow_streams.recordings import FORMAT, Blob, Histories, Kept
from agentflow_streams.replaying import Outcome, RunReplay
from agentflow_streams.sources import kind_of
from tests.services.planner.worlds import ENGINE, World

SOURCE = b"""
name: sample
version: 1.0.0
planner: fsm
max_steps: 8
timeout: 2m
input_schema: {type: object, properties: {n: {type: integer}}}
initial_state: a
final_states: [done]
states:
  a: {agent: a, timeout: 5s, retry: {max_attempts: 3, backoff: 500ms}, on_success: wait, on_error: c}
  wait: {signal: go, timeout: 7s, on_success: b, on_error: c}
  b:
    agent: b
    transitions:
      - {to: a, condition: "output.again == true"}
      - {to: c, condition: "output.n > 10"}
    on_success: done
    on_error: c
  c: {tool: mend, input: {n: "${input.n}"}, retry: {max_attempts: 2, backoff: 1s}, on_success: done}
"""

DIGEST = sha256_hex(SOURCE)
PLAN: Plan = compile_plan(parse_definition(SOURCE, "sample.yaml"), DIGEST, ENGINE)
DECIDERS: dict[str, Decider] = {"fsm": Deciding()}


@dataclass(slots=True)
class Lived(World):
    """A world that keeps what is stored."""

    messages: list[Message] = field(default_factory=list)
    held: list[Message] = field(default_factory=list)
    holding: bool = False

    def message(self, subject: str, body: bytes) -> Message:
        """Store a message."""
        self.seq += 1
        self.now += timedelta(milliseconds=1)
        stored = Message(subjects.stream_of(subject), self.seq, subject, body, self.now)
        self.messages.append(stored)
        return stored

    def take(self, subject: str, body: bytes) -> Verdict:
        """Store a message and decide about it, or hold it back."""
        known = self.results.get(subject)
        stored = known or self.message(subject, body)
        if subjects.parse(subject).kind == "workflow.result":
            self.results.setdefault(subject, stored)
        if self.holding:
            self.held.append(stored)
            return Ignored("held")
        return self.decide_about(stored)

    def release(self, index: int) -> None:
        """Decide about one of the messages that were held back."""
        if self.held:
            self.decide_about(self.held.pop(index % len(self.held)))

    def decide_about(self, stored: Message) -> Verdict:
        """Decide about a stored message, as often as it is delivered."""
        given = identified(self.state, read_input(stored))
        if is_consumed(self.state, given) or (given.kind == "junk" and not self._refuses(given)):
            return Ignored("consumed")
        self.inputs[f"{given.ref.id}:{given.ref.hash}"] = given
        before = len(self.log)
        verdict = self.settle(given)
        if isinstance(verdict, Decided):
            sealed = self.log[before][0]
            self.now += timedelta(milliseconds=1)
            self.messages.append(Message("AF_MESSAGES", self.seq, sealed.envelope.subject, sealed.body, self.now))
            self._store_commands(sealed)
        return verdict

    def _refuses(self, given: Input) -> bool:
        return self.state.exists or given.ref.subject.endswith(".in")

    def _store_commands(self, decision: Sealed) -> None:
        for command in self.commands:
            if command.envelope.causes == (decision.ref,):
                subject = command.envelope.subject
                stream, seq = subjects.stream_of(subject), self.seq * 10
                self.messages.append(Message(stream, seq, subject, command.body, self.now))

    @property
    def histories(self) -> Histories:
        """What was stored, as a file has it."""
        kept = tuple(Kept.of(message) for message in self.messages)
        return Histories(FORMAT, (self.workflow_id,), kept, {f"sha256-{DIGEST}": Blob.of(SOURCE)})


def life(plan: Plan = PLAN) -> Lived:
    """A run under a plan, to which nothing has happened."""
    return Lived(plan)


def altered(histories: Histories, change: Callable[[Message], Message | None]) -> Histories:
    """The same histories with every message changed, or left out."""
    found = (change(kept.message) for kept in histories.messages)
    return msgspec.structs.replace(histories, messages=tuple(Kept.of(each) for each in found if each is not None))


def replayed(histories: Histories, deciders: dict[str, Decider] | None = None) -> Outcome:
    """The outcome of the only run of some histories, by the pure core alone: no broker, no loop, nothing awaited."""
    [run] = histories.runs
    replay = RunReplay(run, deciders or DECIDERS)
    messages = [kept.message for kept in histories.messages]
    commands = {m.subject: m.body for m in messages if m.stream in ("AF_AGENTS", "AF_AUDIT")}
    timers = {m.seq: m for m in messages if m.stream == "AF_TIMERS"}
    sends = []
    for message in sorted((m for m in messages if m.stream == "AF_MESSAGES"), key=lambda m: m.seq):
        if kind_of(message.subject) != "workflow.out":
            replay.receive(arrival(message))
            continue
        recorded = read_decision(arrival(message))
        if isinstance(recorded, str):
            replay.spoil(arrival(message), recorded)
            continue
        ref, consumed = definition_of(recorded.payload), consumed_by(recorded.payload)[0]
        timer = timers.get(consumed.seq) if consumed.subject.startswith("timers.") else None
        blob = histories.artifacts.get(f"sha256-{ref.sha256}") if ref is not None else None
        sends += replay.decide(recorded, None if blob is None else blob.data, None if timer is None else arrival(timer))
    for sent in sends:
        replay.compare(sent, commands.get(sent.subject))
    return replay.outcome()


def arrival(message: Message) -> Arrival:
    """A message as replay takes it in."""
    return Arrival(message.stream, message.seq, message.subject, message.body, message.time)
