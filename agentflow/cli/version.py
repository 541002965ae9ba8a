"""`agentflow version`: what is installed here."""

from typing import Any

import typer

from agentflow.cli.output import JsonFlag, command, emit, examples, say, table

DISTRIBUTIONS = (
    "agentflow-mesh",
    "agentflow-streams",
    "agentflow-protocols",
    "agentflow-planner",
    "agentflow-runtime",
    "agentflow-executor",
    "agentflow-detector",
    "agentflow-support-desk",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("version", epilog=examples("agentflow version", "agentflow version --json"))(show)


@command
def show(as_json: JsonFlag = False) -> None:
    """Show what is installed.

    agentflow's distributions, Python, and the nats-server that would be started.
    """
    emit(_versions(), as_json=as_json, render=_print)


def show_version() -> None:
    """Print the version alone."""
    say(f"agentflow {_version_of('agentflow-mesh')}")


def _versions() -> dict[str, Any]:
    import platform

    return {
        "agentflow": _version_of("agentflow-mesh"),
        "distributions": {name: _version_of(name) for name in DISTRIBUTIONS},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "nats_server": _server(),
    }


def _version_of(distribution: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _server() -> dict[str, str | None] | None:
    import asyncio

    from agentflow.errors import MeshError
    from agentflow.mesh import server_binary

    try:
        binary = server_binary.find()
    except MeshError:
        return None
    version = asyncio.run(server_binary.version(binary))
    return {"version": version, "path": str(binary.path), "origin": binary.origin}


def _print(found: dict[str, Any]) -> None:
    server = found["nats_server"]
    rows: list[tuple[str, object]] = [(name, text or "not installed") for name, text in found["distributions"].items()]
    rows.append(("python", f"{found['python']} on {found['platform']}"))
    shown = f"{server['version']} from {server['origin']} ({server['path']})" if server else "not found"
    table(("part", "version"), [*rows, ("nats-server", shown)])
