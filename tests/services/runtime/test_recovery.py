"""What survives: processes that die at any named point, freeze, lose acknowledgements or the broker, and run twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentflow import crash
from agentflow.agent import HandlerContext
from agentflow.errors import PublishFailed
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store_result
from agentflow.payloads import ToolRequested
from agentflow.schemas import payload_as
from agentflow_runtime import delivery, results
from tests.services.runtime.harness import (
    IMPATIENT,
    Desk,
    FakeExecutor,
    Process,
    function_agent,
    hosted,
    quick,
    step,
    until,
)

Input = dict[str, Any]
Killer = Callable[[str, int], None]


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Process, str, int], None]:
    """Kill a process when it passes a crash point for the n-th time."""

    def arm(process: Process, name: str, count: int) -> None:
        assert name in crash.POINTS
        passed = iter(range(1, 1000))

        def point(reached: str) -> None:
            if reached == name and not process.wire.cut and next(passed) == count:
                process.kill()

        monkeypatch.setattr(crash, "point", point)

    return arm


@pytest.mark.parametrize(
    ("point", "count", "runs"),
    [
        ("runtime.before_tool_call", 1, 2),
        ("runtime.before_tool_call", 2, 2),
        ("runtime.after_tool_call", 1, 2),
        ("runtime.after_tool_call", 2, 2),
        ("runtime.after_result", 1, 1),
    ],
)
async def test_a_process_that_dies_at_a_crash_point_is_taken_over_and_nothing_is_done_twice(
    point: str,
    count: int,
    runs: int,
    kill_at: Callable[[Process, str, int], None],
    mesh: MemoryTransport,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next process runs the handler again; recorded calls return at once; the executor saw each once."""
    monkeypatch.setattr(results, "FIRST_LOOK", 3600.0)
    ran = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(ctx.message.id)
        first = await ctx.call_tool("charge", amount=input["amount"])
        return [first, await ctx.call_tool("notify", text=first)]

    executor = FakeExecutor(
        mesh, {"charge": lambda asked: f"charged {len(executor.seen)}", "notify": lambda asked: "ok"}
    )
    async with executor.running(), hosted(mesh, function_agent(work), name="first", settings=IMPATIENT) as first:
        kill_at(first, point, count)
        sent = await desk.send(step("worker", {"amount": 5}))
        await until(lambda: first.wire.cut)
        async with hosted(mesh, function_agent(work), name="second", settings=IMPATIENT):
            assert await desk.output(sent) == ["charged 1", "ok"]
            await until(lambda: none_pending(desk))
    assert len(ran) == runs
    assert (executor.times("charge"), executor.times("notify")) == (1, 1)
    assert await desk.breaks_after(sent) == []


