"""An agent as the runtime drives it: one shape for classes, plain objects and functions.

The hooks keep the order of `agentflow.agent`: `on_start`, then for each message `on_message` and, where the agent
defines it, `on_plan`, and `on_finish` at the end.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.agent import AgentMessage, FunctionAgent, HandlerContext
from agentflow.registry import AgentDeclaration

Hook = Callable[..., Any]
"""A method or function, blocking or asynchronous."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one instance; None where it defines none."""

    on_message: Hook
    on_plan: Hook | None = None
    on_start: Hook | None = None
    on_finish: Hook | None = None


@dataclass(frozen=True, slots=True)
class HostedAgent:
    """An agent that was found and checked; `create` makes an instance, anew after each failure."""

    id: str
    create: Callable[[], Hooks]
    description: str = ""
    concurrency: int = 8
    """Messages it handles at once, over all processes."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def declaration(self) -> AgentDeclaration:
        """How `AF_CONFIG` lists it."""
        return AgentDeclaration(self.id, self.description, self.concurrency)

    @property
    def consumer(self) -> str:
        """The name of its durable consumer on `AF_AGENTS`."""
        return consumer_name(self.id)


def consumer_name(agent_id: str) -> str:
    """The durable consumer of an agent."""
    return f"agent-{agent_id}"


def hooks_of(instance: object) -> Hooks:
    """The hooks of an instance of an agent class."""
    found = {name: getattr(instance, name, None) for name in ("on_message", "on_plan", "on_start", "on_finish")}
    return Hooks(**{name: hook for name, hook in found.items() if hook is not None})


def hooks_of_function(agent: FunctionAgent) -> Hooks:
    """A function agent as hooks: it takes the input where a class takes the message."""
    handler = agent.handler

    def on_message(ctx: HandlerContext, message: AgentMessage) -> Any:
        return handler(ctx, message.input)

    async def on_message_async(ctx: HandlerContext, message: AgentMessage) -> Any:
        return await handler(ctx, message.input)

    return Hooks(on_message_async if is_async(handler) else on_message)


def is_async(hook: Hook) -> bool:
    """Whether calling the hook returns a coroutine at once, also for objects with an async `__call__`."""
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)
