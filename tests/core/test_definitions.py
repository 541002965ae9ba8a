"""Definitions on a mesh in memory: stored once, named once, found by goal."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentflow import definitions
from agentflow.client import Client
from agentflow.definitions import (
    Declared,
    apply_definition,
    checker_for,
    find_definition,
    list_definitions,
    read_declared,
    read_definition,
    store_definition,
)
from agentflow.envelope import sha256_hex
from agentflow.errors import ConfigError, Conflict, DefinitionError, EvidenceError, InputError, NotStored, SubjectError
from agentflow.mesh.memory import MemoryTransport
from agentflow.registry import ARTIFACTS, CONFIG, AgentDeclaration, agent_key, tool_key, workflow_key
from agentflow.testing import START, memory_mesh


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A provisioned mesh in memory."""
    async with memory_mesh() as transport:
        yield transport


@dataclass(frozen=True)
class Parsed:
    """What the checker below makes of a file: its lines `name`, `version`, `planner`."""

    name: str
    version: str
    planner: str


class LineChecker:
    """A planner's checker for tests: refuses a definition that names an agent nobody declared."""

    def check(self, source: bytes, path: str, declared: Declared) -> tuple[Parsed | None, Sequence[Any]]:
        """The definition and the findings."""
        keys = dict(line.split(": ", 1) for line in source.decode().splitlines())
        findings = [f"{path}:1: doubtful"] if "doubtful" in keys else []
        if (agent := keys.get("agent")) and agent not in declared.agents:
            return None, [f"{path}:4: there is no agent {agent!r}; there is {', '.join(declared.agents) or 'none'}"]
        return Parsed(keys["name"], keys["version"], keys["planner"]), findings

    def render(self, findings: Sequence[Any]) -> str:
        """One a line."""
        return "\n".join(findings)


@pytest.fixture(autouse=True)
def line_checker(monkeypatch: pytest.MonkeyPatch) -> LineChecker:
    """The only planner that is installed."""
    checker = LineChecker()
    monkeypatch.setattr(definitions, "installed_checkers", lambda: {"fsm": checker})
    return checker


def write(folder: Path, **keys: str) -> Path:
    """A definition file."""
    path = folder / "flow.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**keys, "planner": "fsm"}.items()))
    return path


async def store(mesh: MemoryTransport, source: bytes, version: str, name: str = "greet") -> bool:
    """Store a definition; whether it is new."""
    return (await store_definition(mesh, source, name, version, "fsm", applied=START)).new


# --- storing -------------------------------------------------------------------------------------------------------


async def test_a_definition_is_kept_under_its_hash_and_named(mesh: MemoryTransport) -> None:
    """The bytes are the artifact's, unchanged, and the name leads to them."""
    await store(mesh, b"one", "1.0.0")

    found = await find_definition(mesh, "greet")
    assert b"one" == found.source == await (await mesh.objects(ARTIFACTS)).get(f"sha256-{sha256_hex(b'one')}")
    assert ("greet", "1.0.0", "fsm", sha256_hex(b"one")) == (
        found.declaration.name,
        found.declaration.version,
        found.declaration.planner,
        found.declaration.sha256,
    )
    assert await (await mesh.bucket(CONFIG)).get(workflow_key("greet", "1.0.0")) is not None


async def test_the_same_bytes_again_change_nothing(mesh: MemoryTransport) -> None:
    """Not even the time they were applied at."""
    assert await store(mesh, b"one", "1.0.0")
    before = await (await mesh.bucket(CONFIG)).get(workflow_key("greet", "1.0.0"))
    assert not await store(mesh, b"one", "1.0.0")

    assert before == await (await mesh.bucket(CONFIG)).get(workflow_key("greet", "1.0.0"))


async def test_other_bytes_under_the_same_version_are_refused(mesh: MemoryTransport) -> None:
    """A version never changes its meaning; the error says what to do."""
    await store(mesh, b"one", "1.0.0")

    with pytest.raises(Conflict, match=r"greet@1\.0\.0") as caught:
        await store(mesh, b"two", "1.0.0")
    assert "definition.version_taken" == caught.value.error_code
    assert "raise the `version` above 1.0.0" == caught.value.fields["hint"]
    assert b"one" == (await find_definition(mesh, "greet@1.0.0")).source


