"""Agents to be loaded by name, good and bad ones."""

from typing import Any

from agentflow.agent import Agent, AgentContext, AgentMessage, HandlerContext, Plan, agent


class Greeter(Agent):
    """Greets by name."""

    id = "greeter"
    concurrency = 3

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Greet."""
        return {"greeting": f"Hello {message.input['name']}"}


class Described(Greeter):
    """The docstring is not what is told."""

    id = "described"
    description = "Told instead"


@agent("shouter", concurrency=2)
async def shout(ctx: HandlerContext, input: dict[str, Any]) -> Any:
    """Shouts."""
    return {"text": input["text"].upper()}


def whisper(ctx: HandlerContext, input: dict[str, Any]) -> Any:
    """Whispers."""
    return {"text": input["text"].lower()}


class Plain:
    """Fulfils the protocol without deriving from anything."""

    id = "plain"

    async def on_start(self, ctx: AgentContext) -> None:
        """Begin."""

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        """Take note."""
        return None

    async def on_plan(self, ctx: HandlerContext, plan: Plan) -> Any:
        """Follow the plan."""
        return plan.state

    async def on_finish(self) -> None:
        """End."""


class Holder:
    """A name inside a name."""

    Inner = Greeter


class Nameless(Agent):
    """Has no id of its own."""


class Deaf:
    """Takes no messages."""

    id = "deaf"


class WrongHook(Agent):
    """Its hook takes one argument too few."""

    id = "wrong"

    async def on_message(self, message: AgentMessage) -> Any:  # type: ignore[override]  # that is what is wrong with it
        """Never called."""


class NotAHook(Agent):
    """Its hook cannot be called."""

    id = "wrong"
    on_plan = "later"


class Demanding(Agent):
    """Cannot be made without arguments."""

    id = "demanding"

    def __init__(self, model: str) -> None:
        self.model = model


class Leaving(Agent):
    """Ends the process when it is made."""

    id = "leaving"

    def __init__(self) -> None:
        raise SystemExit(3)


class BadId(Agent):
    """Its id could not be part of a subject."""

    id = "no.dots"


class LongId(Agent):
    """Its id leaves no room for the name of a consumer."""

    id = "a" * 60


class Greedy(Agent):
    """Wants more at once than allowed."""

    id = "greedy"
    concurrency = 100_000


def one_argument(ctx: HandlerContext) -> Any:
    """Takes no input."""


NUMBER = 3
made: list[object] = []


class Counted(Agent):
    """Notes each instance."""

    id = "counted"

    def __init__(self) -> None:
        made.append(self)
