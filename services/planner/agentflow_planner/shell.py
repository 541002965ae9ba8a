"""The planner's shell: takes inputs off the streams, asks the core, commits by the rule of architecture, section 4.

One decision per input, stored with the expected sequence of the run's `out` subject, so that two planners can never
both win; then its commands; then the acknowledgement. After a conflict the tail is read again: either the input is
consumed by now, and its commands are sent again, or the planner decides again on what is there.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from agentflow import crash, subjects
from agentflow.artifacts import keep
from agentflow.errors import Conflict, InputError, MeshError
from agentflow.logs import bound
from agentflow.mesh.publishing import ATTEMPT_TIMEOUT, store, store_once
from agentflow.mesh.transport import Delivery, Objects, Transport
from agentflow.payloads import Decision, GoalRejected, GoalSubmitted, InputRejected
from agentflow_planner.catalog import Catalog
from agentflow_planner.histories import STREAM, History, Step, read_history, to_input
from agentflow_planner.machine import Decided, Ignored, Verdict, decide
from agentflow_planner.plan import Plan
from agentflow_planner.runs import Input, Problem, Recorded, RunState, evolve
from agentflow_planner.sealing import seal_commands, seal_decision, seal_timer

TIMERS = "AF_TIMERS"

CANCELLED = {"Nats-TTL": "60s"}
"""Headers of the plain message that takes a timer back."""

MAX_RUNS = 20_000
"""Runs kept in memory; the least recently used are folded again when they are needed."""


@dataclass(slots=True)
class Slot:
    """A run in memory."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    state: RunState | None = None
    sent: set[str] = field(default_factory=set)
    """Decisions whose commands this process knows to be stored."""


