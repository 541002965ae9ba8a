"""Working off a consumer: slots, keep-alive, counted deliveries, dead letters, drain. One loop for every service.

What a service hands in is a function that handles one delivery and returns when the message may be acknowledged. A
mesh error gives the message back with a delay, any other error too (it is delivered again, and counted); a message
delivered too often becomes a dead letter *before* it is handled once more, because a message that kills its process
never reaches a later check (architecture, section 4).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agentflow.ending import end
from agentflow.errors import AgentflowError, EvidenceError, InputError, MeshError
from agentflow.mesh.retries import Retries
from agentflow.mesh.transport import Consumer, Delivery
from agentflow.telemetry.metrics import message_given_up
from agentflow.telemetry.watching import Handling, handling, watching

LONGEST_PAUSE = 15.0
"""Seconds at most until a message comes again after the mesh was in trouble."""

Handle = Callable[[Delivery], Awaitable[None]]
"""Handles one delivery; returning means the message is done with."""

GiveUp = Callable[[Delivery, str, str], Awaitable[None]]
"""Records a message as given up (code, reason); returning means the record is stored."""


@dataclass(frozen=True, slots=True)
class WorkPolicy:
    """How a consumer is worked off."""

    concurrency: int
    """Deliveries handled at once by this process."""
    ack_wait: float
    """Seconds; in-progress is sent every third of it."""
    max_deliveries: int
    retry_delay: float = 0.5
    """Seconds until a message is delivered again after an error."""
    observed: bool = True
    """Whether deliveries are counted and traced; a watcher only looks at what others handle."""


class Worker:
    """Works off one consumer until it is stopped."""

    def __init__(
        self,
        consumer: Consumer,
        handle: Handle,
        give_up: GiveUp,
        policy: WorkPolicy,
        log: Any,
        retries: Retries | None = None,
    ) -> None:
        self._consumer, self._handle, self._give_up, self._policy, self._log = consumer, handle, give_up, policy, log
        self._retries = retries
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._places: set[tuple[str, int]] = set()

    def _slots(self) -> int:
        return self._policy.concurrency - len(self._tasks)

    async def run(self, stop: asyncio.Event) -> None:
        """Handle deliveries until `stop` is set, then finish what is in hand. Cancelling it drops what is in hand."""
        closing = asyncio.create_task(self._close_on(stop), name="close-on-stop")
        beating = asyncio.create_task(self._keep_alive(), name="keep-alive")
        try:
            async for delivery in self._consumer.deliveries(self._slots):
                if self._is_in_hand(delivery):
                    continue
                task = asyncio.create_task(self._one(delivery), name=f"handle-{delivery.message.subject}")
                self._tasks[task] = delivery
                self._places.add(_place(delivery))
                task.add_done_callback(self._done)
                await asyncio.sleep(0)
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await end(closing, beating, *self._tasks)

    def _is_in_hand(self, delivery: Delivery) -> bool:
        """Whether this is another delivery of a message that is being handled here: its sign of life came too late.

        It is not handled a second time beside the first, nor counted against it: whoever settles one delivery settles
        the message. Without this a process that is too busy to be in time is given more to do for it.
        """
        return _place(delivery) in self._places

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._places.discard(_place(self._tasks.pop(task)))

    async def _close_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self._consumer.close()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._policy.ack_wait / 3)
            for delivery in list(self._tasks.values()):
                with contextlib.suppress(MeshError):  # one that cannot be told must not end the others' keep-alive
                    await delivery.in_progress()

    def _pause(self, delivery: Delivery, least: float | None) -> float:
        """Seconds until a message comes again: doubled with each delivery, so that an outage does not use them up."""
        first = max(least or 0.0, self._policy.retry_delay)
        doubled: float = first * 2.0 ** min(delivery.deliveries - 1, 10)
        return min(doubled, max(first, LONGEST_PAUSE))

    async def _one(self, delivery: Delivery) -> None:
        with handling(delivery) if self._policy.observed else watching() as work:
            await self._settle(delivery, work)

    async def _settle(self, delivery: Delivery, work: Handling) -> None:
        meant = delivery
        try:
            found = await self._retries.resolve(delivery) if self._retries else delivery
            if found is None:  # for another consumer, or handled already
                await delivery.ack()
                return
            meant = found
            if delivery.deliveries > self._policy.max_deliveries:
                reason = f"delivered {delivery.deliveries} times; allowed are {self._policy.max_deliveries}"
                work.ended("exhausted", "delivery.exhausted")
                await self._end_as_dead(meant, "delivery.exhausted", reason)
                return
            await self._handle(meant)
            await meant.ack()
        except (InputError, EvidenceError) as error:
            work.ended("refused", error.error_code)
            await self._refuse(meant, error)
        except MeshError as error:
            work.ended("retry", error.error_code)
            self._log.warning("message.retry", subject=meant.message.subject, code=error.error_code, why=str(error))
            await meant.nak(self._pause(delivery, error.retry_after))
        except Exception as error:  # noqa: BLE001  # a handler's own fault: logged, and the message comes again, counted
            work.ended("failed", type(error).__name__)
            await self._again(meant)

    async def _end_as_dead(self, delivery: Delivery, code: str, reason: str) -> None:
        await self._give_up(delivery, code, reason)
        message_given_up(delivery.message.stream, code)
        await delivery.term()

    async def _refuse(self, delivery: Delivery, error: AgentflowError) -> None:
        """What can never be handled is recorded at once; if that fails, it comes again."""
        self._log.warning("message.refused", subject=delivery.message.subject, code=error.error_code, why=str(error))
        try:
            await self._end_as_dead(delivery, error.error_code, error.message)
        except Exception:  # noqa: BLE001  # whatever kept the record from being stored: the message must not be lost
            await self._again(delivery)

    async def _again(self, delivery: Delivery) -> None:
        self._log.exception("message.failed", subject=delivery.message.subject, deliveries=delivery.deliveries)
        await delivery.nak(self._policy.retry_delay)


def _place(delivery: Delivery) -> tuple[str, int]:
    return delivery.message.stream, delivery.message.seq
