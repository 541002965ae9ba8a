"""`agentflow dev`: a mesh on this machine, in one process tree, until Ctrl-C."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, command, emit_line, examples, is_terminal, note, say

if TYPE_CHECKING:
    from agentflow.local.events import ProcessEvent
    from agentflow.local.mesh import LocalMesh

PROJECT_FILE = "agentflow.yaml"
DEFAULT_PORT = 4222


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "dev",
        epilog=examples(
            "agentflow dev",
            "agentflow dev --project examples/three_steps/agentflow.yaml --ephemeral",
            "agentflow dev --port 0 --json | head -1",
        ),
    )(dev)


@command
async def dev(
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            "-p",
            envvar="AF_PROJECT",
            help=f"Project file. Default: {PROJECT_FILE} here, if there is one.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the broker; 0 takes a free one.")
    ] = DEFAULT_PORT,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="Where everything is kept. Default: the user data directory.", show_default=False
        ),
    ] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a mesh on this machine.

    nats-server and the services of a project are started, each a process of its own; one that dies is started again,
    after a pause that grows. Prints where everything is when it is ready; with --json as one line, and then one line
    for each process that ended, is starting, is up again or did not start. Ctrl-C (or SIGTERM) stops it in order and
    leaves no process behind: exit code 0 once it was ready, 130 or 143 before.
    """
    from agentflow.cli.interrupts import Interrupts
    from agentflow.errors import InputError
    from agentflow.local.mesh import LocalMesh, MeshOptions

    if data_dir is not None and ephemeral:
        raise InputError("--data-dir and --ephemeral exclude each other", code="usage.exclusive")
    mesh = LocalMesh(
        None if ephemeral else data_dir or default_data_dir(),
        project=project or configured_project() or project_here(),
        options=MeshOptions(port=port),
        note=note,
        told=tell_both if as_json else None,
    )
    with Interrupts() as interrupts:
        try:
            if not await interrupts.unless_interrupted(mesh.start()):
                raise typer.Exit(interrupts.exit_code)
            ready = describe(mesh)
            if as_json:
                emit_line(ready)
            else:
                print_box(ready)
            await interrupts.wait()
            note("stopping …")
        finally:
            await mesh.stop()
        note("stopped" if ephemeral else f"stopped; everything is kept in {mesh.directory}")


def tell_both(event: "ProcessEvent") -> None:
    """Tell what happened to a process to people and to programs."""
    note(event.sentence)
    emit_line(event.as_json())


def default_data_dir() -> Path:
    """Where `dev` keeps its data."""
    import platformdirs

    return platformdirs.user_data_path("agentflow") / "dev"


def configured_project() -> Path | None:
    """The project file the settings name; raises `ConfigError` where they are not usable, before anything is started."""
    from agentflow.settings import ServiceSettings, load

    return load(ServiceSettings).project


def project_here() -> Path | None:
    """The project file of the present directory, if it has one."""
    path = Path(PROJECT_FILE)
    return path if path.is_file() else None


def describe(mesh: "LocalMesh") -> dict[str, Any]:
    """Where everything of a mesh is, and what to do next."""
    import json
    import shlex

    from agentflow.cli.samples import sample_input

    server = mesh.server
    assert server.binary is not None
    workflows = [f"{each.declaration.name}@{each.declaration.version}" for each in mesh.applied]
    goal = next((each.declaration.name for each in mesh.applied), "GOAL")
    sample = sample_input(mesh.project.folder / mesh.project.workflows[0]) if mesh.applied else {}
    return {
        "ready": True,
        "nats_url": mesh.url,
        "monitor_url": server.monitor_url,
        "nats_server": {"version": server.version, "path": str(server.binary.path), "origin": server.binary.origin},
        "data_dir": str(mesh.directory),
        "ephemeral": server.ephemeral,
        "logs": str(mesh.logs),
        "project": mesh.project.path or None,
        "processes": {name: [child.pid for child in children] for name, children in mesh.services.items()},
        "workflows": workflows,
        "next": f"agentflow submit {goal} --input {shlex.quote(json.dumps(sample, ensure_ascii=False))} --follow",
    }


def print_box(ready: dict[str, Any]) -> None:
    """The same for people."""
    server = ready["nats_server"]
    lines = [
        ("agentflow dev", "ready; Ctrl-C stops it"),
        ("", ""),
        ("NATS", f"{ready['nats_url']}   monitoring {ready['monitor_url']}"),
        ("nats-server", f"{server['version']} from {server['origin']} ({server['path']})"),
        ("data", f"{ready['data_dir']}{' (removed at the end)' if ready['ephemeral'] else ''}"),
        ("logs", ready["logs"]),
        ("project", ready["project"] or f"none: no {PROJECT_FILE} here"),
        ("services", ", ".join(f"{name} ({', '.join(map(str, pids))})" for name, pids in ready["processes"].items())),
        ("workflows", ", ".join(ready["workflows"]) or "none: agentflow apply FILE"),
        ("", ""),
        ("next", ready["next"]),
        ("", "agentflow runs     agentflow doctor     nats sub 'workflows.>'"),
    ]
    box([f"{name:<13} {value}".rstrip() for name, value in lines])


def box(lines: list[str]) -> None:
    """Print lines in a box, on a terminal wide enough for one; plainly elsewhere."""
    import shutil
    import sys

    width = max(map(len, lines))
    if not is_terminal(sys.stdout) or width + 4 > shutil.get_terminal_size().columns:
        for line in lines:
            say(line, flush=True)
        return
    say(f"╭{'─' * (width + 2)}╮")
    for line in lines:
        say(f"│ {line:<{width}} │")
    say(f"╰{'─' * (width + 2)}╯", flush=True)