async def test_of_two_who_apply_at_once_one_wins_and_the_other_is_told(mesh: MemoryTransport) -> None:
    """The bucket's own check decides; the same bytes from both are no conflict."""
    results = await asyncio.gather(
        *(store(mesh, source, "1.0.0") for source in (b"one", b"one", b"two")), return_exceptions=True
    )
    assert 1 == sum(result is True for result in results)
    assert 1 == sum(isinstance(result, Conflict) for result in results)


@pytest.mark.parametrize(("name", "version"), [("a.b", "1.0.0"), ("", "1.0.0"), ("x", "1.0"), ("x", "1.0.0+build")])
async def test_a_name_or_version_outside_the_grammar_is_refused(mesh: MemoryTransport, name: str, version: str) -> None:
    """Both become part of a key."""
    with pytest.raises(InputError):
        await store(mesh, b"one", version, name)


# --- finding -------------------------------------------------------------------------------------------------------


async def test_a_goal_without_a_version_asks_for_the_latest(mesh: MemoryTransport) -> None:
    """By precedence, not by text or by time; a pre-release only where it is named."""
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.1"):
        await store(mesh, version.encode(), version)

    assert b"1.10.0" == (await find_definition(mesh, "greet")).source
    assert b"1.9.0" == (await find_definition(mesh, "greet@1.9.0")).source
    assert b"2.0.0-rc.1" == (await find_definition(mesh, "greet@2.0.0-rc.1")).source


async def test_names_that_begin_alike_are_different_names(mesh: MemoryTransport) -> None:
    """`greet` does not find `greet-all`."""
    await store(mesh, b"all", "9.0.0", "greet-all")
    await store(mesh, b"one", "1.0.0")

    assert b"one" == (await find_definition(mesh, "greet")).source


async def test_an_unknown_name_says_what_is_applied(mesh: MemoryTransport) -> None:
    """The caller sees the names there are."""
    await store(mesh, b"one", "1.0.0")

    with pytest.raises(NotStored, match="'gret'") as caught:
        await find_definition(mesh, "gret")
    assert ("definition.unknown", ["greet"], []) == (
        caught.value.error_code,
        caught.value.fields["names"],
        caught.value.fields["versions"],
    )


async def test_an_unknown_version_says_which_there_are(mesh: MemoryTransport) -> None:
    """Of that name."""
    await store(mesh, b"one", "1.0.0")

    with pytest.raises(NotStored) as caught:
        await find_definition(mesh, "greet@2.0.0")
    assert ["1.0.0"] == caught.value.fields["versions"]


async def test_on_an_empty_mesh_the_hint_is_to_apply(mesh: MemoryTransport) -> None:
    """There is nothing to choose from."""
    with pytest.raises(NotStored) as caught:
        await find_definition(mesh, "greet")
    assert "agentflow apply FILE" == caught.value.fields["hint"]


@pytest.mark.parametrize("goal", ["", "@1.0.0", "a.b", "greet@", "greet@latest", "*", "greet@1.0.0@2.0.0"])
async def test_a_goal_outside_the_grammar_is_refused(mesh: MemoryTransport, goal: str) -> None:
    """Nothing is looked up under it."""
    with pytest.raises((InputError, SubjectError)):
        await find_definition(mesh, goal)


