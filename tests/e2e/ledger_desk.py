"""Agents and tools of the kill tests: every run of a handler and every effect leaves a line in a file."""

import asyncio
import json
from pathlib import Path
from typing import Any, BinaryIO

from agentflow.agent import Agent, AgentMessage, HandlerContext
from agentflow.tools import CheckResult, ToolContext, tool


class Clerk(Agent):
    """Asks the ledger tool to book, and counts how often it was run."""

    id = "clerk"

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """Book once through a tool; the line in `runs` shows how often the handler was run."""
        with Path(ctx.settings["runs"]).open("a") as runs:  # noqa: ASYNC230 - a line in a local file
            runs.write(message.id + "\n")
        await asyncio.sleep(float(ctx.settings.get("pause", 0)))
        booked = await ctx.call_tool("book", amount=message.input["amount"])
        return {"booked": booked["amount"]}


@tool(effect="irreversible", permissions=["fs.append:ledger"], timeout=2)
def book(ctx: ToolContext, amount: int) -> dict[str, Any]:
    """Append one line; it never looks whether the line is there."""
    _append(ctx.files["ledger"], {"call_id": ctx.call_id, "amount": amount})
    return {"amount": amount}


@book.check
def was_booked(ctx: ToolContext, amount: int) -> CheckResult:
    """Whether the ledger has this call's line."""
    ledger = ctx.files["ledger"]
    ledger.seek(0)
    happened = any(json.loads(line)["call_id"] == ctx.call_id for line in ledger)
    return CheckResult(happened=happened, output={"amount": amount})


@tool(effect="idempotent", permissions=["fs.append:notes"], timeout=2)
def note(ctx: ToolContext, text: str) -> dict[str, Any]:
    """Append a note; doing it twice does no harm, so recovery may."""
    _append(ctx.files["notes"], {"call_id": ctx.call_id, "text": text})
    return {"noted": text}


def _append(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line).encode() + b"\n")
    file.flush()
