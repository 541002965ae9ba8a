"""Workflow definitions on the mesh: checked, stored once under their hash, named, and found again.

The bytes of a definition are an artifact (`sha256-…` in `AF_ARTIFACTS`); its name is a `WorkflowDeclaration` under
`workflow.<name>.<version>` in `AF_CONFIG`. A name and version mean the same bytes for ever: other bytes under them are
refused, the same bytes again are nothing new. How a definition reads is its planner's to say: checkers are found by the
entry point group `agentflow.planners`, so this module knows no format but the key `planner`.
"""

import functools
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import yaml

from agentflow.clock import format_time
from agentflow.envelope import sha256_hex
from agentflow.errors import ConfigError, Conflict, DefinitionError, EvidenceError, InputError, NotStored
from agentflow.ids import check_token
from agentflow.mesh.transport import Bucket, Transport
from agentflow.registry import ARTIFACTS, CONFIG, WorkflowDeclaration, workflow_key
from agentflow.versions import latest, parse_version

PLANNERS = "agentflow.planners"
DEFAULT_PLANNER = "fsm"
MAX_DEFINITION = 1024 * 1024
"""Bytes a definition may have."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a definition may name: agents and tools that exist, whether alive or not."""

    agents: frozenset[str] = field(default_factory=frozenset)
    tools: frozenset[str] = field(default_factory=frozenset)


class Checked(Protocol):
    """What every planner's definition has."""

    @property
    def name(self) -> str:
        """Its name, a token."""
        ...

    @property
    def version(self) -> str:
        """Its semantic version."""
        ...

    @property
    def planner(self) -> str:
        """The planner that runs it."""
        ...


class Checker(Protocol):
    """What a planner offers under the entry point group `agentflow.planners`."""

    def check(self, source: bytes, path: str, declared: Declared) -> tuple[Checked | None, Sequence[Any]]:
        """The definition, or None where it is refused, and the findings: what is wrong, or doubtful, and where."""
        ...

    def render(self, findings: Sequence[Any]) -> str:
        """The findings for people: a line each, with file and line."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """A definition that is on the mesh."""

    declaration: WorkflowDeclaration
    new: bool
    """False when the same bytes were there before."""
    warnings: str = ""
    """What the planner finds doubtful about it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A definition as it is stored; its bytes have the declared hash."""

    declaration: WorkflowDeclaration
    source: bytes


async def apply_definition(transport: Transport, path: Path, now: datetime) -> Applied:
    """Check a file against what is declared, and store it.

    Raises `DefinitionError` with the findings, `Conflict` (`definition.version_taken`), and `InputError` for a file that
    cannot be read.
    """
    [applied] = await apply_definitions(transport, [path], now)
    return applied


async def apply_definitions(transport: Transport, paths: Sequence[Path], now: datetime) -> list[Applied]:
    """Check all files against what is declared, and store them only if there is nothing wrong with any.

    Raises as `apply_definition`; the `DefinitionError` has the findings of all files.
    """
    sources = [(path, read_source(path)) for path in paths]
    declared = await read_declared(transport)
    read = [_read(path, source, declared) for path, source in sources]
    if refused := [each for each in read if each.definition is None]:
        raise _refusal(refused)
    sound = [(each, each.definition) for each in read if each.definition is not None]
    await _check_versions(transport, [(definition, each.source) for each, definition in sound])
    applied: list[Applied] = []
    for each, found in sound:
        stored = await store_definition(transport, each.source, found.name, found.version, found.planner, applied=now)
        applied.append(Applied(stored.declaration, stored.new, each.rendered))
    return applied


@dataclass(frozen=True, slots=True)
class _Read:
    """A file, and what its planner says about it."""

    path: Path
    source: bytes
    definition: Checked | None
    findings: Sequence[Any]
    rendered: str


def _read(path: Path, source: bytes, declared: Declared) -> _Read:
    checker = checker_for(source)
    definition, findings = checker.check(source, str(path), declared)
    return _Read(path, source, definition, findings, checker.render(findings) if findings else "")


def _refusal(refused: Sequence[_Read]) -> DefinitionError:
    """The error for files that are refused; `path` is the first, every finding names its own."""
    message = "\n\n".join(f"{each.path} is refused:\n{each.rendered}" for each in refused)
    findings = [finding for each in refused for finding in each.findings]
    return DefinitionError(message, path=str(refused[0].path), findings=findings)


async def _check_versions(transport: Transport, definitions: Sequence[tuple[Checked, bytes]]) -> None:
    """Raise `Conflict` for a version that means other bytes, on the mesh or among the files."""
    config = await transport.bucket(CONFIG)
    given: dict[tuple[str, str], WorkflowDeclaration] = {}
    for definition, source in definitions:
        name, version, digest = definition.name, definition.version, sha256_hex(source)
        there = given.get((name, version)) or await _declaration(config, name, version)
        given[name, version] = there or WorkflowDeclaration(name, version, definition.planner, digest, "")
        if there:
            _same_or_conflict(there, digest)


def read_source(path: Path) -> bytes:
    """The bytes of a definition file; raises `InputError` (`definition.unreadable`, `definition.too_large`)."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", code="definition.unreadable", path=str(path)) from error
    if len(source) > MAX_DEFINITION:
        raise InputError(
            f"{path} has {len(source)} bytes; allowed are {MAX_DEFINITION}", code="definition.too_large", path=str(path)
        )
    return source


