"""The detector's shell: reads the audit stream in its order, asks the fold, raises alarms, keeps snapshots.

A delivery of the durable consumer is a hint that there is something to read, and says which of several detectors is the
active one. What is folded is read from the stream itself, every sequence behind the last one: so a detector that was
frozen, or that takes over from another, leaves nothing out and takes nothing twice, whatever was acknowledged by whom.

A message counts as folded when all its alarms are raised. Whoever dies on the way folds it again, from the snapshot or
from the beginning, and makes the same anomalies under the same ids.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from agentflow import subjects
from agentflow.artifacts import check_out
from agentflow.envelope import Sealed, sha256_hex, unseal
from agentflow.errors import EvidenceError, InputError, MeshError, NotStored, SubjectError
from agentflow.mesh.transport import Delivery, Message, Objects, Transport
from agentflow_detector.alarms import Alarms
from agentflow_detector.fold import Step, evolve, fit
from agentflow_detector.letters import Letters
from agentflow_detector.observing import Observation, microseconds, observe_audit, observe_call
from agentflow_detector.rules import RuleSet
from agentflow_detector.saving import STREAM, Snapshots
from agentflow_detector.state import Position, State

BEHIND = 1_000
"""Messages behind which a detector that takes over looks for a newer snapshot first."""

Pace = tuple[int, float]
"""Messages and seconds between two snapshots."""


class Detector:
    """Folds the audit stream."""

    def __init__(
        self,
        transport: Transport,
        objects: Objects,
        rules: RuleSet,
        alarms: Alarms,
        snapshots: Snapshots,
        log: Any,
        *,
        pace: Pace = (500, 5.0),
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._transport, self._objects, self._rules = transport, objects, rules
        self._alarms, self._snapshots, self._log = alarms, snapshots, log
        self._letters = Letters(transport)
        self._pace = pace
        self._monotonic = monotonic or asyncio.get_running_loop().time
        self._lock = asyncio.Lock()
        self._saved = 0
        """Sequence of the last snapshot known."""
        self._saved_at = self._monotonic()
        self.state = State()

    async def start(self) -> None:
        """Take up the snapshot, and fold what was stored behind it, or everything. Raises `MeshError`."""
        async with self._lock:
            await self._take_snapshot()
            await self._catch_up()
        self._log.info("detector.caught_up", seq=self.state.position.seq, from_snapshot=self._saved)

    async def handle(self, delivery: Delivery) -> None:
        """Fold up to a delivery, and what is behind it already. Raises `MeshError` to have it delivered again."""
        async with self._lock:
            wanted = delivery.message.seq
            if wanted - self.state.position.seq > BEHIND:
                await self._take_snapshot()
            if wanted > self.state.position.seq:
                await self._catch_up()
            if wanted > self.state.position.seq:
                raise MeshError(
                    f"{STREAM} can be read up to {self.state.position.seq} only", code="detector.stale_read"
                )

    async def save(self) -> None:
        """Write a snapshot now, if something was folded since the last."""
        async with self._lock:
            await self._save()

    async def _take_snapshot(self) -> None:
        found = await self._snapshots.load()
        if found is not None and found.position.seq > self.state.position.seq:
            self.state = fit(found, self._rules)
            self._saved = found.position.seq

    async def _catch_up(self) -> None:
        """Fold what is stored behind the position."""
        async for message in self._transport.read(STREAM, start=self.state.position.seq + 1):
            await self._fold(message)
            if self._is_due():
                await self._save()

    def _is_due(self) -> bool:
        messages, seconds = self._pace
        behind = self.state.position.seq - self._saved
        return behind >= messages or (behind > 0 and self._monotonic() - self._saved_at >= seconds)

    async def _save(self) -> None:
        """Snapshots only make a start faster: where none can be written, the watching goes on."""
        if self.state.position.seq > self._saved:
            self._saved, self._saved_at = self.state.position.seq, self._monotonic()
            try:
                await self._snapshots.save(self.state)
            except MeshError as error:
                self._log.warning("snapshot.unsaved", code=error.error_code, why=error.message)

    async def _fold(self, message: Message) -> None:
        """One message: what was found is told before it counts as folded."""
        sealed, seen = await self._observe(message)
        at = Position(message.seq, sha256_hex(message.body))
        try:
            step = evolve(self.state, self._rules, at, microseconds(message.time), seen)
        except Exception as error:  # noqa: BLE001  # a fault of the fold: told, and the others are watched all the same
            await self._letters.write(message, "detector.failed", f"{type(error).__name__}: {error}")
            self._log.exception("detector.failed", seq=message.seq)
            step = Step(replace(self.state, position=at))
        if sealed is not None:
            await self._raise_alarms(step, sealed, message)
        self.state = step.state

    async def _raise_alarms(self, step: Step, sealed: Sealed, message: Message) -> None:
        for finding in step.findings:
            try:
                await self._alarms.raise_alarm(finding, self._rules, sealed, message.time)
            except (EvidenceError, InputError) as error:  # it cannot be stored: said, and nothing waits for it
                await self._letters.write(message, error.error_code, error.message)
                self._log.exception("anomaly.untold", code=error.error_code, rule=finding.rule.id, seq=message.seq)

    async def _observe(self, message: Message) -> tuple[Sealed | None, Observation | None]:
        """What there is to see in a message. What should be an audit entry and is none gets a dead letter.

        For what should be a call and is none the executor writes it.
        """
        try:
            kind = subjects.parse(message.subject).kind
        except SubjectError:
            kind = None
        if kind not in ("tool.call", "tool.audit"):
            return None, None
        try:
            sealed = unseal(message.body, message.subject)
            if kind == "tool.call":
                return sealed, observe_call(sealed, message.time)
            return sealed, observe_audit(sealed, await check_out(self._objects, sealed.envelope), message.time)
        except (InputError, EvidenceError, NotStored) as error:
            if kind == "tool.audit" and await self._letters.write(message, error.error_code, error.message):
                self._log.warning("message.refused", subject=message.subject, code=error.error_code, why=error.message)
        return None, None
