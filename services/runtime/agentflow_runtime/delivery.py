"""What happens to one delivery of a message for an agent.

    receipt ─ not an envelope, or not a step ──────────────────────────→ dead letter, term
       │
       ├─ its result is stored ────────────────────────────────────────→ ack
       ├─ delivered too often ─────────────────→ dead letter, step.failed, term
       ├─ its deadline is past ────────────────→ step.failed, ack
       └─ handled ─ completed or failed ───────→ result, ack
             └──── the mesh in trouble ────────────────────────────────→ nak, later again

`agentflow.mesh.work.Worker` counts, keeps alive and settles; here is what it is handed. Every delivery first looks for
the result: a consumer that was made anew delivers all of history again, each message as if for the first time, and a
handler must not run for a step that was answered. The dead letter is stored before the message is given up. One
message is handled once at a time in a process: a second delivery of it (an acknowledgement or a sign of life that was
lost) waits for the first and then finds its result.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agentflow import artifacts, crash, logs
from agentflow.clock import Clock
from agentflow.envelope import Ref, Sealed, unseal
from agentflow.errors import Conflict, EnvelopeError, InputError, MeshError, NondeterminismError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.publishing import store_result
from agentflow.mesh.retries import RetriedDelivery
from agentflow.mesh.transport import Delivery, Message, Objects, Transport
from agentflow.payloads import StepCompleted, StepFailed
from agentflow.schemas import decode_payload
from agentflow.subjects import stream_of
from agentflow.telemetry import conventions as names
from agentflow.telemetry import spans
from agentflow_runtime.context import Context
from agentflow_runtime.failures import GIVEN_UP, deadline_passed, given_up, text
from agentflow_runtime.handling import handle
from agentflow_runtime.hosting import Hooks, HostedAgent
from agentflow_runtime.leftovers import Leftovers
from agentflow_runtime.recording import Recorder
from agentflow_runtime.results import ResultFeed
from agentflow_runtime.steps import STEP, Step, read_step, reply_address, seal_result
from agentflow_runtime.turns import Turns

PRODUCER = "runtime"
"""The runtime's own name as a sender."""

EXHAUSTED = "delivery.exhausted"

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds until a message comes back after the mesh was in trouble: doubled with each delivery, and at most."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a receiver needs of the mesh."""

    transport: Transport
    objects: Objects
    clock: Clock


