"""Ctrl-C and SIGTERM as something to wait for, so that a command can stop what it runs in order."""

import asyncio
import signal
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from agentflow.cli.output import note
from agentflow.ending import end

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Takes the two signals over while a block runs; a second one, or a third, changes nothing: stopping has deadlines."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._signal: signal.Signals | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for each in SIGNALS:
            loop.add_signal_handler(each, self._take, each)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        loop = asyncio.get_running_loop()
        for each in SIGNALS:
            loop.remove_signal_handler(each)

    def _take(self, which: signal.Signals) -> None:
        if self._came.is_set():
            note("still stopping: services get a few seconds to finish what they have in hand")
        self._signal = self._signal or which
        self._came.set()

    @property
    def exit_code(self) -> int:
        """128 and the signal that came first."""
        return 128 + (self._signal or signal.SIGINT)

    async def wait(self) -> None:
        """Return when a signal has come."""
        await self._came.wait()

    async def unless_interrupted(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do the work to its end and return True; where a signal comes first, cancel it and return False."""
        doing = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self._came.wait())
        try:
            await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            await end(doing, waiting)
