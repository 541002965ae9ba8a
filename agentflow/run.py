"""One run, as a handle: its result, its events, where it stands, and the two ways to steer it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from agentflow import subjects
from agentflow.artifacts import check_out
from agentflow.envelope import claim_in, unseal
from agentflow.errors import (
    Conflict,
    EnvelopeError,
    EvidenceError,
    InputError,
    NotStored,
    OutcomeUnknown,
    RunCancelled,
    RunFailed,
    RunTimeout,
    Unreachable,
)
from agentflow.inputs import Inputs
from agentflow.mesh.transport import Message, Subscription, Transport
from agentflow.payloads import TERMINAL, CancelRequested, Payload, RunSignalled
from agentflow.plain import check_plain
from agentflow.registry import ARTIFACTS
from agentflow.runs import PLAIN, RunEvent, RunState, evolve, fold, read_event

STREAM = "AF_MESSAGES"
POLL_FIRST, POLL_MOST = 1.0, 5.0
"""Seconds between looks at the stream while no hint comes: at first, and later."""


class Run:
    """A run under its id; made by `Client.submit` and `Client.run`."""

    def __init__(self, transport: Transport, inputs: Inputs, id: str) -> None:
        self.id = id
        self._transport = transport
        self._inputs = inputs

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    async def result(self, timeout: float | None = None) -> Any:
        """The run's output, waited for `timeout` seconds (None: until it ends).

        Raises `RunFailed` (code, message and blame of the failure; also for a goal that was rejected), `RunCancelled`,
        `RunTimeout` (its field `state` is the run's `RunState`), `NotStored` (`run.unknown`). A broker that is away is
        waited for.
        """
        async with self._hints() as hints:
            try:
                async with asyncio.timeout(timeout):
                    state = await self._until_ended(hints)
            except TimeoutError:
                raise await self._timed_out(timeout or 0.0) from None
        return outcome(state)

    async def events(self) -> AsyncIterator[RunEvent]:
        """Every message stored under `workflows.<id>.>`, in order, up to and with the run's end.

        Raises `NotStored` (`run.unknown`) when there is none, and `EvidenceError` for one that does not verify.
        """
        async with self._hints() as hints:
            await self._require_known()
            start, pause = 1, POLL_FIRST
            while True:
                with self._patience():
                    async for event in self._stored(start):
                        start = event.seq + 1
                        yield event
                        if event.terminal:
                            return
                pause = POLL_FIRST if await hints.next(timeout=pause) else min(pause * 1.5, POLL_MOST)

    async def state(self) -> RunState:
        """Where the run stands, folded from what is stored; raises `NotStored` (`run.unknown`)."""
        decided = [await self._event(message) async for message in self._read(subjects.workflow_out(self.id))]
        return fold(self.id, [await self._require_known(), *decided])

    async def signal(self, name: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell the run of an outside event; returns when the signal is stored.

        Raises `NotStored` (`run.unknown`) and `Conflict` (`run.ended`).
        """
        payload = RunSignalled(name, dict(data or {}))
        check_plain(payload.data, "data")
        await self._tell(payload)

    async def cancel(self, reason: str = "") -> None:
        """Ask for the run's end; returns when that is stored. The run ends when its planner has taken note.

        Raises `NotStored` (`run.unknown`) and `Conflict` (`run.ended`).
        """
        await self._tell(CancelRequested(reason))

    # --- how -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _hints(self) -> AsyncIterator[Subscription]:
        """A subscription to what the server republishes of this run; in place before anything is read."""
        hints: Subscription = _NoHints()
        with self._patience():
            hints = self._transport.follow(subjects.stored_out(self.id))
            await hints.ready()
        try:
            yield hints
        finally:
            await hints.close()

    async def _until_ended(self, hints: Subscription) -> RunState:
        pause = POLL_FIRST
        while True:
            with self._patience():
                if ended := await self._end():
                    return ended
            while hint := await hints.next(timeout=pause):
                pause = POLL_FIRST
                if tells_an_end(*hint):
                    break
            else:
                pause = min(pause * 1.5, POLL_MOST)

    async def _end(self) -> RunState | None:
        """How the run ended, or None while it has not; one question to the broker."""
        last = await self._transport.last(STREAM, subjects.workflow_out(self.id))
        if last is None:
            await self._require_known()
            return None
        event = await self._event(last)
        if event.schema in ("input.rejected/1", PLAIN):  # not terminal, and may stand behind what is
            state = await self.state()
            return state if state.ended else None
        return evolve(RunState(self.id), event) if event.terminal else None

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """A broker that is away for a time is no reason to give up; a connection closed for good is."""
        try:
            yield
        except (Unreachable, OutcomeUnknown):
            if self._transport.closed_reason is not None:
                raise

    async def _timed_out(self, timeout: float) -> RunTimeout:
        try:
            async with asyncio.timeout(2.0):
                state = await self.state()
        except (Unreachable, OutcomeUnknown, TimeoutError):
            return RunTimeout(f"run {self.id} has not ended after {timeout:g} s, and the broker is away", state=None)
        where = f"in state {state.state!r}" if state.state else state.status
        return RunTimeout(
            f"run {self.id} has not ended after {timeout:g} s: it is {where} and waits for {state.waiting_for}",
            run_id=self.id,
            state=state,
            hint="it goes on; ask again with a longer timeout",
        )

    async def _tell(self, payload: RunSignalled | CancelRequested) -> None:
        state = await self.state()
        if state.ended:
            raise Conflict(
                f"run {self.id} has ended ({state.status}): it takes nothing any more",
                code="run.ended",
                run_id=self.id,
                status=state.status,
            )
        trace_id = None if self._inputs.knows(self.id) else (await self._trace_id())
        await self._inputs.put(self.id, payload, trace_id=trace_id)

    async def _trace_id(self) -> str | None:
        """The trace the run belongs to: that of the message it began with."""
        envelope = (await self._require_known()).envelope
        return None if envelope is None else envelope.trace_id

    async def _require_known(self) -> RunEvent:
        """The message the run began with, or, where retention has taken that, its first decision."""
        first = await self._transport.first(STREAM, subjects.workflow_in(self.id))
        first = first or await self._transport.first(STREAM, subjects.workflow_out(self.id))
        if first is None:
            raise NotStored(f"no run {self.id!r}", code="run.unknown", run_id=self.id)
        return await self._event(first)

    async def _stored(self, start: int) -> AsyncIterator[RunEvent]:
        async for message in self._read(subjects.workflow_all(self.id), start):
            yield await self._event(message)

    def _read(self, subject: str, start: int = 1) -> AsyncIterator[Message]:
        return self._transport.read(STREAM, subject, start=start)

    async def _event(self, message: Message) -> RunEvent:
        return await stored_event(self._transport, message)


class _NoHints:
    """Stands in for a subscription while the broker is away: looking from time to time has to do."""

    async def ready(self) -> None:
        """Nothing to wait for."""

    async def next(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """Nothing comes."""
        await asyncio.sleep(POLL_FIRST if timeout is None else timeout)
        return None

    async def close(self) -> None:
        """Nothing to end."""


async def stored_event(transport: Transport, message: Message) -> RunEvent:
    """A stored message as an event, its payload fetched where a claim check stands for it.

    An input whose payload is not there, or is no payload, is shown as it is: anyone may have put it there. A decision's
    raises `EvidenceError`, `NotStored` or `SchemaError`.
    """
    event = read_event(message)
    if event.envelope is None or claim_in(event.envelope.payload) is None:
        return event
    try:
        payload: Payload = await check_out(await transport.objects(ARTIFACTS), event.envelope)
    except (EvidenceError, InputError, NotStored):
        if message.subject.endswith(".out"):
            raise
        return event
    return read_event(message, payload)


def tells_an_end(subject: str, body: bytes) -> bool:
    """Whether a hint may be about the run's end; one that cannot be read might be."""
    try:
        return unseal(body, subject.removeprefix("stored.")).envelope.schema in TERMINAL
    except EnvelopeError:
        return True


def outcome(state: RunState) -> Any:
    """The output of a run that ended well; raises `RunFailed` or `RunCancelled` for one that did not."""
    if state.status == "completed":
        return state.output
    if state.status == "cancelled":
        reason = state.error.message if state.error else "it was asked to"
        raise RunCancelled(f"run {state.id} was cancelled: {reason}", run_id=state.id, state=state.state)
    error = state.error
    raise RunFailed(
        f"run {state.id} {state.status}: {error.message if error else 'it gave no reason'}",
        code=error.code if error else None,
        run_id=state.id,
        state=state.state,
        blame=error.blame if error else None,
        error=error,
    )
