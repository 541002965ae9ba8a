"""The record of one handling: its effects, each stored once, in the order the handler asked for them.

Design. An effect takes its index the moment the handler asks for it, before anything is awaited, and its index is its
place in the chain. The stores run one behind the other in tasks of their own: a handler that stops waiting for a call
(`asyncio.wait_for`, a cancelled `gather`) does not stop its store, or the next effect would take a place that another
attempt fills differently. A store that meets an earlier attempt's envelope adopts it, and the chain goes on from the
hash that is stored.

An effect that cannot take its place breaks the record for good: the error is raised from every later effect and again
when the handler is done, whatever the handler made of it. An earlier attempt may also have come further than this one;
`catch_up` goes past what it left, so that the result never takes the place of a recorded effect. It is not asked on a
first delivery that met nothing recorded.
"""

import asyncio

from agentflow import artifacts, crash
from agentflow.chain import handling_chain
from agentflow.clock import Clock
from agentflow.envelope import Sealed, unseal
from agentflow.errors import Conflict, EnvelopeError, StepError
from agentflow.mesh.publishing import Landing, store_once
from agentflow.mesh.transport import Objects, Transport
from agentflow.payloads import ToolRequested
from agentflow.subjects import stream_of, tool_call
from agentflow_runtime.steps import effect_id, seal_call

MAX_EFFECTS = 1000
"""Effects one handling may have: its result names the outcome of each, and an envelope has a bounded size."""


class Recorder:
    """What one handling of one message records."""

    def __init__(
        self, transport: Transport, objects: Objects, clock: Clock, cause: Sealed, agent_id: str, *, fresh: bool
    ) -> None:
        self._transport, self._objects, self._clock = transport, objects, clock
        self._cause, self._agent_id = cause, agent_id
        self._stores: list[asyncio.Task[Landing]] = []
        self.place = handling_chain(cause)
        """Where the next envelope of this handling goes."""
        self.fresh = fresh
        """Whether no earlier attempt can have recorded anything."""
        self.broken: Exception | None = None
        """Why the record cannot go on; the handling must not end well then."""

    @property
    def asked(self) -> int:
        """How many effects the handler asked for: the index of the next."""
        return len(self._stores)

    def next_id(self) -> str:
        """The id of the effect that is asked for next."""
        return effect_id(self._cause.envelope.id, self._agent_id, self.asked)

    def call(self, request: ToolRequested) -> asyncio.Task[Landing]:
        """Take the next place for a tool call, now, and store it behind the ones asked for before.

        Raises `StepError` (`agent.too_many_effects`).
        """
        if self.asked >= MAX_EFFECTS:
            raise StepError(f"a handler may have {MAX_EFFECTS} effects", code="agent.too_many_effects")
        index, before = self.asked, self._stores[-1:]
        store = asyncio.create_task(self._in_turn(index, request, before), name=f"record-{index}")
        store.add_done_callback(_seen)
        self._stores.append(store)
        return store

    async def _in_turn(self, index: int, request: ToolRequested, before: list[asyncio.Task[Landing]]) -> Landing:
        if before:
            await asyncio.wait(before)
        if self.broken is not None:
            raise self.broken
        try:
            return await self._record(index, request)
        except (Conflict, EnvelopeError) as error:
            refused = StepError(str(error), blame="mesh", code="tool.call_refused", cause=error.error_code)
            self._break(refused)
            raise refused from error
        except Exception as error:
            self._break(error)
            raise

    def _break(self, error: Exception) -> None:
        self.broken, self.fresh = error, False

    async def _record(self, index: int, request: ToolRequested) -> Landing:
        mine = seal_call(self._cause, self._agent_id, request, self.place, self._clock.now())
        await artifacts.keep(self._objects, mine, request)
        crash.point("runtime.before_tool_call")
        landing = await store_once(self._transport, mine)
        if landing.adopted:
            self.fresh = False
        stored = landing.sealed.envelope
        if (stored.chain, stored.chain_seq) != (self.place.chain, index):
            raise Conflict(
                f"{stored.subject} holds place {stored.chain_seq} of {stored.chain}, not {index} of {self.place.chain}"
            )
        self.place = self.place.after(landing.sealed)
        return landing

    async def settle(self) -> None:
        """Return when every store that was begun has ended."""
        if self._stores:
            await asyncio.wait(self._stores)

    async def catch_up(self) -> int:
        """Go past what an earlier attempt recorded beyond this one; how many effects that were."""
        if self.fresh:
            return 0
        found = 0
        while (left := await self._left_at(self.place.seq)) is not None:
            self.place, found = self.place.after(left), found + 1
        return found

    async def _left_at(self, index: int) -> Sealed | None:
        subject = tool_call(effect_id(self._cause.envelope.id, self._agent_id, index))
        message = await self._transport.first(stream_of(subject), subject)
        if message is None:
            return None
        try:
            sealed = unseal(message.body, subject)
        except EnvelopeError:
            return None
        theirs = sealed.envelope
        return sealed if (theirs.chain, theirs.chain_seq) == (self.place.chain, index) else None

    def abandon(self) -> None:
        """Stop the stores: the message is given back, and the next attempt adopts what landed."""
        for store in self._stores:
            store.cancel()


def _seen(task: asyncio.Task[Landing]) -> None:
    """Look at the error, so that a call nobody waits for any more is not reported as an error nobody saw."""
    if not task.cancelled():
        task.exception()
