"""What an agent's author writes: a class with hooks, or a function."""

from typing import Any, cast

import pytest

from agentflow.agent import Agent, AgentMessage, AgentRuntime, FunctionAgent, HandlerContext, Plan, agent


class Greeter(Agent):
    """Says hello."""

    id = "greeter"
    concurrency = 2

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> Any:
        return {"greeting": f"Hello {message.input['name']}"}


class Planned(Greeter):
    """Knows that it is a step."""

    async def on_plan(self, ctx: HandlerContext, plan: Plan) -> Any:
        return plan.state


async def test_an_agent_inherits_the_hooks_it_does_not_need() -> None:
    """They do nothing; a message nobody handles has no output."""
    plain, nothing = Agent(), cast(Any, None)

    await plain.on_start(nothing)
    output = await plain.on_message(nothing, nothing)
    await plain.on_finish()

    assert output is None


def test_facts_about_an_agent_are_on_its_class() -> None:
    """So that a host knows them before it makes one."""
    assert ("greeter", 2, "") == (Greeter.id, Greeter.concurrency, Greeter.description)
    assert ("", 8) == (Agent.id, Agent.concurrency)


def test_the_lifecycle_is_complete_only_with_a_plan_hook() -> None:
    """`on_plan` is looked up only where a subclass defines it."""
    assert isinstance(Planned(), AgentRuntime)
    assert not isinstance(Greeter(), AgentRuntime)


def test_a_function_becomes_an_agent() -> None:
    """With its id, its docstring and its concurrency; the function itself stays as it is."""

    async def shout(ctx: HandlerContext, input: dict[str, Any]) -> Any:
        """Say it louder."""
        return input["text"].upper()

    made = agent("shouter", concurrency=3)(shout)

    assert FunctionAgent("shouter", shout, "Say it louder.", 3) == made


def test_a_function_without_a_docstring_has_no_description() -> None:
    """And the default concurrency."""

    @agent("quiet")
    def quiet(ctx: HandlerContext, input: dict[str, Any]) -> Any:
        return input

    assert ("", 8) == (quiet.description, quiet.concurrency)


def test_messages_are_values() -> None:
    """Two of the same facts are the same, and none can be changed."""
    message = AgentMessage("id", {"a": 1}, "planner", "run-1", 1)

    assert message == AgentMessage("id", {"a": 1}, "planner", "run-1", 1)
    with pytest.raises(AttributeError):
        setattr(message, message.__slots__[0], "x")
