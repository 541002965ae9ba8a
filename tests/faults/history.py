"""I2, I4 to I7: what the streams say, read from outside and folded again by whoever has to agree."""

import collections
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agentflow import runs, subjects
from agentflow.clock import parse_time
from agentflow.envelope import unseal
from agentflow.errors import AgentflowError, EnvelopeError, SubjectError
from agentflow.mesh.transport import Message, Objects, Transport
from agentflow.registry import ARTIFACTS
from agentflow.run import stored_event
from agentflow_planner.catalog import Catalog
from agentflow_planner.conditions import engine_for
from agentflow_planner.histories import History, Step, identified, read_history, to_input
from agentflow_planner.machine import Decided, decide
from agentflow_planner.plan import Plan
from agentflow_planner.runs import Input, Problem, RunState, key_of
from agentflow_planner.sealing import seal_decision
from agentflow_streams.findings import Verification
from tests.faults.publishes import EVIDENCE
from tests.faults.verdicts import Verdict, judged

OVERDUE = timedelta(seconds=30)
"""How long behind its timer a run may be that nobody has looked at."""


class ReadOnly:
    """A transport that can be read and nothing else; whatever would change something raises."""

    _CHANGES = frozenset({"publish", "consume", "create_stream", "update_stream", "serve", "follow", "request"})

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        if name in self._CHANGES:
            raise AssertionError(f"replay wanted to {name}")
        return getattr(self._transport, name)


@dataclass(frozen=True, slots=True)
class Lived:
    """A run as its planner folds it, and as its clients see it."""

    id: str
    history: History
    seen: runs.RunState
    head: str
    """Hash of the last message on its `out`, asked of the stream's leader; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The last that a test saw of the streams: a head of ours, kept outside the server.

    There is no signed head yet; this one tells whether the server took back what it had shown, not whether it had lied.
    """

    seen: dict[str, tuple[datetime, int, bytes]] = field(default_factory=dict)
    """Stream to when it was made, its last sequence, and the message there."""

    async def note(self, transport: Transport) -> None:
        """Remember where every stream of evidence ends now."""
        for name in EVIDENCE:
            info = await transport.stream_info(name)
            message = await transport.get(name, info.last_seq) if info is not None and info.last_seq else None
            if info is not None and message is not None:
                self.seen[name] = (info.created, info.last_seq, message.body)

    async def violations(self, transport: Transport) -> list[str]:
        """What is behind the head that was seen, or differs from it."""
        found = []
        for name, (created, seq, body) in self.seen.items():
            info = await transport.stream_info(name)
            if info is None or info.created != created:
                found.append(f"{name} was made anew")
            elif info.last_seq < seq:
                found.append(f"{name} ends at {info.last_seq}, and {seq} was seen")
            elif (there := await transport.get(name, seq)) is None or there.body != body:
                found.append(f"{name}:{seq} is not the message that was seen")
        return found


async def read_evidence(transport: Transport) -> list[Message]:
    """Every message of the streams of evidence, as they are now."""
    return [message for name in EVIDENCE async for message in transport.read(name)]


async def read_runs(transport: Transport, messages: Iterable[Message]) -> list[Lived]:
    """Every run there is something about."""
    objects = await transport.objects(ARTIFACTS)
    events: dict[str, list[Message]] = collections.defaultdict(list)
    for message in messages:
        if (owner := _run_of(message)) is not None:
            events[owner].append(message)
    return [await _lived(transport, objects, run_id, found) for run_id, found in sorted(events.items())]


def _run_of(message: Message) -> str | None:
    try:
        subject = subjects.parse(message.subject)
    except SubjectError:
        return None
    return subject.owner if subject.kind in ("workflow.in", "workflow.out") else None


async def _lived(transport: Transport, objects: Objects, run_id: str, messages: Sequence[Message]) -> Lived:
    history = await read_history(transport, objects, run_id)
    seen = runs.fold(run_id, [await stored_event(transport, message) for message in messages])
    last = await transport.last("AF_MESSAGES", subjects.workflow_out(run_id))
    return Lived(run_id, history, seen, unseal(last.body).hash if last is not None else "")


# --- I2 --------------------------------------------------------------------------------------------------------------


def nothing_is_applied_twice(effects: Mapping[str, int], lived: Iterable[Lived]) -> Verdict:
    """I2: at most one effect under an id in the outside ledger, at most one decision about an input."""
    violations = [f"effect {key} happened {count} times" for key, count in sorted(effects.items()) if count > 1]
    decisions = 0
    for run in lived:
        taken = collections.Counter(key_of(c) for step in run.history.steps for c in step.recorded.consumed)
        decisions += len(taken)
        violations += [f"run {run.id}: {n} decisions about input {key}" for key, n in taken.items() if n > 1]
    return judged("I2", len(effects) + decisions, violations, "no effect, and no decision")


def count_effects(lines: Iterable[str], key: str = "call_id") -> dict[str, int]:
    """Effects by id, from the lines of a ledger file."""
    return dict(collections.Counter(json.loads(line)[key] for line in lines if line.strip()))


# --- I4 --------------------------------------------------------------------------------------------------------------


def chains_verify(verification: Verification, behind: Sequence[str], heads: int) -> Verdict:
    """I4: nothing is damaged, and no stream is behind the head a test saw; there is no signed head yet."""
    damages = [f"{d.kind} {d.stream}:{d.seq} {d.chain} {d.detail}" for d in verification.damages]
    if not heads and verification.envelopes:
        return judged("I4", verification.envelopes, [*damages, "no head was noted: a cut end could not be seen"])
    return judged("I4", verification.envelopes, [*damages, *behind], "no envelopes")


# --- I5 --------------------------------------------------------------------------------------------------------------


