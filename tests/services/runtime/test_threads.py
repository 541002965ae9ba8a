"""Blocking calls in threads of their own, and the slots that what is left behind keeps."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentflow.mesh.transport import Consumer, Delivery
from agentflow_runtime.leftovers import CountingConsumer, Leftovers
from agentflow_runtime.threads import BlockingCall
from agentflow_runtime.turns import Turns
from tests.services.runtime.harness import until

where = contextvars.ContextVar("where", default="nowhere")


async def test_a_blocking_call_returns_its_value_from_another_thread() -> None:
    """Arguments go in, the value comes out, and the loop's thread was not blocked."""
    call = BlockingCall(lambda a, b: (a + b, threading.get_ident()), 2, 3, name="sum")
    value, thread = await call.result()
    assert value == 5
    assert thread != threading.get_ident()


async def test_a_blocking_call_sees_the_context_it_was_made_in() -> None:
    """Ids bound to log lines follow the work into its thread."""
    where.set("here")
    assert await BlockingCall(where.get, name="look").result() == "here"


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
async def test_whatever_a_thread_raises_reaches_who_waits(error: BaseException) -> None:
    """Also what would end a process."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await BlockingCall(fail, name="fail").result()
    assert raised.value is error


async def test_cancelling_the_wait_leaves_the_thread_running() -> None:
    """A thread cannot be killed; `ended` tells when it is over."""
    release = threading.Event()
    call = BlockingCall(release.wait, 30.0, name="wait")
    waiting = asyncio.create_task(call.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not call.ended.done()
    release.set()
    await call.ended


def test_a_thread_that_outlives_its_loop_ends_in_silence() -> None:
    """Nobody waits any more: no traceback, no exception in the thread."""
    release, threads = threading.Event(), list[threading.Thread]()

    async def start() -> None:
        BlockingCall(release.wait, 30.0, name="late")
        threads.extend(thread for thread in threading.enumerate() if thread.name == "late")

    asyncio.run(start())
    release.set()
    threads[0].join(10.0)
    assert not threads[0].is_alive()
    assert threads[0].daemon


async def test_leftovers_count_what_still_runs() -> None:
    """What is done already does not count; what runs counts until it is done."""
    leftovers, loop = Leftovers(), asyncio.get_running_loop()
    running, done = loop.create_future(), loop.create_future()
    done.set_result(None)
    leftovers.keep(running)
    leftovers.keep(done)
    assert len(leftovers) == 1
    running.set_result(None)
    await until(lambda: len(leftovers) == 0)


class Asked:
    """A consumer that notes how many messages it was asked for."""

    def __init__(self) -> None:
        self.slots: Callable[[], int] = lambda: -1
        self.closed = False

    def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """None."""
        self.slots = slots
        return self._none()

    async def _none(self) -> AsyncIterator[Delivery]:
        for nothing in list[Delivery]():
            yield nothing

    async def close(self) -> None:
        """Note it."""
        self.closed = True


async def test_a_counting_consumer_asks_for_no_more_than_is_really_free() -> None:
    """Slots of leftovers are not offered, and never less than none."""
    inner, leftovers = Asked(), Leftovers()
    consumer: Consumer = CountingConsumer(inner, leftovers)
    free = 2
    assert [delivery async for delivery in consumer.deliveries(lambda: free)] == []
    left: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    seen = [inner.slots()]
    for future in left:
        leftovers.keep(future)
        seen.append(inner.slots())
    assert seen == [2, 1, 0, 0]
    await consumer.close()
    assert inner.closed
    for future in left:
        future.cancel()


async def test_turns_are_taken_one_at_a_time_for_each_key() -> None:
    """The same key waits, another does not, and a key nobody uses is forgotten."""
    turns, inside, release = Turns(), list[str](), asyncio.Event()

    async def enter(key: str, name: str) -> None:
        async with turns.of(key):
            inside.append(name)
            await release.wait()

    tasks = [asyncio.create_task(enter(*each)) for each in (("k", "first"), ("k", "second"), ("other", "third"))]
    await until(lambda: len(inside) == 2)
    assert inside == ["first", "third"]
    assert len(turns) == 2
    release.set()
    await asyncio.gather(*tasks)
    assert inside == ["first", "third", "second"]
    assert len(turns) == 0


async def test_whoever_leaves_the_queue_does_not_block_it() -> None:
    """A cancelled wait gives its place up."""
    turns, release = Turns(), asyncio.Event()

    async def enter() -> None:
        async with turns.of("k"):
            await release.wait()

    first, second, third = (asyncio.create_task(enter()) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    release.set()
    await asyncio.gather(first, third)
    assert (await asyncio.gather(second, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert len(turns) == 0
