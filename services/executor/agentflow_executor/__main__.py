"""The executor's composition root: `agentflow-executor`, or `python -m agentflow_executor`."""

import argparse
import functools
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agentflow.errors import AgentflowError
from agentflow.mesh.transport import ServiceSpec
from agentflow.project import load_project
from agentflow.service import run
from agentflow.settings import load
from agentflow_executor.catalog import load_catalog
from agentflow_executor.profile import Policies
from agentflow_executor.sandbox import import_paths, make_sandbox
from agentflow_executor.settings import ExecutorSettings
from agentflow_executor.shell import work

EPILOG = """\
Every setting is also read from the environment, such as AF_NATS_URL, AF_PROJECT, AF_CONCURRENCY, AF_SANDBOX,
AF_SANDBOX_UID, AF_ACK_WAIT, AF_MAX_DELIVERIES; a flag wins.

example:
  agentflow-executor --project agentflow.yaml --nats-url nats://127.0.0.1:4222

exit codes: 0 stopped, 1 failed, 2 bad settings or project file, 4 cannot reach the mesh"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="agentflow-executor",
        description="Execute the tools of an agentflow mesh, sandboxed and audited.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--project", type=Path, metavar="FILE", help="project file that lists the tools")
    found.add_argument("--nats-url", metavar="URL", help="where the mesh is; several by comma")
    found.add_argument("--concurrency", type=int, metavar="N", help="tool calls run at once")
    found.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the executor until it is told to stop; returns the exit code."""
    flags = vars(parser().parse_args(argv))
    try:
        settings = load(ExecutorSettings, **flags)
        project = load_project(settings.project)
        if project.path:
            sys.path.insert(0, str(project.folder))
        sandbox = make_sandbox(
            settings.sandbox, slots=settings.concurrency, uid=settings.sandbox_uid, paths=import_paths(sys.path)
        )
        catalog = load_catalog(project, Policies(sandbox=settings.sandbox, uid=sandbox.uid))
    except AgentflowError as error:
        sys.stderr.write(f"agentflow-executor: {error.error_code}: {error}\n")
        return error.exit_code
    spec = ServiceSpec("agentflow-executor", _version(), "executes tools, sandboxed and audited")
    return run(spec, settings, functools.partial(work, catalog=catalog, sandbox=sandbox))


def _version() -> str:
    try:
        return version("agentflow-executor")
    except PackageNotFoundError:  # run from a source folder
        return "0.0.0"


if __name__ == "__main__":
    sys.exit(main())
