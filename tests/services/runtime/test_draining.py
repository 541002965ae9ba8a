"""The end of a process in order: nothing new is taken, work in hand is finished or given back, hooks run last."""

import asyncio
import threading
from typing import Any

from agentflow.agent import Agent, AgentMessage, HandlerContext
from agentflow.mesh.memory import MemoryTransport
from agentflow_runtime.shell import drain_seconds
from tests.services.runtime.harness import Desk, FakeExecutor, class_agent, function_agent, hosted, quick, step, until

Input = dict[str, Any]


async def test_work_in_hand_is_finished_and_nothing_new_is_taken(mesh: MemoryTransport, desk: Desk) -> None:
    """The message in hand gets its result and its acknowledgement; the one that waits stays for another process."""
    started, release = asyncio.Event(), asyncio.Event()

    async def work(ctx: HandlerContext, input: Input) -> Any:
        started.set()
        await release.wait()
        return await ctx.call_tool("search")

    executor = FakeExecutor(mesh, {"search": lambda asked: "found"})
    async with executor.running(), hosted(mesh, function_agent(work, concurrency=1)) as process:
        in_hand = await desk.send(step("worker"))
        await started.wait()
        waiting = await desk.send(step("worker", index=1))
        process.host.stop.set()
        await until(lambda: process.wire.closed)
        assert not process.task.done()
        release.set()
        await process.task
        assert process.wire.settled[-1] == "ack"
    assert await desk.output(in_hand) == "found"
    assert await desk.find(waiting) is None
    assert await desk.pending("worker") == 0


async def test_work_that_takes_too_long_is_given_back_at_once(mesh: MemoryTransport, desk: Desk) -> None:
    """Another process has it without waiting for the ack wait, and adopts what was recorded."""
    runs = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        runs.append(1)
        found = await ctx.call_tool("search")
        if len(runs) == 1:
            await asyncio.sleep(60)
        return found

    patient = quick(ack_wait=60, drain_timeout=0.2)
    executor = FakeExecutor(mesh, {"search": lambda asked: len(executor.seen)})
    async with executor.running():
        async with hosted(mesh, function_agent(work), name="first", settings=patient) as first:
            sent = await desk.send(step("worker"))
            await until(lambda: executor.seen)
            await first.stop()
            assert first.wire.settled == ["nak"]
            assert await desk.find(sent) is None
        async with hosted(mesh, function_agent(work), name="second", settings=patient):
            assert await desk.output(sent) == 1
    assert executor.times("search") == 1
    assert await desk.breaks_after(sent) == []


async def test_a_thread_that_hangs_does_not_keep_the_process(mesh: MemoryTransport, desk: Desk) -> None:
    """Its message is given back; the thread is a daemon and ends with the process."""
    release, started = threading.Event(), threading.Event()

    def work(ctx: HandlerContext, input: Input) -> Any:
        started.set()
        release.wait(60)

    async with hosted(mesh, function_agent(work), settings=quick(drain_timeout=0.2)) as process:
        await desk.send(step("worker"))
        await until(started.is_set)
        await process.stop()
        assert process.wire.settled[-1] == "nak"
    release.set()


async def test_on_finish_runs_after_the_last_message(mesh: MemoryTransport, desk: Desk) -> None:
    """Once, and only then is the agent told to be stopped."""
    order: list[str] = []
    started = asyncio.Event()

    class Careful(Agent):
        async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
            started.set()
            await asyncio.sleep(0.05)
            order.append("message")

        async def on_finish(self) -> None:
            order.append("finish")

    async with hosted(mesh, class_agent(Careful)) as process:
        await desk.send(step("worker"))
        await started.wait()
        await process.stop()
    assert order == ["message", "finish"]


async def test_a_process_without_work_stops_at_once(mesh: MemoryTransport, desk: Desk) -> None:
    """Nothing waits for a time-out."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return None

    async with hosted(mesh, function_agent(work), settings=quick(drain_timeout=30)) as process:
        await desk.ask("worker")
        await asyncio.wait_for(process.stop(), 5)


async def test_nothing_is_left_of_a_process_that_stopped(mesh: MemoryTransport, desk: Desk) -> None:
    """No task, no subscription, no registry entry."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return None

    before = asyncio.all_tasks()
    async with hosted(mesh, function_agent(work)):
        await desk.ask("worker")
    await until(lambda: asyncio.all_tasks() == before)


def test_draining_leaves_time_to_give_back() -> None:
    """Work gets most of the drain time, and never all of it."""
    assert drain_seconds(quick(drain_timeout=10, cancel_grace=1)) == 8.5
    assert drain_seconds(quick(drain_timeout=1, cancel_grace=1)) == 0.5
