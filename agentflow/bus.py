"""The message bus for applications: publish sealed envelopes, subscribe to subjects, read history again.

    bus = StreamBus(client.transport)
    await bus.publish(sealed)                                     # returns when it is stored
    async for message in bus.subscribe("workflows.*.out", durable="reports"):
        ...                                                       # acknowledged when the next one is asked for
    recent = await bus.replay("AF_MESSAGES", some_time)

`MessageBus` is the protocol; `StreamBus` implements it on any `Transport`, JetStream or memory. While the broker is away
published messages wait in a local queue (`agentflow.outbox`), which is bounded: when it is full, `publish` waits. What
a subscriber is given is in stream order and each message once, as far as one process can tell; what it did not finish
comes again, to it or to another process under the same durable name.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar, overload

from agentflow.ending import end
from agentflow.envelope import Sealed, stored_hash
from agentflow.errors import InputError, MeshError
from agentflow.ids import check_token
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.transport import ConsumerSpec, Delivery, Message, Stored, Transport
from agentflow.outbox import CAPACITY, Outbox
from agentflow.subjects import stream_of

T = TypeVar("T")

ACK_WAIT = 5.0
"""Seconds until a message whose subscriber fell silent is given to another; kept alive while one is at it."""

REMEMBERED = 10_000
"""Messages a subscription knows to have handled, to recognise one that is stored or delivered twice."""


class MessageBus(Protocol):
    """What an application needs of a bus."""

    async def publish(self, msg: Sealed) -> Stored:
        """Store an envelope on its own subject; returns when it is stored."""
        ...

    def subscribe(self, subject: str, *, durable: str) -> AsyncIterator[Message]:
        """Messages under a subject pattern, in stream order, each once."""
        ...

    async def replay(self, stream: str, start: int | datetime = 1) -> list[Message]:
        """What a stream holds from a sequence or a time on."""
        ...


class StreamBus:
    """The bus on JetStream, or on whatever else a `Transport` speaks to."""

    def __init__(self, transport: Transport, *, capacity: int = CAPACITY) -> None:
        self._transport = transport
        self._outbox = Outbox(transport, capacity=capacity)

    async def publish(self, msg: Sealed) -> Stored:
        """Store an envelope on its own subject; messages of one subject are stored in the order of the calls.

        Waits while the broker is away, and before that for room in the queue. Raises `PublishFailed` or `Conflict` for
        one the server refuses, and `MeshError` (`bus.closed`) where the bus is closed before it could be stored.
        """
        return await (await self._outbox.put(msg))

    @overload
    def subscribe(self, subject: str, *, durable: str, new_only: bool = False) -> AsyncIterator[Message]: ...

    @overload
    def subscribe(
        self, subject: str, *, durable: str, form: Callable[[Message], T], new_only: bool = False
    ) -> AsyncIterator[T]: ...

    async def subscribe(
        self,
        subject: str,
        *,
        durable: str,
        form: Callable[[Message], Any] | None = None,
        new_only: bool = False,
    ) -> AsyncIterator[Any]:
        """Messages under a subject pattern of one stream, in stream order; `form` turns each into what you need.

        `durable` names the position on the server: it is kept between lives, and shared by all who use the name. A
        message is acknowledged when the next one is asked for; break out of the loop, and the last one comes again.
        One that `form` refuses with an `InputError` becomes a dead letter, and the others go on.
        """
        spec = ConsumerSpec(
            stream_of(subject),
            check_token(durable, "durable name"),
            (subject,),
            ack_wait=ACK_WAIT,
            max_ack_pending=1,  # order: nothing is delivered while one is not done
            start="new" if new_only else "all",
        )
        consumer = await self._transport.consume(spec)
        handled: OrderedDict[str, None] = OrderedDict()
        try:
            async for delivery in consumer.deliveries(lambda: 1):
                key = _identity(delivery.message)
                if key not in handled:
                    try:
                        value = form(delivery.message) if form else delivery.message
                    except InputError as error:
                        await self._give_up(delivery, durable, error)
                        continue
                    async with _in_hand(delivery):
                        yield value
                    _remember(handled, key)
                await delivery.ack()
        finally:
            await consumer.close()

    async def replay(self, stream: str, start: int | datetime = 1) -> list[Message]:
        """What a stream holds from a sequence, or from a time on the server's clock, up to its present end."""
        first = start if isinstance(start, int) else 1
        messages = self._transport.read(stream, start=first)
        return [message async for message in messages if isinstance(start, int) or message.time >= start]

    async def close(self) -> None:
        """Give what is queued up; idempotent. Whoever waits for it is told `bus.closed`."""
        await self._outbox.close()

    async def _give_up(self, delivery: Delivery, durable: str, error: InputError) -> None:
        await write_dead_letter(self._transport, delivery, durable, durable, error.error_code, error.message)
        await delivery.term()


@contextlib.asynccontextmanager
async def _in_hand(delivery: Delivery) -> AsyncIterator[None]:
    """Tell the server that somebody is at it for as long as the block takes; give it back if the block is left early."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            with contextlib.suppress(MeshError):
                await delivery.in_progress()

    task = asyncio.create_task(beat(), name="keep-alive")
    try:
        yield
    except BaseException:
        with contextlib.suppress(MeshError):
            await delivery.nak()
        raise
    finally:
        await end(task)


def _identity(message: Message) -> str:
    """What tells messages apart: an envelope is one however often it is stored; a plain body is as often as it is."""
    hashes = stored_hash(message.body)
    return hashes[1] if hashes and hashes[0] == hashes[1] else f"{message.stream}:{message.seq}"


def _remember(handled: OrderedDict[str, None], key: str) -> None:
    handled[key] = None
    while len(handled) > REMEMBERED:
        handled.popitem(last=False)
