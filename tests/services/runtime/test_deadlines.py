"""A step has a deadline: what is not done by then fails, and whatever its handler still does has no effect."""

import asyncio
import threading
from typing import Any

from agentflow.agent import HandlerContext
from agentflow.clock import SystemClock, parse_time
from agentflow.errors import AgentflowError, StepError
from agentflow.mesh.memory import MemoryTransport
from tests.services.runtime.harness import (
    IMPATIENT,
    Desk,
    FakeExecutor,
    function_agent,
    hosted,
    quick,
    request,
    step,
    until,
    work,
)

Input = dict[str, Any]


async def test_a_handler_that_is_not_done_by_the_deadline_is_cancelled(mesh: MemoryTransport, desk: Desk) -> None:
    """The step fails, the handler may clean up, and its slot is free again."""
    cleaned = []

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        if input.get("fast"):
            return "fast"
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append("yes")

    async with hosted(mesh, function_agent(handler, concurrency=1)):
        failure = await desk.failure(await desk.send(step("worker", seconds=0.2)))
        assert await desk.output(await desk.send(step("worker", {"fast": True}, index=1))) == "fast"
    assert (failure.code, failure.type, failure.blame) == ("step.deadline", "TimeoutError", "agent")
    assert cleaned == ["yes"]


async def test_a_tool_that_never_answers_costs_the_step_its_deadline(mesh: MemoryTransport, desk: Desk) -> None:
    """The call stays recorded; the failure is placed behind it."""

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        return await ctx.call_tool("search")

    async with hosted(mesh, function_agent(handler)):
        sent = await desk.send(step("worker", seconds=0.3))
        failure = await desk.failure(sent)
        result = await desk.result(sent)
    assert failure.code == "step.deadline"
    assert (result.envelope.chain_seq, len(await desk.calls())) == (1, 1)
    assert await desk.breaks_after(sent) == []


async def test_a_handler_that_catches_its_cancellation_has_no_further_effects(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """It is told that its message is done with."""
    raised: list[AgentflowError] = []

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
            try:
                await ctx.call_tool("charge")
            except AgentflowError as error:
                raised.append(error)

    executor = FakeExecutor(mesh, {"charge": lambda asked: "charged"})
    async with executor.running(), hosted(mesh, function_agent(handler), settings=quick(cancel_grace=0.05)):
        assert (await desk.failure(await desk.send(step("worker", seconds=0.1)))).code == "step.deadline"
        await until(lambda: raised)
    assert [error.error_code for error in raised] == ["step.over"]
    assert executor.seen == []


async def test_a_blocking_handler_past_its_deadline_keeps_its_slot_and_has_no_further_effects(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """Its thread cannot be killed: it is refused every call, and the agent takes nothing in its place until it ends."""
    release, raised, ran = threading.Event(), list[StepError](), list[str]()

    def handler(ctx: HandlerContext, input: Input) -> Any:
        ran.append(ctx.message.id)
        if input.get("fast"):
            return "fast"
        release.wait(30)
        try:
            ctx.call_tool_blocking("charge")
        except StepError as error:
            raised.append(error)

    executor = FakeExecutor(mesh, {"charge": lambda asked: "charged"})
    async with executor.running(), hosted(mesh, function_agent(handler, concurrency=1)):
        slow = await desk.send(step("worker", seconds=0.1))
        fast = await desk.send(step("worker", {"fast": True}, index=1))
        assert (await desk.failure(slow)).code == "step.deadline"
        await until(lambda: settled(desk))
        assert ran == [slow.envelope.id]
        release.set()
        assert await desk.output(fast) == "fast"
    assert [error.error_code for error in raised] == ["step.over"]
    assert executor.seen == []


async def settled(desk: Desk) -> bool:
    """Whether nothing of the agent is pending."""
    return await desk.pending("worker") == 0


async def test_a_blocking_call_that_waits_at_the_deadline_is_ended(mesh: MemoryTransport, desk: Desk) -> None:
    """The thread does not wait for ever for a tool nobody needs any more."""
    ended: list[StepError] = []

    def handler(ctx: HandlerContext, input: Input) -> Any:
        try:
            ctx.call_tool_blocking("search")
        except StepError as error:
            ended.append(error)
            raise

    async with hosted(mesh, function_agent(handler)):
        assert (await desk.failure(await desk.send(step("worker", seconds=0.3)))).code == "step.deadline"
        await until(lambda: ended)
    assert [error.error_code for error in ended] == ["step.over"]


async def test_a_second_attempt_that_comes_too_late_fails_behind_what_the_first_recorded(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """The deadline passed between the two: no handler runs, and the chain has no branch."""

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        await ctx.call_tool("search")
        first.kill()

    executor = FakeExecutor(mesh, {"search": lambda asked: "found"})
    async with executor.running(), hosted(mesh, function_agent(handler), name="first", settings=IMPATIENT) as first:
        asked = work(seconds=0.25)
        sent = await desk.send(request(asked, "worker"))
        await until(lambda: first.wire.cut and SystemClock().now() > parse_time(asked.deadline))
        async with hosted(mesh, function_agent(handler), name="second", settings=IMPATIENT):
            failure = await desk.failure(sent)
            result = await desk.result(sent)
    assert failure.code == "step.deadline"
    assert result.envelope.chain_seq == 1
    assert await desk.breaks_after(sent) == []
