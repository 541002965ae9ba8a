"""Waiting for a condition with a deadline, in place of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL = 0.01


@overload
async def eventually(look: Callable[[], Coroutine[Any, Any, T | None]], what: str = ..., within: float = ...) -> T: ...
@overload
async def eventually(look: Callable[[], T | None], what: str = ..., within: float = ...) -> T: ...
async def eventually(look: Callable[[], Any], what: str = "condition", within: float = 10.0) -> Any:
    """What `look` returns as soon as that is true; fails after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        found = look()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert loop.time() < deadline, f"{what} did not come true within {within} s; last seen: {value!r}"
        await asyncio.sleep(_POLL)


async def stays(look: Callable[[], object], what: str = "condition", during: float = 0.3) -> None:
    """Fail if `look` is untrue at any look during so many seconds: how one shows that something does not happen."""
    loop = asyncio.get_running_loop()
    end = loop.time() + during
    while loop.time() < end:
        assert look(), f"{what} ended"
        await asyncio.sleep(_POLL)
