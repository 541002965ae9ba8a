"""The runtime process: composition root. `agentflow-runtime --help` says what it takes."""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from agentflow.errors import AgentflowError
from agentflow.mesh.transport import ServiceSpec
from agentflow.project import AgentSpec, Project, load_project
from agentflow.service import Host, run
from agentflow.settings import load
from agentflow_runtime.hosting import HostedAgent
from agentflow_runtime.loading import load_agents
from agentflow_runtime.settings import RuntimeSettings
from agentflow_runtime.shell import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Host agents until SIGTERM; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = load(RuntimeSettings, nats_url=given.nats_url, project=given.project)
        agents = find_agents(load_project(settings.project), given.agents)
    except AgentflowError as error:
        sys.stderr.write(f"error[{error.error_code}]: {error}\n")
        return error.exit_code

    async def body(host: Host) -> None:
        await serve(host, settings, agents)

    return run(service_spec(agents), settings, body)


def find_agents(project: Project, named: Sequence[str]) -> list[HostedAgent]:
    """The agents of the project file and those named on the command line.

    Their modules are looked for beside the project file and in the working directory before anywhere else, as for
    `python -m`. Raises `ConfigError`.
    """
    for folder in (Path.cwd(), project.folder):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return load_agents([*project.agents, *(AgentSpec(use) for use in named)])


def service_spec(agents: Sequence[HostedAgent]) -> ServiceSpec:
    """How the process presents itself to `nats micro ls`."""
    return ServiceSpec(
        name="agentflow-runtime",
        version=importlib.metadata.version("agentflow-runtime"),
        description="Hosts agents",
        metadata={"agents": ",".join(agent.id for agent in agents)},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentflow-runtime",
        description="Hosts agents: takes their messages from the mesh and runs their handlers durably.",
        epilog="example: agentflow-runtime --nats-url nats://127.0.0.1:4222 my_agents:Greeter",
    )
    parser.add_argument("agents", nargs="*", metavar="module:Class", help="agents to host besides the project file's")
    parser.add_argument("--project", type=Path, help="project file with agents (AF_PROJECT)")
    parser.add_argument("--nats-url", help="nats://host:port of the broker (AF_NATS_URL)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
