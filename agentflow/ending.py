"""Ending tasks for certain.

A cancellation can be lost: before Python 3.12, `asyncio.wait_for` swallows one that comes in the very moment its inner
future is done (bpo-42130), and every request of the NATS client waits in one. Whoever cancels once and then waits may
wait for ever; here it is done again.
"""

import asyncio
from typing import Any

PATIENCE = 5.0
"""Seconds a cancelled task has to clean up before it is cancelled again."""


async def end(*tasks: asyncio.Task[Any], patience: float = PATIENCE) -> None:
    """Cancel tasks and return when all of them have ended; what they return or raise is dropped.

    `patience` is in seconds. A task that ended before is left as it is.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=patience)
    await asyncio.gather(*tasks, return_exceptions=True)
