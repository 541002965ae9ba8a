"""What a handler is given for one message: the `HandlerContext` of `agentflow.agent`, with a recorded `call_tool`."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

from agentflow import crash
from agentflow.agent import AgentMessage
from agentflow.envelope import Ref
from agentflow.errors import SchemaError, StepError
from agentflow.ids import TOKEN
from agentflow.payloads import ToolCompleted, ToolRequested
from agentflow_runtime.failures import tool_error
from agentflow_runtime.recording import Recorder
from agentflow_runtime.results import ResultFeed, ToolResult
from agentflow_runtime.steps import Step
from agentflow_runtime.values import plain


class Context:
    """One handler's hold on the mesh; closed when its message is done with, however the handler goes on."""

    def __init__(self, step: Step, settings: Mapping[str, Any], log: Any, recorder: Recorder, feed: ResultFeed) -> None:
        self._step, self._settings, self._log = step, settings, log
        self._recorder, self._feed = recorder, feed
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._calls: set[asyncio.Task[ToolResult]] = set()
        self._used: dict[int, Ref] = {}
        self._closed = False
        self._message = message_of(step)

    @property
    def message(self) -> AgentMessage:
        """The message in hand."""
        return self._message

    @property
    def settings(self) -> Mapping[str, Any]:
        """The agent's settings from the project file."""
        return self._settings

    @property
    def log(self) -> Any:
        """A structlog logger with the message's ids bound."""
        return self._log

    @property
    def used(self) -> tuple[Ref, ...]:
        """The tool results the handler was given, in the order of their calls."""
        return tuple(self._used[index] for index in sorted(self._used))

    async def call_tool(self, tool: str, input: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
        """Call a tool and return its output; see `agentflow.agent.HandlerContext`.

        Raises besides: `StepError` (`tool.call_invalid`) for an input that is not JSON, and `MeshError` when the mesh
        is in trouble; then the message is given back and handled again, whatever the handler makes of the error.
        """
        task = asyncio.ensure_future(self._call(self._request(tool, {**(input or {}), **more})))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        result = await task
        crash.point("runtime.after_tool_call")
        if isinstance(result.payload, ToolCompleted):
            return result.payload.output
        raise tool_error(result.payload, tool, result.sealed.envelope.causes[0].id)

    def call_tool_blocking(self, tool: str, input: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
        """The same from a blocking handler's thread; raises `StepError` when it would block the event loop."""
        if threading.get_ident() == self._thread:
            raise StepError(
                "call_tool_blocking is for blocking handlers; await call_tool", code="agent.blocks_the_loop"
            )
        self._check_open()
        waiting = asyncio.run_coroutine_threadsafe(self.call_tool(tool, input, **more), self._loop)
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise _over() from None

    def _request(self, tool: str, input: dict[str, Any]) -> ToolRequested:
        """The call's payload: a function of the step and the handler's arguments, of nothing else."""
        self._check_open()
        try:
            values = plain(input, f"input of tool {tool}", sort=True)
        except SchemaError as error:
            raise StepError(str(error), code="tool.call_invalid", tool=tool) from error
        if not isinstance(tool, str) or not TOKEN.match(tool):
            raise StepError(f"{tool!r:.80} is not a tool's id", code="tool.call_invalid")
        return ToolRequested(tool, values, self._step.request.deadline)

    def _call(self, request: ToolRequested) -> Coroutine[Any, Any, ToolResult]:
        """Take the call's place in the record at once, then store it and wait for its result."""
        index, call_id = self._recorder.asked, self._recorder.next_id()
        record = self._recorder.call(request)

        async def outcome() -> ToolResult:
            with self._feed.expecting(call_id):
                landing = await asyncio.shield(record)
                result = await self._feed.result_of(landing.sealed, look_first=landing.adopted)
            self._used[index] = result.sealed.ref
            return result

        return outcome()

    def _check_open(self) -> None:
        if self._closed:
            raise _over()
        if self._recorder.broken is not None:
            raise self._recorder.broken

    def close(self) -> None:
        """End every call that still waits, and refuse further ones: the message is done with."""
        self._closed = True
        for task in list(self._calls):
            task.cancel()


def message_of(step: Step) -> AgentMessage:
    """The request as its agent sees it."""
    envelope, request = step.sealed.envelope, step.request
    return AgentMessage(envelope.id, request.input, envelope.sender, step.sealed.workflow_id, request.attempt)


def _over() -> StepError:
    return StepError("the message is done with: its time is over, or it was given back", code="step.over")
