"""Tools and an agent for the detector's tests with real processes: they say what they would touch, and touch nothing."""

from typing import Any

from agentflow.agent import Agent, AgentMessage, HandlerContext
from agentflow.tools import ToolContext, tool


@tool(effect="pure", permissions=["db.write:orders"], timeout=10)
def save(ctx: ToolContext, n: int) -> dict[str, int]:
    """Stands for a write to a database."""
    return {"n": n}


@tool(effect="pure", permissions=["network.http:example.com"], timeout=10)
def post(ctx: ToolContext, n: int) -> dict[str, int]:
    """Stands for something that is sent out."""
    return {"n": n}


@tool(effect="pure", timeout=10)
def lookup(ctx: ToolContext, n: int) -> dict[str, int]:
    """Harmless."""
    return {"n": n}


class Worker(Agent):
    """Calls the tools it is told to, one after the other."""

    id = "worker"
    concurrency = 4

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """`{tools: [...]}` to `{done: n}`."""
        for number, name in enumerate(message.input["tools"]):
            await ctx.call_tool(name, n=number)
        return {"done": len(message.input["tools"])}
