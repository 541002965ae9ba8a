"""Time and waiting in the in-memory broker: a list of what is due, and one place where tasks wait.

There is no background task. Whatever is due happens when somebody looks (`settle`), in the order it was due and with
the time it was due at; whoever waits sets a timer for the next such moment on a loop of its own. So a broker belongs to
no event loop and to no thread: tests may leave one loop and enter another, and a blocking client may share it.

With a clock that is steered (`agentflow.testing.FixedClock`) no timers are set: advancing the clock wakes whoever waits.
"""

import asyncio
import contextlib
import heapq
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from agentflow.clock import Clock

T = TypeVar("T")
Action = Callable[[datetime], None]
"""What happens at a moment; it is told the moment it was due, which may be past."""


@runtime_checkable
class Steered(Protocol):
    """A clock that stands still until a test moves it, and then says so."""

    def now(self) -> datetime:
        """The present time, aware, in UTC."""
        ...

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every move."""
        ...


class Timeline:
    """What is due when, and who waits for something to happen."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.RLock()
        self._due: list[tuple[datetime, int, Action]] = []
        self._noted = 0
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._steered = isinstance(clock, Steered)
        if isinstance(clock, Steered):
            clock.on_advance(self._on_advance)

    def now(self) -> datetime:
        """The clock's time."""
        return self._clock.now()

    def at(self, moment: datetime, action: Action) -> None:
        """Have `action` happen at `moment`; two at the same moment happen in the order they were noted."""
        self._noted += 1
        heapq.heappush(self._due, (moment, self._noted, action))

    @contextlib.contextmanager
    def turn(self) -> Iterator[datetime]:
        """Act on the broker's state, alone, at a moment up to which all that was due has happened; then wake all."""
        with self._lock:
            now = self._settle()
            try:
                yield now
            finally:
                self._ring()

    async def until(self, attempt: Callable[[], T | None], timeout: float | None = None) -> T | None:
        """What `attempt` returns as soon as that is not None, or None after `timeout` seconds of real time.

        It is tried whenever something happened, alone, and on the event loop of the caller.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            with self._lock:
                found = self._try(attempt)
                if found is not None:
                    return found
                ticket: asyncio.Future[None] = loop.create_future()
                self._waiting[ticket] = loop
                pauses = [self._pause(), None if deadline is None else deadline - loop.time()]
            pause = min((pause for pause in pauses if pause is not None), default=None)
            try:
                if deadline is not None and loop.time() >= deadline:
                    return None
                await asyncio.wait({ticket}, timeout=pause)
            finally:
                with self._lock:
                    self._waiting.pop(ticket, None)

    def _try(self, attempt: Callable[[], T | None]) -> T | None:
        self._settle()
        return attempt()

    def _settle(self) -> datetime:
        """Let everything happen that is due by now, including what that makes due."""
        now, happened = self._clock.now(), False
        while self._due and self._due[0][0] <= now:
            moment, _, action = heapq.heappop(self._due)
            action(moment)
            happened = True
        if happened:
            self._ring()
        return now

    def _pause(self) -> float | None:
        """Seconds until something is due, or None when only an event can change anything."""
        if self._steered or not self._due:
            return None
        return max(0.001, (self._due[0][0] - self._clock.now()).total_seconds())

    def _on_advance(self) -> None:
        with self.turn():
            pass

    def _ring(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for ticket, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # its loop was closed while it waited: nobody is there to wake
                loop.call_soon_threadsafe(_wake, ticket)


def _wake(ticket: asyncio.Future[None]) -> None:
    if not ticket.done():
        ticket.set_result(None)
