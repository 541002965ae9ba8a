"""Doing what a finding asks for: the anomaly is stored once, then its breakers are tripped, then a person is told.

All of it may be done again by whoever folds the same message again: the anomaly's subject holds one message for ever, and
the first one's word stands as what is told, also where the rules were changed since. What is blocked, and until when, is
the detector's own finding, whatever is stored there; a breaker knows the anomaly that tripped it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from agentflow import crash
from agentflow.breakers import Breaker, read_breaker
from agentflow.envelope import Sealed, unseal
from agentflow.errors import Conflict, EnvelopeError, EvidenceError, SchemaError
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Bucket, Entry, Message, Transport
from agentflow.payloads import Action, ToolAnomaly
from agentflow.schemas import payload_as
from agentflow_detector.fold import Finding
from agentflow_detector.metrics import DetectorMetrics
from agentflow_detector.observing import Observation
from agentflow_detector.rules import RuleSet
from agentflow_detector.sealing import anomaly_of, breaker_of, seal_anomaly
from agentflow_detector.tripping import tripped


@dataclass(frozen=True, slots=True)
class Told:
    """An anomaly as it is stored, with the breakers of the detector's own finding."""

    sealed: Sealed
    anomaly: ToolAnomaly
    new: bool
    """Whether it was stored just now."""


class Alarms:
    """The acting half of the detector."""

    def __init__(
        self,
        transport: Transport,
        breakers: Bucket,
        allowed: Collection[Action],
        metrics: DetectorMetrics,
        log: Any,
    ) -> None:
        self._transport, self._breakers, self._allowed = transport, breakers, allowed
        self._metrics, self._log = metrics, log

    async def raise_alarm(self, finding: Finding, rules: RuleSet, trigger: Sealed, heard: datetime) -> None:
        """Do all that a finding asks for; `heard` is when its trigger was stored. Raises `MeshError`, to do it again.

        Raises `EvidenceError` (`anomaly.squatted`) where the anomaly's subject holds something else.
        """
        sealed = seal_anomaly(finding, anomaly_of(finding, rules, self._allowed), trigger)
        told = await self._tell(sealed)
        crash.point("detector.after_anomaly")
        anomaly, id = told.anomaly, told.sealed.envelope.id
        if told.new:
            await self._count(told, finding.seen, heard)
        wanted = breaker_of(anomaly, id, sealed.envelope.ts)
        for key in anomaly.breakers:
            if await self._trip(key, wanted):
                self._metrics.tripped(finding.seen)
                self._log.warning("breaker.tripped", key=key, until=anomaly.until, rule=anomaly.rule, anomaly=id)
        crash.point("detector.after_breaker")

    async def _tell(self, sealed: Sealed) -> Told:
        """Store the anomaly, or take the one that is there."""
        try:
            stored = await store(self._transport, sealed, expect=0)
        except Conflict as conflict:
            there = conflict.fields["stored"]
            if not isinstance(there, Message):
                raise
            return _taken(there, sealed)
        return Told(sealed, payload_as(sealed, ToolAnomaly), new=not stored.duplicate)

    async def _count(self, told: Told, seen: Observation, heard: datetime) -> None:
        """Say it, and how long after the entry that made it it was stored."""
        anomaly, envelope = told.anomaly, told.sealed.envelope
        there = await self._transport.last("AF_AUDIT", envelope.subject)
        seconds = (there.time - heard).total_seconds() if there else 0.0
        self._metrics.found(seen, seconds)
        say = self._log.error if "escalate" in anomaly.actions else self._log.warning
        say(
            "anomaly.found",
            anomaly=envelope.id,
            rule=anomaly.rule,
            severity=anomaly.severity,
            tool=anomaly.tool,
            principal=anomaly.principal,
            workflow_id=anomaly.workflow_id,
            actions=list(anomaly.actions),
            seconds=seconds,
        )

    async def _trip(self, key: str, wanted: Breaker) -> bool:
        """Set a breaker where it is to be set; returns whether it was."""
        while True:
            there = await self._breakers.get(key)
            value = tripped(self._known(key, there), there.time if there else None, wanted)
            if value is None:
                return False
            try:
                if there is None:
                    await self._breakers.create(key, msgspec.json.encode(value))
                else:
                    await self._breakers.update(key, msgspec.json.encode(value), there.revision)
            except Conflict:
                continue
            return True

    def _known(self, key: str, entry: Entry | None) -> Breaker | None:
        """What a key holds; what cannot be read is overwritten, for it blocks everything as it is."""
        if entry is None:
            return None
        try:
            return read_breaker(key, entry.value)
        except EvidenceError as error:
            self._log.warning("breaker.unreadable", key=key, why=error.message)
            return None


def _taken(there: Message, mine: Sealed) -> Told:
    """The anomaly that is there, as this finding's; its subject can be foretold, so its breakers are not believed."""
    try:
        theirs = unseal(there.body, there.subject)
        anomaly = payload_as(theirs, ToolAnomaly)
    except (EnvelopeError, SchemaError) as error:
        raise _squatted(there) from error
    stored, meant = theirs.envelope, mine.envelope
    if (stored.id, stored.sender, stored.chain, stored.causes[:1]) != (
        meant.id,
        meant.sender,
        meant.chain,
        meant.causes[:1],
    ):
        raise _squatted(there)
    own = payload_as(mine, ToolAnomaly)
    return Told(theirs, msgspec.structs.replace(anomaly, breakers=own.breakers, until=own.until), new=False)


def _squatted(there: Message) -> EvidenceError:
    return EvidenceError(f"{there.subject} holds another message", code="anomaly.squatted", subject=there.subject)
