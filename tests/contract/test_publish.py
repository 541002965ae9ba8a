"""Storing a message: its three outcomes, the guards of the first writer, and what is refused."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from agentflow.errors import Conflict, MeshError, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh.transport import Stored, Transport
from tests.contract.meshes import SECOND, Mesh, fill, stream
from tests.support.waiting import eventually

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
async def events(transport: Transport) -> None:
    """A stream that takes `events.>`."""
    await transport.create_stream(stream())


async def test_an_acknowledged_message_is_there_as_it_was_sent(transport: Transport) -> None:
    """The first outcome: the answer names stream and sequence, and under it are subject, bytes, headers and time."""
    before = datetime.now(UTC) - timedelta(seconds=1)  # noqa: TID251 - the broker's clock is the machine's

    stored = await transport.publish("events.a", b"\x00\xff body", stream="EVENTS", headers={"traceparent": "00-ab"})
    found = await transport.get("EVENTS", stored.seq)

    assert Stored("EVENTS", 1) == stored
    assert found is not None
    assert ("EVENTS", 1, "events.a", b"\x00\xff body") == (found.stream, found.seq, found.subject, found.body)
    assert "00-ab" == found.headers["traceparent"]
    assert before < found.time < before + timedelta(seconds=30)
    assert timedelta(0) == found.time.utcoffset()


async def test_sequences_count_up(transport: Transport) -> None:
    """Each message has the next sequence of its stream, whatever its subject."""
    answers = [await transport.publish(f"events.{name}", b"", stream="EVENTS") for name in "abcab"]

    assert [1, 2, 3, 4, 5] == [stored.seq for stored in answers]


async def test_a_subject_without_a_stream_is_a_certain_failure(transport: Transport) -> None:
    """The second outcome: nobody stores `elsewhere.a`, and the error says so at once."""
    with pytest.raises(PublishFailed) as failure:
        await transport.publish("elsewhere.a", b"", stream="EVENTS")

    assert "mesh.no_stream" == failure.value.error_code


async def test_a_stream_that_does_not_exist_is_a_certain_failure(transport: Transport) -> None:
    """The same where the stream that is named is the one that is missing."""
    with pytest.raises(PublishFailed) as failure:
        await transport.publish("elsewhere.a", b"", stream="ELSEWHERE")

    assert "mesh.no_stream" == failure.value.error_code


async def test_a_message_never_lands_in_another_stream_than_the_one_named(transport: Transport) -> None:
    """`others.a` is stored by OTHERS: a publish that expects EVENTS is refused, and nothing is stored."""
    await transport.create_stream(stream("OTHERS", "others.>"))

    with pytest.raises(PublishFailed):
        await transport.publish("others.a", b"", stream="EVENTS")

    assert await transport.last("OTHERS", "others.a") is None


async def test_no_answer_means_unknown_and_the_message_may_be_there(mesh: Mesh) -> None:
    """The third outcome: the call gives up after its timeout, and what it sent lands afterwards all the same."""
    with mesh.silence(), pytest.raises(OutcomeUnknown):
        await mesh.transport.publish("events.a", b"late", stream="EVENTS", timeout=0.3)

    found = await eventually(lambda: mesh.transport.last("EVENTS", "events.a"))
    assert b"late" == found.body


async def test_repeating_an_unknown_publish_under_its_id_stores_it_once(mesh: Mesh) -> None:
    """The same bytes and the same id after an unknown outcome: answered as duplicate, or stored by the repetition."""
    with mesh.silence(), pytest.raises(OutcomeUnknown):
        await mesh.transport.publish("events.a", b"x", stream="EVENTS", msg_id="one", timeout=0.3)
    await eventually(lambda: mesh.transport.last("EVENTS", "events.a"))

    again = await mesh.transport.publish("events.a", b"x", stream="EVENTS", msg_id="one")

    assert Stored("EVENTS", 1, duplicate=True) == again


async def test_nothing_is_sent_over_a_closed_connection(mesh: Mesh) -> None:
    """A closed transport says `Unreachable`, and the message is not there."""
    other = await mesh.attach()
    await other.close()
    await other.close()

    with pytest.raises(Unreachable):
        await other.publish("events.a", b"", stream="EVENTS")

    assert not other.connected
    assert other.closed_reason is None
    assert await mesh.transport.last("EVENTS", "events.a") is None


# --- the duplicate window --------------------------------------------------------------------------------------------


async def test_the_same_id_is_stored_once(transport: Transport) -> None:
    """A second publish under an id is answered with the first one's sequence, marked duplicate."""
    first = await transport.publish("events.a", b"x", stream="EVENTS", msg_id="one")
    second = await transport.publish("events.a", b"x", stream="EVENTS", msg_id="one")

    assert (Stored("EVENTS", 1), Stored("EVENTS", 1, duplicate=True)) == (first, second)


