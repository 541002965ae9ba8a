"""The planner's shell: takes inputs off the streams, asks the core, commits by the rule of architecture, section 4.

One decision per input, stored with the expected sequence of the run's `out` subject, so that two planners can never
both win; then its commands; then the acknowledgement. After a conflict the tail is read again: either the input is
consumed by now, and its commands are sent again, or the planner decides again on what is there.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentflow import crash, subjects
from agentflow.artifacts import keep
from agentflow.envelope import Sealed
from agentflow.errors import Conflict, EvidenceError, InputError, MeshError
from agentflow.logs import bound
from agentflow.mesh.publishing import ATTEMPT_TIMEOUT, store, store_once
from agentflow.mesh.transport import Delivery, Objects, Transport
from agentflow.payloads import Decision, GoalRejected, GoalSubmitted, InputRejected, TimerSet
from agentflow.telemetry.watching import scheduling
from agentflow_planner.catalog import Catalog
from agentflow_planner.histories import (
    STREAM,
    History,
    Step,
    identified,
    is_consumed,
    read_history,
    read_inputs,
    to_input,
)
from agentflow_planner.machine import Decided, Ignored, Verdict, decide
from agentflow_planner.plan import Plan
from agentflow_planner.runs import Input, Problem, Recorded, RunState, evolve, key_of
from agentflow_planner.sealing import seal_commands, seal_decision, seal_timer
from agentflow_planner.watching import planning, tell

TIMERS = "AF_TIMERS"

MAX_CONFLICTS = 20
"""Rounds of reading again and deciding again before an input is left for later."""

CONFLICT_PAUSE = 0.02
"""Seconds; grows with every round."""

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
    settled: int = 0
    """Every input of the run stored up to this sequence has been looked at."""
    users: int = 0
    """Inputs that are being handled with it just now."""


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
        with self._using(given.workflow_id) as slot:
            async with slot.lock:
                if slot.state is None and given.kind == "goal" and delivery.deliveries == 1:
                    slot.state = RunState(given.workflow_id)  # most likely new; a conflict corrects it
                try:
                    await self._settle(slot, given)
                except BaseException:
                    slot.state = None
                    raise

    @contextlib.contextmanager
    def _using(self, workflow_id: str) -> Iterator[Slot]:
        """A run's slot while an input is handled; what is known of no run any more is forgotten behind the last."""
        slot = self._slot(workflow_id)
        slot.users += 1
        try:
            yield slot
        finally:
            slot.users -= 1
            if slot.users == 0 and slot.state is None and self._slots.get(workflow_id) is slot:
                del self._slots[workflow_id]

    def _slot(self, workflow_id: str) -> Slot:
        slot = self._slots.setdefault(workflow_id, Slot())
        self._slots.move_to_end(workflow_id)
        while len(self._slots) > MAX_RUNS:
            oldest, candidate = next(iter(self._slots.items()))
            if candidate.users:
                break
            del self._slots[oldest]
        return slot

    async def _settle(self, slot: Slot, given: Input) -> None:
        """Decide about an input until it is recorded, known to be, or known to change nothing."""
        for attempt in range(MAX_CONFLICTS):
            state = slot.state or (await self._load(slot, given.workflow_id)).state
            given = identified(state, given)
            try:
                if key_of(given.ref) in state.consumed:
                    return await self._send_again(slot, given)
                verdict = await self._verdict(state, given)
                if _changes_nothing(verdict):
                    verdict = await self._after_earlier(slot, given)
                if isinstance(verdict, Decided):
                    return await self._commit(slot, given, verdict.recorded)
            except Conflict as conflict:
                self._log.info("run.conflict", workflow_id=given.workflow_id, why=str(conflict))
                slot.state = None
                await asyncio.sleep(CONFLICT_PAUSE * attempt)
                continue
            return self._ignore(given, verdict)
        raise MeshError(f"run {given.workflow_id} is decided about elsewhere", code="planner.contended")

    async def _verdict(self, state: RunState, given: Input) -> Verdict:
        if given.kind == "junk" and not state.exists and not given.ref.subject.endswith(".in"):
            raise InputError(given.problem.message if given.problem else "junk", code="input.junk")
        with planning(state, given) as plan_span:
            verdict = decide(state, given, await self._plan_for(state, given))
            plan_span.decided(verdict)
        return verdict

    def _ignore(self, given: Input, verdict: Ignored) -> None:
        """Nothing to record: the input itself stays on the stream."""
        self._log.info("input.ignored", workflow_id=given.workflow_id, reason=verdict.reason, input=given.ref.id)

    async def _after_earlier(self, slot: Slot, given: Input) -> Verdict:
        """Before an input is refused or ignored, earlier unconsumed ones are decided, in stream order.

        Raises `Conflict` when another planner was at it too.
        """
        for earlier in await self._earlier(slot, given):
            known = identified(_known(slot), earlier)
            try:
                verdict = await self._verdict(_known(slot), known)
            except InputError:
                continue  # its own delivery records it
            if isinstance(verdict, Decided):
                await self._commit(slot, known, verdict.recorded)
        if is_consumed(_known(slot), given):
            raise Conflict(f"{given.ref.id} was decided meanwhile")
        if given.ref.subject.startswith("workflows."):
            slot.settled = max(slot.settled, given.ref.seq)
        return await self._verdict(_known(slot), given)

    async def _earlier(self, slot: Slot, given: Input) -> list[Input]:
        """The unconsumed inputs before this one. Only what is new is read while the state is the leader's."""
        on_run = given.ref.subject.startswith("workflows.")
        leader = await self._transport.last(STREAM, subjects.workflow_out(given.workflow_id))
        state = slot.state
        current = state is not None and leader is not None and leader.seq == state.out_seq
        if current and not on_run:
            return []
        if state is not None and current and slot.settled:
            start, end = slot.settled + 1, given.ref.seq - 1
            found = (
                await read_inputs(self._transport, self._objects, given.workflow_id, start, end) if start <= end else []
            )
            return [earlier for earlier in found if not is_consumed(state, earlier)]
        history = await self._load(slot, given.workflow_id)
        return history.unconsumed_before(given.ref.seq) if on_run else []

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
            after = evolve(state, sealed, recorded, {key_of(given.ref): given}, stored.seq)
            slot.state = after
            crash.point("planner.after_decision")
            self._log.info("run.decided", schema=sealed.envelope.schema, state=after.state, status=after.status)
            await self._send(slot, Step(sealed, recorded, state, after), now=after)
            crash.point("planner.after_commands")
            tell(after, recorded)
        if after.ended:
            slot.state = None  # what an ended run holds is not needed any more
            slot.sent.clear()

    async def _send(self, slot: Slot, step: Step, *, now: RunState) -> None:
        """Store what a decision sends; every part may be repeated. `now` is where the run stands by now.

        The timer comes first: whatever becomes of the commands, the run is looked at again.
        """
        recorded = step.recorded
        if isinstance(recorded, Decision):
            await self._set_timers(step, recorded, None if now.ended else now.timer)
            if recorded.commands and step.after.definition is not None:
                plan = await self._catalog.pinned(step.after.definition)
                for sealed, payload in seal_commands(plan, step.after, step.sealed, recorded):
                    await keep(self._objects, sealed, payload)
                    await self._send_command(sealed)
        slot.sent.add(step.sealed.envelope.id)

    async def _send_command(self, sealed: Sealed) -> None:
        """Store a command, once. Somebody else's message in its place is evidence, and the run's timer goes on."""
        try:
            await store_once(self._transport, sealed)
        except Conflict as conflict:
            subject = sealed.envelope.subject
            raise EvidenceError(f"{subject} holds another message", code="command.squatted") from conflict

    async def _set_timers(self, step: Step, recorded: Decision, current: TimerSet | None) -> None:
        """Arm the decision's timer while it is the run's present one; take back one that was replaced or is not needed."""
        if recorded.timer is not None and recorded.timer == current:
            timer = seal_timer(step.after, step.sealed, recorded.timer)
            with scheduling(timer.sealed) as headers:
                body = timer.sealed.body
                await self._timer_message(recorded.timer.set_subject, body, {**headers, **timer.headers})
        before = step.before.timer
        fired = before is not None and any(consumed.id == before.id for consumed in recorded.consumed)
        if before is not None and before != current and not fired:
            await self._timer_message(before.set_subject, b'{"cancelled":"%s"}' % before.id.encode(), CANCELLED)

    async def _timer_message(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Timers are no evidence and may be set twice: one attempt, repeated by redelivery."""
        await self._transport.publish(subject, body, stream=TIMERS, headers=headers, timeout=ATTEMPT_TIMEOUT)

    async def _send_again(self, slot: Slot, given: Input) -> None:
        """An input that is consumed already: make sure that what its decision sends is stored."""
        if _known(slot).consumed[key_of(given.ref)] in slot.sent:
            return
        history = await self._load(slot, given.workflow_id)
        step = history.step_that_consumed(given)
        if step is None:
            raise MeshError(f"the decision about {given.ref.id} cannot be read yet", code="planner.stale_read")
        self._log.info("run.sent_again", workflow_id=given.workflow_id, decision=step.sealed.envelope.id)
        await self._send(slot, step, now=history.state)


def _known(slot: Slot) -> RunState:
    """The state of a slot that has been loaded."""
    if slot.state is None:
        raise Conflict("the run was given up by another task")
    return slot.state


def _changes_nothing(verdict: Verdict) -> bool:
    """Whether an input would be refused or ignored."""
    return isinstance(verdict, Ignored) or isinstance(verdict.recorded, GoalRejected | InputRejected)
