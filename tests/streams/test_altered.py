"""A real history on one server, altered and recorded on a second one: the verifier says what was done, and where."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from agentflow.clock import SystemClock
from agentflow.envelope import unseal
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.transport import Transport
from agentflow_streams.definitions import definition_of
from agentflow_streams.findings import Verification
from agentflow_streams.verification import verify
from tests.streams.checking import at, kinds, sealed_in
from tests.streams.conftest import connected, running
from tests.streams.histories import Mesh, Recording, Story, altered, record, swapped, without
from tests.streams.pouring import drawn, pour

STORIES = [Story("a", ("agent_with_tools", "tool", "agent")), Story("b", ("agent",), plain=True)]


@pytest.fixture
async def history(jetstream: JetStreamTransport) -> Recording:
    """Two runs, as the first server has them."""
    await pour(jetstream, record(STORIES, [0, 1] * 10))
    assert (await verify(jetstream, now=now())).ok
    return await drawn(jetstream)


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Transport]:
    """A second server, empty."""
    async with running(tmp_path / "second") as server, connected(server) as transport:
        yield transport


def now() -> datetime:
    """The machine's time: nothing of these histories is old enough to have expired."""
    return SystemClock().now()


def find(history: Recording, schema: str, nth: int = 0) -> int:
    """Where an envelope of a schema is in a recording."""
    return [index for index, sealed in sealed_in(history).items() if sealed.envelope.schema == schema][nth]


async def again(second: Transport, history: Recording) -> Verification:
    """Record a history on the second server and verify it there."""
    await pour(second, history)
    return await verify(second, now=now())


async def test_an_unaltered_copy_verifies(second: Transport, history: Recording) -> None:
    """So whatever is found below comes from what was altered."""
    result = await again(second, history)

    assert result.ok
    assert (2, ()) == (result.runs, result.open_runs)


@pytest.mark.parametrize("schema", ["goal.accepted/1", "step.requested/1", "tool.outcome/1", "run.completed/1"])
async def test_one_edited_byte_is_named(second: Transport, history: Recording, schema: str) -> None:
    """Stream, sequence, chain, and that it was edited."""
    index = find(history, schema)
    stored, sealed = history.messages[index], sealed_in(history)[index]
    place = stored.body.index(b'"trace_id":"') + 20
    body = stored.body[:place] + (b"0" if stored.body[place : place + 1] != b"0" else b"1") + stored.body[place + 1 :]
    (damage,) = (await again(second, altered(history, index, body))).damages

    assert (stored.stream, stored.seq, sealed.envelope.chain, "edited") == (
        damage.stream,
        damage.seq,
        damage.chain,
        damage.kind,
    )
    assert "but the bytes hash to" in damage.detail


@pytest.mark.parametrize(
    ("schema", "chains"),
    [
        ("run.advanced/1", {"workflow"}),
        ("step.requested/1", {"workflow"}),
        ("tool.requested/1", {"handling"}),
        ("tool.intent/1", {"audit"}),
        ("tool.outcome/1", {"handling"}),
        ("tool.completed/1", {"handling", "workflow"}),
        ("step.completed/1", {"workflow"}),
    ],
)
async def test_one_dropped_message_is_named(
    second: Transport, history: Recording, schema: str, chains: set[str]
) -> None:
    """Where it is missed: the stream, sequence and chain of what refers to it or stands behind it, and missing."""
    index = find(history, schema)
    result = await again(second, without(history, index))

    assert not result.ok
    assert {"missing"} == kinds(result)
    found = next(damage for damage in result.damages if damage.chain.partition(":")[0] in chains)
    copied = (await drawn(second, [found.stream])).messages[found.seq - 1]
    assert found.chain == unseal(copied.body).envelope.chain


