"""Durable pull consumers of the in-memory broker.

A `Durable` is the state the server keeps: what is pending, how often each message was delivered, what comes again. A
`MemoryConsumer` is one process's attachment to it. A message is handed over only at the moment it is yielded, so an
attachment never holds one that nobody has seen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agentflow.errors import Conflict
from agentflow.mesh.memory_stream import MemoryStream
from agentflow.mesh.memory_time import Timeline
from agentflow.mesh.transport import ConsumerInfo, ConsumerSpec, ConsumerState, Delivery, Message
from agentflow.subjects import matches

_SLOT_POLL = 0.005
"""Seconds between looks at `slots()` while none is free; nothing announces that one is."""

Settlement = Literal["ack", "nak", "progress"]


@dataclass(slots=True)
class _Pending:
    """A message that was delivered and not settled."""

    deliveries: int
    again: datetime | None
    """When it is delivered again; None while it waits for somebody to take it."""


class Durable:
    """A durable consumer. Its methods are called inside a turn of the timeline."""

    def __init__(self, spec: ConsumerSpec, stream: MemoryStream, timeline: Timeline) -> None:
        self._spec, self._stream, self._timeline = spec, stream, timeline
        self._seen = 0 if spec.start == "all" else stream.last_seq
        self._pending: dict[int, _Pending] = {}
        self._again: list[int] = []
        self._active: MemoryConsumer | None = None

    def reconcile(self, spec: ConsumerSpec) -> None:
        """Take on another ack wait or limit; raises `Conflict` for another filter or policy."""
        found, wanted = (sorted(self._spec.filters), self._spec.pinned), (sorted(spec.filters), spec.pinned)
        if found != wanted:
            raise Conflict(
                f"consumer {spec.name} of {spec.stream} takes {found[0]}, wanted {wanted[0]}",
                code="mesh.consumer_drift",
                found=found,
                wanted=wanted,
            )
        self._spec = spec

    def take(self, taker: "MemoryConsumer") -> tuple[Message, int] | None:
        """The next message for `taker` and how often it has been delivered, or None if there is none for it now."""
        if self._spec.pinned:
            self._active = self._active or taker
            if self._active is not taker:
                return None
        message = self._next_again() or self._next_new()
        if message is None:
            return None
        deliveries = self._pending[message.seq].deliveries + 1 if message.seq in self._pending else 1
        self._pending[message.seq] = _Pending(deliveries, None)
        self._wait(message.seq, self._spec.ack_wait)
        return message, deliveries

    def _next_again(self) -> Message | None:
        while self._again:
            seq = self._again.pop(0)
            message = self._stream.messages.get(seq)
            if message is not None and seq in self._pending:
                return message
            self._pending.pop(seq, None)
        return None

    def _next_new(self) -> Message | None:
        if len(self._pending) >= self._spec.max_ack_pending:
            return None
        while self._seen < self._stream.last_seq:
            self._seen += 1
            message = self._stream.messages.get(self._seen)
            if message is not None and self._takes(message):
                return message
        return None

    def _wait(self, seq: int, seconds: float) -> None:
        moment = self._timeline.now() + timedelta(seconds=seconds)
        self._pending[seq].again = moment
        self._timeline.at(moment, lambda due: self._overdue(seq, due))

    def _overdue(self, seq: int, due: datetime) -> None:
        pending = self._pending.get(seq)
        if pending is not None and pending.again == due:
            pending.again = None
            self._again.append(seq)

    def settle(self, seq: int, settlement: Settlement, delay: float) -> None:
        """What a delivery's holder says about it. A late word counts, as it does on the server."""
        pending = self._pending.get(seq)
        if pending is None:
            return
        if settlement == "ack":
            del self._pending[seq]
        elif pending.again is not None and settlement == "progress":
            self._wait(seq, self._spec.ack_wait)
        elif pending.again is not None and delay > 0:
            self._wait(seq, delay)
        elif pending.again is not None:
            self._overdue(seq, pending.again)

    def state(self) -> ConsumerState:
        """What waits, and what is in somebody's hands."""
        unseen = (message for seq, message in self._stream.messages.items() if seq > self._seen)
        pending = sum(any(matches(each, message.subject) for each in self._spec.filters) for message in unseen)
        return ConsumerState(self._spec.stream, self._spec.name, pending, len(self._pending))

    def info(self) -> ConsumerInfo:
        """As it is now."""
        spec, left = self._spec, range(self._seen + 1, self._stream.last_seq + 1)
        waiting = [seq for seq in left if (message := self._stream.messages.get(seq)) and self._takes(message)]
        config = {"ack_policy": "explicit", "ack_wait": int(spec.ack_wait * 1e9), "max_deliver": -1}
        return ConsumerInfo(
            stream=spec.stream,
            name=spec.name,
            filters=tuple(sorted(spec.filters)),
            delivered_seq=self._seen,
            ack_floor=min(self._pending, default=self._seen + 1) - 1,
            pending=len(waiting),
            unsettled=len(self._pending),
            waiting=0,
            pinned=spec.pinned,
            active=not spec.pinned or self._active is not None,
            config=config,
        )

    def _takes(self, message: Message) -> bool:
        return any(matches(pattern, message.subject) for pattern in self._spec.filters)

    def release(self, holder: "MemoryConsumer") -> None:
        """`holder` asks for nothing more: another may become the active one."""
        if self._active is holder:
            self._active = None


