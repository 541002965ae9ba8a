"""The agents that are measured: they do next to nothing, and say when they began."""

import asyncio
import os
from pathlib import Path
from typing import Any

from agentflow import HandlerContext, agent
from agentflow.clock import SystemClock

_clock = SystemClock()


async def step(ctx: HandlerContext, input: dict[str, Any]) -> dict[str, Any]:
    """Say when it was begun; wait as long as the input asks, which stands for a call of something slow."""
    began = _clock.now().timestamp()
    if wait := input.get("wait"):
        await asyncio.sleep(wait)
    return {"began": began, "text": input["text"]}


first = agent("first", concurrency=256)(step)
second = agent("second", concurrency=256)(step)
third = agent("third", concurrency=256)(step)


@agent("hanging", concurrency=8)
async def hanging(ctx: HandlerContext, input: dict[str, Any]) -> dict[str, Any]:
    """Write down who began it and hang, the first time; pass, the second: a step whose process is killed in it."""
    if first_time(Path(input["marker"])):
        await asyncio.sleep(120)
    return {"began": _clock.now().timestamp(), "text": input["text"]}


def first_time(marker: Path) -> bool:
    """Whether nobody came here before; the first leaves its process id in the file `marker`."""
    if marker.exists():
        return False
    part = marker.with_suffix(".part")
    part.write_text(str(os.getpid()), "utf-8")
    part.rename(marker)
    return True
