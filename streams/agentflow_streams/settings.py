"""What a deployment chooses about its streams: from `AF_*` variables and flags."""

from pydantic import Field

from agentflow.settings import MeshSettings

HEARTBEATS = 3
"""Heartbeats a registry entry outlives."""


class ProvisionSettings(MeshSettings):
    """Choices of provisioning, beside `AF_NATS_URL` and `AF_REPLICAS`."""

    heartbeat: float = Field(2.0, description="seconds between registry heartbeats, the same for every service")
    capacity: float = Field(1.0, description="factor on the room every stream reserves")

    @property
    def registry_ttl(self) -> float:
        """Seconds a registry entry lives."""
        return HEARTBEATS * self.heartbeat