def folding_agrees(lived: Iterable[Lived], told: Mapping[str, Any], snapshots: Sequence[str] = ()) -> Verdict:
    """I5: the planner's fold, the clients' fold, the leader's head and what callers were told are one state.

    `snapshots` are disagreements of a service's stored snapshot with the fold of its stream.
    """
    violations, examined = list(snapshots), 0
    for run in lived:
        examined += 1
        violations += [f"run {run.id}: {what}" for what in _disagreements(run)]
        if run.id in told and told[run.id] != run.seen.output:
            violations.append(f"run {run.id}: a caller was told {told[run.id]!r}, the stream says {run.seen.output!r}")
    return judged("I5", examined, violations, "no runs")


def _disagreements(run: Lived) -> list[str]:
    state, seen = run.history.state, run.seen
    found = []
    status = "submitted" if state.status == "absent" else state.status
    if seen.status != status:
        found.append(f"the planner folds {status}, its clients {seen.status}")
    if state.exists and seen.state != state.state:
        found.append(f"the planner folds state {state.state!r}, its clients {seen.state!r}")
    if state.status == "completed" and seen.output != state.output:
        found.append(f"the planner folds output {state.output!r}, its clients {seen.output!r}")
    if run.head and (state.place is None or state.place.prev_hash != run.head):
        found.append("the fold does not end at the leader's last decision")
    return found


# --- I6 --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replayed:
    """What deciding again made."""

    decisions: int
    differences: tuple[str, ...]


async def decide_again(transport: Transport, lived: Iterable[Lived]) -> Replayed:
    """The seam for replay: every recorded decision made again from its recorded input, by the planner's own functions."""
    reader: Any = ReadOnly(transport)
    objects = await reader.objects(ARTIFACTS)
    catalog = Catalog(reader, objects, engine_for("auto"))
    count, differences = 0, []
    for run in lived:
        for step in run.history.steps:
            if (given := await _input_of(reader, objects, run.history, step)) is None:
                continue
            count += 1
            if (why := await _difference(catalog, step, given)) is not None:
                differences.append(f"run {run.id}, decision {step.sealed.envelope.chain_seq}: {why}")
    return Replayed(count, tuple(differences))


async def _input_of(reader: Transport, objects: Objects, history: History, step: Step) -> Input | None:
    consumed = step.recorded.consumed[0]
    if found := history.inputs.get(key_of(consumed)):
        return found
    message = await reader.last("AF_TIMERS", consumed.subject)
    given = await to_input(message, objects) if message is not None else None
    return given if given is not None and given.ref.hash == consumed.hash else None


async def _difference(catalog: Catalog, step: Step, given: Input) -> str | None:
    known = identified(step.before, given)
    try:
        verdict = decide(step.before, known, await _plan(catalog, step.before, given))
    except AgentflowError as error:
        return f"cannot be made again: {error}"
    if not isinstance(verdict, Decided):
        return f"would be ignored: {verdict.reason}"
    again = seal_decision(step.before, known, verdict.recorded)
    return None if again.body == step.sealed.body else "is not made again byte for byte"


async def _plan(catalog: Catalog, state: RunState, given: Input) -> Plan | Problem | None:
    if state.definition is not None and state.exists:
        return await catalog.pinned(state.definition)
    if given.payload is not None and type(given.payload).__name__ == "GoalSubmitted":
        return await catalog.for_goal(given.payload)  # type: ignore[arg-type]  # told by its name: it is a goal
    return None


def replay_changes_nothing(replayed: Replayed, before: Mapping[str, int], after: Mapping[str, int]) -> Verdict:
    """I6: deciding again makes the same bytes, publishes nothing (`ReadOnly` raises), and no effect happens."""
    violations = list(replayed.differences)
    violations += [f"effect {key} happened while deciding again" for key in after if after[key] != before.get(key)]
    return judged("I6", replayed.decisions, violations, "no decision whose input is there")


# --- I7 --------------------------------------------------------------------------------------------------------------


def every_run_ends(
    lived: Iterable[Lived], messages: Iterable[Message], now: datetime, parked: Sequence[str] = ()
) -> Verdict:
    """I7: every run has ended, or waits for a signal, or is named in `parked`; every intent has an outcome.

    No run, parked or not, is behind its own timer.
    """
    violations, examined = [], 0
    for run in lived:
        examined += 1
        state = run.history.state
        if state.ended or state.status == "rejected":
            continue
        if state.status == "absent":
            violations += [] if run.id in parked else [f"run {run.id}: nobody has answered its goal"]
            continue
        if state.waiting != "signal" and run.id not in parked:
            violations.append(f"run {run.id} is in {state.state!r}, waiting for {run.seen.waiting_for or 'nothing'}")
        if state.timer is None:
            violations.append(f"run {run.id} is in {state.state!r} and no timer looks after it")
        elif parse_time(state.timer.due) + OVERDUE < now:
            violations.append(f"run {run.id} is in {state.state!r}; its timer was due at {state.timer.due}")
    return judged("I7", examined, [*violations, *_open_calls(messages)], "no runs")


def _open_calls(messages: Iterable[Message]) -> list[str]:
    """Tool calls with an intent and no outcome."""
    calls: dict[str, list[str]] = collections.defaultdict(list)
    for message in messages:
        if message.subject.startswith("tools.audit."):
            calls[message.subject.removeprefix("tools.audit.")].append(_schema(message))
    return [f"call {call} has an intent and no outcome" for call, found in calls.items() if found[-1] == "tool.intent"]


@functools.lru_cache(maxsize=100_000)
def _schema_of(body: bytes) -> str:
    try:
        return unseal(body).envelope.schema.partition("/")[0]
    except EnvelopeError:
        return ""


def _schema(message: Message) -> str:
    return _schema_of(message.body)
