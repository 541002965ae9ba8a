"""`python -m agentflow_streams`: the same provisioning as `agentflow streams apply`, for containers and init jobs.

Reads `AF_NATS_URL`, `AF_REPLICAS`, `AF_HEARTBEAT`, `AF_CAPACITY` and `AF_CONNECT_TIMEOUT`, logs one JSON line for each
stream, and ends with 0, with the exit code of the error, or with 7 where a setting that protects evidence differs.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from agentflow import logs
from agentflow.errors import AgentflowError
from agentflow.mesh.connect import connect
from agentflow.settings import load
from agentflow_streams.provision import ProvisionReport, provision
from agentflow_streams.settings import ProvisionSettings

UNSAFE = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Provision once; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m agentflow_streams", description="Make the streams of a mesh.")
    parser.add_argument("--nats-url", help="nats://host:port of the broker (AF_NATS_URL)")
    parser.add_argument("--replicas", type=int, help="replicas of every stream (AF_REPLICAS)")
    parser.add_argument("--update", action="store_true", help="mend what differs from the definitions")
    given = parser.parse_args(arguments)
    logs.configure("streams", "provision", "info", console=sys.stderr.isatty())
    log = logs.get("streams")
    try:
        settings = load(ProvisionSettings, nats_url=given.nats_url, replicas=given.replicas)
        report = asyncio.run(_provision(settings, update=given.update))
    except AgentflowError as error:
        log.error("streams.failed", code=error.error_code, reason=error.message)
        return error.exit_code
    _tell(report, log)
    return 0 if report.safe else UNSAFE


async def _provision(settings: ProvisionSettings, *, update: bool) -> ProvisionReport:
    transport = await connect(settings.nats_url, name="agentflow-streams", timeout=settings.connect_timeout)
    try:
        return await provision(
            transport,
            replicas=settings.replicas,
            registry_ttl=settings.registry_ttl,
            capacity=settings.capacity,
            update=update,
        )
    finally:
        await transport.close()


def _tell(report: ProvisionReport, log: Any) -> None:
    for stream in report.streams:
        log.info(f"stream.{stream.state}", stream=stream.name)
        for drift in stream.drift:
            log.warning("stream.drift", stream=stream.name, protected=drift.protected, difference=drift.sentence)
        if stream.refused:
            log.error("stream.update_refused", stream=stream.name, reason=stream.refused)


if __name__ == "__main__":
    sys.exit(main())
