"""Settings every process shares: typed, validated once at the start, frozen, from flags, `AF_*` variables and files.

A service subclasses `ServiceSettings`, reads it once in its `__main__` with `load`, and passes it down. The layers are
in `agentflow.configuration.layers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings

from agentflow import crash
from agentflow.configuration import addresses
from agentflow.configuration.base import LayeredSettings
from agentflow.configuration.layers import Surroundings, Value
from agentflow.configuration.resolving import check, resolve
from agentflow.errors import ConfigError
from agentflow.skew import seconds_of

S = TypeVar("S", bound=BaseSettings)

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"


class MeshSettings(LayeredSettings):
    """How to reach the mesh."""

    nats_url: str = Field(DEFAULT_NATS_URL, description="nats://host:port of the broker, several by comma")
    monitor_url: str = Field("", description="http://host:8222, the broker's monitoring address, to check its fsync")
    connect_timeout: float = Field(10.0, gt=0, description="seconds to keep trying the first connection")
    replicas: int = Field(1, ge=1, le=5, description="replicas of every stream and bucket")

    _broker = pydantic.field_validator("nats_url")(addresses.broker_urls)
    _monitor = pydantic.field_validator("monitor_url")(addresses.monitor_url)


class ServiceSettings(MeshSettings):
    """What every service process takes."""

    project: Path | None = Field(None, description="project file (agents, tools, permissions, workflows)")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    ack_wait: float = Field(1.0, gt=0.1, description="seconds until the work of a silent process moves on")
    max_deliveries: int = Field(8, ge=1, description="deliveries after which a message becomes a dead letter")
    heartbeat: float = Field(2.0, gt=0, description="seconds between registry heartbeats; entries live three of them")
    drain_timeout: float = Field(10.0, gt=0, description="seconds work in hand gets after SIGTERM")
    allow_volatile: bool = Field(False, description="accept a server that acknowledges before it has synced to disk")
    http_address: str = Field(
        "127.0.0.1:0", description="host:port of /healthz, /readyz and /metrics (port 0: a free one), or off"
    )
    traces: Literal["off", "console", "otlp"] | None = Field(
        None, description="where spans go: off, console (stdout) or otlp; unset: what OTEL_TRACES_EXPORTER says"
    )
    crash_at: str = Field("", description="crash point to die at, for tests")
    clock_offset: str = Field(
        "", description="seconds the machine's clock is off, or a file that holds them, for tests"
    )

    _listening = pydantic.field_validator("http_address")(addresses.listening)

    @pydantic.field_validator("crash_at")
    @classmethod
    def _known_point(cls, value: str) -> str:
        if value:
            crash.parse(value)
        return value

    @pydantic.field_validator("clock_offset")
    @classmethod
    def _seconds_or_file(cls, value: str) -> str:
        if value:
            seconds_of(value)
        return value


def load(settings: type[S], *, section: str | None = None, **overrides: Any) -> S:
    """Read and validate settings from every layer; flags given as `overrides` win, None means not given.

    `section` names the table of files that is this process's own, by default that of the distribution which defines the
    class. Raises one `ConfigError` with every problem: where, what was found (never a secret), what is allowed.
    """
    return read(settings, Surroundings.here(), section=section, **overrides)[0]


def read(
    settings: type[S], around: Surroundings, *, section: str | None = None, **overrides: Any
) -> tuple[S, Mapping[str, Value]]:
    """What `load` does, from given surroundings, with where each value came from that is not a default."""
    resolution = resolve(settings, overrides, around, section=section)
    problems = [*resolution.problems, *check(around)]
    if resolution.settings is not None and not problems:
        return resolution.settings, resolution.origins
    told = [str(problem) for problem in problems]
    raise ConfigError(
        "settings are not usable: " + "; ".join(told),
        problems=told,
        details=[
            {"where": each.where, "found": each.found, "allowed": each.allowed, "code": each.code} for each in problems
        ],
        hint="agentflow config check",
    )
