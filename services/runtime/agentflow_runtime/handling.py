"""Running an agent's hooks for one step, bounded by its deadline, to a result that can be stored.

A handler may do anything: raise what it likes, `sys.exit`, swallow its cancellation, hang in a thread. Whatever it
does ends as `step.completed/1`, as `step.failed/1`, or as a raised `MeshError`, when the mesh was in trouble and the message
is to be handled again. Only a process that dies is beyond this module; then the message is delivered again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agentflow.agent import Plan
from agentflow.errors import MeshError, NondeterminismError, SchemaError
from agentflow.payloads import StepCompleted, StepFailed
from agentflow_runtime.context import Context
from agentflow_runtime.failures import deadline_passed, failure_of, output_invalid
from agentflow_runtime.hosting import Hook, Hooks, is_async
from agentflow_runtime.leftovers import Leftovers
from agentflow_runtime.recording import Recorder
from agentflow_runtime.steps import Step
from agentflow_runtime.threads import BlockingCall
from agentflow_runtime.values import plain


@dataclass(frozen=True, slots=True)
class Ended:
    """How a handler ended by itself."""

    value: Any = None
    error: BaseException | None = None


async def handle(
    hooks: Hooks, step: Step, ctx: Context, recorder: Recorder, leftovers: Leftovers, *, seconds: float, grace: float
) -> StepCompleted | StepFailed:
    """Run the hooks for a step within `seconds`; a cancelled handler gets `grace` seconds to clean up.

    The record is settled and caught up with when this returns. Raises `MeshError` when the message is to be handled
    again.
    """
    try:
        ended = await bounded(lambda: _run(hooks, step, ctx, leftovers), leftovers, seconds=seconds, grace=grace)
        ctx.close()
        await recorder.settle()
    except asyncio.CancelledError:
        recorder.abandon()
        raise
    finally:
        ctx.close()
    result = _result(ended, recorder.broken, step)
    ahead = await recorder.catch_up()
    if ahead and isinstance(result, StepCompleted):
        return StepFailed(failure_of(_fell_short(recorder.asked, ahead)))
    return result


def _result(ended: Ended | None, broken: Exception | None, step: Step) -> StepCompleted | StepFailed:
    """A record that broke decides, whatever the handler made of it."""
    if isinstance(broken, MeshError):
        raise broken
    if broken is not None:
        return StepFailed(failure_of(broken))
    if ended is None:
        return StepFailed(deadline_passed(step.request.deadline))
    if ended.error is not None:
        return StepFailed(failure_of(ended.error))
    try:
        return StepCompleted(plain(ended.value, "output"))
    except SchemaError as error:
        return StepFailed(output_invalid(error))


def _fell_short(made: int, ahead: int) -> NondeterminismError:
    return NondeterminismError(f"an earlier attempt made {made + ahead} tool calls, this one made {made}")


async def _run(hooks: Hooks, step: Step, ctx: Context, leftovers: Leftovers) -> Any:
    """The hooks in their order; the output is `on_plan`'s where there is one."""
    output = await call(hooks.on_message, ctx, ctx.message, leftovers=leftovers)
    if hooks.on_plan is None:
        return output
    plan = Plan(step.request.workflow, step.request.state, step.deadline, step.request.input)
    return await call(hooks.on_plan, ctx, plan, leftovers=leftovers)


async def call(hook: Hook, *args: Any, leftovers: Leftovers) -> Any:
    """Call a hook: on the loop when it is asynchronous, else in a thread of its own."""
    if is_async(hook):
        return await hook(*args)
    thread = BlockingCall(hook, *args, name=f"agentflow-{getattr(hook, '__name__', 'hook')}")
    try:
        value = await thread.result()
    finally:
        leftovers.keep(thread.ended)
    return await value if isinstance(value, Awaitable) else value


async def bounded(
    work: Callable[[], Awaitable[Any]], leftovers: Leftovers, *, seconds: float, grace: float
) -> Ended | None:
    """How `work` ended, or None when it did not within `seconds` and was cancelled.

    Work that does not end within `grace` seconds of its cancellation keeps its slot until it does.
    """
    task = asyncio.create_task(_guarded(work), name="handler")
    try:
        await asyncio.wait({task}, timeout=max(0.0, seconds))
        return _ended(task) if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=grace)
            leftovers.keep(task)


async def _guarded(work: Callable[[], Awaitable[Any]]) -> Ended:
    """Catch everything but our own cancellation, here inside the task: a task ends the loop with `SystemExit`."""
    try:
        return Ended(await work())
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return Ended(error=error)
    except BaseException as error:  # noqa: BLE001 - sys.exit in a handler fails its step, not the process
        return Ended(error=error)


def _ended(task: asyncio.Task[Ended]) -> Ended:
    """The task's own word; one that cancelled itself ended with an error like any other."""
    return Ended(error=asyncio.CancelledError("the handler cancelled itself")) if task.cancelled() else task.result()
