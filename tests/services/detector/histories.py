"""What the detector's tests share: recorded calls, a detector on a mesh, and what it told."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from agentflow import logs, subjects
from agentflow.breakers import Breaker, read_breaker
from agentflow.chain import audit_chain
from agentflow.envelope import ChainPlace, Sealed, unseal
from agentflow.ids import derive_id, new_id
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Transport
from agentflow.payloads import Action, AuditOutcome, DeadLetter, Evidence, Failure, ToolAnomaly, ToolRequested, Usage
from agentflow.registry import ARTIFACTS, BREAKERS
from agentflow.registry import STATE as STATE_BUCKET
from agentflow.schemas import compose, payload_as
from agentflow.testing import START
from agentflow_detector.alarms import Alarms
from agentflow_detector.fold import Finding, evolve
from agentflow_detector.metrics import DetectorMetrics
from agentflow_detector.observing import Observation
from agentflow_detector.rules import RuleSet, parse_rules
from agentflow_detector.saving import Snapshots
from agentflow_detector.settings import ACTIONS
from agentflow_detector.shell import Detector, Pace
from agentflow_detector.state import Position, State

SECOND = 1_000_000

ALL: tuple[Action, ...] = ACTIONS
"""Everything may be done about a finding."""


def ruleset(*rules: Mapping[str, Any], version: str = "test") -> RuleSet:
    """Rules as a file would give them."""
    return parse_rules({"version": version, "rules": list(rules)}, "test rules")


def rapid(threshold: int = 3, window: float = 10.0, **more: Any) -> dict[str, Any]:
    """A rule against many calls of one tool by one caller, which blocks the caller."""
    given = {"id": "rapid", "kind": "rate", "threshold": threshold, "window": window, "block_seconds": 30.0}
    return {**given, "actions": ["flag", "auto_block", "escalate"], "block": ["agent"], **more}


def pair(window: float = 300.0, **more: Any) -> dict[str, Any]:
    """A rule against a write to a database that is followed by something sent out."""
    found = {"id": "pair", "kind": "sequence", "per": ["principal"], "window": window}
    return {**found, "first": {"permissions": ["db.write"]}, "then": {"permissions": ["network.http"]}, **more}


def seen(number: int, time: float = 0.0, **more: Any) -> Observation:
    """The outcome of a call, so many seconds after the start, as the fold is given it."""
    call_id = new_id(START, lambda size: hashlib.sha256(str(number).encode()).digest()[:size])
    given: dict[str, Any] = {"tool": "lookup", "principal": "clerk", "tenant": "acme", "run": "run-1"}
    given.update(status="completed", tool_version="1.0.0", permissions=())
    evidence = Evidence(call_id, hashlib.sha256(call_id.encode()).hexdigest(), subjects.tool_audit(call_id))
    start = 1_767_225_600 * SECOND
    moment = start + round(time * SECOND)
    return Observation(kind="outcome", time=moment, call_id=call_id, evidence=evidence, **{**given, **more})


@dataclass
class Folding:
    """A fold in progress."""

    rules: RuleSet
    state: State = field(default_factory=State)
    findings: list[Finding] = field(default_factory=list)

    def take(self, *observations: Observation) -> "Folding":
        """Fold on; returns itself."""
        for each in observations:
            at = Position(self.state.position.seq + 1, "0" * 64)
            step = evolve(self.state, self.rules, at, each.time, each)
            self.state = step.state
            self.findings += step.findings
        return self

    @property
    def told(self) -> list[tuple[str, str]]:
        """Each finding as its rule and the call that broke it."""
        return [(each.rule.id, each.seen.call_id) for each in self.findings]


def fold(rules: RuleSet, observations: Iterable[Observation]) -> Folding:
    """Fold from the beginning."""
    return Folding(rules).take(*observations)


# --- recorded ------------------------------------------------------------------------------------------------------


def requested(number: int, *, tool: str = "lookup", sender: str = "clerk", run: str = "run-1") -> Sealed:
    """A call as an agent stores it."""
    digest = hashlib.sha256(f"call|{number}|{run}".encode()).digest()
    id = new_id(START + timedelta(milliseconds=number), lambda size: digest[:size])
    return compose(
        ToolRequested(tool, {}, "2026-01-01T01:00:00.000000Z"),
        id=id,
        subject=subjects.tool_call(id),
        sender=sender,
        to="executor",
        trace_id=digest.hex()[:32],
        span_id=digest.hex()[:16],
        ts=START,
        place=ChainPlace(f"events:clerk:{id}"),
        metadata={"workflow_id": run, "tenant": "acme"},
    )


def outcome(call: Sealed, **more: Any) -> Sealed:
    """What came of a call, as the executor records it."""
    payload = payload_as(call, ToolRequested)
    given: dict[str, Any] = {"status": "completed", "input_sha256": "0" * 64, "result": {"output": None}}
    given.update(principal=call.envelope.sender, tool_version="1.0.0", usage=Usage(12.5, 3.0, 900, 10), exit_code=0)
    code = more.pop("code", "")
    if code:
        given.update(status="failed", error=Failure(code, "Error", "no", "tool"))
    id = derive_id(call.envelope.id, "executor", "audit:outcome")
    return compose(
        AuditOutcome(payload.tool, **{**given, **more}),
        id=id,
        subject=subjects.tool_audit(call.envelope.id),
        sender="executor",
        to=call.envelope.sender,
        trace_id=call.envelope.trace_id,
        span_id=call.envelope.span_id,
        ts=START,
        place=audit_chain(call),
        causes=(call.ref,),
        metadata={"workflow_id": call.workflow_id, "tenant": "acme"},
    )


async def record(mesh: Transport, number: int, *, tool: str = "lookup", sender: str = "clerk", **more: Any) -> Sealed:
    """Store a call and its outcome; returns the outcome."""
    call = requested(number, tool=tool, sender=sender, run=more.pop("run", "run-1"))
    await store(mesh, call, expect=0)
    said = outcome(call, **more)
    await store(mesh, said, expect=0)
    return said


# --- a detector on a mesh ------------------------------------------------------------------------------------------


async def detector(
    mesh: Transport, rules: RuleSet, *, allowed: Collection[Action] = ALL, pace: Pace = (10_000, 10_000.0)
) -> Detector:
    """A detector as a fresh process would have it; it takes up nothing before it is started."""
    log = logs.get("test")
    alarms = Alarms(mesh, await mesh.bucket(BREAKERS), allowed, DetectorMetrics(), log)
    snapshots = Snapshots(mesh, await mesh.bucket(STATE_BUCKET), log)
    return Detector(mesh, await mesh.objects(ARTIFACTS), rules, alarms, snapshots, log, pace=pace)


async def watch(mesh: Transport, rules: RuleSet, **more: Any) -> Detector:
    """A detector that has folded all there is."""
    found = await detector(mesh, rules, **more)
    await found.start()
    return found


async def anomalies(mesh: Transport) -> list[ToolAnomaly]:
    """Every stored anomaly, in order."""
    return [payload_as(each, ToolAnomaly) for each in await sealed_anomalies(mesh)]


async def sealed_anomalies(mesh: Transport) -> list[Sealed]:
    """Their envelopes."""
    return [unseal(message.body, message.subject) async for message in mesh.read("AF_AUDIT", "tools.anomaly.*")]


async def breakers(mesh: Transport) -> dict[str, Breaker]:
    """Every breaker."""
    return {entry.key: read_breaker(entry.key, entry.value) for entry in await (await mesh.bucket(BREAKERS)).entries()}


async def letters(mesh: Transport) -> list[DeadLetter]:
    """The detector's dead letters."""
    subject = subjects.dead("AF_AUDIT", "detector")
    return [payload_as(unseal(m.body, m.subject), DeadLetter) async for m in mesh.read("AF_DEAD", subject)]


def plain(state: State) -> Any:
    """A state without the position, for comparing."""
    return msgspec.to_builtins(msgspec.structs.replace(state, position=Position()))
