"""`agentflow apply`, `agents` and `tools`, on a mesh in memory."""

from pathlib import Path

import msgspec
import pytest

from agentflow.mesh.memory import MemoryTransport
from agentflow.registry import (
    CONFIG,
    REGISTRY,
    AgentDeclaration,
    Heartbeat,
    ToolDeclaration,
    agent_key,
    alive_key,
    tool_key,
)
from tests.cli.terminal import Mesh, Terminal
from tests.services.planner.definitions import GREET, SLIPS

FLOW = """\
name: greet
version: {version}
planner: fsm
initial_state: hello
final_states: [done]
states:
  hello:
    agent: {agent}
    timeout: 10s
    on_success: {target}
"""


def flow(folder: Path, *, version: str = "1.0.0", agent: str = "greeter", target: str = "done") -> str:
    """A definition file."""
    path = folder / "flow.yaml"
    path.write_text(FLOW.format(version=version, agent=agent, target=target))
    return str(path)


@pytest.fixture(autouse=True)
def declared(mesh: Mesh) -> None:
    """An agent with two processes and one without, and a tool with one."""

    async def declare(transport: MemoryTransport) -> None:
        config, registry = await transport.bucket(CONFIG), await transport.bucket(REGISTRY)
        for agent in (AgentDeclaration("greeter", "Says hello.\n\nAt length.", 4), AgentDeclaration("absent")):
            await config.put(agent_key(agent.id), msgspec.json.encode(agent))
        tool = ToolDeclaration(
            "send", "send", "1.2.0", "Sends it.", {}, {}, ("fs.append:outbox", "none"), "irreversible", 2.5
        )
        await config.put(tool_key(tool.id), msgspec.json.encode(tool))
        for kind, id, incarnation in (
            ("agent", "greeter", "one"),
            ("agent", "greeter", "two"),
            ("tool", "send", "one"),
        ):
            beat = msgspec.convert(
                {"kind": kind, "id": id, "incarnation": incarnation, "started": "", "pid": 1, "host": "here"}, Heartbeat
            )
            await registry.put(alive_key(kind, id, incarnation), msgspec.json.encode(beat))

    mesh.do(declare)


# --- apply ---------------------------------------------------------------------------------------------------------


def test_a_definition_is_applied_once(terminal: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    """The same file again is unchanged."""
    path = flow(tmp_path)
    [applied] = terminal("apply", path, "--json").json
    assert ("greet", "1.0.0", True, path) == (applied["name"], applied["version"], applied["new"], applied["file"])
    assert 64 == len(applied["sha256"])

    assert f"unchanged greet@1.0.0 (sha256 {applied['sha256'][:12]}…) from {path}\n" == terminal("apply", path).out
    assert 0 == terminal("apply", flow(tmp_path, version="1.1.0")).code


def test_another_file_under_the_same_version_is_a_conflict(terminal: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    """Exit code 7, and what to do."""
    assert 0 == terminal("apply", flow(tmp_path)).code
    Path(flow(tmp_path)).write_text(Path(flow(tmp_path)).read_text() + "# another byte\n")
    ended = terminal("apply", str(tmp_path / "flow.yaml"))

    assert 7 == ended.code
    assert "error[definition.version_taken]" in ended.err
    assert "hint: raise the `version` above 1.0.0" in ended.err


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        ({"agent": "greter"}, 8, ("greter", "greeter")),
        ({"target": "dome"}, 10, ("dome", "done")),
        ({"version": "one"}, 2, ("one",)),
        ({"target": "[unclosed"}, 11, ()),
    ],
)
def test_a_definition_that_is_wrong_is_refused_with_its_place(
    change: dict[str, str], line: int, words: tuple[str, ...], terminal: Terminal, mesh: Mesh, tmp_path: Path
) -> None:
    """File, line, what was found, and what is allowed; exit code 2."""
    ended = terminal("apply", flow(tmp_path, **change))

    assert 2 == ended.code
    assert ended.err.startswith("error[definition.invalid]")
    assert f"{tmp_path / 'flow.yaml'}:{line}" in ended.err
    assert all(word in ended.err for word in words)


