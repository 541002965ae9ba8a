"""Running a handler: whatever it does ends as a value, an error, or the end of its time."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentflow_runtime.handling import Ended, bounded, call
from agentflow_runtime.leftovers import Leftovers
from tests.services.runtime.harness import until


async def run(work: Callable[[], Awaitable[Any]], *, seconds: float = 5.0, grace: float = 0.05) -> Ended | None:
    """Run work in bounds."""
    return await bounded(work, Leftovers(), seconds=seconds, grace=grace)


async def test_a_value_is_returned() -> None:
    """The usual end."""

    async def work() -> int:
        return 3

    assert await run(work) == Ended(3)


def leave() -> Any:
    """End the process, a handler thinks."""
    sys.exit(4)


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(4), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("own")]
)
async def test_any_error_is_caught_also_those_that_end_processes(error: BaseException) -> None:
    """`sys.exit` in a handler fails its step, and a cancellation nobody asked for is an error."""

    async def work() -> None:
        raise error

    ended = await run(work)
    assert ended is not None
    assert type(ended.error) is type(error)


async def test_a_handler_that_cancels_itself_ends_with_an_error() -> None:
    """It is not mistaken for the end of its time."""

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(5)

    ended = await run(work)
    assert ended is not None
    assert isinstance(ended.error, asyncio.CancelledError)


async def test_an_inner_time_out_is_the_handlers_own_matter() -> None:
    """`asyncio.timeout` cancels and uncancels the task: not our cancellation."""

    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(5)
        except TimeoutError:
            return "gave up"
        return "never"

    assert await run(work) == Ended("gave up")


async def test_work_that_takes_too_long_is_cancelled_and_may_clean_up() -> None:
    """Nothing is left of it."""
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    assert await run(work, seconds=0.02) is None
    assert cleaned == ["yes"]


async def test_a_value_that_comes_too_late_does_not_count() -> None:
    """A handler may catch its cancellation; its time is over all the same."""

    async def work() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await run(work, seconds=0.02) is None


async def test_work_that_ignores_its_cancellation_keeps_its_slot_until_it_ends() -> None:
    """The bound on what an agent does at once stays honest."""
    leftovers, release = Leftovers(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    assert await bounded(stubborn, leftovers, seconds=0.01, grace=0.01) is None
    assert len(leftovers) == 1
    release.set()
    await until(lambda: len(leftovers) == 0)


async def test_cancelling_from_outside_ends_the_work_too() -> None:
    """A process that drains does not leave handlers running."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    task = asyncio.create_task(run(work))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_blocking_hook_runs_beside_the_loop() -> None:
    """The loop goes on while it blocks."""
    release = threading.Event()

    def hook(value: int) -> int:
        release.wait(10)
        return value + 1

    task = asyncio.create_task(call(hook, 1, leftovers=Leftovers()))
    await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    assert await task == 2


async def test_a_blocking_hook_that_returns_an_awaitable_is_awaited() -> None:
    """A plain function around a coroutine function works too."""

    async def later(value: int) -> int:
        return value + 1

    def hook(value: int) -> Awaitable[int]:
        return later(value)

    assert await call(hook, 1, leftovers=Leftovers()) == 2


async def test_a_blocking_hook_that_is_given_up_keeps_its_slot() -> None:
    """Its thread cannot be killed."""
    leftovers, release = Leftovers(), threading.Event()

    async def work() -> Any:
        return await call(release.wait, 30, leftovers=leftovers)

    assert await bounded(work, leftovers, seconds=0.02, grace=0.5) is None
    assert len(leftovers) == 1
    release.set()
    await until(lambda: len(leftovers) == 0)


async def test_sys_exit_in_a_thread_is_an_error_of_the_hook() -> None:
    """It ends neither the thread's process nor the loop."""

    async def work() -> Any:
        return await call(leave, leftovers=Leftovers())

    ended = await run(work)
    assert ended is not None
    assert isinstance(ended.error, SystemExit)
