"""Recorded histories as files: they keep every byte, and what is none is refused with its place."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from agentflow.errors import InputError, NotStored
from agentflow.mesh.transport import Message
from agentflow_streams.recordings import FORMAT, Blob, Histories, Kept, Shelf, decode, encode
from agentflow_streams.replay import replay_histories

START = datetime(2026, 1, 1, tzinfo=UTC)

MESSAGES = st.builds(
    Message,
    st.sampled_from(["AF_MESSAGES", "AF_AGENTS"]),
    st.integers(1, 50),
    st.sampled_from(["workflows.a.in", "workflows.a.out", "agents.x.in.y"]),
    st.binary(max_size=40) | st.text(max_size=10).map(str.encode),
    st.integers(0, 10**9).map(lambda micros: START + timedelta(microseconds=micros)),
)


def kept(*messages: Message) -> Histories:
    """Histories of one run with these messages."""
    return Histories(FORMAT, ("a",), tuple(Kept.of(message) for message in messages))


@given(st.lists(MESSAGES, max_size=5), st.binary(max_size=40))
def test_what_is_written_is_read_again(messages: list[Message], artifact: bytes) -> None:
    """Bytes, text or not, places, and times to the microsecond."""
    written = Histories(FORMAT, ("a",), tuple(map(Kept.of, messages)), {"sha256-x": Blob.of(artifact)})
    read = decode(encode(written))

    assert written == read
    assert messages == [each.message for each in read.messages]
    assert artifact == read.artifacts["sha256-x"].data


@given(st.lists(MESSAGES, max_size=8, unique_by=lambda m: (m.stream, m.seq)), st.integers(1, 50), st.integers(1, 50))
async def test_a_shelf_reads_like_a_mesh(messages: list[Message], start: int, end: int) -> None:
    """By stream, subject and sequence, in stream order."""
    shelf = Shelf(kept(*messages))
    found = [m async for m in shelf.read("AF_MESSAGES", "workflows.a.>", start=start, end=end)]
    own = sorted((m for m in messages if m.stream == "AF_MESSAGES"), key=lambda m: m.seq)

    assert found == [m for m in own if m.subject.startswith("workflows.a.") and start <= m.seq <= end]
    assert [await shelf.get("AF_MESSAGES", m.seq) for m in own] == own
    last = await shelf.last("AF_MESSAGES", "workflows.a.in")
    assert last == next((m for m in reversed(own) if m.subject == "workflows.a.in"), None)
    info = await shelf.stream_info("AF_MESSAGES")
    assert info is not None
    assert (len(own), own[-1].seq if own else 0) == (info.messages, info.last_seq)


async def test_what_is_not_kept_is_not_there() -> None:
    """A stream of which nothing is kept, an artifact that was left behind, a run that nobody recorded."""
    shelf = Shelf(kept())
    assert await shelf.stream_info("AF_AGENTS") is None
    with pytest.raises(NotStored):
        await shelf.artifact("AF_ARTIFACTS", "sha256-0")
    with pytest.raises(NotStored) as refused:
        await replay_histories(kept(), ["a"])
    assert "run.unknown" == refused.value.error_code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"format": "agentflow.histories/2", "runs": [], "messages": []}',
        b'{"format": "agentflow.histories/1", "runs": [], "messages": [], "more": 1}',
        b'{"format": "agentflow.histories/1", "runs": [], "messages": [{"stream": "A"}]}',
        b'{"format": "agentflow.histories/1", "runs": [], "messages":'
        b' [{"stream":"A","seq":1,"subject":"s","time":"yesterday","body":{"text":""}}]}',
        b'{"format": "agentflow.histories/1", "runs": [], "messages":'
        b' [{"stream":"A","seq":1,"subject":"s","time":"2026-01-01T00:00:00Z","body":{"base64":"%"}}]}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_holds_no_histories_is_refused(data: bytes) -> None:
    """With a code, and the file's name."""
    with pytest.raises(InputError) as refused:
        decode(data, "some.json")
    assert "recording.malformed" == refused.value.error_code
    assert refused.value.message.startswith("some.json holds no recorded histories")