async def test_another_body_under_a_used_id_is_reported_as_duplicate_and_dropped(transport: Transport) -> None:
    """The broker compares ids only: whoever relies on them has to read back and compare."""
    await transport.publish("events.a", b"first", stream="EVENTS", msg_id="one")

    other = await transport.publish("events.b", b"second", stream="EVENTS", msg_id="one")

    assert Stored("EVENTS", 1, duplicate=True) == other
    assert await transport.last("EVENTS", "events.b") is None


async def test_without_an_id_every_publish_is_stored(transport: Transport) -> None:
    """Nothing is guessed from the bytes."""
    first = await transport.publish("events.a", b"x", stream="EVENTS")
    second = await transport.publish("events.a", b"x", stream="EVENTS")

    assert (1, 2, False) == (first.seq, second.seq, second.duplicate)


async def test_an_id_is_forgotten_after_the_duplicate_window(transport: Transport) -> None:
    """The window is an optimisation, not a guarantee: afterwards the same id is stored again."""
    await transport.create_stream(stream("BRIEF", "brief.>", duplicate_window=SECOND))

    async def publish() -> bool:
        return not (await transport.publish("brief.a", b"x", stream="BRIEF", msg_id="one")).duplicate

    assert await publish()
    assert not await publish()
    assert await eventually(publish)


# --- the first writer wins -------------------------------------------------------------------------------------------


async def test_expecting_nothing_works_once(transport: Transport) -> None:
    """`expect=0` stores the first message of a subject; the next one conflicts and leaves nothing behind."""
    await fill(transport, 2, "events.other")

    stored = await transport.publish("events.a", b"first", stream="EVENTS", expect=0)
    with pytest.raises(Conflict) as conflict:
        await transport.publish("events.a", b"second", stream="EVENTS", expect=0)

    found = await transport.last("EVENTS", "events.a")
    assert 3 == stored.seq
    assert "mesh.conflict" == conflict.value.error_code
    assert found is not None
    assert b"first" == found.body


async def test_the_expected_sequence_is_the_streams_and_of_the_subjects_last_message(transport: Transport) -> None:
    """With other subjects in between, what counts is where the subject's own last message stands in the stream."""
    await fill(transport, 3, "events.other")
    first = await transport.publish("events.a", b"1", stream="EVENTS", expect=0)
    await fill(transport, 2, "events.other")

    second = await transport.publish("events.a", b"2", stream="EVENTS", expect=first.seq)

    assert (4, 7) == (first.seq, second.seq)


@pytest.mark.parametrize("expect", [0, 1, 3, 99])
async def test_a_wrong_expectation_is_a_conflict(transport: Transport, expect: int) -> None:
    """The subject's last message is the second of the stream: any other number is refused."""
    await fill(transport, 2)

    with pytest.raises(Conflict):
        await transport.publish("events.a", b"late", stream="EVENTS", expect=expect)

    found = await transport.last("EVENTS", "events.a")
    assert found is not None
    assert 2 == found.seq


async def test_an_expectation_on_a_subject_that_holds_nothing_is_a_conflict(transport: Transport) -> None:
    """Somebody who remembers a message that is gone, or that was in another stream, does not write."""
    with pytest.raises(Conflict):
        await transport.publish("events.a", b"", stream="EVENTS", expect=1)


async def test_repeating_an_expected_publish_is_a_conflict_with_oneself(transport: Transport) -> None:
    """The same bytes again conflict although nobody else wrote: a conflict alone does not say who won."""
    await transport.publish("events.a", b"mine", stream="EVENTS", expect=0)

    with pytest.raises(Conflict):
        await transport.publish("events.a", b"mine", stream="EVENTS", expect=0)

    found = await transport.last("EVENTS", "events.a")
    assert found is not None
    assert b"mine" == found.body


async def test_of_racing_writers_exactly_one_wins(mesh: Mesh) -> None:
    """Eight writers on two connections expect an empty subject: one is stored, seven conflict."""
    connections = [mesh.transport, await mesh.attach()]

    async def write(number: int) -> Stored | MeshError:
        try:
            body = str(number).encode()
            return await connections[number % 2].publish("events.a", body, stream="EVENTS", expect=0)
        except Conflict as conflict:
            return conflict

    answers = await asyncio.gather(*(write(number) for number in range(8)))

    winners = [number for number, answer in enumerate(answers) if isinstance(answer, Stored)]
    found = await mesh.transport.last("EVENTS", "events.a")
    assert 1 == len(winners)
    assert found is not None
    assert str(winners[0]).encode() == found.body


