"""Recorded histories of whole runs, made as the services make them: the same chains, causes, ids and subjects.

`Recording` is what a broker holds: messages in the order they were stored, each stream counting its own sequences.
`Mesh` writes into it: goals (sealed or plain), decisions with their commands, steps that call tools, audit chains,
results and endings. Each run is a generator that stores one message at a step, so that runs can be interleaved.
"""

import base64
import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from agentflow import subjects
from agentflow.chain import audit_chain, decision_chain, handling_chain, incarnation_chain, workflow_chain
from agentflow.clock import format_time
from agentflow.envelope import ChainPlace, Ref, Sealed, encode_payload, sha256_hex
from agentflow.ids import derive_id, new_id
from agentflow.payloads import (
    AuditIntent,
    AuditOutcome,
    CancelRequested,
    Command,
    Consumed,
    DeadLetter,
    Decision,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Lifecycle,
    Payload,
    RunAdvanced,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSignalled,
    StepCompleted,
    StepFailed,
    StepRequested,
    TimerSet,
    ToolCompleted,
    ToolRequested,
)
from agentflow.schemas import compose

START = datetime(2026, 1, 1, tzinfo=UTC)

StepKind = Literal["agent", "failing", "agent_with_tools", "tool", "signal"]
"""What a run does: ask an agent, ask one that fails, ask one that calls tools, call a tool, or wait for a signal."""

Ending = Literal["completed", "failed", "cancelled", "open"]

DEFINITION = DefinitionRef("support", "1", "a" * 64, "fsm", "cel/1")
FAILURE = Failure("step.failed", "StepError", "it did not work", "agent")


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a broker keeps it."""

    stream: str
    seq: int
    subject: str
    body: bytes
    time: datetime


@dataclass(slots=True)
class Recording:
    """Messages in the order in which they were stored, over all streams."""

    messages: list[Stored] = field(default_factory=list)

    def add(self, stream: str, subject: str, body: bytes, time: datetime) -> Stored:
        """Store a message behind the others of its stream."""
        seq = sum(each.stream == stream for each in self.messages) + 1
        stored = Stored(stream, seq, subject, body, time)
        self.messages.append(stored)
        return stored

    def of(self, stream: str) -> list[Stored]:
        """One stream."""
        return [each for each in self.messages if each.stream == stream]

    def renumbered(self) -> "Recording":
        """The same messages copied elsewhere: sequences without gaps."""
        copy = Recording()
        for each in self.messages:
            copy.add(each.stream, each.subject, each.body, each.time)
        return copy


@dataclass(frozen=True, slots=True)
class Story:
    """What one run does."""

    workflow: str
    steps: tuple[StepKind, ...] = ("agent",)
    ending: Ending = "completed"
    plain: bool = False
    """The goal is published by hand, not sealed."""
    junk: bool = False
    """Somebody publishes what is no goal to the run, before it ends."""
    tools: int = 2
    """Calls of a step with tools."""


class Mesh:
    """Clients, planner, runtime and executor, as far as their records go."""

    def __init__(self, start: datetime = START) -> None:
        self.recording = Recording()
        self.start = start
        """When the next moment is; a test may move it on."""
        self._moments = 0
        self._drawn = 0

    def now(self) -> datetime:
        """A new moment."""
        self._moments += 1
        return self.start + timedelta(milliseconds=10 * self._moments)

    def _random(self, count: int) -> bytes:
        self._drawn += 1
        return hashlib.sha256(str(self._drawn).encode()).digest()[:count]

    def put(self, sealed: Sealed) -> Stored:
        """Store an envelope on its subject."""
        subject = sealed.envelope.subject
        return self.recording.add(subjects.stream_of(subject), subject, sealed.body, self.now())

    def put_plain(self, subject: str, body: bytes) -> Stored:
        """Store bytes that are no envelope."""
        return self.recording.add(subjects.stream_of(subject), subject, body, self.now())

    def seal(
        self,
        payload: Payload,
        subject: str,
        place: ChainPlace,
        *,
        workflow: str,
        id: str = "",
        sender: str = "planner",
        causes: tuple[Ref, ...] = (),
    ) -> Sealed:
        """An envelope with the metadata a run's envelopes carry."""
        now = self.now()
        trace = sha256_hex(workflow.encode())
        return compose(
            payload,
            id=id or new_id(now, self._random),
            subject=subject,
            sender=sender,
            to="somebody",
            trace_id=trace[:32],
            span_id=trace[:16],
            ts=now,
            place=place,
            causes=causes,
            metadata={"workflow_id": workflow} if workflow else {},
        )

    def lifecycle(self, agent: str, count: int) -> Iterator[Stored]:
        """Spontaneous events of one incarnation."""
        place = incarnation_chain(agent, new_id(self.now(), self._random))
        for _ in range(count):
            event = Lifecycle(agent, "i", "started")
            sealed = self.seal(event, subjects.agent_out(agent), place, workflow="", sender=agent)
            yield self.put(sealed)
            place = place.after(sealed)

    def dead_letter(self, about: Stored, *, body: str = "", subject: str = "") -> Stored:
        """A consumer gives a message up; `body` is what the letter keeps instead of the bytes."""
        letter = DeadLetter(
            about.stream,
            "runtime",
            about.seq,
            about.subject,
            8,
            "envelope.not_sealed",
            "no envelope",
            body or base64.b64encode(about.body).decode(),
        )
        id = new_id(about.time, self._random)
        subject = subject or subjects.dead(about.stream, "runtime")
        return self.put(self.seal(letter, subject, ChainPlace(f"dead:{id}"), workflow="", id=id, sender="runtime"))

    def refusal(self, workflow: str, junk: Stored) -> Stored:
        """The planner refuses bytes on record, as the first decision of a chain."""
        refused = Consumed(new_id(junk.time, self._random), sha256_hex(junk.body), "unknown/0", junk.subject, junk.seq)
        decision = InputRejected(consumed=(refused,), code="plain.malformed", message="no")
        place, cause = workflow_chain(workflow, refused.id), Ref(refused.id, refused.hash)
        return self.put(self.seal(decision, subjects.workflow_out(workflow), place, workflow=workflow, causes=(cause,)))

    def run(self, story: Story) -> Iterator[Stored]:
        """A run from its goal to its end, one stored message at a step."""
        yield from _Run(self, story).play()

    def rejected(self, workflow: str) -> Iterator[Stored]:
        """A goal that starts no run."""
        run = _Run(self, Story(workflow, plain=True))
        given = run.submit()
        yield given.stored
        yield run.decide(GoalRejected(consumed=(given.consumed,), code="definition.unknown", message="no"), given)


