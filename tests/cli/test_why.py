"""What `agentflow why` reads of the mesh: what cannot be read, or is dealt with, does not mislead it."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from agentflow.breakers import Breaker
from agentflow.cli.why import _blocked, _facts, _letters
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.memory import MemoryTransport
from agentflow.registry import BREAKERS, REGISTRY
from agentflow.testing import memory_mesh
from agentflow.why import Wait
from tests.cli.test_dead import GivenUp

SUBJECT = "agents.helper.in"


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A mesh with everything that belongs to it."""
    async with memory_mesh() as transport:
        yield transport


async def test_a_breaker_that_cannot_be_read_is_named(mesh: MemoryTransport) -> None:
    """It blocks, so it is the answer and no error; one that can be read is named with its end."""
    until = "2999-01-01T00:00:00.000000Z"
    bucket = await mesh.bucket(BREAKERS)
    await bucket.create("tool.send", b"junk")
    await bucket.create("agent.clerk", msgspec.json.encode(Breaker(until, "2026-01-01T00:00:00.000000Z", "r", "a", "")))

    assert (until, "agent.clerk", "tool.send") == await _blocked(mesh, "send", "clerk")
    assert ("", "", "") == await _blocked(mesh, "other", "somebody")


async def test_junk_among_the_heartbeats_is_nobody_alive(mesh: MemoryTransport) -> None:
    """It is left out."""
    await (await mesh.bucket(REGISTRY)).create("planner.x", b"junk")

    assert {} == (await _facts(mesh, Wait("goal", "planner", ""))).alive


@pytest.mark.parametrize(("consumer", "count"), [("agent-helper", 1), ("strays", 0)])
async def test_a_letter_of_who_handles_nothing_keeps_nothing(mesh: MemoryTransport, consumer: str, count: int) -> None:
    """Whoever only looks at what passes gives nothing up that a run waits for."""
    stored = await mesh.publish(SUBJECT, b"junk", stream="AF_AGENTS")
    message = await mesh.get("AF_AGENTS", stored.seq)
    assert message is not None
    await write_dead_letter(mesh, GivenUp(message), consumer, "runtime", "input.bad", "no")

    assert count == len(await _letters(mesh, SUBJECT))
