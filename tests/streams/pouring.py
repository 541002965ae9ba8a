"""Recordings into a broker and out of it again: how a test gets an altered history onto a second server."""

from collections.abc import Sequence

from agentflow.mesh.transport import Transport
from agentflow_streams.provision import provision
from agentflow_streams.verification import DEFAULT_STREAMS
from tests.streams.histories import Recording, Stored


async def pour(transport: Transport, recording: Recording, *, provisioned: bool = False) -> None:
    """Store every message of a recording, in its order, on a mesh that is provisioned first."""
    if not provisioned:
        await provision(transport)
    for each in recording.messages:
        await transport.publish(each.subject, each.body, stream=each.stream)


async def drawn(transport: Transport, streams: Sequence[str] = DEFAULT_STREAMS) -> Recording:
    """What a broker has of some streams, message by message, as any client could read it."""
    found = Recording()
    for stream in streams:
        async for message in transport.read(stream):
            found.messages.append(Stored(stream, message.seq, message.subject, message.body, message.time))
    return found
