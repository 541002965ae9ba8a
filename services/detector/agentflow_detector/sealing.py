"""From a finding to the anomaly that is stored: what is done about it, and its envelope. Pure.

The id is derived from the call that broke the rule, the rule's id and what the finding is about, and the envelope is
stored on a subject of its own with expected sequence 0: whoever finds the same makes the same id, and the first one's
word stands. The envelope is the only place of its chain; its causes are the evidence.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from agentflow import subjects
from agentflow.breakers import Breaker, breaker_keys
from agentflow.clock import format_time
from agentflow.envelope import ChainPlace, Ref, Sealed, sha256_hex
from agentflow.ids import derive_id
from agentflow.payloads import Action, ToolAnomaly
from agentflow.schemas import compose
from agentflow_detector.fold import Finding
from agentflow_detector.observing import moment
from agentflow_detector.rules import RuleSet

DETECTOR = "detector"
"""The logical producer."""


def anomaly_of(finding: Finding, rules: RuleSet, allowed: Collection[Action]) -> ToolAnomaly:
    """The anomaly of a finding, with what is done about it: what the rule asks for and the operator allows."""
    rule, seen = finding.rule, finding.seen
    actions: tuple[Action, ...] = (
        "flag",
        *(a for a in ("auto_block", "escalate") if a in rule.actions and a in allowed),
    )
    breakers = _breakers(finding) if "auto_block" in actions else ()
    until = format_time(moment(seen.time) + timedelta(seconds=rule.block_seconds)) if breakers else ""
    return ToolAnomaly(
        rule=rule.id,
        kind=str(type(rule).__struct_config__.tag),
        rule_sha256=rule.digest,
        rules_version=rules.version,
        rules_sha256=rules.digest,
        severity=rule.severity,
        detail=finding.detail,
        count=finding.count,
        tool=seen.tool if "tool" in rule.per or breakers else "",
        principal=seen.principal if "principal" in rule.per or breakers else "",
        workflow_id=seen.run if "run" in rule.per else "",
        tenant=seen.tenant,
        evidence=finding.evidence,
        features=finding.features,
        actions=actions,
        breakers=breakers,
        until=until,
    )


def seal_anomaly(finding: Finding, anomaly: ToolAnomaly, trigger: Sealed) -> Sealed:
    """The envelope of an anomaly; `trigger` is the one that broke the rule."""
    id = derive_id(trigger.envelope.id, DETECTOR, f"anomaly:{finding.rule.id}:{finding.key}")
    causes = (trigger.ref, *(Ref(each.id, each.hash) for each in finding.evidence if each.id != trigger.envelope.id))
    return compose(
        anomaly,
        id=id,
        subject=subjects.tool_anomaly(id),
        sender=DETECTOR,
        to="operator",
        trace_id=trigger.envelope.trace_id,
        span_id=sha256_hex(id.encode())[:16],
        ts=moment(finding.seen.time),
        place=ChainPlace(f"anomaly:{id}"),
        causes=causes,
        metadata=_metadata(finding),
    )


def breaker_of(anomaly: ToolAnomaly, id: str, since: str) -> Breaker:
    """What the anomaly's breakers hold; `since` is the anomaly's time."""
    return Breaker(until=anomaly.until, since=since, rule=anomaly.rule, anomaly=id, reason=anomaly.detail[:500])


def _breakers(finding: Finding) -> tuple[str, ...]:
    """The keys to block; what is no id of a tool or an agent has no breaker, and no call of it is admitted."""
    seen, wanted = finding.seen, finding.rule.block
    return breaker_keys(seen.tool if "tool" in wanted else "", seen.principal if "agent" in wanted else "")


def _metadata(finding: Finding) -> dict[str, Any]:
    run = {"workflow_id": finding.seen.run} if finding.seen.run else {}
    return {"tenant": finding.seen.tenant, **run}