def checker_for(source: bytes) -> Checker:
    """The checker of the planner a definition names; the default planner's where it names none that is installed."""
    checkers = installed_checkers()
    try:
        content = yaml.safe_load(source)
        named = content.get("planner") if isinstance(content, dict) else None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        named = None  # the checker says what is wrong, and where
    checker = checkers.get(str(named)) or checkers.get(DEFAULT_PLANNER)
    if checker is None:
        raise ConfigError(
            "no planner is installed, so no definition can be checked",
            code="planner.not_installed",
            hint="install agentflow-planner",
        )
    return checker


@functools.cache
def installed_checkers() -> dict[str, Checker]:
    """The checkers of the installed planners, by planner."""
    found: dict[str, Checker] = {}
    for point in importlib.metadata.entry_points(group=PLANNERS):
        loaded = point.load()
        found[point.name] = loaded() if isinstance(loaded, type) else loaded
    return found


async def read_declared(transport: Transport) -> Declared:
    """The agents and tools that are declared on the mesh."""
    config = await transport.bucket(CONFIG)
    agents = [entry.key.removeprefix("agent.") for entry in await config.entries("agent.")]
    tools = [entry.key.removeprefix("tool.") for entry in await config.entries("tool.")]
    return Declared(frozenset(agents), frozenset(tools))


async def store_definition(
    transport: Transport, source: bytes, name: str, version: str, planner: str, *, applied: datetime
) -> Applied:
    """Keep the bytes under their hash and name them; raises `Conflict` for other bytes under the same version."""
    check_token(name, "workflow name")
    parse_version(version)
    digest = sha256_hex(source)
    config = await transport.bucket(CONFIG)
    if there := await _declaration(config, name, version):
        return _same_or_conflict(there, digest)
    await (await transport.objects(ARTIFACTS)).put(f"sha256-{digest}", source)
    declaration = WorkflowDeclaration(name, version, planner, digest, format_time(applied))
    try:
        await config.create(workflow_key(name, version), msgspec.json.encode(declaration))
    except Conflict:
        if there := await _declaration(config, name, version):
            return _same_or_conflict(there, digest)
        raise
    return Applied(declaration, new=True)


def _same_or_conflict(there: WorkflowDeclaration, digest: str) -> Applied:
    if there.sha256 == digest:
        return Applied(there, new=False)
    raise Conflict(
        f"{there.name}@{there.version} is another definition already; a version never changes",
        code="definition.version_taken",
        found=there.sha256,
        given=digest,
        hint=f"raise the `version` above {there.version}",
    )


async def _declaration(config: Bucket, name: str, version: str) -> WorkflowDeclaration | None:
    entry = await config.get(workflow_key(name, version))
    return None if entry is None or entry.deleted else msgspec.json.decode(entry.value, type=WorkflowDeclaration)


async def _declarations(config: Bucket, prefix: str) -> list[WorkflowDeclaration]:
    return [msgspec.json.decode(entry.value, type=WorkflowDeclaration) for entry in await config.entries(prefix)]


async def list_definitions(transport: Transport) -> list[WorkflowDeclaration]:
    """Every definition that was applied, by name and version."""
    found = await _declarations(await transport.bucket(CONFIG), "workflow.")
    return sorted(found, key=lambda each: (each.name, parse_version(each.version)))


async def resolve_goal(transport: Transport, goal: str) -> WorkflowDeclaration:
    """The definition a goal `name` (the latest version) or `name@version` asks for.

    Raises `NotStored` (`definition.unknown`; the fields `names` and `versions` say what there is) and `InputError` for
    a goal that is neither.
    """
    name, at, version = goal.partition("@")
    check_token(name, "workflow name")
    if at:
        parse_version(version)
    config = await transport.bucket(CONFIG)
    versions = {each.version: each for each in await _declarations(config, f"workflow.{name}.")}
    wanted = version if at else latest(versions)
    if wanted is None or wanted not in versions:
        names = {each.name for each in await _declarations(config, "workflow.")}
        raise unknown_definition(goal, sorted(names), list(versions))
    return versions[wanted]


def unknown_definition(goal: str, names: list[str], versions: list[str]) -> NotStored:
    """Nothing was applied under that name, or not in that version."""
    if versions:
        hint = f"applied versions: {', '.join(versions)}"
    else:
        hint = f"applied are {', '.join(names)}" if names else "agentflow apply FILE"
    return NotStored(
        f"no definition {goal!r} is applied",
        code="definition.unknown",
        goal=goal,
        names=names,
        versions=versions,
        hint=hint,
    )


async def find_definition(transport: Transport, goal: str) -> Found:
    """The definition a goal asks for, with its bytes; raises also `EvidenceError` for bytes of another hash."""
    declaration = await resolve_goal(transport, goal)
    return Found(declaration, await read_definition(transport, declaration.sha256))


async def read_definition(transport: Transport, sha256: str) -> bytes:
    """The bytes with that hash, compared with it; a run keeps to its definition by it."""
    source = await (await transport.objects(ARTIFACTS)).get(f"sha256-{sha256}")
    if sha256_hex(source) != sha256:
        raise EvidenceError(
            f"artifact sha256-{sha256} holds other bytes", code="artifact.altered", artifact=f"sha256-{sha256}"
        )
    return source