@dataclass(frozen=True, slots=True)
class _Given:
    """An input as the planner sees it."""

    stored: Stored
    consumed: Consumed

    @property
    def ref(self) -> Ref:
        return Ref(self.consumed.id, self.consumed.hash)


class _Run:
    """One run's writers."""

    def __init__(self, mesh: Mesh, story: Story) -> None:
        self._mesh, self._story, self._workflow = mesh, story, story.workflow
        self._place: ChainPlace | None = None
        self._input_place = ChainPlace(f"input:{new_id(mesh.now(), mesh._random)}:{story.workflow}")
        self._decision: Sealed | None = None

    def play(self) -> Iterator[Stored]:
        given = self.submit()
        yield given.stored
        kinds = self._story.steps
        yield self._enter(given, kinds[0] if kinds else None, first=True)
        for index, kind in enumerate(kinds):
            if kind != "signal":
                yield from self._send(kind)
            if self._story.junk and index == 0:
                yield from self._refuse_junk()
            if self._story.ending == "open" and index == len(kinds) - 1:
                return
            given = yield from self._answer(kind)
            last = index == len(kinds) - 1
            if not last:
                yield self._enter(given, kinds[index + 1])
            elif self._story.ending != "cancelled":
                yield self._end(given)
        if self._story.ending == "cancelled":
            given = self._from_client(CancelRequested("enough"))
            yield given.stored
            yield self._end(given)

    # --- clients -----------------------------------------------------------------------------------------------

    def submit(self) -> _Given:
        """The goal, sealed or plain."""
        if not self._story.plain:
            return self._from_client(GoalSubmitted("support", {"text": f"about {self._workflow}"}))
        body = f'{{"goal":"support","input":{{"text":"{self._workflow}"}}}}'.encode()
        return self._adopted(self._mesh.put_plain(subjects.workflow_in(self._workflow), body), "goal.submitted/1")

    def _from_client(self, payload: Payload) -> _Given:
        subject = subjects.workflow_in(self._workflow)
        sealed = self._mesh.seal(payload, subject, self._input_place, workflow=self._workflow, sender="client")
        self._input_place = self._input_place.after(sealed)
        return self._given(sealed)

    def _given(self, sealed: Sealed) -> _Given:
        return self._seen(sealed, self._mesh.put(sealed))

    def _adopted(self, stored: Stored, schema: str) -> _Given:
        digest = hashlib.sha256(stored.body + stored.time.isoformat().encode()).digest()
        id = new_id(stored.time, lambda count: digest[:count])
        return _Given(stored, Consumed(id, sha256_hex(stored.body), schema, stored.subject, stored.seq))

    def _refuse_junk(self) -> Iterator[Stored]:
        body = f'{{"gaol":"{self._workflow}"}}'.encode()
        given = self._adopted(self._mesh.put_plain(subjects.workflow_in(self._workflow), body), "unknown/0")
        yield given.stored
        yield self.decide(InputRejected(consumed=(given.consumed,), code="plain.malformed", message="no"), given)

    # --- the planner -------------------------------------------------------------------------------------------

    def decide(self, payload: Payload, given: _Given) -> Stored:
        """A decision on the run's chain, or the first of one."""
        place = self._place or workflow_chain(self._workflow, given.consumed.id)
        id = derive_id(given.consumed.id, "planner", "decision")
        subject = subjects.workflow_out(self._workflow)
        sealed = self._mesh.seal(payload, subject, place, workflow=self._workflow, id=id, causes=(given.ref,))
        self._place = place.after(sealed)
        if isinstance(payload, Decision):
            self._decision = sealed
        return self._mesh.put(sealed)

    def _enter(self, given: _Given, kind: StepKind | None, *, first: bool = False) -> Stored:
        made_by = derive_id(given.consumed.id, "planner", "decision")
        id = derive_id(made_by, "planner", "step", 0)
        commands = () if kind in (None, "signal") else (self._command(id, kind),)
        due = TimerSet(derive_id(made_by, "planner", "timer"), "timers.set.workflow.x.0", "b" * 64, "2027")
        common: dict[str, Any] = {"consumed": (given.consumed,), "state": "s", "commands": commands, "timer": due}
        if first:
            return self.decide(GoalAccepted(definition=DEFINITION, seed="00", reason="started", **common), given)
        return self.decide(RunAdvanced(reason="completed", **common), given)

    def _command(self, id: str, kind: StepKind | None) -> Command:
        payload, subject = self._request(id, kind)
        schema = "tool.requested/1" if kind == "tool" else "step.requested/1"
        return Command(id, subject, schema, sha256_hex(encode_payload(payload)))

    def _request(self, id: str, kind: StepKind | None) -> tuple[Payload, str]:
        deadline = format_time(START + timedelta(hours=1))
        if kind == "tool":
            return ToolRequested("search", {"q": self._workflow}, deadline), subjects.tool_call(id)
        return StepRequested("support@1", "s", 1, {"text": "x"}, deadline), subjects.agent_in("helper", id)

    def _send(self, kind: StepKind) -> Iterator[Stored]:
        decision = self._known_decision()
        id = derive_id(decision.envelope.id, "planner", "step", 0)
        payload, subject = self._request(id, kind)
        self._sent = self._mesh.seal(
            payload, subject, decision_chain(decision), workflow=self._workflow, id=id, causes=(decision.ref,)
        )
        yield self._mesh.put(self._sent)

    def _known_decision(self) -> Sealed:
        assert self._decision is not None
        return self._decision

    def _end(self, given: _Given) -> Stored:
        consumed = (given.consumed,)
        match self._story.ending:
            case "failed":
                return self.decide(RunFailed(consumed=consumed, error=FAILURE), given)
            case "cancelled":
                return self.decide(RunCancelled(consumed=consumed), given)
        return self.decide(RunCompleted(consumed=consumed, output={"sent": True}), given)

    # --- runtime and executor ----------------------------------------------------------------------------------

    def _answer(self, kind: StepKind) -> Generator[Stored, None, _Given]:
        """What comes back: the generator's value is the input the planner gets."""
        if kind == "signal":
            given = self._from_client(RunSignalled("approved"))
            yield given.stored
            return given
        request = self._sent
        reply_to = subjects.workflow_result(self._workflow, request.envelope.id)
        if kind == "tool":
            sealed, stored = yield from self._execute(request, reply_to)
            return self._seen(sealed, stored)
        place: ChainPlace = handling_chain(request)
        used: tuple[Ref, ...] = ()
        if kind == "agent_with_tools":
            place, used = yield from self._call_tools(request)
        result = StepFailed(FAILURE) if kind == "failing" else StepCompleted({"text": "done"})
        sealed = self._mesh.seal(
            result,
            reply_to,
            place,
            workflow=self._workflow,
            id=derive_id(request.envelope.id, "helper", "result"),
            sender="helper",
            causes=(request.ref, *used),
        )
        stored = self._mesh.put(sealed)
        yield stored
        return self._seen(sealed, stored)

    def _seen(self, sealed: Sealed, stored: Stored) -> _Given:
        return _Given(
            stored, Consumed(sealed.envelope.id, sealed.hash, sealed.envelope.schema, stored.subject, stored.seq)
        )

    def _call_tools(self, request: Sealed) -> Generator[Stored, None, tuple[ChainPlace, tuple[Ref, ...]]]:
        place: ChainPlace = handling_chain(request)
        used: list[Ref] = []
        for index in range(self._story.tools):
            id = derive_id(request.envelope.id, "helper", "effect", index)
            asked = ToolRequested("search", {"q": str(index)}, format_time(START))
            call = self._mesh.seal(
                asked,
                subjects.tool_call(id),
                place,
                workflow=self._workflow,
                id=id,
                sender="helper",
                causes=(request.ref,),
            )
            place = place.after(call)
            yield self._mesh.put(call)
            result, _ = yield from self._execute(call, subjects.tool_result("helper", id))
            used.append(result.ref)
        return place, tuple(used)

    def _execute(self, call: Sealed, reply_to: str) -> Generator[Stored, None, tuple[Sealed, Stored]]:
        """Intent, outcome, result."""
        id = call.envelope.id
        intent = AuditIntent("search", "1", "idempotent", "agent", "c" * 64, "d" * 64, 1, format_time(START))
        outcome = AuditOutcome("search", "completed", "c" * 64, result={"output": {"hits": 3}})
        place: ChainPlace = audit_chain(call)
        entries: list[Sealed] = []
        for index, (entry, purpose) in enumerate(((intent, "audit:intent"), (outcome, "audit:outcome"))):
            sealed = self._mesh.seal(
                entry,
                subjects.tool_audit(id),
                place,
                workflow=self._workflow,
                id=derive_id(id, "executor", purpose, 1 - index),
                sender="executor",
                causes=(call.ref,),
            )
            entries.append(sealed)
            place = place.after(sealed)
            yield self._mesh.put(sealed)
        result = self._mesh.seal(
            ToolCompleted({"hits": 3}),
            reply_to,
            handling_chain(call),
            workflow=self._workflow,
            id=derive_id(id, "executor", "result"),
            sender="executor",
            causes=(call.ref, entries[-1].ref),
        )
        stored = self._mesh.put(result)
        yield stored
        return result, stored


