"""What an agent's author writes: a class with hooks, or a function.

    class Greeter(Agent):
        id = "greeter"

        async def on_message(self, ctx, message):
            return {"greeting": f"Hello {message.input['name']}"}

    @agent("shouter")
    async def shout(ctx, input):
        return {"text": input["text"].upper()}

Hooks run in the order `on_start`, then for each message `on_message` and, where the message is a step of a plan and the
agent defines it, `on_plan`, and at the end `on_finish`. The step's output is what `on_plan` returns, or `on_message`
where there is no `on_plan`. Blocking handlers (plain `def`) run in a thread. A raised `StepError` fails the step with
its code and blame; any other exception fails it as the agent's.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol, runtime_checkable

Handler = Callable[["HandlerContext", dict[str, Any]], Awaitable[Any] | Any]
"""A function agent: context and input in, JSON value out."""


@dataclass(frozen=True, slots=True)
class AgentMessage:
    """A request as an agent sees it."""

    id: str
    """The envelope's id."""
    input: dict[str, Any]
    sender: str
    workflow_id: str
    """Empty outside a run."""
    attempt: int
    """From 1; the planner's attempt, not the delivery."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The place in a plan a message is a step of."""

    workflow: str
    """`name@version`."""
    state: str
    deadline: datetime
    input: dict[str, Any]


class HandlerContext(Protocol):
    """What a handler may do while it handles one message; every effect is recorded and replayed from the record."""

    @property
    def message(self) -> AgentMessage:
        """The message in hand."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The agent's settings from the project file."""
        ...

    @property
    def log(self) -> Any:
        """A structlog logger with the message's ids bound."""
        ...

    async def call_tool(self, tool: str, input: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
        """Call a tool through the executor and return its output.

        Recorded: when the handler runs again after a crash, the recorded result is returned at once. Raises `StepError`
        (blame `tool`) when the call failed, and `NondeterminismError` when the call differs from the first time's.
        """
        ...

    def call_tool_blocking(self, tool: str, input: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
        """The same for a blocking handler, which runs in a thread."""
        ...


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What `on_start` gets."""

    agent_id: str
    settings: Mapping[str, Any]
    log: Any


class Agent:
    """Base class of agents; override the hooks you need. `on_plan` is looked up only where a subclass defines it."""

    id: ClassVar[str] = ""
    description: ClassVar[str] = ""
    concurrency: ClassVar[int] = 8
    """Messages handled at once, over all processes that host the agent."""

    async def on_start(self, ctx: AgentContext) -> None:
        """Once, before the first message."""

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Each message. The return value is the output."""
        return None

    async def on_finish(self) -> None:
        """Once, after the last message, at a graceful end."""


@runtime_checkable
class AgentRuntime(Protocol):
    """The lifecycle a host drives, in this order: start, message, plan, finish (requirement AF-3-03)."""

    async def on_start(self, ctx: AgentContext) -> None:
        """Once, before the first message."""
        ...

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Each message."""
        ...

    async def on_plan(self, ctx: HandlerContext, plan: Plan) -> Any:
        """Each message that is a step of a plan."""
        ...

    async def on_finish(self) -> None:
        """Once, at a graceful end."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionAgent:
    """A function with the facts a host needs."""

    id: str
    handler: Handler
    description: str
    concurrency: int


def agent(id: str, *, concurrency: int = 8) -> Callable[[Handler], FunctionAgent]:
    """Make an agent of a function `(ctx, input) -> output`, async or blocking."""

    def wrap(handler: Handler) -> FunctionAgent:
        return FunctionAgent(id, handler, (handler.__doc__ or "").strip(), concurrency)

    return wrap
