"""What is declared and what is alive: keys and values of the buckets `AF_CONFIG` and `AF_REGISTRY`.

Declared (`AF_CONFIG`, kept): `agent.<id>`, `tool.<id>` and `workflow.<name>.<version>`. Alive (`AF_REGISTRY`, refreshed
by heartbeats, gone three heartbeats after the last): `<kind>.<id>.<incarnation>`. A key is a subject on the broker, so
its parts are checked tokens like those of any subject (`SubjectError`); only a version may have dots.
"""

from typing import Any, Literal

import msgspec

from agentflow.ids import check_token

CONFIG = "AF_CONFIG"
REGISTRY = "AF_REGISTRY"
STATE = "AF_STATE"
BREAKERS = "AF_BREAKERS"
ARTIFACTS = "AF_ARTIFACTS"

Effect = Literal["pure", "idempotent", "compensable", "irreversible"]
"""What repeating a call does; decides what recovery may do (architecture, section 4)."""


class AgentDeclaration(msgspec.Struct, frozen=True):
    """An agent that exists, alive or not."""

    id: str
    description: str = ""
    concurrency: int = 8


class ToolDeclaration(msgspec.Struct, frozen=True):
    """A tool that exists: what callers and planners need to know."""

    id: str
    name: str
    version: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    permissions: tuple[str, ...]
    effect: Effect
    timeout: float
    """Seconds."""
    cost: float = 0.0
    """Dollars a call."""


class WorkflowDeclaration(msgspec.Struct, frozen=True):
    """A definition that was applied; its bytes are the artifact `sha256-<sha256>`."""

    name: str
    version: str
    planner: str
    sha256: str
    applied: str
    """RFC 3339."""


class Heartbeat(msgspec.Struct, frozen=True):
    """A process that is alive and hosts something."""

    kind: Literal["agent", "tool", "planner", "executor", "runtime", "detector"]
    id: str
    incarnation: str
    started: str
    pid: int
    host: str
    detail: dict[str, Any] = {}
    beat: str = ""
    """RFC 3339, by the clock of the process: when this was written."""
    version: str = ""
    """Of agentflow, as the process runs it."""


def agent_key(agent_id: str) -> str:
    """Key of an agent's declaration in `AF_CONFIG`."""
    return f"agent.{check_token(agent_id, 'agent id')}"


def tool_key(tool_id: str) -> str:
    """Key of a tool's declaration in `AF_CONFIG`."""
    return f"tool.{check_token(tool_id, 'tool id')}"


def workflow_key(name: str, version: str) -> str:
    """Key of a definition in `AF_CONFIG`."""
    for part in version.split("."):
        check_token(part, "part of a version")
    return f"workflow.{check_token(name, 'workflow name')}.{version}"


def alive_key(kind: str, id: str, incarnation: str) -> str:
    """Key of a live process in `AF_REGISTRY`."""
    return f"{check_token(kind, 'kind')}.{check_token(id, 'id')}.{check_token(incarnation, 'incarnation')}"
