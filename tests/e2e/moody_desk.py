"""An agent that kills its process as long as a file is not there."""

import os
import signal
from pathlib import Path
from typing import Any

from agentflow.agent import Agent, AgentMessage, HandlerContext


class Moody(Agent):
    """Dies at every message until somebody has put things right; then it leaves a line."""

    id = "moody"

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """Die, or note the message."""
        folder = Path(ctx.settings["folder"])
        if not (folder / "mended").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        with (folder / "done.txt").open("a") as done:
            done.write(message.id + "\n")
        return {"done": True}
