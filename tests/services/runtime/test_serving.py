"""The runtime at work on a mesh in memory: agents of every kind, their tools, and what is told about them."""

import asyncio
import threading
from typing import Any, ClassVar

import msgspec
import pytest

from agentflow import artifacts
from agentflow.agent import Agent, AgentContext, AgentMessage, HandlerContext, Plan
from agentflow.envelope import unseal
from agentflow.errors import NotStored, StepError
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.payloads import Failure, Lifecycle, StepCompleted, ToolCompleted, ToolRequested
from agentflow.registry import ARTIFACTS, CONFIG, REGISTRY, AgentDeclaration, Heartbeat, agent_key
from agentflow.schemas import payload_as
from agentflow.subjects import agent_out
from agentflow.testing import memory_mesh
from tests.services.runtime.harness import (
    Desk,
    FakeExecutor,
    class_agent,
    function_agent,
    hosted,
    quick,
    step,
    tool_result,
    until,
)

Input = dict[str, Any]


async def test_a_function_answers_a_step(mesh: MemoryTransport, desk: Desk) -> None:
    """The output of an async function is stored as the step's result."""

    async def greet(ctx: HandlerContext, input: Input) -> Any:
        return {"greeting": f"Hello {input['name']}"}

    async with hosted(mesh, function_agent(greet)):
        result = await desk.ask("worker", {"name": "Ada"})
    assert payload_as(result, StepCompleted).output == {"greeting": "Hello Ada"}
    assert (result.envelope.sender, result.envelope.to) == ("worker", "planner")


async def test_a_blocking_function_answers_from_a_thread(mesh: MemoryTransport, desk: Desk) -> None:
    """It may block as long as it likes, and calls tools with `call_tool_blocking`."""

    def work(ctx: HandlerContext, input: Input) -> Any:
        found = ctx.call_tool_blocking("search", query=input["text"])
        return {"found": found, "on_loop": threading.current_thread() is threading.main_thread()}

    executor = FakeExecutor(mesh, {"search": lambda asked: asked["query"] + "!"})
    async with hosted(mesh, function_agent(work)), executor.running():
        sent = await desk.send(step("worker", {"text": "card"}))
        assert await desk.output(sent) == {"found": "card!", "on_loop": False}
    assert await desk.breaks_after(sent) == []


class Recorded(Agent):
    """Notes its hooks in order."""

    order: ClassVar[list[str]] = []

    async def on_start(self, ctx: AgentContext) -> None:
        """Begin."""
        self.order.append(f"start {ctx.agent_id} {ctx.settings['tone']}")

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Take the message."""
        self.order.append(f"message {message.input['n']} {message.workflow_id} {message.attempt} {message.sender}")
        return "of on_message"

    async def on_plan(self, ctx: HandlerContext, plan: Plan) -> Any:
        """Do the step."""
        self.order.append(f"plan {plan.workflow} {plan.state} {plan.input['n']}")
        return {"settings": dict(ctx.settings), "message": ctx.message.id}

    async def on_finish(self) -> None:
        """End."""
        self.order.append("finish")


async def test_hooks_run_in_their_order(mesh: MemoryTransport, desk: Desk) -> None:
    """`on_start` before the first message, `on_message` then `on_plan` for each, `on_finish` at the end."""
    Recorded.order.clear()
    async with hosted(mesh, class_agent(Recorded, tone="warm")):
        sent = await desk.send(step("worker", {"n": 7}))
        assert await desk.output(sent) == {"settings": {"tone": "warm"}, "message": sent.envelope.id}
    assert Recorded.order == ["start worker warm", "message 7 run-0 1 planner", "plan support@1.0.0 work 7", "finish"]


class Blocking:
    """A plain class whose hooks all block."""

    def on_start(self, ctx: AgentContext) -> None:
        """Remember the thread."""
        self.started = threading.get_ident()

    def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Tell whether the start was elsewhere."""
        return {"start_elsewhere": self.started != threading.main_thread().ident, "input": message.input}


