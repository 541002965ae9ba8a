"""The detector process: composition root. It presents itself on the mesh and has no rules yet: it detects nothing."""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

from agentflow.errors import AgentflowError
from agentflow.mesh.transport import ServiceSpec
from agentflow.service import Host, run
from agentflow.settings import ServiceSettings, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the detector until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agentflow-detector", description="Anomaly detection; it has no rules yet.")
    parser.add_argument("--nats-url", help="nats://host:port of the broker (AF_NATS_URL)")
    given = parser.parse_args(arguments)
    try:
        settings = load(ServiceSettings, nats_url=given.nats_url)
    except AgentflowError as error:
        sys.stderr.write(f"error[{error.error_code}]: {error}\n")
        return error.exit_code
    spec = ServiceSpec(
        name="agentflow-detector",
        version=importlib.metadata.version("agentflow-detector"),
        description="Anomaly detection; it has no rules yet",
    )
    return run(spec, settings, _wait)


async def _wait(host: Host) -> None:
    host.log.warning("detector.no_rules", what="nothing is detected in this version")
    async with host.registered(host.heartbeat_for("detector", "detector", rules=0)):
        await host.stop.wait()


if __name__ == "__main__":
    sys.exit(main())