def record(stories: Sequence[Story], turns: Sequence[int] = ()) -> Recording:
    """The history of several runs; `turns` says whose next message is stored, as long as it lasts."""
    mesh = Mesh()
    playing = [mesh.run(story) for story in stories]
    for turn in turns:
        if playing:
            chosen = playing[turn % len(playing)]
            if next(chosen, None) is None:
                playing.remove(chosen)
    for run in playing:
        for _ in run:
            pass
    return mesh.recording


def without(recording: Recording, index: int) -> Recording:
    """A message was removed in place: its stream has a gap."""
    return Recording(recording.messages[:index] + recording.messages[index + 1 :])


def altered(recording: Recording, index: int, body: bytes, subject: str = "") -> Recording:
    """A message was replaced in place."""
    before = recording.messages[index]
    changed = replace(before, body=body, subject=subject or before.subject)
    return Recording([*recording.messages[:index], changed, *recording.messages[index + 1 :]])


def swapped(recording: Recording, one: int, other: int) -> Recording:
    """Two messages of one stream have changed places."""
    messages = list(recording.messages)
    first, second = messages[one], messages[other]
    messages[one] = replace(second, seq=first.seq)
    messages[other] = replace(first, seq=second.seq)
    return Recording(messages)


def with_more(recording: Recording, stream: str, subject: str, body: bytes) -> Recording:
    """A message was added behind the others."""
    copy = Recording(list(recording.messages))
    copy.add(stream, subject, body, recording.messages[-1].time)
    return copy
