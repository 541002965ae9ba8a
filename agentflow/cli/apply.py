"""`agentflow apply`, `agents` and `tools`: what is declared on the mesh."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, note, say, table
from agentflow.cli.session import open_transport

if TYPE_CHECKING:
    from agentflow.mesh.transport import Transport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("apply", epilog=examples("agentflow apply support.yaml", "agentflow apply flows/*.yaml --json"))(apply)
    app.command("agents", epilog=examples("agentflow agents", "agentflow agents --json"))(agents)
    app.command("tools", epilog=examples("agentflow tools", "agentflow tools --json | jq '.[].id'"))(tools)


@command
async def apply(
    files: Annotated[list[Path], typer.Argument(help="Workflow definitions.", show_default=False)],
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Check and store workflow definitions.

    Each is kept under its name and version. The same file again changes nothing; another file under the same version is refused. What is wrong with any of the
    files is said with its line, what was found and what is allowed, and then none is stored.
    """
    from agentflow.clock import SystemClock
    from agentflow.definitions import apply_definitions, read_source

    for path in files:
        read_source(path)  # a name that is wrong is said without a mesh
    async with open_transport(nats_url) as transport:
        results = await apply_definitions(transport, files, SystemClock().now())
    applied: list[dict[str, Any]] = []
    for path, result in zip(files, results, strict=True):
        declaration = result.declaration
        if result.warnings:
            note(result.warnings)
        named = {"name": declaration.name, "version": declaration.version, "sha256": declaration.sha256}
        applied.append({"file": str(path), **named, "new": result.new})
    emit(applied, as_json=as_json, render=_print_applied)


def _print_applied(applied: list[dict[str, Any]]) -> None:
    for each in applied:
        done = "applied" if each["new"] else "unchanged"
        say(f"{done} {each['name']}@{each['version']} (sha256 {each['sha256'][:12]}…) from {each['file']}")


@command
async def agents(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """List the declared agents.

    Of each it says how many processes host it just now; one without any is waited for.
    """
    async with open_transport(nats_url) as transport:
        found = await _agents(transport)
    emit(found, as_json=as_json, render=_print_agents)


async def _agents(transport: "Transport") -> list[dict[str, Any]]:
    import msgspec

    from agentflow.registry import CONFIG, AgentDeclaration

    entries = await (await transport.bucket(CONFIG)).entries("agent.")
    declared = [msgspec.json.decode(entry.value, type=AgentDeclaration) for entry in entries]
    alive = await _alive(transport, "agent")
    return [{**msgspec.to_builtins(each), "processes": alive.get(each.id, 0)} for each in declared]


def _print_agents(found: list[dict[str, Any]]) -> None:
    rows = [(each["id"], each["processes"], each["concurrency"], _first_line(each["description"])) for each in found]
    table(("agent", "processes", "concurrency", "description"), rows, empty="no agents are declared")


@command
async def tools(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """List the declared tools.

    Of each it says what repeating a call does, what it needs, and how many processes execute it just now.
    """
    async with open_transport(nats_url) as transport:
        found = await _tools(transport)
    emit(found, as_json=as_json, render=_print_tools)


async def _tools(transport: "Transport") -> list[dict[str, Any]]:
    import msgspec

    from agentflow.registry import CONFIG, ToolDeclaration

    entries = await (await transport.bucket(CONFIG)).entries("tool.")
    declared = [msgspec.json.decode(entry.value, type=ToolDeclaration) for entry in entries]
    alive = await _alive(transport, "tool")
    return [{**msgspec.to_builtins(each), "processes": alive.get(each.id, 0)} for each in declared]


def _print_tools(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            each["id"],
            each["version"],
            each["effect"],
            each["processes"],
            f"{each['timeout']:g} s",
            ", ".join(each["permissions"]),
            _first_line(each["description"]),
        )
        for each in found
    ]
    headers = ("tool", "version", "effect", "processes", "timeout", "permissions", "description")
    table(headers, rows, empty="no tools are declared")


async def _alive(transport: "Transport", kind: str) -> dict[str, int]:
    """How many processes host each agent or tool."""
    import msgspec

    from agentflow.registry import REGISTRY, Heartbeat

    found: dict[str, int] = {}
    for entry in await (await transport.bucket(REGISTRY)).entries(f"{kind}."):
        beat = msgspec.json.decode(entry.value, type=Heartbeat)
        found[beat.id] = found.get(beat.id, 0) + 1
    return found


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
