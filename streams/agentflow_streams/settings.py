"""What a deployment chooses about its streams: from `AF_*` variables and flags."""

from agentflow.settings import MeshSettings

HEARTBEATS = 3
"""Heartbeats a registry entry outlives."""


class ProvisionSettings(MeshSettings):
    """Choices of provisioning, beside `AF_NATS_URL` and `AF_REPLICAS`."""

    heartbeat: float = 2.0
    """Seconds between registry heartbeats (`AF_HEARTBEAT`, the same for every service)."""
    capacity: float = 1.0
    """Factor on the room every stream reserves (`AF_CAPACITY`)."""

    @property
    def registry_ttl(self) -> float:
        """Seconds a registry entry lives."""
        return HEARTBEATS * self.heartbeat
