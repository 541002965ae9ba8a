"""Connecting by URL: `nats://…` is the real broker, `memory://NAME` one that lives in this process."""

from agentflow.mesh.transport import Transport


async def connect(url: str, *, name: str = "agentflow", timeout: float = 10.0) -> Transport:
    """Connect to the broker at `url`; raises `Unreachable` after `timeout` seconds without one."""
    if url.startswith("memory:"):
        from agentflow.mesh.memory import MemoryTransport

        return MemoryTransport.named(url.removeprefix("memory:").strip("/"))
    from agentflow.mesh.jetstream import JetStreamTransport

    return await JetStreamTransport.connect(url, name=name, timeout=timeout)
