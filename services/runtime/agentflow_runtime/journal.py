"""What a process says of its own accord: the lifecycle events of its agents, in a chain per incarnation.

One publish is in flight at a time. An envelope whose fate is unknown keeps its place: it is stored, with the same
bytes, before anything else is, so the chain has neither gap nor branch. Only one that was refused for certain gives
its place to the next.
"""

import asyncio
from collections.abc import Callable

from agentflow.chain import incarnation_chain
from agentflow.clock import Clock
from agentflow.envelope import Sealed, sha256_hex
from agentflow.errors import OutcomeUnknown, Unreachable
from agentflow.ids import new_id
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Transport
from agentflow.payloads import Payload
from agentflow.schemas import compose
from agentflow_runtime.steps import span_id

RECEIVER = "operator"
"""Whom such events are addressed to."""


class Journal:
    """The spontaneous events of one producer in one incarnation."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        randomness: Callable[[int], bytes],
        *,
        producer: str,
        incarnation: str,
        patience: float = 2.0,
    ) -> None:
        self._transport, self._clock, self._randomness = transport, clock, randomness
        self._producer, self._patience = producer, patience
        self._place = incarnation_chain(producer, incarnation)
        self._unsure: Sealed | None = None
        self._turn = asyncio.Lock()

    async def tell(self, subject: str, payload: Payload) -> Sealed:
        """Store an event and return when it is stored.

        Raises `MeshError`. After `OutcomeUnknown` and `Unreachable` the event may still be stored later.
        """
        async with self._turn:
            if self._unsure is not None:
                await self._store(self._unsure)
            now = self._clock.now()
            id = new_id(now, self._randomness)
            sealed = compose(
                payload,
                id=id,
                subject=subject,
                sender=self._producer,
                to=RECEIVER,
                trace_id=sha256_hex(id.encode())[32:],
                span_id=span_id(id),
                ts=now,
                place=self._place,
            )
            await self._store(sealed)
            return sealed

    async def _store(self, sealed: Sealed) -> None:
        self._unsure = sealed
        try:
            await store(self._transport, sealed, patience=self._patience)
        except (OutcomeUnknown, Unreachable, asyncio.CancelledError):
            raise
        except BaseException:
            self._unsure = None
            raise
        self._unsure, self._place = None, self._place.after(sealed)
