"""The runtime at work on a mesh in memory: agents of every kind, and what is told about them."""

from typing import Any

from agentflow.agent import Agent, AgentContext, AgentMessage, HandlerContext, Plan
from agentflow.mesh.memory import MemoryTransport
from agentflow.payloads import StepCompleted
from agentflow.schemas import payload_as
from tests.services.runtime.harness import Desk, FakeExecutor, class_agent, function_agent, hosted, step


async def test_a_function_answers_a_step(mesh: MemoryTransport, desk: Desk) -> None:
    """The output of an async function is stored as the step's result."""

    async def greet(ctx: HandlerContext, input: dict[str, Any]) -> Any:
        return {"greeting": f"Hello {input['name']}"}

    async with hosted(mesh, function_agent(greet)):
        result = await desk.ask("worker", {"name": "Ada"})
        assert payload_as(result, StepCompleted).output == {"greeting": "Hello Ada"}


async def test_a_tool_call(mesh: MemoryTransport, desk: Desk) -> None:
    async def look(ctx: HandlerContext, input: dict[str, Any]) -> Any:
        return await ctx.call_tool("search", query=input["text"])

    executor = FakeExecutor(mesh, {"search": lambda input: {"found": input["query"]}})
    async with hosted(mesh, function_agent(look)), executor.running():
        sent = await desk.send(step("worker", {"text": "card"}))
        assert await desk.output(sent) == {"found": "card"}
        assert await desk.breaks_after(sent) == []
        assert executor.times("search") == 1
