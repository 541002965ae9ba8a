"""What the executor's tests share: profiles and jobs for real sandboxes, and a look at what runs on the machine."""

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentflow.clock import SystemClock
from agentflow.project import Grant
from agentflow.tools import FunctionTool
from agentflow_executor.execution import Execution
from agentflow_executor.profile import ExecProfile, Limits, Policies, StaticProfileCompiler
from agentflow_executor.sandbox import Job, Mode, ProcessSandbox, import_paths
from tests.services.executor import sample_tools

CALL = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
"""A call's id."""

NOBODY = 65534
"""The unprivileged user tests run tools as where they run as root."""

AS_ROOT = os.geteuid() == 0
"""Whether the tests run as root."""


def sandbox(tmp: Path, *, slots: int = 4) -> ProcessSandbox:
    """A sandbox whose working folders are made below `tmp`."""
    return ProcessSandbox(slots=slots, uid=NOBODY, paths=import_paths(sys.path), tmp=str(tmp))


def profile_of(
    tool: FunctionTool, grants: Mapping[str, Grant] | None = None, limits: Limits | None = None
) -> ExecProfile:
    """The profile a tool runs under."""
    policies = Policies(
        uid=NOBODY if AS_ROOT else None, memory_mib=tool.memory_mib, grants=grants or {}, limits=limits or Limits()
    )
    return StaticProfileCompiler().compile("tester", tool.schema(), policies)


def job(
    name: str,
    input: Mapping[str, Any] | None = None,
    *,
    mode: Mode = "call",
    seconds: float = 60.0,
    grants: Mapping[str, Grant] | None = None,
    limits: Limits | None = None,
    settings: Mapping[str, Any] | None = None,
    call_id: str = CALL,
) -> Job:
    """A job for a sample tool; it expires `seconds` from now."""
    return Job(
        use=f"{sample_tools.__name__}:{name}",
        mode=mode,
        call_id=call_id,
        profile=profile_of(getattr(sample_tools, name), grants, limits),
        expires=SystemClock().now() + timedelta(seconds=seconds),
        input=input or {},
        settings=settings or {},
    )


def output_of(execution: Execution) -> Any:
    """What a call returned; fails where it returned nothing."""
    assert execution.reply is not None, execution
    assert execution.reply.kind == "output", execution
    return execution.reply.output


def running(marker: str) -> list[int]:
    """The processes that have `marker` as an argument."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in arguments:
                found.append(int(name))
    return found


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(name))
    return found
