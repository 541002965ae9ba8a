"""The client for programs without an event loop: the same methods, without `await`.

    with Client.connect() as client:
        print(client.submit("support", {"text": "my card never came"}).result(timeout=60))

Every method delegates to its twin in `agentflow.client` and `agentflow.run`, which runs on an event loop in a thread of
its own; nothing is decided here. Use it from any thread, but not from inside a running event loop.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from agentflow import client as asynchronous
from agentflow import run as asynchronous_run
from agentflow.runs import RunEvent

__all__ = ["Client", "Run"]

P = ParamSpec("P")
R = TypeVar("R")


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentflow-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Run it over there and wait for its result; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def closed(self) -> bool:
        """Whether it was ended."""
        return self._loop.is_closed()

    def close(self) -> None:
        """End the loop and its thread; idempotent."""
        if not self.closed:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class _Twin(Protocol):
    """What stands behind a blocking object: its asynchronous twin, and the loop that runs it."""

    _twin: Any
    _loop: _Loop


T = TypeVar("T", bound=_Twin)


def _blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[T, P], R]:
    """The blocking form of an asynchronous method, with its parameters and its documentation."""

    def call(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.call(method(self._twin, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class Run:
    """A run under its id; see `agentflow.run.Run`."""

    def __init__(self, twin: asynchronous_run.Run, loop: _Loop) -> None:
        self._twin = twin
        self._loop = loop
        self.id = twin.id

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    result = _blocking(asynchronous_run.Run.result)
    state = _blocking(asynchronous_run.Run.state)
    signal = _blocking(asynchronous_run.Run.signal)
    cancel = _blocking(asynchronous_run.Run.cancel)

    def events(self) -> Iterator[RunEvent]:
        """Every message stored about the run, in order, up to and with its end; see `agentflow.run.Run.events`."""
        events = self._twin.events()
        try:
            while (event := self._loop.call(_next(events))) is not None:
                yield event
        finally:
            self._loop.call(_close(events))


def _blocking_run(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, asynchronous_run.Run]],
) -> Callable[Concatenate[T, P], Run]:
    """The same for a method that returns a run."""

    def call(self: T, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        return Run(self._loop.call(method(self._twin, *args, **kwargs)), self._loop)

    functools.update_wrapper(call, method)
    return call


class Client:
    """A connection to a mesh; see `agentflow.client.Client`. Close it, or use it in a `with` block."""

    def __init__(self, twin: asynchronous.Client, loop: _Loop) -> None:
        self._twin = twin
        self._loop = loop

    @classmethod
    def connect(cls, url: str | None = None, *, timeout: float = 10.0) -> Self:
        """Connect; raises `Unreachable` after `timeout` seconds without a broker."""
        loop = _Loop()
        try:
            return cls(loop.call(asynchronous.Client.open(url, timeout=timeout)), loop)
        except BaseException:
            loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and end the connection; idempotent."""
        if not self._loop.closed:
            self._loop.call(self._twin.close())
            self._loop.close()

    apply = _blocking(asynchronous.Client.apply)
    runs = _blocking(asynchronous.Client.runs)
    submit = _blocking_run(asynchronous.Client.submit)

    def run(self, id: str) -> Run:
        """A run by its id; whether there is one is seen when it is asked something."""
        return Run(self._twin.run(id), self._loop)


async def _next(events: AsyncIterator[RunEvent]) -> RunEvent | None:
    return await anext(events, None)


async def _close(events: AsyncIterator[RunEvent]) -> None:
    if isinstance(events, AsyncGenerator):
        await events.aclose()
