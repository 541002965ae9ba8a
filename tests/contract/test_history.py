"""Reading what is stored: by sequence, by subject, first, last and in order; and the streams themselves."""

from typing import Any

import pytest

from agentflow.errors import MeshError, NotStored
from agentflow.mesh.transport import StreamInfo, Transport
from tests.contract.meshes import SECOND, fill, stream
from tests.support.waiting import eventually


async def read(transport: Transport, subject: str = ">", **more: int) -> list[int]:
    """The sequences that a read yields."""
    return [message.seq async for message in transport.read("EVENTS", subject, **more)]


@pytest.fixture
async def filled(transport: Transport) -> Transport:
    """Six messages on four subjects."""
    await transport.create_stream(stream())
    for subject in ("events.a.in", "events.a.out", "events.b.in", "events.b.out.deep", "events.a.in", "events.b.in"):
        await transport.publish(subject, subject.encode(), stream="EVENTS")
    return transport


async def test_history_comes_in_stream_order_and_as_it_was_stored(filled: Transport) -> None:
    """All of it, from the first, with the same bytes that a get by sequence returns."""
    found = [message async for message in filled.read("EVENTS")]

    assert [1, 2, 3, 4, 5, 6] == [message.seq for message in found]
    for message in found:
        assert message == await filled.get("EVENTS", message.seq)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (">", [1, 2, 3, 4, 5, 6]),
        ("events.>", [1, 2, 3, 4, 5, 6]),
        ("events.a.in", [1, 5]),
        ("events.*.in", [1, 3, 5, 6]),
        ("events.b.>", [3, 4, 6]),
        ("events.*.out", [2]),
        ("events.*.*.*", [4]),
        ("events.a", []),
        ("other.>", []),
    ],
)
async def test_a_pattern_selects(filled: Transport, pattern: str, expected: list[int]) -> None:
    """`*` stands for one token, `>` for one or more at the end."""
    assert expected == await read(filled, pattern)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (3, None, [3, 4, 5, 6]),
        (1, 2, [1, 2]),
        (2, 4, [2, 3, 4]),
        (6, 6, [6]),
        (7, None, []),
        (4, 3, []),
        (1, 99, [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_a_range_selects(filled: Transport, start: int, end: int | None, expected: list[int]) -> None:
    """From `start` to `end`, both included; beyond the last there is nothing."""
    found = [message.seq async for message in filled.read("EVENTS", start=start, end=end)]

    assert expected == found


async def test_range_and_pattern_together(filled: Transport) -> None:
    """The range counts messages of the stream, not of the pattern."""
    assert [3, 5] == await read(filled, "events.*.in", start=2, end=5)


async def test_a_read_leaves_out_what_is_stored_while_it_goes_on(filled: Transport) -> None:
    """Its end is fixed where the history ends when it begins, so it ends under constant writing."""
    found: list[int] = []

    async for message in filled.read("EVENTS"):
        found.append(message.seq)
        await filled.publish("events.more", b"", stream="EVENTS")

    assert [1, 2, 3, 4, 5, 6] == found


async def test_gaps_are_passed_over(transport: Transport) -> None:
    """Where older messages of a subject were dropped, the rest comes in order and the holes are just not there."""
    await transport.create_stream(stream(max_msgs_per_subject=1))
    for subject in ("events.a", "events.b", "events.a", "events.c", "events.a"):
        await transport.publish(subject, b"", stream="EVENTS")

    assert [2, 4, 5] == await read(transport)
    assert [4, 5] == await read(transport, start=3)
    assert await transport.get("EVENTS", 1) is None


async def test_a_long_history_is_complete(transport: Transport) -> None:
    """1,300 messages: more than any batch a transport may read at once."""
    await transport.create_stream(stream())
    await fill(transport, 1300)

    assert list(range(1, 1301)) == await read(transport)


async def test_a_heavy_history_is_complete(transport: Transport) -> None:
    """Twelve messages of 900 KiB: more bytes than any batch may have."""
    await transport.create_stream(stream())
    for number in range(12):
        await transport.publish("events.a", bytes([number]) * 900 * 1024, stream="EVENTS")

    found = [(message.body[:1], len(message.body)) async for message in transport.read("EVENTS")]

    assert [(bytes([number]), 900 * 1024) for number in range(12)] == found


async def test_an_empty_stream_has_an_empty_history(transport: Transport) -> None:
    """It ends at once."""
    await transport.create_stream(stream())

    assert [] == await read(transport)


async def test_the_history_of_a_stream_that_does_not_exist_is_an_error(transport: Transport) -> None:
    """Not an empty one: whoever verifies would take it for a clean bill."""
    with pytest.raises(NotStored):
        await read(transport)


# --- single messages -------------------------------------------------------------------------------------------------


async def test_first_and_last_of_a_subject(filled: Transport) -> None:
    """Of exactly that subject, not of those below it."""
    first, last = await filled.first("EVENTS", "events.b.in"), await filled.last("EVENTS", "events.b.in")

    assert first is not None
    assert last is not None
    assert (3, 6) == (first.seq, last.seq)
    assert await filled.last("EVENTS", "events.b") is None
    assert await filled.first("EVENTS", "events.b") is None


async def test_what_is_not_there_is_none(filled: Transport) -> None:
    """Sequences before, behind and beyond, and subjects nobody wrote to."""
    assert await filled.get("EVENTS", 7) is None
    assert await filled.get("EVENTS", 0) is None
    assert await filled.last("EVENTS", "events.nobody") is None
    assert await filled.first("EVENTS", "events.nobody") is None


async def test_bytes_of_every_kind_are_kept(transport: Transport) -> None:
    """None at all, all there are, and text in headers."""
    await transport.create_stream(stream())
    bodies = [b"", bytes(range(256)), '{"text":"Grüße, 你好"}'.encode()]
    for body in bodies:
        await transport.publish("events.a", body, stream="EVENTS", headers={"X-Note": "two words"})

    found = [message async for message in transport.read("EVENTS")]

    assert bodies == [message.body for message in found]
    assert ["two words"] * 3 == [message.headers["X-Note"] for message in found]


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_says_what_it_holds(filled: Transport) -> None:
    """Messages, first and last sequence, bytes, and the configuration it was made with."""
    info = await filled.stream_info("EVENTS")

    assert info is not None
    assert ("EVENTS", 6, 1, 6, 0) == (info.name, info.messages, info.first_seq, info.last_seq, info.consumers)
    assert info.bytes > 6 * len("events.a.in")
    assert stream().items() <= dict(info.config).items()


async def test_a_stream_that_does_not_exist_has_no_info(transport: Transport) -> None:
    """None, not an error: provisioning asks before it creates."""
    assert await transport.stream_info("EVENTS") is None
    assert [] == list(await transport.stream_names())


async def test_an_empty_stream_begins_behind_its_last_message(transport: Transport) -> None:
    """Before anything was stored, and after all was dropped: `first_seq` is where the next message will be."""
    fresh = await transport.create_stream(stream(allow_rollup_hdrs=True, allow_msg_ttl=True))
    assert (0, 1, 0) == (fresh.messages, fresh.first_seq, fresh.last_seq)
    for ttl in ("never", "1s"):
        await transport.publish("events.a", b"", stream="EVENTS", headers={"Nats-Rollup": "all", "Nats-TTL": ttl})

    async def emptied() -> StreamInfo | None:
        info = await transport.stream_info("EVENTS")
        return info if info and info.messages == 0 else None

    info = await eventually(emptied)
    assert (3, 2) == (info.first_seq, info.last_seq)


async def test_streams_are_listed_in_order(transport: Transport) -> None:
    """By name."""
    for name in ("B", "C", "A"):
        await transport.create_stream(stream(name, f"{name}.>"))

    assert ["A", "B", "C"] == list(await transport.stream_names())


async def test_creating_a_stream_again_changes_nothing(filled: Transport) -> None:
    """The same configuration is fine, and what is stored stays."""
    info = await filled.create_stream(stream())

    assert 6 == info.messages


async def test_a_stream_is_never_created_over_another(filled: Transport) -> None:
    """Another configuration under the same name is refused, and the stream stays as it was."""
    with pytest.raises(MeshError):
        await filled.create_stream(stream(max_msgs=1))

    assert [1, 2, 3, 4, 5, 6] == await read(filled)


@pytest.mark.parametrize("subjects", [["events.a.in"], ["events.*.x"], [">"]])
async def test_a_subject_belongs_to_one_stream(filled: Transport, subjects: list[str]) -> None:
    """A stream that would take some of the same subjects is refused."""
    with pytest.raises(MeshError):
        await filled.create_stream(stream("OTHERS", *subjects))


async def test_an_unknown_setting_is_refused(transport: Transport) -> None:
    """A misspelt key is not a setting that silently does not apply."""
    with pytest.raises(MeshError):
        await transport.create_stream(stream(max_mesages=5))


async def test_a_stream_is_changed_and_keeps_its_messages(filled: Transport) -> None:
    """New subjects are taken from then on; the answer is the stream as it is now."""
    info = await filled.update_stream(stream("EVENTS", "events.>", "more.>"))

    assert (6, ["events.>", "more.>"]) == (info.messages, info.config["subjects"])
    assert 7 == (await filled.publish("more.a", b"", stream="EVENTS")).seq


async def test_a_narrower_limit_drops_the_oldest(filled: Transport) -> None:
    """What an operator can do to history, and why a verifier looks at the first sequence."""
    info = await filled.update_stream(stream(max_msgs=2))

    assert (2, 5, 6) == (info.messages, info.first_seq, info.last_seq)


async def test_changing_a_stream_that_does_not_exist_is_an_error(transport: Transport) -> None:
    """Nothing is created by the way."""
    with pytest.raises(NotStored):
        await transport.update_stream(stream())

    assert await transport.stream_info("EVENTS") is None


async def test_what_denies_deletion_goes_on_denying_it(transport: Transport) -> None:
    """`deny_delete` cannot be switched off again."""
    await transport.create_stream(stream(deny_delete=True, deny_purge=True))

    with pytest.raises(MeshError):
        await transport.update_stream(stream())


async def test_streams_whose_subjects_never_meet_live_side_by_side(transport: Transport) -> None:
    """Patterns of different length, or with different tokens, cover nothing in common."""
    for name, subject in (("A", "x.*"), ("B", "x.*.y"), ("C", "x.*.z.>")):
        await transport.create_stream(stream(name, subject))

    assert ["A", "B", "C"] == list(await transport.stream_names())


async def test_where_a_stream_is_kept_cannot_be_changed(filled: Transport) -> None:
    """From memory to disk needs another stream."""
    with pytest.raises(MeshError):
        await filled.update_stream(stream(storage="file"))


async def test_the_duplicate_window_is_never_longer_than_messages_live(transport: Transport) -> None:
    """By default it gives way; asking for a longer one is refused."""
    info = await transport.create_stream(stream(max_age=5 * SECOND))
    assert 5 * SECOND == info.config["duplicate_window"]

    with pytest.raises(MeshError):
        await transport.create_stream(stream("MORE", "more.>", max_age=5 * SECOND, duplicate_window=6 * SECOND))


@pytest.mark.parametrize(("kind", "left"), [("sub", [2, 4]), ("all", [4])])
async def test_a_rollup_replaces_what_came_before(transport: Transport, kind: str, left: list[int]) -> None:
    """Where a stream allows it, as buckets do: of its subject, or of the whole stream."""
    await transport.create_stream(stream(allow_rollup_hdrs=True))
    for subject in ("events.a", "events.b", "events.a"):
        await transport.publish(subject, b"", stream="EVENTS")

    await transport.publish("events.a", b"sum", stream="EVENTS", headers={"Nats-Rollup": kind})

    assert left == await read(transport)


@pytest.mark.parametrize(
    "setting", [{"allow_msg_schedules": True}, {"allow_msg_ttl": True, "subject_delete_marker_ttl": 10**9}]
)
async def test_some_settings_silently_change_what_protects_evidence(
    transport: Transport, setting: dict[str, Any]
) -> None:
    """Schedules and delete markers switch deny-purge off and rollups on: why timers and buckets hold no evidence."""
    info = await transport.create_stream(stream(deny_purge=True, **setting))

    assert (False, True) == (info.config["deny_purge"], info.config["allow_rollup_hdrs"])


async def test_lifetimes_of_messages_alone_do_not(transport: Transport) -> None:
    """A stream may allow `Nats-TTL` and go on denying purges."""
    info = await transport.create_stream(stream(allow_msg_ttl=True, deny_purge=True))

    assert (True, False) == (info.config["deny_purge"], info.config["allow_rollup_hdrs"])
