"""What the contract suite runs against, and the small streams and workers its tests use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from agentflow.mesh.transport import Consumer, ConsumerSpec, Delivery, Transport

SECOND = 1_000_000_000
"""Nanoseconds, the server's unit of time."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A broker, one connection to it, and the means to make more."""

    transport: Transport
    attach: Callable[[], Awaitable[Transport]]
    """Another connection to the same broker; closed when the test ends."""
    silence: Callable[[], Any]
    """A context in which one publish gets no answer, although it arrives."""


def stream(name: str = "EVENTS", *subjects: str, **more: Any) -> dict[str, Any]:
    """A small stream's configuration."""
    return {"name": name, "subjects": list(subjects or ["events.>"]), "storage": "memory", "allow_direct": True, **more}


def timers() -> dict[str, Any]:
    """A stream with schedules, one message a subject."""
    return stream("TIMERS", "timers.>", max_msgs_per_subject=1, allow_msg_schedules=True, allow_msg_ttl=True)


def bucket(name: str = "STATE", **more: Any) -> dict[str, Any]:
    """A bucket's stream."""
    base = {"max_msgs_per_subject": 1, "discard": "new", "deny_delete": True, "allow_rollup_hdrs": True}
    return stream(f"KV_{name}", f"$KV.{name}.>", **{**base, **more})


def objects(name: str = "BLOBS") -> dict[str, Any]:
    """An object store's stream."""
    subjects = (f"$O.{name}.C.>", f"$O.{name}.M.>")
    return stream(f"OBJ_{name}", *subjects, discard="new", allow_rollup_hdrs=True)


def consumer(name: str = "worker", *filters: str, **more: Any) -> ConsumerSpec:
    """A consumer of `EVENTS` that does not redeliver while a test runs, unless it asks for that."""
    return ConsumerSpec("EVENTS", name, filters or ("events.>",), **{"ack_wait": 30.0, **more})


async def fill(transport: Transport, count: int, subject: str = "events.a", name: str = "EVENTS") -> list[bytes]:
    """Store `count` numbered messages and return their bodies."""
    bodies = [f"{subject} {number}".encode() for number in range(count)]
    for body in bodies:
        await transport.publish(subject, body, stream=name)
    return bodies


class Worker:
    """Takes deliveries in the background and keeps them; `async with Worker(consumer)` ends with the consumer closed.

    What it keeps counts against its `capacity` until it is settled through the worker.
    """

    def __init__(self, consumer: Consumer, *, capacity: int = 100, acks: bool = False) -> None:
        self._consumer, self._capacity, self._acks = consumer, capacity, acks
        self.seen: list[Delivery] = []
        self.in_hand = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def bodies(self) -> list[bytes]:
        """What it has seen, in order."""
        return [delivery.message.body for delivery in self.seen]

    @property
    def counts(self) -> list[int]:
        """The delivery counts of what it has seen, in order."""
        return [delivery.deliveries for delivery in self.seen]

    async def _run(self) -> None:
        async for delivery in self._consumer.deliveries(lambda: self._capacity - self.in_hand):
            self.seen.append(delivery)
            self.in_hand += 1
            if self._acks:
                await self.ack(delivery)

    async def ack(self, *deliveries: Delivery) -> None:
        """Settle some of what it holds."""
        for delivery in deliveries:
            await delivery.ack()
            self.in_hand -= 1

    async def stop(self) -> None:
        """Close the consumer; its deliveries must end by themselves."""
        await self._consumer.close()
        if self._task is not None:
            async with asyncio.timeout(5):
                await self._task

    def kill(self) -> None:
        """Stop taking anything without a word to the broker, as a killed process does."""
        assert self._task is not None
        self._task.cancel()
        self._task = None


@asynccontextmanager
async def workers(transports: Sequence[Transport], spec: ConsumerSpec, **more: Any) -> AsyncIterator[list[Worker]]:
    """One worker on each connection, all of them on one durable consumer."""
    made = [Worker(await transport.consume(spec), **more) for transport in transports]
    try:
        for worker in made:
            await worker.__aenter__()
        yield made
    finally:
        for worker in made:
            await worker.stop()
