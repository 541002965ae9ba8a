"""Who may call which tool, and what a tool may touch: default deny, pure, compiled once (requirement AF-7-01, CX-044-01).

A call is allowed when four questions are answered with yes: the tool exists, the caller's principal lists it, every
permission of the tool that needs a grant has that grant in the project file, and no grant is there that the tool never
asked for. The principal is the id of the calling agent, or `workflow:<name>` where the planner calls for a run.

Permissions are words with an optional target (requirement AF-7-03): `none`, `fs.tmp` (the private working folder),
`fs.read:<grant>`, `fs.append:<grant>`, `network.http|smtp|dns[:<host>]`, `db.read|db.write:<scope>`, `k8s.<verb>[:<what>]`.
What the sandbox in use cannot hold a tool to is said in that sandbox's docstring.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from agentflow.errors import ConfigError, SubjectError
from agentflow.ids import check_token
from agentflow.project import Allow, Grant

Code = Literal["allowed", "tool.unknown", "tool.denied", "permission.missing", "grant.undeclared"]
"""What came of the check; stable."""

PLANNER = "planner"
"""Sender of the calls that a run's own states make."""

_TARGETED = {"fs.read": "grant", "fs.append": "grant", "db.read": "scope", "db.write": "scope"}
_BARE = frozenset({"none", "fs.tmp"})
_OPEN = re.compile(r"(network\.(http|smtp|dns)|k8s\.[a-z][a-z0-9_]*)\Z")
_MODES = {"fs.read": "read", "fs.append": "append"}


@dataclass(frozen=True, slots=True)
class Permission:
    """One permission a tool asks for."""

    kind: str
    """Such as `fs.append` or `network.http`."""
    target: str = ""
    """A grant's name, a host, a scope; empty where the kind needs none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may go ahead, and if not, why."""

    code: Code
    message: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the call may go ahead."""
        return self.code == "allowed"


ALLOWED = Decision("allowed")


def parse_permission(text: str) -> Permission:
    """The permission a word names; raises `ConfigError` (`permission.unknown`) for one nobody knows."""
    kind, _, target = text.partition(":")
    bare = kind in _BARE and not target
    if bare or (kind in _TARGETED and target) or _OPEN.match(kind):
        return Permission(kind, target)
    allowed = "none, fs.tmp, fs.read:<grant>, fs.append:<grant>, network.http|smtp|dns[:<host>], " + (
        "db.read|db.write:<scope>, k8s.<verb>[:<what>]"
    )
    raise ConfigError(
        f"permission {text!r} is not known; allowed are {allowed}",
        code="permission.unknown",
        found=text,
        allowed=allowed,
    )


def principal_of(sender: str, workflow: str) -> str:
    """Who is asking: the agent `sender`, or `workflow:<name>` where the planner calls for a run's state.

    `workflow` is `name@version`. Raises `SubjectError` for a sender or a name that is not a token, so that no agent
    can pass for a workflow.
    """
    if sender != PLANNER:
        return check_token(sender, "sender")
    return f"workflow:{check_token(workflow.partition('@')[0], 'workflow name')}"


def grant_problem(permissions: Iterable[Permission], grants: Mapping[str, Grant]) -> Decision:
    """Whether a tool's grants are the ones it asks for, no more and no less, in the mode it asks for."""
    wanted = {p.target: _MODES[p.kind] for p in permissions if p.kind in _MODES}
    for name, mode in wanted.items():
        grant = grants.get(name)
        if grant is None or grant.mode != mode:
            found = "not granted" if grant is None else f"granted with mode {grant.mode!r}"
            return Decision("permission.missing", f"the tool needs fs.{mode}:{name}, which is {found}")
    for name in grants:
        if name not in wanted:
            return Decision("grant.undeclared", f"grant {name!r} is not among the permissions the tool declares")
    return ALLOWED


class AccessPolicy:
    """The compiled allow-lists; `decide` is two set lookups (well below 100 microseconds)."""

    def __init__(self, allow: Allow, tools: Mapping[str, Decision]) -> None:
        """`tools` maps the id of every tool there is to what `grant_problem` says about it."""
        self._tools = dict(tools)
        self._allowed: dict[str, frozenset[str]] = {agent: frozenset(ids) for agent, ids in allow.agents.items()}
        for workflow, ids in allow.workflows.items():
            self._allowed[f"workflow:{workflow}"] = frozenset(ids)

    def decide(self, principal: str, tool_id: str) -> Decision:
        """Whether `principal` may call the tool."""
        of_tool = self._tools.get(tool_id)
        if of_tool is None:
            return Decision("tool.unknown", f"there is no tool {tool_id[:80]!r}")
        if tool_id not in self._allowed.get(principal, frozenset()):
            return Decision("tool.denied", f"{principal} is not allowed to call {tool_id}")
        return of_tool


def check_allow(allow: Allow, tool_ids: frozenset[str], path: str) -> None:
    """Refuse allow-lists that name what cannot be: raises `ConfigError` with the file and the entry."""
    entries = [(f"allow.agents.{name}", name, ids) for name, ids in allow.agents.items()]
    entries += [(f"allow.workflows.{name}", name, ids) for name, ids in allow.workflows.items()]
    for place, name, ids in entries:
        try:
            check_token(name)
        except SubjectError as error:
            raise ConfigError(f"{path}: {place}: {error}", code="project.invalid", path=path) from error
        for tool_id in ids:
            if tool_id not in tool_ids:
                known = ", ".join(sorted(tool_ids)) or "none"
                raise ConfigError(
                    f"{path}: {place} names tool {tool_id!r}, which the project does not have; it has {known}",
                    code="project.invalid",
                    path=path,
                    found=tool_id,
                    allowed=known,
                )
