"""Waiting for the results of tool calls: the stored message is the truth, everything else a hint to look.

The broker republishes each stored result to `stored.tools.results.<agent>.<call>`, and one subscription for each agent
wakes whoever waits for that call. Such a copy is delivered at most once, so a waiter also looks by itself, at growing
intervals. What is looked at is always the message the stream's leader has, verified: sealed, on its subject, and
caused by exactly the call that waits. What strangers stored on that subject is not the result, and does not hide it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from agentflow import artifacts, logs
from agentflow.chain import handling_chain
from agentflow.ending import end
from agentflow.envelope import Sealed, unseal
from agentflow.errors import EnvelopeError, EvidenceError, MeshError, NotStored, SchemaError, StepError
from agentflow.mesh.transport import Message, Objects, Transport
from agentflow.payloads import ToolCompleted, ToolFailed
from agentflow.subjects import stored_tool_results, stream_of, tool_result

FIRST_LOOK = 0.25
"""Seconds until a waiter looks without a hint; each further pause is twice as long."""

LONGEST_PAUSE = 2.0
"""Seconds."""

_HINT_WAIT = 5.0

EXECUTOR = "executor"
"""Who answers tool calls."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A result that was found and verified."""

    sealed: Sealed
    payload: ToolCompleted | ToolFailed


class ResultFeed:
    """The tool results of one agent."""

    def __init__(self, transport: Transport, objects: Objects, agent_id: str) -> None:
        self._transport, self._objects, self._agent_id = transport, objects, agent_id
        self._waiting: dict[str, asyncio.Event] = {}
        self._log = logs.get("agentflow_runtime.results")

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Take hints inside the block."""
        subscription = self._transport.follow(stored_tool_results(self._agent_id))
        await subscription.ready()

        async def listen() -> None:
            while True:
                hint = await subscription.next(_HINT_WAIT)
                if hint is not None and (event := self._waiting.get(hint[0].rpartition(".")[2])):
                    event.set()

        task = asyncio.create_task(listen(), name=f"results-{self._agent_id}")
        task.add_done_callback(self._ended)
        try:
            yield
        finally:
            await end(task)
            await subscription.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Hints are a matter of speed: without them waiters still look."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.warning("results.hints_lost", agent=self._agent_id, reason=str(error))

    @contextlib.contextmanager
    def expecting(self, call_id: str) -> Iterator[None]:
        """Keep hints for one call inside the block; entered before the call is stored, so that none is missed."""
        self._waiting[call_id] = asyncio.Event()
        try:
            yield
        finally:
            self._waiting.pop(call_id, None)

    async def result_of(self, call: Sealed, *, look_first: bool) -> ToolResult:
        """The result of a call, as soon as it is stored; the caller bounds the wait.

        Raises `StepError` (`tool.result_invalid`) when the executor's answer cannot be used. Strangers' messages and
        trouble with the mesh while looking are waited out.
        """
        pause = 0.0 if look_first else FIRST_LOOK
        while True:
            await self._hint(call.envelope.id, pause)
            with contextlib.suppress(MeshError):
                if (found := await self._look(call)) is not None:
                    return found
            pause = min(max(FIRST_LOOK, pause * 2), LONGEST_PAUSE)

    async def _hint(self, call_id: str, pause: float) -> None:
        event = self._waiting[call_id]
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), pause)
        event.clear()

    async def _look(self, call: Sealed) -> ToolResult | None:
        """The result, wherever it is stored among strangers' messages; the first one is it, whatever comes behind."""
        subject = tool_result(self._agent_id, call.envelope.id)
        first = await self._transport.first(stream_of(subject), subject)
        if first is None:
            return None
        if (sealed := answered(call, first)) is not None:
            return await self._verified(sealed)
        async for message in self._transport.read(stream_of(subject), subject, start=first.seq + 1):
            if (sealed := answered(call, message)) is not None:
                return await self._verified(sealed)
        return None

    async def _verified(self, sealed: Sealed) -> ToolResult:
        subject = sealed.envelope.subject
        try:
            payload = await artifacts.check_out(self._objects, sealed.envelope)
        except (SchemaError, EvidenceError) as error:
            raise _invalid(subject, str(error), error.error_code) from error
        except NotStored as error:
            raise _invalid(subject, f"its artifact is gone: {error}", error.error_code) from error
        if not isinstance(payload, ToolCompleted | ToolFailed):
            raise _invalid(subject, f"it is {sealed.envelope.schema}", "schema.unexpected")
        return ToolResult(sealed, payload)


def answered(call: Sealed, message: Message) -> Sealed | None:
    """The executor's answer to a call, or None where a stored message is anything else: a stranger's, to be stepped over.

    It is told as the executor tells it when it stores the answer behind strangers: by maker, chain and cause.
    """
    try:
        sealed = unseal(message.body, message.subject)
    except EnvelopeError:
        return None
    found = sealed.envelope
    made = (found.sender, found.chain, found.causes[:1])
    return sealed if made == (EXECUTOR, handling_chain(call).chain, (call.ref,)) else None


def _invalid(subject: str, problem: str, cause: str) -> StepError:
    return StepError(
        f"what is stored on {subject} is no usable result of this call: {problem}",
        blame="mesh",
        code="tool.result_invalid",
        subject=subject,
        cause=cause,
    )
