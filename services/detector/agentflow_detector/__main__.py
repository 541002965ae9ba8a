"""The detector process: composition root. `agentflow-detector --help` says what it takes."""

import argparse
import asyncio
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from agentflow.errors import AgentflowError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.patience import patiently
from agentflow.mesh.transport import ConsumerSpec, Delivery, ServiceSpec
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import ARTIFACTS, BREAKERS, STATE
from agentflow.service import Host, run
from agentflow.settings import load
from agentflow_detector.alarms import Alarms
from agentflow_detector.doorkeeping import open_doors
from agentflow_detector.loading import load_rules
from agentflow_detector.metrics import DetectorMetrics
from agentflow_detector.rules import RuleSet
from agentflow_detector.saving import STREAM, Snapshots
from agentflow_detector.sealing import DETECTOR
from agentflow_detector.settings import DetectorSettings
from agentflow_detector.shell import Detector

FILTERS = ("tools.audit.*", "tools.calls.*")
"""What the detector is woken by."""

SLOTS = 64
"""Deliveries in hand; one reading of the stream settles them all."""

UNLIMITED = 2**31
"""A delivery is only a hint: what cannot be read now is read later, and no message is given up for it."""

EPILOG = """\
Every setting is also read from the environment, such as AF_NATS_URL, AF_DETECTOR_RULES, AF_SECURITY_ANOMALY_ACTION
(flag, auto_block, escalate, by comma), AF_DETECTOR_SNAPSHOT_MESSAGES, AF_DETECTOR_SNAPSHOT_SECONDS; a flag wins.

examples:
  agentflow-detector --nats-url nats://127.0.0.1:4222
  agentflow-detector --rules rules.yaml --action flag
  agentflow-detector --rules rules.yaml --check

exit codes: 0 stopped, 1 failed, 2 bad settings or rules, 4 cannot reach the mesh"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="agentflow-detector",
        description="Watch the audited tool calls of an agentflow mesh, report what breaks a rule, and block it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--nats-url", metavar="URL", help="nats://host:port of the broker (AF_NATS_URL)")
    found.add_argument("--rules", type=Path, metavar="FILE", help="rules file (AF_DETECTOR_RULES)")
    found.add_argument("--action", metavar="WORDS", help="what may be done (AF_SECURITY_ANOMALY_ACTION)")
    found.add_argument("--check", action="store_true", help="check the rules file, say what is in it, and end")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the detector until SIGTERM; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        settings = load(
            DetectorSettings,
            nats_url=given.nats_url,
            detector_rules=given.rules,
            security_anomaly_action=given.action,
        )
        rules = load_rules(settings.detector_rules)
    except AgentflowError as error:
        sys.stderr.write(f"error[{error.error_code}]: {error}\n")
        return error.exit_code
    if given.check:
        sys.stdout.write(f"{len(rules.rules)} rules, version {rules.version}, digest {rules.digest}\n")
        return 0
    spec = ServiceSpec(
        name="agentflow-detector",
        version=importlib.metadata.version("agentflow-detector"),
        description="Finds anomalies in tool calls, and blocks",
        metadata={
            "rules": str(len(rules.rules)),
            "rules_version": rules.version,
            "rules_sha256": rules.digest,
            "actions": ",".join(settings.security_anomaly_action),
        },
    )

    async def body(host: Host) -> None:
        await work(host, settings, rules)

    return run(spec, settings, body)


async def work(host: Host, settings: DetectorSettings, rules: RuleSet) -> None:
    """The service's body: catch up, then watch until `host.stop` is set, then keep a snapshot."""
    detector = await patiently(host.transport, lambda: started(host, settings, rules))

    async def give_up(delivery: Delivery, code: str, reason: str) -> None:
        await write_dead_letter(host.transport, delivery, DETECTOR, DETECTOR, code, reason)

    spec = ConsumerSpec(STREAM, DETECTOR, FILTERS, ack_wait=settings.ack_wait, max_ack_pending=SLOTS, pinned=True)
    policy = WorkPolicy(SLOTS, settings.ack_wait, UNLIMITED, observed=False)
    consumer = await patiently(host.transport, lambda: host.transport.consume(spec))
    worker, doors = Worker(consumer, detector.handle, give_up, policy, host.log), await open_doors(host)
    detail = {"rules": len(rules.rules), "rules_version": rules.version, "rules_sha256": rules.digest}
    entry = host.heartbeat_for("detector", DETECTOR, **detail, actions=list(settings.security_anomaly_action))
    async with host.registered(entry):
        host.log.info("detector.ready", **detail)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(host.stop), name="watch")
            for door in doors:
                group.create_task(door.run(host.stop), name="door")
    await detector.save()


async def started(host: Host, settings: DetectorSettings, rules: RuleSet) -> Detector:
    """The detector of a process, which has folded what there is."""
    detector = await assemble(host, settings, rules)
    await detector.start()
    return detector


async def assemble(host: Host, settings: DetectorSettings, rules: RuleSet) -> Detector:
    """The detector of a process, with its parts."""
    transport = host.transport
    alarms = Alarms(
        transport, await transport.bucket(BREAKERS), settings.security_anomaly_action, DetectorMetrics(), host.log
    )
    snapshots = Snapshots(transport, await transport.bucket(STATE), host.log)
    pace = (settings.detector_snapshot_messages, settings.detector_snapshot_seconds)
    return Detector(transport, await transport.objects(ARTIFACTS), rules, alarms, snapshots, host.log, pace=pace)


if __name__ == "__main__":
    sys.exit(main())
