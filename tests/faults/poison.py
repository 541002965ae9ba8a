"""An agent that some messages kill, process and all, and one that says in which process it works."""

import os
import signal
from pathlib import Path
from typing import Any

from agentflow.agent import Agent, AgentMessage, HandlerContext
from tests.e2e.ledger_desk import Clerk

POISON = """
name: poison
version: 1.0.0
planner: fsm
timeout: 10m
initial_state: taste
final_states: [done]
states:
  taste: {agent: taster, input: {kills: "${input.kills}"}, timeout: 5m, on_success: done}
output: {tasted: "${outputs.taste.tasted}"}
"""


class Taster(Agent):
    """Dies of what kills."""

    id = "taster"

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """SIGKILL, as the kernel sends it when memory runs out."""
        if message.input["kills"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"tasted": True}


class TellingClerk(Clerk):
    """The desk's clerk, who writes down where it works."""

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """The process id goes beside the file of runs."""
        Path(ctx.settings["runs"]).with_suffix(".pid").write_text(str(os.getpid()))
        return await super().on_message(ctx, message)
