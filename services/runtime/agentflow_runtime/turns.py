"""One at a time for each key: so that a process never handles the same message twice at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """A lock for each key in use; a key nobody uses costs nothing."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait until nobody else is inside the block with this key."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            self._leave(key)

    def _leave(self, key: str) -> None:
        lock, users = self._locks.pop(key)
        if users > 1:
            self._locks[key] = lock, users - 1

    def __len__(self) -> int:
        return len(self._locks)
