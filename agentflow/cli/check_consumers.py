"""The doctor looks at durable consumers: there, as they should be, and keeping up."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from agentflow.cli.findings import Finding, Patient
from agentflow.clock import SystemClock
from agentflow.mesh.transport import ConsumerInfo, Transport
from agentflow.registry import CONFIG, REGISTRY
from agentflow.subjects import matches

BEHIND_WARNING = 30.0
"""Seconds a message may wait to be delivered."""

LOOK_AT = 200
"""Stored messages looked at to find the oldest that waits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A consumer that a service has while it works."""

    stream: str
    name: str
    filters: tuple[str, ...]
    pinned: bool = False


PLANNER = (
    Expected("AF_MESSAGES", "planner", ("workflows.*.in", "workflows.*.results.*"), pinned=True),
    Expected("AF_TIMERS", "planner", ("timers.due.planner.*.*",), pinned=True),
)
EXECUTOR = (Expected("AF_AUDIT", "executor", ("tools.calls.*",)),)


def of_agent(agent_id: str) -> Expected:
    """The consumer of an agent."""
    return Expected("AF_AGENTS", f"agent-{agent_id}", (f"agents.{agent_id}.in", f"agents.{agent_id}.in.>"))


async def check_consumers(patient: Patient) -> AsyncIterator[Finding]:
    """Every consumer a live service needs, and how far behind each is."""
    if f"KV_{REGISTRY}" not in patient.streams or f"KV_{CONFIG}" not in patient.streams:
        return
    found = {
        (info.stream, info.name): info
        for stream in ("AF_MESSAGES", "AF_TIMERS", "AF_AUDIT", "AF_AGENTS")
        if stream in patient.streams
        for info in await patient.transport.consumers(stream)
    }
    findings = []
    for expected in await _expected(patient):
        findings += _compare(expected, found.get((expected.stream, expected.name)))
    for info in found.values():
        findings += await _lag(patient.transport, info)
    if not findings:
        findings = [Finding("consumers", "ok", f"{len(found)}, none behind", "", "consumer.ok")]
    for finding in findings:
        yield finding


async def _expected(patient: Patient) -> list[Expected]:
    """What the services that are alive must have made."""
    keys = [entry.key.split(".") for entry in await (await patient.transport.bucket(REGISTRY)).entries()]
    alive = {key[0] for key in keys}
    agents = sorted({key[1] for key in keys if key[0] == "agent" and len(key) > 1})
    planner = PLANNER if "planner" in alive else ()
    executor = EXECUTOR if "executor" in alive else ()
    return [*planner, *executor, *(of_agent(agent) for agent in agents)]


def _compare(expected: Expected, info: ConsumerInfo | None) -> list[Finding]:
    name = f"{expected.name} of {expected.stream}"
    if info is None:
        fix = "restart the service: it makes its consumer and loses nothing"
        return [Finding("consumers", "error", f"{name} is missing", fix, "consumer.missing")]
    config, drift = info.config, []
    if info.filters != tuple(sorted(expected.filters)):
        drift.append(f"takes {', '.join(info.filters) or 'everything'}, should take {', '.join(expected.filters)}")
    if info.pinned != expected.pinned:
        drift.append("is pinned" if info.pinned else "is not pinned")
    if config.get("ack_policy", "explicit") != "explicit":
        drift.append(f"has ack policy {config['ack_policy']}")
    if config.get("max_deliver", -1) != -1:
        drift.append(f"stops after {config['max_deliver']} deliveries without a word")
    fix = f"nats consumer rm {expected.stream} {expected.name}, and restart the service: what was handled is known"
    return [Finding("consumers", "error", f"{name} {each}", fix, "consumer.drift") for each in drift]


async def _lag(transport: Transport, info: ConsumerInfo) -> list[Finding]:
    name = f"{info.name} of {info.stream}"
    if info.pinned and not info.active and (info.pending or info.unsettled):
        told = f"{name} has no active client, and {info.pending + info.unsettled} messages wait"
        fix = "start a planner; if one runs, restart it: its log says why it does not take messages"
        return [Finding("consumers", "error", told, fix, "planner.stuck")]
    if not info.pending:
        return []
    age = await _age(transport, info)
    if age is not None and age < BEHIND_WARNING:
        return []
    since = "" if age is None else f", the oldest for {age:.0f} s"
    told = f"{name}: {info.pending} messages wait{since}; {info.unsettled} are in hand"
    return [
        Finding("consumers", "warning", told, "start more processes of the service that takes them", "consumer.lag")
    ]


async def _age(transport: Transport, info: ConsumerInfo) -> float | None:
    """Seconds the first message waits that was never delivered; None where it is not found soon."""
    start = info.delivered_seq + 1
    async for message in transport.read(info.stream, start=start, end=start + LOOK_AT):
        if not info.filters or any(matches(pattern, message.subject) for pattern in info.filters):
            return (SystemClock().now() - message.time).total_seconds()
    return None
