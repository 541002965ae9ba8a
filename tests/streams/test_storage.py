"""Damage below the server: what it does about it in silence, and what verification says of it.

Measured on nats-server 2.15: a record edited on disk is skipped without an error or a log line; without an index the
server drops everything behind it and goes on with the sequences that are free again.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentflow.clock import SystemClock
from agentflow.mesh.connect import connect
from agentflow.mesh.embedded import EmbeddedServer
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Message, Transport
from agentflow.registry import ARTIFACTS
from agentflow_streams.findings import Verification
from agentflow_streams.history import MAX_QUESTIONS, Artifacts, read_stream
from agentflow_streams.provision import provision
from agentflow_streams.verification import verify
from tests.streams.histories import Mesh, Story, record
from tests.streams.pouring import drawn, pour

STORY = Story("a", ("agent_with_tools", "tool"))


async def verified(transport: Transport) -> Verification:
    """Now."""
    return await verify(transport, now=SystemClock().now())


def audit_block(directory: Path) -> Path:
    """The file that holds the audit records."""
    (block,) = [path for path in directory.rglob("*.blk") if "/AF_AUDIT/" in str(path)]
    return block


async def after_damage(directory: Path, damage: Callable[[Path, bytes], None]) -> Verification:
    """A history on disk, damaged at its fourth audit record while the server is down, verified when it is up again."""
    server = EmbeddedServer(directory)
    await server.start()
    try:
        transport = await connect(server.url)
        await pour(transport, record([STORY]))
        fourth = (await drawn(transport, ["AF_AUDIT"])).messages[3].body
        await transport.close()
        await server.stop()
        damage(audit_block(directory), fourth)
        await server.start()
        transport = await connect(server.url)
        result = await verified(transport)
        await transport.close()
    finally:
        await server.stop()
    return result


def edit(block: Path, body: bytes) -> None:
    """One bit of a record."""
    data = bytearray(block.read_bytes())
    data[data.index(body) + 200] ^= 1
    block.write_bytes(bytes(data))


def edit_and_lose_the_index(block: Path, body: bytes) -> None:
    """The same, and the index is gone: the server reads all records anew."""
    edit(block, body)
    (block.parent / "index.db").unlink()


async def test_a_record_edited_on_disk_is_a_missing_sequence(tmp_path: Path) -> None:
    """The server says nothing and delivers the others; its sequence is named, and so is what rests on it."""
    result = await after_damage(tmp_path / "mesh", edit)
    summary = next(stream for stream in result.streams if stream.name == "AF_AUDIT")

    assert ("missing", "AF_AUDIT", 4) in {(damage.kind, damage.stream, damage.seq) for damage in result.damages}
    assert (11, 10) == (summary.last_seq, summary.messages)


async def test_a_tail_the_server_dropped_is_missed_by_the_other_streams(tmp_path: Path) -> None:
    """The stream looks whole and short; the decisions and results on the others say what was on it."""
    result = await after_damage(tmp_path / "mesh", edit_and_lose_the_index)
    summary = next(stream for stream in result.streams if stream.name == "AF_AUDIT")

    assert (3, 3) == (summary.last_seq, summary.messages)
    assert {"missing"} == {damage.kind for damage in result.damages}
    assert {"AF_MESSAGES"} == {damage.stream for damage in result.damages}


class Lagging(MemoryTransport):
    """A replica that has not caught up: reads leave out some sequences, the leader has them."""

    left_out: frozenset[int] = frozenset()
    asked = 0

    async def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        async for message in super().read(stream, subject, start=start, end=end):
            if message.seq not in self.left_out:
                yield message

    async def get(self, stream: str, seq: int) -> Message | None:
        self.asked += 1
        return await super().get(stream, seq)


@pytest.mark.parametrize("left_out", [{1}, {3, 4}, {6}, {5, 6}, {1, 2, 3, 4, 5, 6}])
async def test_what_a_replica_lacks_is_asked_of_the_leader(left_out: set[int]) -> None:
    """At the front, in the middle, at the end: nothing is called missing that the leader has, and order is kept."""
    transport = Lagging()
    await pour(transport, record([STORY]))
    transport.left_out = frozenset(left_out)

    assert [1, 2, 3, 4, 5, 6] == [each.seq async for each in read_stream(transport, "AF_MESSAGES")]
    assert (await verified(transport)).ok


async def test_a_large_gap_is_not_asked_for_one_by_one() -> None:
    """A stream that lost a million messages must not take a million questions."""
    transport = Lagging()
    await provision(transport)
    writer = Mesh()
    for _ in writer.lifecycle("helper", 2 * MAX_QUESTIONS):
        pass
    await pour(transport, writer.recording, provisioned=True)
    transport.left_out = frozenset(range(2, 2 * MAX_QUESTIONS))
    found = [each.seq async for each in read_stream(transport, "AF_AGENTS")]

    assert [*range(1, MAX_QUESTIONS + 2), 2 * MAX_QUESTIONS] == found
    assert MAX_QUESTIONS == transport.asked


async def test_an_artifact_that_cannot_be_made_whole_is_missing(jetstream: JetStreamTransport) -> None:
    """Somebody added a chunk: the object store's own digest fails, which is damage and not a broker that is away."""
    await provision(jetstream)
    objects = await jetstream.objects(ARTIFACTS)
    await objects.put("sha256-x", b"x" * 1000)
    chunk = await jetstream.get(f"OBJ_{ARTIFACTS}", 1)
    assert chunk is not None
    await jetstream.publish(chunk.subject, b"y", stream=f"OBJ_{ARTIFACTS}")
    artifacts = await Artifacts.of(jetstream)

    assert artifacts is not None
    assert await artifacts.fetch("sha256-x") is None
    assert await artifacts.fetch("sha256-nothing") is None


async def test_a_mesh_without_an_object_store_has_no_artifacts() -> None:
    """Then payloads by reference are not checked, and that is said."""
    assert await Artifacts.of(MemoryTransport()) is None