async def test_two_swapped_messages_are_named(second: Transport, history: Recording) -> None:
    """Two decisions of a run have changed places."""
    one = find(history, "goal.accepted/1", 0)
    mine = sealed_in(history)[one].envelope.chain
    other = next(i for i, s in sealed_in(history).items() if s.envelope.chain == mine and s.envelope.chain_seq == 1)
    result = await again(second, swapped(history, one, other))

    place = history.messages[other]
    found = [damage for damage in at(result, place.stream, place.seq) if damage.chain == mine]
    assert {"reordered"} == {damage.kind for damage in found}
    assert {"reordered"} == kinds(result)


async def test_a_cut_tail_is_what_nobody_vouches_for(second: Transport, history: Recording) -> None:
    """The last messages of every stream are gone: no damage can be seen, and exactly that is said."""
    end = find(history, "run.completed/1", 1)
    cut = Recording([each for each in history.messages if each != history.messages[end]])
    result = await again(second, cut)

    (run,) = result.open_runs
    assert result.ok
    assert any(
        f"Run {run.workflow} is open, its last known envelope is AF_MESSAGES {run.seq}" in sentence
        and "nothing vouches for what may be missing behind" in sentence
        for sentence in result.not_vouched
    )


@pytest.mark.parametrize("meant", ["workflows.>", ">"])
@pytest.mark.parametrize("schema", ["goal.accepted/1", "run.advanced/1", "step.completed/1"])
async def test_a_message_dropped_from_a_second_stream_is_named(
    jetstream: JetStreamTransport, history: Recording, schema: str, meant: str
) -> None:
    """A copy beside the original, on the same server: its subjects are its own, and are mapped back to the mesh's."""
    before = "copy." if meant == ">" else "copy.workflows."
    config = {**definition_of("AF_MESSAGES").config(), "name": "COPY", "subjects": ["copy.>"]}
    config.pop("republish")
    transform = {"src": f"{before}>", "dest": meant}
    await jetstream.create_stream({**config, "subject_transform": transform})
    await jetstream.create_stream(
        {**config, "name": "WHOLE", "subjects": ["whole.>"], "subject_transform": {"src": "whole.>", "dest": ">"}}
    )
    index = find(history, schema)
    for number, each in enumerate(history.messages):
        if each.stream == "AF_MESSAGES":
            await jetstream.publish(f"whole.{each.subject}", each.body, stream="WHOLE")
            if number != index:
                await jetstream.publish(f"copy.{each.subject}", each.body, stream="COPY")
    whole, copy = [await verify(jetstream, now=now(), streams=[name]) for name in ("WHOLE", "COPY")]

    assert (True, {"missing"}) == (whole.ok, kinds(copy))
    assert {"COPY"} == {damage.stream for damage in copy.damages}
    assert {"workflow"} <= {damage.chain.partition(":")[0] for damage in copy.damages}


async def test_a_truncated_front_is_named(second: Transport) -> None:
    """A narrower limit drops the oldest messages without a word; they are too young to have expired."""
    writer = Mesh(now() - timedelta(minutes=1))
    list(writer.run(Story("a", ("agent", "agent", "agent"))))
    await pour(second, writer.recording)
    await second.update_stream({**definition_of("AF_MESSAGES").config(), "max_msgs": 3, "discard": "old"})
    result = await verify(second, now=now())

    assert {"missing"} == kinds(result)
    assert any(damage.chain.startswith("workflow:a:") for damage in result.damages)
    assert (await verify(second, now=now() + timedelta(days=8))).ok  # by then they may have expired


async def test_a_message_deleted_on_the_server_is_named(second: Transport, history: Recording) -> None:
    """Someone took the protection off and deleted one: its sequence is missing, whatever the stream allows now."""
    weak = {**definition_of("AF_AUDIT").config(), "deny_delete": False, "deny_purge": False}
    await second.create_stream(weak)
    await pour(second, history)
    await second.request("$JS.API.STREAM.MSG.DELETE.AF_AUDIT", b'{"seq": 3}')
    result = await verify(second, now=now())

    assert any(
        (damage.kind, damage.stream, damage.seq) == ("missing", "AF_AUDIT", 3)
        and "sequence 3 is not in the stream" in damage.detail
        for damage in result.damages
    )