class Planner:
    """Decides about runs."""

    def __init__(self, transport: Transport, objects: Objects, catalog: Catalog, log: Any) -> None:
        self._transport, self._objects, self._catalog, self._log = transport, objects, catalog, log
        self._slots: OrderedDict[str, Slot] = OrderedDict()

    async def handle(self, delivery: Delivery) -> None:
        """Handle one input to the end: recorded, its commands stored.

        Raises `MeshError` to have it delivered again, `InputError` or `EvidenceError` to have it given up.
        """
        given = await to_input(delivery.message, self._objects)
        slot = self._slot(given.workflow_id)
        async with slot.lock:
            if slot.state is None and given.kind == "goal" and delivery.deliveries == 1:
                slot.state = RunState(given.workflow_id)  # most likely new; a conflict corrects it
            try:
                await self._settle(slot, given)
            except BaseException:
                slot.state = None
                raise

    def _slot(self, workflow_id: str) -> Slot:
        slot = self._slots.setdefault(workflow_id, Slot())
        self._slots.move_to_end(workflow_id)
        while len(self._slots) > MAX_RUNS:
            oldest, candidate = next(iter(self._slots.items()))
            if candidate.lock.locked():
                break
            del self._slots[oldest]
        return slot

    async def _settle(self, slot: Slot, given: Input) -> None:
        """Decide about an input until it is recorded, known to be, or known to change nothing."""
        while True:
            state = slot.state or (await self._load(slot, given.workflow_id)).state
            try:
                if given.ref.id in state.consumed:
                    return await self._send_again(slot, given)
                verdict = await self._verdict(state, given)
                if _changes_nothing(verdict):
                    verdict = await self._after_earlier(slot, given)
                if isinstance(verdict, Decided):
                    return await self._commit(slot, given, verdict.recorded)
            except Conflict as conflict:
                self._log.info("run.conflict", workflow_id=given.workflow_id, why=str(conflict))
                slot.state = None
                continue
            return self._ignore(given, verdict)

    async def _verdict(self, state: RunState, given: Input) -> Verdict:
        if given.kind == "junk" and not state.exists and not given.ref.subject.endswith(".in"):
            raise InputError(given.problem.message if given.problem else "junk", code="input.junk")
        return decide(state, given, await self._plan_for(state, given))

    def _ignore(self, given: Input, verdict: Ignored) -> None:
        """Nothing to record: the input itself stays on the stream."""
        self._log.info("input.ignored", workflow_id=given.workflow_id, reason=verdict.reason, input=given.ref.id)

    async def _after_earlier(self, slot: Slot, given: Input) -> Verdict:
        """Before an input is refused or ignored, earlier unconsumed ones are decided, in stream order.

        Raises `Conflict` when another planner was at it too.
        """
        history = await self._load(slot, given.workflow_id)
        for earlier in history.unconsumed_before(given.ref.seq):
            verdict = await self._verdict(_known(slot), earlier)
            if isinstance(verdict, Decided):
                await self._commit(slot, earlier, verdict.recorded)
        if given.ref.id in _known(slot).consumed:
            raise Conflict(f"{given.ref.id} was decided meanwhile")
        return await self._verdict(_known(slot), given)

    async def _load(self, slot: Slot, workflow_id: str) -> History:
        """Fold the run from its stream; the fold must reach the last decision the leader has."""
        leader = await self._transport.last(STREAM, subjects.workflow_out(workflow_id))
        history = await read_history(self._transport, self._objects, workflow_id)
        if leader is not None and leader.seq > history.state.out_seq:
            raise MeshError(f"history of {workflow_id} is behind its leader", code="planner.stale_read")
        slot.state = history.state
        return history

    async def _plan_for(self, state: RunState, given: Input) -> Plan | Problem | None:
        if state.definition is not None and state.exists:
            return await self._catalog.pinned(state.definition)
        if isinstance(given.payload, GoalSubmitted):
            return await self._catalog.for_goal(given.payload)
        return None

    async def _commit(self, slot: Slot, given: Input, recorded: Recorded) -> None:
        """Store the decision, then what it sends. Raises `Conflict` when another decision was stored first."""
        state = _known(slot)
        sealed = seal_decision(state, given, recorded)
        with bound(sealed):
            await keep(self._objects, sealed, recorded)
            stored = await store(self._transport, sealed, expect=state.out_seq)
            after = evolve(state, sealed, recorded, {given.ref.id: given}, stored.seq)
            slot.state = after
            crash.point("planner.after_decision")
            self._log.info("run.decided", schema=sealed.envelope.schema, state=after.state, status=after.status)
            await self._send(slot, Step(sealed, recorded, state, after))
            crash.point("planner.after_commands")

    async def _send(self, slot: Slot, step: Step, *, timers: bool = True) -> None:
        """Store what a decision sends; every part may be repeated."""
        recorded = step.recorded
        if isinstance(recorded, Decision):
            if recorded.commands and step.after.definition is not None:
                plan = await self._catalog.pinned(step.after.definition)
                for sealed, payload in seal_commands(plan, step.after, step.sealed, recorded):
                    await keep(self._objects, sealed, payload)
                    await store_once(self._transport, sealed)
            if timers:
                await self._set_timers(step, recorded)
        slot.sent.add(step.sealed.envelope.id)

    async def _set_timers(self, step: Step, recorded: Decision) -> None:
        """Arm the new timer; take back the one that it replaces, or that the ended run no longer needs."""
        before = step.before.timer
        if recorded.timer is not None:
            timer = seal_timer(step.after, step.sealed, recorded.timer)
            await self._timer_message(recorded.timer.set_subject, timer.sealed.body, timer.headers)
        replaced = recorded.timer is not None or step.after.ended
        fired = before is not None and any(consumed.id == before.id for consumed in recorded.consumed)
        if before is not None and replaced and not fired:
            await self._timer_message(before.set_subject, b'{"cancelled":"%s"}' % before.id.encode(), CANCELLED)

    async def _timer_message(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Timers are no evidence and may be set twice: one attempt, repeated by redelivery."""
        await self._transport.publish(subject, body, stream=TIMERS, headers=headers, timeout=ATTEMPT_TIMEOUT)

    async def _send_again(self, slot: Slot, given: Input) -> None:
        """An input that is consumed already: make sure that what its decision sends is stored."""
        if _known(slot).consumed[given.ref.id] in slot.sent:
            return
        history = await self._load(slot, given.workflow_id)
        step = history.step_that_consumed(given.ref.id)
        if step is None:
            raise MeshError(f"the decision about {given.ref.id} cannot be read yet", code="planner.stale_read")
        self._log.info("run.sent_again", workflow_id=given.workflow_id, decision=step.sealed.envelope.id)
        latest = step.sealed.envelope.id == history.steps[-1].sealed.envelope.id
        await self._send(slot, step, timers=latest)


def _known(slot: Slot) -> RunState:
    """The state of a slot that has been loaded."""
    if slot.state is None:
        raise Conflict("the run was given up by another task")
    return slot.state


def _changes_nothing(verdict: Verdict) -> bool:
    """Whether an input would be refused or ignored."""
    return isinstance(verdict, Ignored) or isinstance(verdict.recorded, GoalRejected | InputRejected)