def test_with_json_the_findings_are_data(terminal: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    """For editors."""
    error = terminal("apply", flow(tmp_path, agent="nobody"), "--json").json["error"]

    [finding] = error["fields"]["findings"]
    assert (8, "nobody") == (finding["line"], finding["found"])
    assert finding["code"].startswith("definition.")


@pytest.mark.parametrize("slip", SLIPS)
def test_every_slip_is_told_with_what_was_found_and_what_is_allowed(
    slip: str, terminal: Terminal, mesh: Mesh, tmp_path: Path
) -> None:
    """As data with `--json`, and in words: file, line, code, found and allowed."""
    code, source, line = SLIPS[slip]
    path = tmp_path / "flow.yaml"
    path.write_text(source)
    ended = terminal("apply", str(path), "--json")
    error = ended.json["error"]
    finding = next(each for each in error["fields"]["findings"] if each["code"] == f"definition.{code}")

    assert 2 == ended.code
    assert (str(path), line) == (finding["file"], finding["line"])
    assert finding["found"].strip()
    assert all(each.strip() for each in finding["allowed"] or [""])
    words = terminal("apply", str(path)).err
    assert f"{path}:{line}:{finding['column']}: definition.{code}: " in words
    assert f"found:   {finding['found']}" in words
    assert f"allowed: {', '.join(finding['allowed'])}" in words


def several(folder: Path, **sources: str) -> list[str]:
    """Files with these contents, in this order."""
    for name, source in sources.items():
        (folder / f"{name}.yaml").write_text(source)
    return [str(folder / f"{name}.yaml") for name in sources]


def test_of_several_files_all_findings_are_told_and_none_is_applied(
    terminal: Terminal, mesh: Mesh, tmp_path: Path
) -> None:
    """The sound one before, between or behind them is not stored either."""
    bad, worse = GREET.replace("agent: greeter", "agent: nobody"), GREET.replace("on_success: done", "on_success: dome")
    first, sound, last = paths = several(tmp_path, first=bad, sound=GREET, last=worse)
    ended = terminal("apply", *paths, "--json")

    assert 2 == ended.code
    found = [(each["file"], each["code"]) for each in ended.json["error"]["fields"]["findings"]]
    assert [(first, "definition.undeclared_agent"), (last, "definition.unknown_state")] == found
    words = terminal("apply", *paths).err
    assert all(f"{path} is refused:" in words for path in (first, last))
    assert f"{sound} is refused" not in words
    assert terminal("apply", sound, "--json").json[0]["new"] is True


def test_of_several_files_none_is_applied_when_a_version_is_taken(
    terminal: Terminal, mesh: Mesh, tmp_path: Path
) -> None:
    """By what is stored, or by another of the files; the same file twice is one."""
    other = GREET.replace("name: greet", "name: other")
    sound, taken, altered = several(tmp_path, sound=other, taken=GREET, altered=GREET + "# another byte\n")

    assert 7 == terminal("apply", sound, taken, altered).code
    assert [True] == [each["new"] for each in terminal("apply", taken, "--json").json]
    assert 7 == terminal("apply", sound, altered).code
    assert [True, False, False] == [each["new"] for each in terminal("apply", sound, taken, sound, "--json").json]


def test_a_file_that_is_not_there_is_said_before_anything_is_applied(
    terminal: Terminal, mesh: Mesh, tmp_path: Path
) -> None:
    """Even if it is the last one."""
    ended = terminal("apply", flow(tmp_path), str(tmp_path / "absent.yaml"))
    assert 2 == ended.code
    assert f"error[definition.unreadable]: {tmp_path / 'absent.yaml'}: No such file" in ended.err

    assert terminal("apply", flow(tmp_path), "--json").json[0]["new"] is True


# --- agents and tools ----------------------------------------------------------------------------------------------


def test_agents_are_listed_with_how_many_processes_host_them(terminal: Terminal, mesh: Mesh) -> None:
    """Also those without any; of a description, the first line."""
    found = terminal("agents", "--json").json
    assert [("absent", 0), ("greeter", 2)] == [(each["id"], each["processes"]) for each in found]

    lines = terminal("agents").out.splitlines()
    assert "greeter  2          4            Says hello." == lines[2]


def test_tools_are_listed_with_what_repeating_them_does(terminal: Terminal, mesh: Mesh) -> None:
    """And what they need."""
    [found] = terminal("tools", "--json").json
    assert ("send", "irreversible", 1, ["fs.append:outbox", "none"]) == (
        found["id"],
        found["effect"],
        found["processes"],
        found["permissions"],
    )

    assert "irreversible  1          2.5 s    fs.append:outbox, none" in terminal("tools").out
