"""The tools this executor offers: loaded from the project file, checked, compiled; and who may call them.

Whatever is wrong with a tool stops the start, with the file and the tool in the message: a missing module, something that
is not a tool, an id used twice, a schema or a permission nobody understands, a granted file that is not there.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow.errors import AgentflowError, ConfigError
from agentflow.project import Grant, Project, ToolSpec
from agentflow.registry import ToolDeclaration
from agentflow.tools import FunctionTool
from agentflow_executor.permissions import AccessPolicy, Decision, check_allow, grant_problem, parse_permission
from agentflow_executor.profile import Policies
from agentflow_executor.schemas import CompiledSchema


@dataclass(frozen=True, slots=True)
class CatalogTool:
    """One tool, ready to be called."""

    spec: ToolSpec
    tool: FunctionTool
    policies: Policies
    inputs: CompiledSchema
    outputs: CompiledSchema
    grants: Decision
    """Whether it is granted what it asks for."""

    @property
    def declaration(self) -> ToolDeclaration:
        """How the registry describes it."""
        return self.tool.declaration

    @property
    def checkable(self) -> bool:
        """Whether it can say if a call happened."""
        return self.tool.checker is not None


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tools by id, and the compiled allow-lists."""

    tools: Mapping[str, CatalogTool]
    access: AccessPolicy

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        """What the registry is told, sorted by id."""
        return [self.tools[tool_id].declaration for tool_id in sorted(self.tools)]


def load_catalog(project: Project, policies: Policies) -> Catalog:
    """Load every tool of a project; raises `ConfigError` for the first that cannot be used."""
    tools: dict[str, CatalogTool] = {}
    for spec in project.tools:
        try:
            loaded = load_tool(spec, project.folder, policies)
        except AgentflowError as error:
            raise _refused(project, spec, str(error)) from error
        earlier = tools.setdefault(loaded.declaration.id, loaded)
        if earlier is not loaded:
            raise _refused(project, spec, f"the id {loaded.declaration.id!r} is also that of {earlier.spec.use}")
    check_allow(project.allow, frozenset(tools), project.path or "project")
    return Catalog(tools, AccessPolicy(project.allow, {name: each.grants for name, each in tools.items()}))


def load_tool(spec: ToolSpec, folder: Path, policies: Policies) -> CatalogTool:
    """One tool; raises `ConfigError`."""
    tool = import_tool(spec.use)
    declared = tool.declaration
    if declared.timeout <= 0:
        raise ConfigError(f"timeout is {declared.timeout} seconds; it must be above 0", code="tool.timeout_invalid")
    permissions = [parse_permission(text) for text in tool.required_permissions()]
    grants = {name: _grant(name, grant, folder) for name, grant in spec.grants.items()}
    return CatalogTool(
        spec=spec,
        tool=tool,
        policies=replace(policies, memory_mib=tool.memory_mib, grants=grants),
        inputs=CompiledSchema(declared.input_schema, "input_schema"),
        outputs=CompiledSchema(declared.output_schema, "output_schema"),
        grants=grant_problem(permissions, grants),
    )


def import_tool(use: str) -> FunctionTool:
    """The tool `module:name` names; raises `ConfigError`."""
    module, colon, name = use.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ConfigError(f"use is {use!r}; it must be 'module:tool'", code="tool.use")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(f"cannot load {use}: {type(error).__name__}: {error}", code="tool.use") from error
    if not isinstance(found, FunctionTool):
        raise ConfigError(f"{use} is {type(found).__name__}, not a tool: is it decorated with @tool?", code="tool.use")
    return found


def _grant(name: str, grant: Grant, folder: Path) -> Grant:
    """The grant with an absolute path, if the file can be opened later."""
    path = os.path.abspath(folder / grant.path)
    there = os.path.isfile(path) if grant.mode == "read" else os.path.isdir(os.path.dirname(path))
    if not there:
        what = "no such file" if grant.mode == "read" else "its folder does not exist"
        raise ConfigError(f"grant {name!r}: {path}: {what}", code="grant.missing", path=path)
    return Grant(path, grant.mode)


def _refused(project: Project, spec: ToolSpec, reason: str) -> ConfigError:
    where = project.path or "project"
    return ConfigError(f"{where}: tool {spec.use}: {reason}", code="tool.refused", path=where, tool=spec.use)
