"""Ending tasks: one that lost its cancellation is cancelled again, and nobody waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agentflow.ending import end


async def for_ever() -> None:
    """Wait for nothing."""
    await asyncio.Event().wait()


async def swallowing(times: int) -> int:
    """A task that loses so many cancellations; returns how many it saw."""
    seen = 0
    while True:
        try:
            await for_ever()
        except asyncio.CancelledError:
            seen += 1
            if seen > times:
                raise


def started(work: Awaitable[object]) -> asyncio.Task[object]:
    """A task of it."""
    return asyncio.ensure_future(work)


async def in_good_time(ending: Awaitable[None]) -> None:
    """It must not hang."""
    async with asyncio.timeout(5):
        await ending


async def test_tasks_are_cancelled_and_over() -> None:
    """All of them, when it returns."""
    tasks = [started(for_ever()) for _ in range(3)]

    await in_good_time(end(*tasks))

    assert [True] * 3 == [task.cancelled() for task in tasks]


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_a_lost_cancellation_is_repeated(lost: int) -> None:
    """As often as it takes."""
    task = started(swallowing(lost))
    await asyncio.sleep(0)

    await in_good_time(end(task, patience=0.01))

    assert task.cancelled()


async def test_a_cancellation_lost_in_a_wait_is_repeated() -> None:
    """The case it is for: the answer comes in the same moment as the cancellation, and the client's wait eats the latter."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    async def beat() -> None:
        asked.set()
        await asyncio.wait_for(answer, 60)
        await for_ever()

    task = started(beat())
    await asked.wait()
    await asyncio.sleep(0)
    answer.set_result(None)

    await in_good_time(end(task, patience=0.01))

    assert task.cancelled()


async def test_a_task_that_cleans_up_has_time_for_it() -> None:
    """It is not cancelled again while its patience lasts."""
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")

    task = started(work())
    await asyncio.sleep(0)

    await in_good_time(end(task))

    assert ["up"] == cleaned


async def fine() -> str:
    """A task that ends well."""
    return "result"


async def broken() -> None:
    """A task that does not."""
    raise ValueError("broken")


@pytest.mark.parametrize("work", [fine, broken])
async def test_a_task_that_ended_before_is_left_as_it_is(work: Callable[[], Awaitable[object]]) -> None:
    """Its result or error stays for whoever asks, and is not raised here."""
    task = started(work())
    await asyncio.wait({task})

    await in_good_time(end(task))

    assert task.done()
    assert not task.cancelled()


async def test_an_error_while_ending_is_not_raised() -> None:
    """Whoever ends a task has no use for it."""

    async def work() -> None:
        try:
            await for_ever()
        finally:
            raise ValueError("cleaning up failed")

    task = started(work())
    await asyncio.sleep(0)

    await in_good_time(end(task))

    assert isinstance(task.exception(), ValueError)


async def test_nothing_to_end_is_fine() -> None:
    """At once."""
    await in_good_time(end())
