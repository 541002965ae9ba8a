"""What handlers leave behind: a thread that still runs, a task that ignored its cancellation, their message done with.

They cannot be killed, so they keep the slot of the worker pool they ran in until they end: the bound on what one agent
does at once stays honest, and a handler that hangs does not pile up threads without end. Other processes that host the
agent take its messages meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from agentflow.mesh.transport import Consumer, Delivery


class Leftovers:
    """The slots of one agent that are taken without a message."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def keep(self, ending: asyncio.Future[Any]) -> None:
        """Count `ending` until it is done; nothing when it is."""
        if not ending.done():
            self._running.add(ending)
            ending.add_done_callback(self._running.discard)


class CountingConsumer:
    """A consumer that asks for as many fewer messages as there are leftovers."""

    def __init__(self, consumer: Consumer, leftovers: Leftovers) -> None:
        self._consumer, self._leftovers = consumer, leftovers

    def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """Deliveries as they come, for the slots that are really free."""
        return self._consumer.deliveries(lambda: max(0, slots() - len(self._leftovers)))

    async def close(self) -> None:
        """Ask for nothing more."""
        await self._consumer.close()
