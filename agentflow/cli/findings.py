"""What a check of `agentflow doctor` is given, and what it finds."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

from agentflow.cli.session import Located
from agentflow.mesh.transport import StreamInfo, Transport

Level = Literal["ok", "warning", "error"]
"""`error` makes the doctor fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    level: Level
    message: str
    fix: str = ""
    """What to do about it."""
    code: str = ""
    """Stable, safe to match on."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A mesh that answers, and what is known about it."""

    located: Located
    transport: Transport
    varz: dict[str, Any]
    """The server's account of itself; empty where it is not to be had."""
    streams: dict[str, StreamInfo]


Check = Callable[[Patient], AsyncIterator[Finding]]
