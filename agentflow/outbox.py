"""A bounded queue between an application and a broker that may be away.

Messages of one subject leave in the order they came, one in flight; those of different subjects do not wait for each
other. A message stays in the queue until the server has acknowledged it: a publish whose outcome is unknown is repeated
with the same bytes (`agentflow.mesh.publishing`), so an outage neither loses one nor stores it twice.
"""

import asyncio
from collections import deque

from agentflow.ending import end
from agentflow.envelope import Sealed
from agentflow.errors import MeshError, OutcomeUnknown, Unreachable
from agentflow.mesh.publishing import PATIENCE, store
from agentflow.mesh.transport import Stored, Transport

CAPACITY = 1024
"""Messages that may wait; whoever brings one more waits for room."""

Waiting = tuple[Sealed, "asyncio.Future[Stored]"]


class Outbox:
    """Messages on their way to the broker."""

    def __init__(self, transport: Transport, *, capacity: int = CAPACITY) -> None:
        self._transport = transport
        self._room = asyncio.Semaphore(capacity)
        self._lanes: dict[str, deque[Waiting]] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._waiting = 0
        self._closed = False

    def __len__(self) -> int:
        """How many messages are not acknowledged yet."""
        return self._waiting

    async def put(self, sealed: Sealed) -> "asyncio.Future[Stored]":
        """Queue an envelope, waiting for room; what is returned is done when it is stored, or is known not to be.

        Raises `MeshError` (`bus.closed`).
        """
        self._require_open()
        await self._room.acquire()
        if self._closed:
            self._room.release()
            self._require_open()
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        subject = sealed.envelope.subject
        self._waiting += 1
        self._lanes.setdefault(subject, deque()).append((sealed, future))
        if subject not in self._senders:
            self._senders[subject] = asyncio.create_task(self._send(subject), name=f"outbox-{subject}")
        return future

    async def close(self) -> None:
        """Stop sending; who waits is told `bus.closed`, or, where it was on its way, that its outcome is unknown."""
        self._closed = True
        await end(*self._senders.values())
        self._senders.clear()
        for lane in self._lanes.values():
            for place, (_, future) in enumerate(lane):
                self._settle(future, _unsent(in_flight=place == 0))
        self._lanes.clear()

    async def _send(self, subject: str) -> None:
        """Store what waits in a lane, the first first."""
        lane = self._lanes[subject]
        while lane:
            sealed, future = lane[0]
            try:
                answer: Stored | Exception = await self._stored(sealed)
            except Exception as error:  # noqa: BLE001  # whatever it is, who waits is told, and the next one has its turn
                answer = error
            lane.popleft()
            self._settle(future, answer)
        del self._lanes[subject], self._senders[subject]

    async def _stored(self, sealed: Sealed) -> Stored:
        """Store a message however long the broker is away; a connection that is closed for good ends the wait."""
        while True:
            try:
                return await store(self._transport, sealed, patience=PATIENCE)
            except (OutcomeUnknown, Unreachable):
                if self._transport.closed_reason is not None:
                    raise

    def _settle(self, future: "asyncio.Future[Stored]", answer: Stored | Exception) -> None:
        self._waiting -= 1
        self._room.release()
        if future.done():  # nobody waits any more
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _require_open(self) -> None:
        if self._closed:
            raise MeshError("the bus is closed", code="bus.closed")


def _unsent(*, in_flight: bool) -> MeshError:
    if in_flight:
        return OutcomeUnknown("the bus was closed while it was being stored", code="bus.closed")
    return MeshError("the bus was closed before it was stored", code="bus.closed")
