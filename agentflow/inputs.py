"""What one client puts on runs' `in` subjects: goals, signals, cancels, sealed on chains of its own.

One chain for each client incarnation and run, `input:<incarnation>:<run id>`, with one publish in flight. Where a
publish ends unknown its chain is given up and another begun (`input:<incarnation>.<n>:…`): whether or not the message
landed, neither chain has a gap or a branch. The same way a client that has served very many runs forgets the old ones.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agentflow import subjects
from agentflow.artifacts import check_in
from agentflow.clock import Clock
from agentflow.envelope import MAX_INLINE_PAYLOAD, ChainPlace, Sealed, encode_payload
from agentflow.errors import OutcomeUnknown, Unreachable
from agentflow.ids import new_id
from agentflow.mesh.publishing import PATIENCE, store
from agentflow.mesh.transport import Transport
from agentflow.payloads import Payload
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose

SENDER = "client"
RECEIVER = "planner"

MAX_CHAINS = 10_000
"""Runs whose chains a client remembers; one that it forgot is continued on another chain."""


@dataclass(slots=True)
class _Chain:
    place: ChainPlace
    trace_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Inputs:
    """The writing half of a client."""

    def __init__(self, transport: Transport, clock: Clock, randomness: Callable[[int], bytes]) -> None:
        self._transport = transport
        self._clock = clock
        self._randomness = randomness
        self.incarnation = self.new_id()
        """Names the chains; new with every client."""
        self._chains: dict[str, _Chain] = {}
        self._renewals = 0
        """Chains given up or forgotten so far; keeps the names of later ones apart from theirs."""

    def new_id(self) -> str:
        """A new ULID."""
        return new_id(self._clock.now(), self._randomness)

    def knows(self, run_id: str) -> bool:
        """Whether something was put on the run's `in` before, so that its trace is known."""
        return run_id in self._chains

    async def put(
        self,
        run_id: str,
        payload: Payload,
        *,
        trace_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expect: int | None = None,
    ) -> None:
        """Seal and store; returns when the server has acknowledged, raises as `agentflow.mesh.publishing.store` does.

        `trace_id` counts the first time only; without one a new trace begins.
        """
        chain = self._chain(run_id, trace_id)
        async with chain.lock:
            sealed = await self._seal(run_id, payload, chain, metadata or {})
            try:
                await store(self._transport, sealed, expect=expect, patience=PATIENCE)
            except (OutcomeUnknown, Unreachable, asyncio.CancelledError):
                self._renewals += 1
                chain.place = self._first_place(run_id)
                raise
            chain.place = chain.place.after(sealed)

    def _chain(self, run_id: str, trace_id: str | None) -> _Chain:
        if run_id not in self._chains:
            self._forget_some()
            self._chains[run_id] = _Chain(self._first_place(run_id), trace_id or self._randomness(16).hex())
        return self._chains[run_id]

    def _first_place(self, run_id: str) -> ChainPlace:
        renewal = f".{self._renewals}" if self._renewals else ""
        return ChainPlace(f"input:{self.incarnation}{renewal}:{run_id}")

    def _forget_some(self) -> None:
        """Forget the runs nothing is being sent to, when there are too many; so that a client may live for ever."""
        if len(self._chains) >= MAX_CHAINS:
            self._chains = {run_id: chain for run_id, chain in self._chains.items() if chain.lock.locked()}
            self._renewals += 1

    async def _seal(self, run_id: str, payload: Payload, chain: _Chain, metadata: Mapping[str, Any]) -> Sealed:
        now = self._clock.now()
        return compose(
            payload,
            id=new_id(now, self._randomness),
            subject=subjects.workflow_in(run_id),
            sender=SENDER,
            to=RECEIVER,
            trace_id=chain.trace_id,
            span_id=self._randomness(8).hex(),
            ts=now,
            place=chain.place,
            metadata={"tenant": "default", **metadata, "workflow_id": run_id},
            raw=await self._payload(payload),
        )

    async def _payload(self, payload: Payload) -> msgspec.Raw:
        data = encode_payload(payload)
        if len(data) <= MAX_INLINE_PAYLOAD:
            return msgspec.Raw(data)
        return await check_in(await self._transport.objects(ARTIFACTS), payload)
