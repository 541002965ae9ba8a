"""Settings every process shares: typed, validated once at the start, frozen, from `AF_*` variables and flags.

A service subclasses `ServiceSettings`, reads it once in its `__main__` with `load`, and passes it down.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from agentflow import crash
from agentflow.errors import ConfigError

S = TypeVar("S", bound=BaseSettings)

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"


class MeshSettings(BaseSettings):
    """How to reach the mesh."""

    model_config = SettingsConfigDict(env_prefix="AF_", frozen=True, extra="ignore")

    nats_url: str = Field(DEFAULT_NATS_URL, description="nats://host:port of the broker, several by comma")
    monitor_url: str = Field("", description="http://host:8222, the broker's monitoring address, to check its fsync")
    connect_timeout: float = Field(10.0, gt=0, description="seconds to keep trying the first connection")
    replicas: int = Field(1, ge=1, le=5, description="replicas of every stream and bucket")


class ServiceSettings(MeshSettings):
    """What every service process takes."""

    project: Path | None = Field(None, description="project file (agents, tools, permissions, workflows)")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ack_wait: float = Field(1.0, gt=0.1, description="seconds until the work of a silent process moves on")
    max_deliveries: int = Field(8, ge=1, description="deliveries after which a message becomes a dead letter")
    heartbeat: float = Field(2.0, gt=0, description="seconds between registry heartbeats; entries live three of them")
    drain_timeout: float = Field(10.0, gt=0, description="seconds work in hand gets after SIGTERM")
    allow_volatile: bool = Field(False, description="accept a server that acknowledges before it has synced to disk")
    crash_at: str = Field("", description="crash point to die at, for tests")

    @pydantic.field_validator("crash_at")
    @classmethod
    def _known_point(cls, value: str) -> str:
        if value:
            crash.parse(value)
        return value


def load(settings: type[S], **overrides: Any) -> S:
    """Read and validate settings; flags given as `overrides` win, None means not given.

    Raises one `ConfigError` that names every problem, never the value of a setting.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return settings(**given)
    except pydantic.ValidationError as error:
        problems = [f"AF_{'__'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors()]
    except SettingsError as error:  # a value that should be JSON and is not; it names the field
        problems = [str(error)]
    raise ConfigError("settings are not usable: " + "; ".join(problems), problems=problems)  # no cause: it has values
