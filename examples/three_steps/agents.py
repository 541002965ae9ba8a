"""The agents of the three steps: functions from input to output."""

from typing import Any

from agentflow import HandlerContext, agent


@agent("tidier")
async def tidy(ctx: HandlerContext, input: dict[str, Any]) -> dict[str, Any]:
    """Take the blanks away that nobody meant."""
    return {"text": " ".join(input["text"].split())}


@agent("counter")
def count(ctx: HandlerContext, input: dict[str, Any]) -> dict[str, Any]:
    """Count the words. Without `async` it runs in a thread."""
    return {"words": len(input["text"].split())}


@agent("greeter")
async def greet(ctx: HandlerContext, input: dict[str, Any]) -> dict[str, Any]:
    """Put it all together."""
    return {"greeting": f"{input['text']} ({input['words']} words)"}