async def test_a_plain_class_with_blocking_hooks_is_hosted(mesh: MemoryTransport, desk: Desk) -> None:
    """Without `on_plan` the output is `on_message`'s; no hook runs on the loop."""
    async with hosted(mesh, class_agent(Blocking)):
        sent = await desk.send(step("worker", {"a": 1}))
        assert await desk.output(sent) == {"start_elsewhere": True, "input": {"a": 1}}


async def test_an_agent_keeps_its_state_between_messages(mesh: MemoryTransport, desk: Desk) -> None:
    """One instance takes all messages of a process."""

    class Counting(Agent):
        def __init__(self) -> None:
            self.count = 0

        async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
            self.count += 1
            return self.count

    async with hosted(mesh, class_agent(Counting)):
        outputs = [payload_as(await desk.ask("worker", index=n), StepCompleted).output for n in range(3)]
    assert outputs == [1, 2, 3]


async def test_the_result_names_the_tool_results_it_is_made_of(mesh: MemoryTransport, desk: Desk) -> None:
    """From the run's last envelope every result that led to it is reached by hash."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        first = await ctx.call_tool("double", {"n": 2})
        return await ctx.call_tool("double", n=first)

    executor = FakeExecutor(mesh, {"double": lambda asked: asked["n"] * 2})
    async with hosted(mesh, function_agent(work)), executor.running():
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == 8
        result = await desk.result(sent)
    answers = [unseal(each.body, each.subject) for each in await desk.stored("AF_AUDIT", "tools.results.>")]
    assert result.envelope.causes == (sent.ref, *(answer.ref for answer in answers))
    assert [call.envelope.chain_seq for call in await desk.calls()] == [0, 1]
    assert result.envelope.chain_seq == 2
    assert await desk.breaks_after(sent) == []


async def test_concurrent_calls_take_their_places_in_the_order_of_asking(mesh: MemoryTransport, desk: Desk) -> None:
    """`gather` of several calls: answered in any order, recorded in one."""
    release = asyncio.Event()

    async def slow(asked: Input) -> Any:
        await release.wait()
        return asked["n"]

    def quick_one(asked: Input) -> Any:
        release.set()
        return asked["n"]

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return await asyncio.gather(*(ctx.call_tool("quick" if n == 3 else "slow", n=n) for n in range(4)))

    executor = FakeExecutor(mesh, {"slow": slow, "quick": quick_one})
    async with hosted(mesh, function_agent(work)), executor.running():
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == [0, 1, 2, 3]
    assert [payload_as(call, ToolRequested).input["n"] for call in await desk.calls()] == [0, 1, 2, 3]
    assert await desk.breaks_after(sent) == []


async def test_tools_and_outputs_larger_than_an_envelope(mesh: MemoryTransport, desk: Desk) -> None:
    """Input, tool output and step output above the inline limit all go by reference."""
    big = "x" * 300_000

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return await ctx.call_tool("echo", text=big)

    objects = await mesh.objects(ARTIFACTS)

    async def answer() -> None:
        await until(desk.calls)
        call = (await desk.calls())[0]
        asked = await artifacts.check_out(objects, call.envelope)
        assert isinstance(asked, ToolRequested)
        done = ToolCompleted(asked.input["text"])
        sealed = tool_result(call, done)
        await artifacts.keep(objects, sealed, done)
        await store(desk.mesh, sealed, expect=0)

    async with hosted(mesh, function_agent(work)):
        sent = await desk.send(step("worker"))
        await answer()
        result = await desk.result(sent)
    assert await artifacts.check_out(objects, result.envelope) == StepCompleted(big)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Failure("card.unknown", "LookupError", "no such card", "tool", retryable=False),
            Failure("card.unknown", "StepError", "tool refund failed: no such card", "tool", retryable=False),
        ),
        (
            Failure("policy.denied", "Denied", "not allowed", "agent"),
            Failure("policy.denied", "StepError", "tool refund failed: not allowed", "agent"),
        ),
    ],
)
async def test_a_failed_tool_fails_the_step_with_its_code_and_blame(
    error: Failure, expected: Failure, mesh: MemoryTransport, desk: Desk
) -> None:
    """Unless the handler catches it."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return await ctx.call_tool("refund")

    executor = FakeExecutor(mesh, {"refund": lambda asked: error})
    async with hosted(mesh, function_agent(work)), executor.running():
        sent = await desk.send(step("worker"))
        assert await desk.failure(sent) == expected
        result = await desk.result(sent)
    assert len(result.envelope.causes) == 2
    assert await desk.breaks_after(sent) == []