@dataclass(slots=True)
class Receiver:
    """Takes the deliveries of one agent."""

    mesh: Mesh
    agent: HostedAgent
    hooks: Hooks
    feed: ResultFeed
    leftovers: Leftovers
    grace: float
    """Seconds a cancelled handler gets."""
    turns: Turns = field(default_factory=Turns)
    log: Any = field(default_factory=lambda: logs.get("agentflow_runtime.delivery"))

    async def handle(self, delivery: Delivery) -> None:
        """Handle one delivery; when this returns, what it asked for is done with and known to be.

        Raises `InputError` or `EvidenceError` for a message to give up, anything else for one to handle again; then, and
        when it is cancelled, the message is already given back.
        """
        sealed = unseal(delivery.message.body, delivery.message.subject)
        try:
            with logs.bound(sealed):
                async with self.turns.of(sealed.envelope.id):
                    await self._handle(delivery, sealed)
        except asyncio.CancelledError:
            await delivery.nak()
            raise
        except MeshError:
            await delivery.nak(pause_after(delivery.deliveries))
            raise

    async def give_up(self, delivery: Delivery, code: str, reason: str) -> None:
        """Record that a message is given up: a dead letter, and for a step its failure where that can be told.

        Not when it kept coming back only because its acknowledgement was lost. Raises `MeshError`.
        """
        try:
            sealed = unseal(delivery.message.body, delivery.message.subject)
        except EnvelopeError:
            await self._bury(delivery, code, reason)
            return
        async with self.turns.of(sealed.envelope.id):
            if code == EXHAUSTED and await self._was_answered(sealed, delivery):
                return
            await self._bury(delivery, code, reason)
            if sealed.envelope.schema == STEP:
                await self._tell_given_up(sealed, code, reason)

    async def _bury(self, delivery: Delivery, code: str, reason: str) -> None:
        """Store the dead letter. A process that dies before the message is settled writes another the next time."""
        await write_dead_letter(
            self.mesh.transport, delivery, self.agent.consumer, PRODUCER, code=code, reason=text(reason)
        )

    async def _was_answered(self, sealed: Sealed, delivery: Delivery) -> bool:
        try:
            return sealed.envelope.schema == STEP and await self._is_answered(sealed, reply_address(sealed), delivery)
        except InputError:
            return False

    async def _tell_given_up(self, sealed: Sealed, code: str, reason: str) -> None:
        failure = given_up(code, reason, exhausted=code == EXHAUSTED)
        recorder = self._recorder(sealed, fresh=False)
        try:
            reply_to = reply_address(sealed)
            await recorder.catch_up()
            await self._answer(sealed, reply_to, recorder, StepFailed(failure))
        except InputError as error:  # nowhere to tell it: the dead letter is all there is
            self.log.warning("step.untold", agent=self.agent.id, code=code, reason=error.message)

    async def _handle(self, delivery: Delivery, sealed: Sealed) -> None:
        if sealed.envelope.schema == STEP and await self._is_answered(sealed, reply_address(sealed), delivery):
            return
        step = read_step(sealed, await artifacts.check_out_sent(self.mesh.objects, sealed.envelope))
        recorder = self._recorder(sealed, fresh=delivery.deliveries == 1)
        result, used = await self._work(step, recorder)
        await self._answer(sealed, step.reply_to, recorder, result, used)
        crash.point("runtime.after_result")

    def _recorder(self, cause: Sealed, *, fresh: bool) -> Recorder:
        mesh = self.mesh
        return Recorder(mesh.transport, mesh.objects, mesh.clock, cause, self.agent.id, fresh=fresh)

    async def _is_answered(self, cause: Sealed, reply_to: str, delivery: Delivery) -> bool:
        """Whether the result is stored, be it among messages of strangers.

        That an earlier delivery was given up is no answer to a retry: a person asked for the handler to run. The run
        keeps the failure it was told, the result of the retry is not stored.
        """
        there = await self._stored_answer(cause, reply_to)
        return there is not None and not (isinstance(delivery, RetriedDelivery) and says_given_up(there))

    async def _stored_answer(self, cause: Sealed, reply_to: str) -> Message | None:
        stream = stream_of(reply_to)
        last = await self.mesh.transport.last(stream, reply_to)
        if last is None or answers(last, cause, self.agent.id):
            return last
        async for message in self.mesh.transport.read(stream, reply_to):
            if answers(message, cause, self.agent.id):
                return message
        return None

    async def _work(self, step: Step, recorder: Recorder) -> tuple[StepCompleted | StepFailed, tuple[Ref, ...]]:
        """The step's result, and the tool results that went into it."""
        seconds = (step.deadline - self.mesh.clock.now()).total_seconds()
        if seconds <= 0:
            await recorder.catch_up()
            return StepFailed(deadline_passed(step.request.deadline)), ()
        ctx = Context(step, self.agent.settings, log_for(self.agent.id, step), recorder, self.feed)
        about = {names.GEN_AI_AGENT: self.agent.id, names.GEN_AI_CONVERSATION: step.sealed.workflow_id}
        with spans.operation(names.INVOKE_AGENT, self.agent.id, about) as span:
            result = await handle(self.hooks, step, ctx, recorder, self.leftovers, seconds=seconds, grace=self.grace)
            if isinstance(result, StepFailed):
                spans.fail(span, result.error.code)
        return result, ctx.used

    async def _answer(
        self,
        cause: Sealed,
        reply_to: str,
        recorder: Recorder,
        result: StepCompleted | StepFailed,
        used: tuple[Ref, ...] = (),
    ) -> None:
        """Store the result, once; what another attempt stored for the same cause stands.

        Raises `InputError` (`result.taken`) when strangers keep taking its place.
        """
        place, now = recorder.place, self.mesh.clock.now()
        mine = seal_result(cause, self.agent.id, reply_to, result, place=place, ts=now, used=used)
        await artifacts.keep(self.mesh.objects, mine, result)
        try:
            await store_result(self.mesh.transport, mine)
        except NondeterminismError:
            self.log.warning("result.differs", agent=self.agent.id, kept="the one stored first")
        except Conflict as conflict:
            raise _taken(reply_to) from conflict
        else:
            failed = result.error.code if isinstance(result, StepFailed) else None
            self.log.info("step.answered", agent=self.agent.id, failed=failed)


def answers(message: Message, cause: Sealed, agent_id: str) -> bool:
    """Whether a stored message is this agent's result of handling `cause`."""
    try:
        envelope = unseal(message.body, message.subject).envelope
    except EnvelopeError:
        return False
    return envelope.sender == agent_id and envelope.causes[:1] == (cause.ref,)


def says_given_up(message: Message) -> bool:
    """Whether a stored result is only the failure that a dead letter left behind."""
    try:
        sealed = unseal(message.body, message.subject)
        found = decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    except InputError:
        return False
    return isinstance(found, StepFailed) and found.error.type == GIVEN_UP


def pause_after(deliveries: int) -> float:
    """Seconds until a message that could not be handled comes back."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(deliveries - 1, 16))


def log_for(agent_id: str, step: Step) -> Any:
    """The logger a handler is given: its lines carry the ids of the message, from any thread."""
    envelope = step.sealed.envelope
    return logs.get(f"agent.{agent_id}").bind(
        trace_id=envelope.trace_id,
        span_id=envelope.span_id,
        workflow_id=step.sealed.workflow_id,
        message_id=envelope.id,
    )


def _taken(reply_to: str) -> InputError:
    return InputError(f"{reply_to} holds something else than the result", code="result.taken")
