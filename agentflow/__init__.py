"""agentflow: an event-driven actor mesh for AI agents on NATS JetStream.

What a user needs is here by name. Most of it is imported when it is first asked for (PEP 562), so that
`import agentflow` and the command line stay quick; `agent` is not, because its module has the same name.
"""

import importlib
from typing import TYPE_CHECKING

from agentflow.agent import Agent, agent

if TYPE_CHECKING:
    from agentflow import blocking
    from agentflow.agent import AgentMessage, HandlerContext, Plan
    from agentflow.client import Client
    from agentflow.errors import AgentflowError, RunCancelled, RunFailed, RunTimeout, StepError
    from agentflow.run import Run
    from agentflow.runs import RunEvent, RunState
    from agentflow.tools import CheckResult, ToolContext, tool

__all__ = [
    "Agent",
    "AgentMessage",
    "AgentflowError",
    "CheckResult",
    "Client",
    "HandlerContext",
    "Plan",
    "Run",
    "RunCancelled",
    "RunEvent",
    "RunFailed",
    "RunState",
    "RunTimeout",
    "StepError",
    "ToolContext",
    "agent",
    "blocking",
    "tool",
]

_HOMES = {
    "agentflow.agent": ("AgentMessage", "HandlerContext", "Plan"),
    "agentflow.client": ("Client",),
    "agentflow.errors": ("AgentflowError", "RunCancelled", "RunFailed", "RunTimeout", "StepError"),
    "agentflow.run": ("Run",),
    "agentflow.runs": ("RunEvent", "RunState"),
    "agentflow.tools": ("CheckResult", "ToolContext", "tool"),
}


def __getattr__(name: str) -> object:
    """Import what is asked for, once."""
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        if name == "blocking":
            return importlib.import_module("agentflow.blocking")
        raise AttributeError(f"module 'agentflow' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found
