"""The planner process: composition root. `agentflow-planner --help` says what it takes."""

import argparse
import asyncio
import importlib.metadata
import sys
from collections.abc import Sequence

from agentflow.errors import AgentflowError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.patience import patiently
from agentflow.mesh.retries import Retries
from agentflow.mesh.transport import ConsumerSpec, Delivery, ServiceSpec
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import ARTIFACTS
from agentflow.service import Host, run
from agentflow.settings import load
from agentflow_planner.catalog import Catalog
from agentflow_planner.conditions import engine_for
from agentflow_planner.sending import OWNER_KIND, PRODUCER
from agentflow_planner.settings import PlannerSettings
from agentflow_planner.shell import Planner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a planner until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agentflow-planner", description="Decides about runs: state machines, CEL.")
    parser.add_argument("--nats-url", help="nats://host:port of the broker (AF_NATS_URL)")
    parser.add_argument("--cel-engine", choices=("auto", "cpp", "python"), help="condition engine (AF_CEL_ENGINE)")
    given = parser.parse_args(arguments)
    try:
        settings = load(PlannerSettings, nats_url=given.nats_url, cel_engine=given.cel_engine)
        engine = engine_for(settings.cel_engine)
    except AgentflowError as error:
        sys.stderr.write(f"error[{error.error_code}]: {error}\n")
        return error.exit_code
    spec = ServiceSpec(
        name="agentflow-planner",
        version=importlib.metadata.version("agentflow-planner"),
        description="Decides about runs",
        metadata={"engine": f"{engine.name}/{engine.version}", "planner": "fsm"},
    )

    async def body(host: Host) -> None:
        await _work(host, settings)

    return run(spec, settings, body)


async def _work(host: Host, settings: PlannerSettings) -> None:
    objects = await patiently(host.transport, lambda: host.transport.objects(ARTIFACTS))
    engine = engine_for(settings.cel_engine)
    planner = Planner(host.transport, objects, Catalog(host.transport, objects, engine), host.log)
    workers = [await _worker(host, settings, planner, spec) for spec in consumers(settings)]
    entry = host.heartbeat_for("planner", "fsm", engine=f"{engine.name}/{engine.version}")
    async with host.registered(entry), asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(host.stop))


def consumers(settings: PlannerSettings) -> tuple[ConsumerSpec, ...]:
    """What a planner consumes. One planner is active, others stand by."""
    runs = ("workflows.*.in", "workflows.*.results.*")
    wait, pending = settings.ack_wait, settings.concurrency * 2
    return (
        ConsumerSpec("AF_MESSAGES", PRODUCER, runs, ack_wait=wait, max_ack_pending=pending, pinned=True),
        ConsumerSpec(
            "AF_TIMERS",
            PRODUCER,
            (f"timers.due.{OWNER_KIND}.*.*",),
            ack_wait=wait,
            max_ack_pending=pending,
            pinned=True,
        ),
    )


async def _worker(host: Host, settings: PlannerSettings, planner: Planner, spec: ConsumerSpec) -> Worker:
    async def give_up(delivery: Delivery, code: str, reason: str) -> None:
        await write_dead_letter(host.transport, delivery, spec.name, PRODUCER, code, reason)

    policy = WorkPolicy(settings.concurrency, settings.ack_wait, settings.max_deliveries)
    retries = Retries(host.transport, spec.name)
    consumer = await patiently(host.transport, lambda: host.transport.consume(spec))
    return Worker(consumer, planner.handle, give_up, policy, host.log, retries)


if __name__ == "__main__":
    sys.exit(main())