class MemoryDelivery:
    """One delivery of a message."""

    def __init__(self, message: Message, deliveries: int, settle: Callable[[Settlement, float], None]) -> None:
        self.message = message
        self.deliveries = deliveries
        self._settle, self._settled = settle, False

    async def ack(self) -> None:
        """Done."""
        self._say("ack")

    async def nak(self, delay: float = 0.0) -> None:
        """Again, after `delay` seconds."""
        self._say("nak", delay)

    async def in_progress(self) -> None:
        """Still working."""
        self._say("progress")

    async def term(self) -> None:
        """Given up."""
        self._say("ack")

    def _say(self, settlement: Settlement, delay: float = 0.0) -> None:
        if not self._settled:
            self._settled = settlement != "progress"
            self._settle(settlement, delay)


class MemoryConsumer:
    """One attachment to a durable consumer."""

    def __init__(self, durable: Durable, timeline: Timeline, up: Callable[[], bool]) -> None:
        self._durable, self._timeline, self._up = durable, timeline, up
        self._closed = False

    async def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """Deliveries as they come, never more than `slots()` at once."""
        try:
            while not self._closed:
                await asyncio.sleep(0 if slots() > 0 else _SLOT_POLL)  # every attachment gets its turn
                delivery = await self._timeline.until(lambda: self._take(slots))
                if isinstance(delivery, MemoryDelivery):
                    yield delivery
        finally:
            self._release()

    def _take(self, slots: Callable[[], int]) -> MemoryDelivery | Literal["closed", "full"] | None:
        if self._closed:
            return "closed"
        if slots() <= 0:
            return "full"
        taken = self._durable.take(self) if self._up() else None
        if taken is None:
            return None
        message, deliveries = taken
        return MemoryDelivery(message, deliveries, lambda what, delay: self._settle(message.seq, what, delay))

    def _settle(self, seq: int, settlement: Settlement, delay: float) -> None:
        with self._timeline.turn():
            if self._up():  # without a connection the word is lost, and the message comes again
                self._durable.settle(seq, settlement, delay)

    def _release(self) -> None:
        with self._timeline.turn():
            self._durable.release(self)

    @property
    def closed(self) -> bool:
        """Whether it asks for nothing more."""
        return self._closed

    def state(self) -> ConsumerState:
        """The durable consumer; called inside a turn of the timeline."""
        return self._durable.state()

    async def close(self) -> None:
        """Ask for nothing more."""
        self._closed = True
        self._release()