async def test_writers_who_read_again_after_a_conflict_lose_nothing(mesh: Mesh) -> None:
    """Three writers append ten messages each to one subject: thirty are stored, each writer's in its own order."""
    transports = [mesh.transport, await mesh.attach(), await mesh.attach()]

    async def append(transport: Transport, writer: int) -> None:
        for number in range(10):
            while True:
                last = await transport.last("EVENTS", "events.log")
                body = f"{writer}:{number}".encode()
                try:
                    await transport.publish("events.log", body, stream="EVENTS", expect=last.seq if last else 0)
                    break
                except Conflict:
                    continue

    await asyncio.gather(*(append(transport, writer) for writer, transport in enumerate(transports)))

    bodies = [message.body async for message in mesh.transport.read("EVENTS", "events.log")]
    assert 30 == len(bodies)
    for writer in range(3):
        mine = [body for body in bodies if body.startswith(f"{writer}:".encode())]
        assert [f"{writer}:{number}".encode() for number in range(10)] == mine


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "header"), [(MIB, 0), (MIB + 1, 0), (4 * MIB, 0), (MIB - 3000, 4000)], ids=["1M", "1M+1", "4M", "headers"]
)
async def test_an_oversized_message_is_refused_and_the_connection_lives(
    transport: Transport, size: int, header: int
) -> None:
    """Body and headers count together; more than the server takes is never sent, so it cannot close the connection."""
    with pytest.raises(PublishFailed) as refused:
        await transport.publish("events.a", b"x" * size, stream="EVENTS", headers={"note": "n" * header})

    assert "mesh.too_large" == refused.value.error_code
    assert transport.connected
    assert 1 == (await transport.publish("events.a", b"fine", stream="EVENTS")).seq


async def test_a_message_just_below_the_limit_is_stored(transport: Transport) -> None:
    """1000 KiB pass, twice what an envelope may have."""
    body = b"x" * 1000 * 1024

    await transport.publish("events.a", body, stream="EVENTS")

    found = await transport.last("EVENTS", "events.a")
    assert found is not None
    assert body == found.body


@pytest.mark.parametrize("subject", ["events.*", "events.>", "events.a b", "events..a", "events.", "events.a\r\nPUB x"])
async def test_a_subject_that_is_none_is_refused(transport: Transport, subject: str) -> None:
    """Wildcards, blanks and empty tokens never reach a stream: the server itself would store a literal `*`."""
    with pytest.raises(PublishFailed):
        await transport.publish(subject, b"", stream="EVENTS")

    assert transport.connected
    assert [] == [message async for message in transport.read("EVENTS")]


async def test_a_full_stream_refuses_and_keeps_what_it_has(transport: Transport) -> None:
    """Where a stream discards the new, the failure is certain, and the first message stays."""
    await transport.create_stream(stream("SMALL", "small.>", max_bytes=2000, discard="new"))
    await transport.publish("small.a", b"x" * 1000, stream="SMALL")

    with pytest.raises(PublishFailed):
        await transport.publish("small.a", b"y" * 1500, stream="SMALL")

    assert [b"x" * 1000] == [message.body async for message in transport.read("SMALL")]


async def test_a_message_above_the_streams_own_limit_is_refused(transport: Transport) -> None:
    """`max_msg_size` is the stream's word, the connection's limit only the outer one."""
    await transport.create_stream(stream("SMALL", "small.>", max_msg_size=100))

    with pytest.raises(PublishFailed):
        await transport.publish("small.a", b"x" * 200, stream="SMALL")

    assert 1 == (await transport.publish("small.a", b"x" * 20, stream="SMALL")).seq


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-TTL": "5s"},
        {"Nats-Rollup": "all"},
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "events.due"},
    ],
    ids=["ttl", "rollup", "schedule"],
)
async def test_a_stream_of_evidence_takes_no_header_that_removes_messages(
    transport: Transport, headers: dict[str, str]
) -> None:
    """Lifetimes, rollups and schedules are off unless the stream has them on."""
    await fill(transport, 2)

    with pytest.raises(PublishFailed):
        await transport.publish("events.a", b"", stream="EVENTS", headers=headers)

    assert 2 == len([message async for message in transport.read("EVENTS")])


async def test_the_callers_headers_are_left_alone(transport: Transport) -> None:
    """What is added on the way is added to a copy."""
    headers = {"note": "mine"}

    await transport.publish("events.a", b"", stream="EVENTS", headers=headers, msg_id="one")

    assert {"note": "mine"} == headers


async def test_many_publishes_at_once_are_each_stored_once(transport: Transport) -> None:
    """Two hundred in flight: every answer is another sequence, and every body is found under its own."""
    bodies = [str(number).encode() for number in range(200)]

    answers = await asyncio.gather(*(transport.publish("events.a", body, stream="EVENTS") for body in bodies))

    found = {message.seq: message.body async for message in transport.read("EVENTS")}
    assert {stored.seq: body for stored, body in zip(answers, bodies, strict=True)} == found
