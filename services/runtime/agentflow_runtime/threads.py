"""Blocking handlers: each call runs in a daemon thread of its own.

Not a pool: a pool shared by all agents lets one slow agent starve the others, and Python waits for the threads of a
pool before it exits, so a handler that hangs would keep a stopped process alive. A thread costs some 50 µs to start.
A thread cannot be killed: one whose message ran out of time goes on until its handler returns, and its worker slot
stays taken until then (`Slots.leave`).
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any


class BlockingCall:
    """One call of a blocking function."""

    def __init__(self, function: Callable[..., Any], *args: Any, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._function, self._args = function, args
        self._value: Any = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the thread is; waiting for it never raises what the function raised."""
        threading.Thread(target=context.run, args=(self._body,), name=name, daemon=True).start()

    def _body(self) -> None:
        try:
            self._value = self._function(*self._args)
        except BaseException as error:  # noqa: BLE001 - a thread has no caller; who waits for `result` gets it
            self._error = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def result(self) -> Any:
        """What the function returned or raised; cancelling the wait leaves the thread running."""
        await asyncio.shield(self.ended)
        if self._error is not None:
            raise self._error
        return self._value