async def none_pending(desk: Desk) -> bool:
    """Whether every message of the agent is settled."""
    return await desk.pending("worker") == 0


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("another tool", '"tool":"refund"'),
        ("another input", '"amount":6'),
        ("no call", "an earlier attempt made 1 tool calls, this one made 0"),
        ("swallowed", '"tool":"refund"'),
    ],
)
async def test_a_handler_that_asks_for_something_else_the_second_time_is_found_out(
    second: str,
    said: str,
    kill_at: Callable[[Process, str, int], None],
    mesh: MemoryTransport,
    desk: Desk,
) -> None:
    """The step fails with `handler.nondeterministic`, says what changed, and the second effect does not happen."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return await ctx.call_tool("charge", amount=5)

    async def changed(ctx: HandlerContext, input: Input) -> Any:
        match second:
            case "another tool":
                return await ctx.call_tool("refund", amount=5)
            case "another input":
                return await ctx.call_tool("charge", amount=6)
            case "no call":
                return "nothing to do"
        try:
            await ctx.call_tool("refund", amount=5)
        except Exception:  # noqa: BLE001 - a handler may swallow anything
            return "never mind"

    executor = FakeExecutor(mesh, {"charge": lambda asked: "charged", "refund": lambda asked: "refunded"})
    async with executor.running(), hosted(mesh, function_agent(work), name="first", settings=IMPATIENT) as first:
        kill_at(first, "runtime.after_tool_call", 1)
        sent = await desk.send(step("worker"))
        await until(lambda: first.wire.cut)
        async with hosted(mesh, function_agent(changed), name="second", settings=IMPATIENT):
            failure = await desk.failure(sent)
    assert (failure.code, failure.blame, failure.retryable) == ("handler.nondeterministic", "agent", False)
    assert said in failure.message
    assert [payload_as(call, ToolRequested).tool for call in executor.seen] == ["charge"]
    assert await desk.breaks_after(sent) == []


async def test_a_lost_acknowledgement_costs_one_look_and_no_second_run(mesh: MemoryTransport, desk: Desk) -> None:
    """The redelivery finds the result."""
    ran = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        return "done"

    async with hosted(mesh, function_agent(work), settings=IMPATIENT) as process:
        process.wire.lost.add("ack")
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "done"
        await until(lambda: process.wire.settled.count("ack") >= 2)
        process.wire.lost.clear()
        await until(lambda: none_pending(desk))
    assert ran == [1]


async def test_all_of_history_delivered_again_runs_no_handler(mesh: MemoryTransport, desk: Desk) -> None:
    """A consumer made anew delivers each message as if for the first time; its result says that it was handled."""
    ran = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        return "done"

    sent = [step("worker", index=n) for n in range(3)]
    for _ in range(2):
        async with hosted(mesh, function_agent(work)):
            for each in sent if not ran else ():
                await desk.send(each)
            for each in sent:
                assert await desk.output(each) == "done"
            await until(lambda: none_pending(desk))
        mesh.broker.durables.clear()
    assert ran == [1, 1, 1]


async def test_a_handler_longer_than_the_ack_wait_runs_once(mesh: MemoryTransport, desk: Desk) -> None:
    """Signs of life keep the message with the process that works on it; another one that is there gets nothing."""
    ran = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        await asyncio.sleep(2.5)
        return "done"

    agents = [function_agent(work) for _ in range(2)]
    async with hosted(mesh, agents[0], name="a") as a, hosted(mesh, agents[1], name="b") as b:
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "done"
        said = a.wire.settled + b.wire.settled
    assert ran == [1]
    assert said.count("in_progress") >= 5
    assert said.count("ack") == 1


async def test_a_message_that_comes_again_while_it_is_in_hand_is_not_handled_twice(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """Signs of life got lost: the second delivery waits for the first, also where it would have been one too many."""
    ran, release = [], asyncio.Event()

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        await release.wait()
        return "done"

    async with hosted(mesh, function_agent(work), settings=quick(ack_wait=0.15, max_deliveries=1)) as process:
        process.wire.lost.add("in_progress")
        sent = await desk.send(step("worker"))
        durable = mesh.broker.durables
        await until(lambda: ("AF_AGENTS", "agent-worker") in durable and len(ran) == 1)
        await until(lambda: desk.deliveries("worker") >= 3)
        release.set()
        assert await desk.output(sent) == "done"
        await until(lambda: none_pending(desk))
    assert ran == [1]
    assert await desk.dead_letters() == []


async def test_a_frozen_process_that_wakes_up_changes_nothing(mesh: MemoryTransport, desk: Desk) -> None:
    """Another one took over and answered: the late result meets the stored one, which stands."""

    def answering(name: str) -> Callable[[HandlerContext, Input], Any]:
        async def work(ctx: HandlerContext, input: Input) -> Any:
            found = await ctx.call_tool("search")
            if name == "first":
                first.freeze()
            return [name, found]

        return work

    executor = FakeExecutor(mesh, {"search": lambda asked: len(executor.seen)})
    async with (
        executor.running(),
        hosted(mesh, function_agent(answering("first")), name="first", settings=IMPATIENT) as first,
    ):
        sent = await desk.send(step("worker"))
        await until(lambda: not first.wire.open.is_set())
        async with hosted(mesh, function_agent(answering("second")), name="second", settings=IMPATIENT) as second:
            assert await desk.output(sent) == ["second", 1]
            await until(lambda: "ack" in second.wire.settled)
            before = await desk.stored("AF_MESSAGES")
            first.thaw()
            await until(lambda: "ack" in first.wire.settled)
    assert await desk.stored("AF_MESSAGES") == before
    assert executor.times("search") == 1
    assert await desk.breaks_after(sent) == []


async def test_two_processes_share_an_agent(mesh: MemoryTransport, desk: Desk) -> None:
    """Every message is handled exactly once by one of them."""
    ran: dict[str, list[str]] = {"a": [], "b": []}

    def working(name: str) -> Callable[[HandlerContext, Input], Any]:
        async def work(ctx: HandlerContext, input: Input) -> Any:
            ran[name].append(ctx.message.id)
            return await ctx.call_tool("double", n=input["n"])

        return work

    executor = FakeExecutor(mesh, {"double": lambda asked: asked["n"] * 2})
    a, b = (function_agent(working(name), concurrency=4) for name in ("a", "b"))
    async with executor.running(), hosted(mesh, a, name="a"), hosted(mesh, b, name="b"):
        steps = [await desk.send(step("worker", {"n": n}, index=n)) for n in range(40)]
        outputs = [await desk.output(sent) for sent in steps]
    assert outputs == [n * 2 for n in range(40)]
    assert sorted(ran["a"] + ran["b"]) == sorted(sent.envelope.id for sent in steps)
    assert ran["a"]
    assert ran["b"]
    assert len(executor.seen) == 40


async def test_a_broker_that_goes_away_and_comes_back_is_no_failure(mesh: MemoryTransport, desk: Desk) -> None:
    """The handler waits for its tool through the outage, the step completes, and nothing was done twice."""
    ran, asked = [], asyncio.Event()
    release = asyncio.Event()

    async def slow(input: Input) -> Any:
        asked.set()
        await release.wait()
        return "found"

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        return await ctx.call_tool("search")

    executor = FakeExecutor(mesh, {"search": slow})
    async with executor.running(), hosted(mesh, function_agent(work)) as process:
        sent = await desk.send(step("worker"))
        await asked.wait()
        mesh.broker.stop()
        said = process.wire.settled.count("in_progress")
        await until(lambda: process.wire.settled.count("in_progress") >= said + 2)
        mesh.broker.start()
        release.set()
        assert await desk.output(sent) == "found"
        await until(lambda: none_pending(desk))
    assert ran == [1]
    assert executor.times("search") == 1


@pytest.mark.parametrize("swallow", [False, True], ids=["raised on", "swallowed"])
async def test_trouble_with_the_mesh_is_not_a_failure_of_the_step(
    swallow: bool, mesh: MemoryTransport, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the handler makes of the error: the message is given back, and handled again."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    refusals = iter([PublishFailed("no space"), PublishFailed("no space")])

    async def refusing(*args: Any, **kwargs: Any) -> Any:
        for error in refusals:
            raise error
        return await store_result(*args, **kwargs)

    monkeypatch.setattr("agentflow_runtime.recording.store_once", refusing)
    ran = []

    async def work(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        try:
            return await ctx.call_tool("search")
        except PublishFailed:
            if swallow:
                return "never mind"
            raise

    executor = FakeExecutor(mesh, {"search": lambda asked: "found"})
    async with executor.running(), hosted(mesh, function_agent(work)) as process:
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "found"
        assert process.wire.pauses == [0.02, 0.04]
    assert len(ran) == 3
    assert await desk.breaks_after(sent) == []


async def test_a_result_that_cannot_be_stored_is_tried_again(
    mesh: MemoryTransport, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler runs again, and its recorded call is not made again."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    refusals = iter([PublishFailed("no space")])

    async def refusing(*args: Any, **kwargs: Any) -> Any:
        for error in refusals:
            raise error
        return await store_result(*args, **kwargs)

    monkeypatch.setattr("agentflow_runtime.delivery.store_result", refusing)

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return await ctx.call_tool("search")

    executor = FakeExecutor(mesh, {"search": lambda asked: "found"})
    async with executor.running(), hosted(mesh, function_agent(work)):
        assert await desk.output(await desk.send(step("worker"))) == "found"
    assert executor.times("search") == 1


def test_the_pause_grows_and_is_bounded() -> None:
    """Eight deliveries give an outage half a minute; none waits longer than ten seconds."""
    pauses = [delivery.pause_after(count) for count in range(1, 9)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert delivery.pause_after(10_000) == 10.0


async def test_a_call_that_is_given_up_is_made_all_the_same_and_adopted_later(
    kill_at: Callable[[Process, str, int], None], mesh: MemoryTransport, desk: Desk
) -> None:
    """`wait_for` around a call: the place it took stays its own in every attempt."""
    never = asyncio.Event()

    async def hang(asked: Input) -> Any:
        await never.wait()

    async def work(ctx: HandlerContext, input: Input) -> Any:
        try:
            await asyncio.wait_for(ctx.call_tool("slow"), 0.05)
        except TimeoutError:
            return await ctx.call_tool("fallback")

    executor = FakeExecutor(mesh, {"slow": hang, "fallback": lambda asked: "fell back"})
    async with executor.running(), hosted(mesh, function_agent(work), name="first", settings=IMPATIENT) as first:
        kill_at(first, "runtime.after_tool_call", 1)
        sent = await desk.send(step("worker"))
        await until(lambda: first.wire.cut)
        async with hosted(mesh, function_agent(work), name="second", settings=IMPATIENT):
            assert await desk.output(sent) == "fell back"
    assert [payload_as(call, ToolRequested).tool for call in await desk.calls()] == ["slow", "fallback"]
    assert (executor.times("slow"), executor.times("fallback")) == (1, 1)
    assert await desk.breaks_after(sent) == []


async def test_a_call_that_is_cancelled_while_it_is_stored_is_stored_all_the_same(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """Its first publish got lost; the handler no longer wants it; the next call still comes behind it."""
    mesh.broker.faults.drop("tools.calls.>")

    async def work(ctx: HandlerContext, input: Input) -> Any:
        unwanted = asyncio.create_task(ctx.call_tool("unwanted"))
        await until(lambda: not mesh.broker.faults.planned)
        unwanted.cancel()
        return await ctx.call_tool("wanted")

    executor = FakeExecutor(mesh, {"unwanted": lambda asked: "", "wanted": lambda asked: "here"})
    async with executor.running(), hosted(mesh, function_agent(work)):
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "here"
    assert [payload_as(call, ToolRequested).tool for call in await desk.calls()] == ["unwanted", "wanted"]
    assert await desk.breaks_after(sent) == []
