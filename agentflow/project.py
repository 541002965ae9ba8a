"""The project file: which agents and tools the processes of a mesh host, and who may call what.

YAML with the keys `agents`, `tools`, `allow`, `workflows`; one file serves every service, each reads its own part.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from agentflow.errors import ConfigError


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent to host."""

    use: str
    """`module:Class` or `module:function`."""
    id: str = ""
    """Overrides the agent's own id."""
    concurrency: int | None = None
    """How many messages it handles at once, over all processes."""
    settings: dict[str, Any] = {}


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file a tool is given, opened by the executor before the sandbox drops its rights."""

    path: str
    """Relative paths are relative to the project file."""
    mode: Literal["read", "append"] = "read"


class ToolSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool to execute."""

    use: str
    """`module:tool`."""
    settings: dict[str, Any] = {}
    grants: dict[str, Grant] = {}


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call which tool; what is not listed is denied."""

    agents: dict[str, list[str]] = {}
    workflows: dict[str, list[str]] = {}


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project file."""

    agents: list[AgentSpec] = []
    tools: list[ToolSpec] = []
    allow: Allow = Allow()
    workflows: list[str] = []
    """Definition files that `agentflow dev` applies at the start."""
    path: str = ""
    """Where it was read from; not a key of the file."""

    @property
    def folder(self) -> Path:
        """The folder relative paths start from."""
        return Path(self.path).parent if self.path else Path.cwd()


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would drop the first in silence, with whatever it allows or denies."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            named = (key.tag, str(key.value))
            if named in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {named[1]!r} stands twice", key.start_mark)
            seen.add(named)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The content of a YAML text in which no key may stand twice; raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)  # noqa: S506  # a safe loader, only stricter


def load_project(path: Path | None) -> Project:
    """Read a project file; None is an empty project. Raises `ConfigError` with the file and what is wrong."""
    if path is None:
        return Project()
    try:
        content = load_yaml(path.read_text("utf-8"))
        project = msgspec.convert({} if content is None else content, Project)
    except (OSError, ValueError, yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", code="project.invalid", path=str(path)) from error
    if isinstance(content, dict) and "path" in content:
        raise ConfigError(f"{path}: unknown key 'path'", code="project.invalid", path=str(path))
    return msgspec.structs.replace(project, path=str(path.resolve()))