async def test_altered_bytes_are_not_a_definition(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is compared at every reading."""
    await store(mesh, b"one", "1.0.0")
    digest = sha256_hex(b"one")

    class Altered:
        async def get(self, name: str) -> bytes:
            return b"two"

    async def altered(name: str) -> Altered:
        return Altered()

    monkeypatch.setattr(mesh, "objects", altered)
    with pytest.raises(EvidenceError) as caught:
        await read_definition(mesh, digest)
    assert "artifact.altered" == caught.value.error_code


async def test_definitions_are_listed_by_name_and_precedence(mesh: MemoryTransport) -> None:
    """As people would sort them."""
    for name, version in (("b", "1.0.0"), ("a", "1.10.0"), ("a", "1.9.0")):
        await store(mesh, f"{name}{version}".encode(), version, name)

    assert [("a", "1.9.0"), ("a", "1.10.0"), ("b", "1.0.0")] == [
        (each.name, each.version) for each in await list_definitions(mesh)
    ]


# --- applying ------------------------------------------------------------------------------------------------------


async def test_applying_checks_against_what_is_declared(mesh: MemoryTransport, tmp_path: Path) -> None:
    """An agent that is not declared is refused with its place; once it is declared, the same file is taken."""
    path = write(tmp_path, name="greet", version="1.0.0", agent="greeter")

    with pytest.raises(DefinitionError, match=r"flow\.yaml:4: there is no agent 'greeter'") as caught:
        await apply_definition(mesh, path, START)
    findings = caught.value.fields["findings"]
    assert isinstance(findings, list)
    assert 1 == len(findings)
    assert 2 == caught.value.exit_code
    assert [] == await list_definitions(mesh)

    declared = msgspec.json.encode(AgentDeclaration("greeter"))
    await (await mesh.bucket(CONFIG)).put(agent_key("greeter"), declared)
    assert (await Client(mesh).apply(path)).new
    assert not (await Client(mesh).apply(str(path))).new


async def test_what_is_doubtful_is_said_and_applied(mesh: MemoryTransport, tmp_path: Path) -> None:
    """Findings beside a definition are warnings."""
    applied = await apply_definition(mesh, write(tmp_path, name="greet", version="1.0.0", doubtful="yes"), START)

    assert applied.new
    assert applied.warnings.endswith("flow.yaml:1: doubtful")


async def test_declared_are_agents_and_tools(mesh: MemoryTransport) -> None:
    """By their ids, without the kinds of their keys."""
    config = await mesh.bucket(CONFIG)
    await config.put(agent_key("greeter"), b"{}")
    await config.put(tool_key("search"), b"{}")
    await store(mesh, b"one", "1.0.0")

    assert Declared(frozenset({"greeter"}), frozenset({"search"})) == await read_declared(mesh)


async def test_a_file_that_cannot_be_read_is_named(mesh: MemoryTransport, tmp_path: Path) -> None:
    """Missing, a folder, or too large."""
    large = tmp_path / "large.yaml"
    large.write_bytes(b"x" * (definitions.MAX_DEFINITION + 1))

    for path, code in (
        (tmp_path / "absent.yaml", "definition.unreadable"),
        (tmp_path, "definition.unreadable"),
        (large, "definition.too_large"),
    ):
        with pytest.raises(InputError, match=path.name) as caught:
            await apply_definition(mesh, path, START)
        assert code == caught.value.error_code


# --- which planner checks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [b"planner: tree", b"planner: nobody", b"a: [", b"\xff\xfe", b"- 1", b"", b"planner: [fsm]", b"\x00"]
)
def test_the_planner_that_is_named_checks_and_the_default_one_where_none_is(
    source: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be parsed goes to the default planner's checker, which says what is wrong and where."""
    fsm, tree = LineChecker(), LineChecker()
    monkeypatch.setattr(definitions, "installed_checkers", lambda: {"fsm": fsm, "tree": tree})

    assert (tree if source == b"planner: tree" else fsm) is checker_for(source)


def test_without_any_planner_nothing_can_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error says what to install."""
    monkeypatch.setattr(definitions, "installed_checkers", dict)

    with pytest.raises(ConfigError) as caught:
        checker_for(b"planner: fsm")
    assert "install agentflow-planner" == caught.value.fields["hint"]


def test_planners_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class is made an object, an object is taken as it is."""
    monkeypatch.undo()
    points = [
        EntryPoint("one", f"{__name__}:LineChecker", definitions.PLANNERS),
        EntryPoint("two", f"{__name__}:READY", definitions.PLANNERS),
    ]
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: points if group == definitions.PLANNERS else []
    )
    definitions.installed_checkers.cache_clear()
    try:
        found = definitions.installed_checkers()
    finally:
        definitions.installed_checkers.cache_clear()

    assert isinstance(found["one"], LineChecker)
    assert READY is found["two"]


READY = LineChecker()
