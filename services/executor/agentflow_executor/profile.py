"""The limits one call runs under, compiled before it runs (requirements AF-3-07, AF-7-06, AF-23-02). Pure.

`ExecProfileCompiler.compile` turns who asks, what the tool declares and what the operator's policies allow into one
frozen `ExecProfile`; its hash goes into the call's audit, so that anyone can tell later under which limits an effect was
made. A tool may ask for less than the policies allow, never for more.

A tool without `fs.tmp` and without an append grant gets a file size of 0: it can create a file but write nothing to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from agentflow.envelope import sha256_hex
from agentflow.project import Grant
from agentflow.tools import ToolSchema

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The most any tool may have, whatever it declares."""

    wall_seconds: float = 600.0
    cpu_seconds: int = 120
    memory_bytes: int = 4096 * MIB
    """Address space."""
    processes: int = 64
    """Processes and threads beside those its user already has."""
    open_files: int = 128
    file_bytes: int = 64 * MIB
    """Size of one file in the private working folder."""
    output_bytes: int = MIB
    """Standard output and error together; more ends the call."""
    result_bytes: int = MIB
    """JSON of the output."""
    input_bytes: int = 8 * MIB
    """JSON of the input."""


@dataclass(frozen=True, slots=True)
class Policies:
    """What the operator and the project file say about one tool."""

    sandbox: str = "process"
    uid: int | None = None
    """The unprivileged user tools run as; None where the executor is unprivileged itself."""
    memory_mib: int = 512
    grants: Mapping[str, Grant] = field(default_factory=dict)
    limits: Limits = Limits()


class ExecProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a sandbox holds one call to."""

    principal: str
    tool: str
    version: str
    sandbox: str
    uid: int | None
    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int
    processes: int
    open_files: int
    file_bytes: int
    output_bytes: int
    result_bytes: int
    input_bytes: int
    permissions: tuple[str, ...]
    grants: dict[str, Grant]
    """Files opened for the tool, by the name of the grant; absolute paths."""

    @property
    def sha256(self) -> str:
        """Hex digest of the profile's JSON."""
        return sha256_hex(msgspec.json.encode(self, order="sorted"))


class ExecProfileCompiler(Protocol):
    """Makes the profile a call runs under."""

    def compile(self, agent_config: str, tool_schema: ToolSchema, policies: Policies) -> ExecProfile:
        """The profile for principal `agent_config`; raises nothing: what is not allowed was refused before."""
        ...


class StaticProfileCompiler:
    """Takes the lesser of what the tool declares and what the policies allow."""

    def compile(self, agent_config: str, tool_schema: ToolSchema, policies: Policies) -> ExecProfile:
        """The profile for principal `agent_config`."""
        declared, limits = tool_schema.declaration, policies.limits
        wall = min(declared.timeout, limits.wall_seconds)
        writes = "fs.tmp" in declared.permissions or any(g.mode == "append" for g in policies.grants.values())
        return ExecProfile(
            principal=agent_config,
            tool=declared.id,
            version=declared.version,
            sandbox=policies.sandbox,
            uid=policies.uid,
            wall_seconds=wall,
            cpu_seconds=max(1, min(math.ceil(wall), limits.cpu_seconds)),
            memory_bytes=min(policies.memory_mib * MIB, limits.memory_bytes),
            processes=limits.processes,
            open_files=limits.open_files,
            file_bytes=limits.file_bytes if writes else 0,
            output_bytes=limits.output_bytes,
            result_bytes=limits.result_bytes,
            input_bytes=limits.input_bytes,
            permissions=declared.permissions,
            grants=dict(policies.grants),
        )