async def test_a_handler_may_catch_a_failed_tool(mesh: MemoryTransport, desk: Desk) -> None:
    """The failure is an ordinary exception with code and blame."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        try:
            await ctx.call_tool("refund")
        except StepError as error:
            return [error.error_code, error.blame, await ctx.call_tool("note")]

    failure = Failure("refund.closed", "E", "closed", "tool")
    executor = FakeExecutor(mesh, {"refund": lambda asked: failure, "note": lambda asked: "noted"})
    async with hosted(mesh, function_agent(work)), executor.running():
        assert await desk.output(await desk.send(step("worker"))) == ["refund.closed", "tool", "noted"]


class Raising:
    """An async or a blocking handler that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def asynchronous(self, ctx: HandlerContext, input: Input) -> Any:
        """Raise on the loop."""
        raise self.error

    def blocking(self, ctx: HandlerContext, input: Input) -> Any:
        """Raise in a thread."""
        raise self.error


@pytest.mark.parametrize("way", ["asynchronous", "blocking"])
@pytest.mark.parametrize(
    ("error", "code", "kind", "blame"),
    [
        (StepError("no card", blame="input", code="card.missing"), "card.missing", "StepError", "input"),
        (StepError("no idea", blame="model"), "step.error", "StepError", "model"),
        (KeyError("name"), "agent.error", "KeyError", "agent"),
        (SystemExit(1), "agent.error", "SystemExit", "agent"),
        (KeyboardInterrupt(), "agent.error", "KeyboardInterrupt", "agent"),
        (asyncio.CancelledError(), "agent.error", "CancelledError", "agent"),
        (MemoryError(), "agent.error", "MemoryError", "agent"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
async def test_whatever_a_handler_raises_fails_its_step_and_nothing_else(
    way: str, error: BaseException, code: str, kind: str, blame: str, mesh: MemoryTransport, desk: Desk
) -> None:
    """The process lives, other agents go on, and the planner reads code, type and blame."""

    async def fine(ctx: HandlerContext, input: Input) -> Any:
        return "fine"

    agents = function_agent(getattr(Raising(error), way)), function_agent(fine, "other")
    async with hosted(mesh, *agents) as process:
        failure = await desk.failure(await desk.send(step("worker")))
        assert (failure.code, failure.type, failure.blame) == (code, kind, blame)
        assert await desk.output(await desk.send(step("other", index=1))) == "fine"
        assert not process.task.done()


@pytest.mark.parametrize("output", [{1, 2}, float("nan"), {1: 2}, b"x", NotImplemented], ids=repr)
async def test_an_output_that_is_no_json_value_fails_the_step(output: Any, mesh: MemoryTransport, desk: Desk) -> None:
    """Nothing is guessed: the agent is to be corrected."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return output

    async with hosted(mesh, function_agent(work)):
        failure = await desk.failure(await desk.send(step("worker")))
    assert (failure.code, failure.blame) == ("agent.output_invalid", "agent")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("search", {"n": float("inf")}), "tool.call_invalid"), (("no such tool",), "tool.call_invalid")],
    ids=["input", "name"],
)
async def test_a_call_that_cannot_be_sent_is_the_agents_fault_and_takes_no_place(
    arguments: tuple[Any, ...], code: str, mesh: MemoryTransport, desk: Desk
) -> None:
    """It is refused before it is recorded; the handler may go on."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        try:
            await ctx.call_tool(*arguments)
        except StepError as error:
            return [error.error_code, error.blame, await ctx.call_tool("note")]

    executor = FakeExecutor(mesh, {"note": lambda asked: "noted"})
    async with hosted(mesh, function_agent(work)), executor.running():
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == [code, "agent", "noted"]
    assert await desk.breaks_after(sent) == []


async def test_call_tool_blocking_on_the_loop_is_refused(mesh: MemoryTransport, desk: Desk) -> None:
    """It would wait for itself for ever."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return ctx.call_tool_blocking("search")

    async with hosted(mesh, function_agent(work)):
        failure = await desk.failure(await desk.send(step("worker")))
    assert failure.code == "agent.blocks_the_loop"
    assert await desk.calls() == []


async def test_one_slow_agent_does_not_starve_another(mesh: MemoryTransport, desk: Desk) -> None:
    """All slots of one are taken, by coroutines and threads; the other answers as if it were alone."""
    release = threading.Event()

    def blocking(ctx: HandlerContext, input: Input) -> Any:
        return release.wait(30)

    async def fine(ctx: HandlerContext, input: Input) -> Any:
        return "fine"

    slow = function_agent(blocking, "slow", concurrency=40)
    async with hosted(mesh, slow, function_agent(fine, "other")):
        waiting = [await desk.send(step("slow", index=n)) for n in range(40)]
        outputs = [await desk.output(await desk.send(step("other", index=100 + n))) for n in range(5)]
        assert [await desk.find(each) for each in waiting] == [None] * 40
        release.set()
        for each in waiting:
            assert await desk.output(each) is True
    assert outputs == ["fine"] * 5


async def test_no_more_messages_are_in_hand_than_the_concurrency(mesh: MemoryTransport, desk: Desk) -> None:
    """Over all processes that host the agent, not in each."""
    now, most = 0, 0

    async def work(ctx: HandlerContext, input: Input) -> Any:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1

    agents = [function_agent(work, concurrency=3) for _ in range(2)]
    async with hosted(mesh, agents[0], name="a"), hosted(mesh, agents[1], name="b"):
        for sent in [await desk.send(step("worker", index=n)) for n in range(20)]:
            await desk.output(sent)
    assert most == 3


async def test_what_is_hosted_is_declared_and_alive(mesh: MemoryTransport, desk: Desk) -> None:
    """`AF_CONFIG` lists the agent for ever, `AF_REGISTRY` the process while it lives."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return None

    config, registry = await mesh.bucket(CONFIG), await mesh.bucket(REGISTRY)
    async with hosted(mesh, function_agent(work, concurrency=5), name="inc1"):
        await desk.ask("worker")
        declared = await config.get(agent_key("worker"))
        assert declared is not None
        assert msgspec.json.decode(declared.value, type=AgentDeclaration) == AgentDeclaration("worker", "", 5)
        alive = [msgspec.json.decode(each.value, type=Heartbeat) for each in await registry.entries()]
        assert [(each.kind, each.id, each.incarnation) for each in alive] == [
            ("agent", "worker", "inc1"),
            ("runtime", "runtime", "inc1"),
        ]
        assert alive[1].detail == {"agents": ["worker"]}
    assert await registry.entries() == []
    async with hosted(mesh, function_agent(work, concurrency=5), name="inc2"):
        await desk.ask("worker", index=1)
    again = await config.get(agent_key("worker"))
    assert again is not None
    assert again.revision == declared.revision


async def lives(desk: Desk, agent_id: str = "worker") -> list[tuple[str, str]]:
    """State and detail of each lifecycle event of an agent."""
    stored = await desk.stored("AF_AGENTS", agent_out(agent_id))
    told = [payload_as(unseal(each.body, each.subject), Lifecycle) for each in stored]
    return [(each.state, each.detail) for each in told]


async def test_the_lifecycle_is_told(mesh: MemoryTransport, desk: Desk) -> None:
    """Started and stopped, in one chain of the incarnation."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return None

    async with hosted(mesh, function_agent(work)):
        await desk.ask("worker")
        assert await lives(desk) == [("started", "")]
    assert await lives(desk) == [("started", ""), ("stopped", "")]


@pytest.mark.parametrize("error", [RuntimeError("no model"), SystemExit("no model")], ids=repr)
async def test_an_agent_that_cannot_start_fails_alone_and_is_started_again(
    error: BaseException, mesh: MemoryTransport, desk: Desk
) -> None:
    """A new instance is made for each try; messages wait; other agents work meanwhile."""
    made: list[object] = []

    class Late(Agent):
        async def on_start(self, ctx: AgentContext) -> None:
            made.append(self)
            if len(made) < 3:
                raise error

        async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
            return len(made)

    async def fine(ctx: HandlerContext, input: Input) -> Any:
        return "fine"

    async with hosted(mesh, class_agent(Late), function_agent(fine, "other")):
        sent = await desk.send(step("worker"))
        assert await desk.output(await desk.send(step("other", index=1))) == "fine"
        assert await desk.output(sent) == 3
    assert len(set(map(id, made))) == 3
    kind = type(error).__name__
    assert await lives(desk) == [
        ("failed", f"on_start: {kind}: no model"),
        ("failed", f"on_start: {kind}: no model"),
        ("started", ""),
        ("stopped", ""),
    ]


async def test_an_agent_whose_consumer_breaks_is_started_again(
    mesh: MemoryTransport, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What brings its messages failed: told, and mended by a new life."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return "done"

    lost = iter([ConnectionError("consumer gone")])
    async with hosted(mesh, function_agent(work)) as process:
        consume = process.wire._consume

        async def failing(spec: Any) -> Any:
            for error in lost:
                raise error
            return await consume(spec)

        monkeypatch.setattr(process.wire, "_consume", failing)
        assert payload_as(await desk.ask("worker"), StepCompleted).output == "done"
    assert [state for state, _ in await lives(desk)] == ["started", "failed", "started", "stopped"]


async def test_a_process_is_ready_only_while_each_of_its_agents_works(mesh: MemoryTransport, desk: Desk) -> None:
    """One that does not start, or broke, keeps it from being ready, and is named; its restart mends that."""
    held, works = asyncio.Event(), asyncio.Event()

    class Slow(Agent):
        async def on_start(self, ctx: AgentContext) -> None:
            if not works.is_set():
                await held.wait()
                raise RuntimeError("no model")

        async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
            return "done"

    async def fine(ctx: HandlerContext, input: Input) -> Any:
        return "fine"

    async with hosted(mesh, class_agent(Slow), function_agent(fine, "other")) as process:

        def said(agent_id: str) -> str:
            """What the agent's check says: `ok`, a code, or `none` where there is no check."""
            check = process.host.health.report().checks.get(f"agent:{agent_id}")
            return "none" if check is None else check.code or "ok"

        await until(lambda: said("other") == "ok", seconds=30.0)
        assert (said("worker"), process.host.health.report().ready) == ("agent.starting", False)
        held.set()
        await until(lambda: said("worker") == "agent.failed", seconds=30.0)
        works.set()
        await until(lambda: said("worker") == "ok", seconds=30.0)
        assert process.host.health.report().ready
    assert (said("worker"), said("other")) == ("agent.stopped", "agent.stopped")


async def test_a_consumer_that_breaks_shows_in_the_agents_check(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stays registered, but it is not ready while the agent cannot attach."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return "done"

    async with hosted(mesh, function_agent(work), settings=quick(restart_delay=60.0)) as process:

        async def failing(spec: Any) -> Any:
            raise ConnectionError("consumer gone")

        monkeypatch.setattr(process.wire, "_consume", failing)

        def code() -> str:
            """What the check says."""
            check = process.host.health.report().checks.get("agent:worker")
            return check.code if check else "none"

        await until(lambda: code() == "agent.failed", seconds=30.0)
        assert not process.host.health.report().ready


async def test_a_hook_that_fails_at_the_end_does_not_keep_the_process(mesh: MemoryTransport, desk: Desk) -> None:
    """It is logged; the agent is stopped all the same."""

    class Sulking(Agent):
        async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
            return "done"

        async def on_finish(self) -> None:
            raise SystemExit(7)

    async with hosted(mesh, class_agent(Sulking)):
        await desk.ask("worker")
    assert (await lives(desk))[-1] == ("stopped", "")


async def test_a_mesh_that_was_not_set_up_is_refused() -> None:
    """The streams that are missing are named."""

    async def work(ctx: HandlerContext, input: Input) -> Any:
        return None

    async with memory_mesh([]) as empty:
        with pytest.raises(NotStored, match="AF_AGENTS, AF_AUDIT, AF_MESSAGES, AF_DEAD"):
            async with hosted(empty, function_agent(work), settings=quick()) as process:
                await process.task
