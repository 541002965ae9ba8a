"""The programs of a mesh, found by entry point: services, and what provisions the streams they need."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ConfigError

SERVICES = "agentflow.services"
PROVISIONERS = "agentflow.provisioners"

REQUIRED = ("executor", "planner", "runtime")
"""Services without which no run gets anywhere."""

OPTIONAL = ("detector",)
"""Services that are started where they are installed."""

Provisioner = Callable[..., Awaitable[Any]]
"""`provision(transport, *, replicas=1, …)`; its report may have a `drift` and a `safe`."""


@dataclass(frozen=True, slots=True)
class Program:
    """A service that is installed."""

    name: str
    module: str
    """What `python -m` runs."""

    @property
    def argv(self) -> list[str]:
        """Its command line, in this environment."""
        return [sys.executable, "-m", self.module]


def installed_programs() -> dict[str, Program]:
    """The services that can be started here, by name; an entry point that leads nowhere is none."""
    found = {point.name: point.module for point in importlib.metadata.entry_points(group=SERVICES)}
    return {
        name: Program(name, module.removesuffix(".__main__")) for name, module in found.items() if _is_there(module)
    }


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def programs_to_start(installed: Mapping[str, Program]) -> tuple[list[Program], list[str]]:
    """What a mesh starts, and the optional services it goes without; raises `ConfigError` for a missing required one."""
    missing = [name for name in REQUIRED if name not in installed]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(missing)}; a mesh needs {', '.join(REQUIRED)}",
            code="service.not_installed",
            missing=missing,
            hint="pip install " + " ".join(f"agentflow-{name}" for name in missing),
        )
    wanted = [name for name in (*REQUIRED, *OPTIONAL) if name in installed]
    return [installed[name] for name in wanted], [name for name in OPTIONAL if name not in installed]


def installed_provisioners() -> Sequence[Provisioner]:
    """What makes streams and buckets; raises `ConfigError` when nothing does."""
    found = [point.load() for point in importlib.metadata.entry_points(group=PROVISIONERS)]
    if not found:
        raise ConfigError(
            "nothing is installed that makes the streams of a mesh",
            code="provisioner.not_installed",
            hint="pip install agentflow-streams",
        )
    return found
