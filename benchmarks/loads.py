"""Putting work on a mesh, and timing it: so many in flight, for so many seconds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

One = Callable[[], Awaitable[object]]
"""Does one piece of work from beginning to end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done in a window of time."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    """Seconds each piece took, of those that ended within the window."""

    @property
    def rate(self) -> float:
        """Pieces a second."""
        return len(self.latencies) / self.seconds


async def closed_loop(one: One, *, in_flight: int, seconds: float, warm_up: float = 0.5) -> Sample:
    """Keep `in_flight` pieces going for `seconds`, after `warm_up` seconds that do not count.

    What was begun is seen to its end, but counts only when it ended within the window. Where a machine is so slow that
    nothing did, the window is as long as it took to end what was begun.
    """
    loop = asyncio.get_running_loop()
    opens = loop.time() + warm_up
    closes = opens + seconds
    ends: list[tuple[float, float]] = []

    async def keep_going() -> None:
        while (begun := loop.time()) < closes:
            await one()
            ends.append((loop.time(), loop.time() - begun))

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(keep_going())
    within = [took for ended, took in ends if opens <= ended <= closes]
    return Sample(seconds, within) if within else Sample(max(ends)[0] - opens, [took for _, took in ends])


async def all_at_once(one: One, count: int) -> float:
    """Seconds until `count` pieces that are begun together have all ended."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_ended(one))
    return loop.time() - begun


async def _ended(one: One) -> None:
    await one()


class Arrivals:
    """Pieces of work in flight by their id, each waiting for the word that it has ended."""

    PATIENCE = 60.0
    """Seconds until a piece that does not end stops the benchmark."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def expect(self, id: str) -> "asyncio.Future[None]":
        """A future that is done when `arrived` is told the id; ask before the work is begun."""
        self._waiting[id] = asyncio.get_running_loop().create_future()
        return self._waiting[id]

    def arrived(self, id: str) -> None:
        """A piece has ended; one nobody waits for is none of ours."""
        waiting = self._waiting.pop(id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def wait(self, waiting: "asyncio.Future[None]") -> None:
        """Wait for one; raises `TimeoutError` when it does not end."""
        async with asyncio.timeout(self.PATIENCE):
            await waiting
