"""What lies behind a command on its own subject changes nothing that is read of the command."""

from agentflow.mesh.publishing import store_once
from agentflow.payloads import ToolRequested
from agentflow.testing import envelope, memory_mesh
from agentflow_streams.readonly import ReadOnly
from agentflow_streams.sources import Source

SUBJECT = "agents.clerk.in.01KDVDNA02631XNZQF8GB5RGHN"


async def test_junk_behind_a_command_is_not_read_as_the_command() -> None:
    """A command's subject is written once: the first message is the command, whatever comes behind."""
    async with memory_mesh() as mesh:
        command = envelope(ToolRequested("t", {}, "2026-01-01T01:00:00.000000Z"), SUBJECT)
        await store_once(mesh, command)
        await mesh.publish(SUBJECT, b"junk", stream="AF_AGENTS")
        assert await Source(ReadOnly(mesh)).command(SUBJECT) == command.body
