"""Key-value buckets: values, revisions, lifetimes, watching."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from agentflow.errors import Conflict, MeshError, NotStored
from agentflow.mesh.transport import Bucket, Entry, Transport
from tests.contract.meshes import SECOND, Mesh, bucket
from tests.support.waiting import eventually


@pytest.fixture
async def state(transport: Transport) -> Bucket:
    """A bucket that keeps its values."""
    await transport.create_stream(bucket())
    return await transport.bucket("STATE")


async def value(state: Bucket, key: str) -> bytes | None:
    """The present value."""
    entry = await state.get(key)
    return entry.value if entry else None


class Watcher:
    """Follows a bucket in the background; `async with Watcher(bucket, prefix)`."""

    def __init__(self, watched: Bucket, prefix: str = "") -> None:
        # `watch` promises "until the iterator is closed": it is an asynchronous generator.
        self._entries = cast(AsyncGenerator[Entry, None], watched.watch(prefix))
        self.seen: list[tuple[str, bytes, bool]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watcher":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._entries.aclose()

    async def _run(self) -> None:
        async for entry in self._entries:
            self.seen.append((entry.key, entry.value, entry.deleted))


async def test_a_bucket_has_to_exist(transport: Transport) -> None:
    """Asking for one that was never provisioned is an error at once."""
    with pytest.raises(NotStored):
        await transport.bucket("STATE")


async def test_a_value_is_read_as_it_was_put(state: Bucket) -> None:
    """With its key, a revision and a time; the last one counts."""
    first = await state.put("agent.a", b"1")
    second = await state.put("agent.a", b"\x00 2")

    entry = await state.get("agent.a")

    assert entry is not None
    assert ("agent.a", b"\x00 2", second, False) == (entry.key, entry.value, entry.revision, entry.deleted)
    assert first < second


async def test_what_is_absent_is_none(state: Bucket) -> None:
    """Never put, or below or above a key that was."""
    await state.put("agent.a", b"1")

    assert [None, None, None] == [await state.get(key) for key in ("agent.b", "agent", "agent.a.b")]


async def test_an_empty_value_is_a_value(state: Bucket) -> None:
    """Not a deletion."""
    await state.put("a", b"")

    assert b"" == await value(state, "a")


async def test_two_connections_see_one_bucket(mesh: Mesh) -> None:
    """What one puts the other gets."""
    await mesh.transport.create_stream(bucket())
    mine, theirs = await mesh.transport.bucket("STATE"), await (await mesh.attach()).bucket("STATE")

    await mine.put("a", b"1")

    assert b"1" == await value(theirs, "a")


async def test_creating_works_where_nothing_is(state: Bucket) -> None:
    """Once; then it conflicts and changes nothing."""
    await state.create("a", b"1")

    with pytest.raises(Conflict):
        await state.create("a", b"2")

    assert b"1" == await value(state, "a")


async def test_creating_works_again_after_a_deletion(state: Bucket) -> None:
    """What was deleted is absent."""
    await state.create("a", b"1")
    await state.delete("a")

    await state.create("a", b"2")

    assert b"2" == await value(state, "a")


async def test_updating_needs_the_present_revision(state: Bucket) -> None:
    """An older one conflicts: the value was changed in the meantime."""
    first = await state.put("a", b"1")
    second = await state.update("a", b"2", first)

    with pytest.raises(Conflict):
        await state.update("a", b"3", first)

    assert first < second
    assert b"2" == await value(state, "a")


async def test_of_racing_updates_one_wins(mesh: Mesh) -> None:
    """Six updates of one revision from two connections: one is stored."""
    await mesh.transport.create_stream(bucket())
    sides = [await mesh.transport.bucket("STATE"), await (await mesh.attach()).bucket("STATE")]
    revision = await sides[0].put("a", b"")

    answers = await asyncio.gather(
        *(sides[number % 2].update("a", str(number).encode(), revision) for number in range(6)), return_exceptions=True
    )

    winners = [number for number, answer in enumerate(answers) if isinstance(answer, int)]
    assert 1 == len(winners)
    assert 5 == sum(isinstance(answer, Conflict) for answer in answers)
    assert str(winners[0]).encode() == await value(sides[1], "a")


async def test_what_is_deleted_is_gone(state: Bucket) -> None:
    """From `get` and from `entries`; deleting it again, or what never was, is fine."""
    await state.put("a", b"1")
    for key in ("a", "a", "never"):
        await state.delete(key)

    assert await state.get("a") is None
    assert [] == list(await state.entries())


async def test_entries_are_the_present_values_sorted_by_key(state: Bucket) -> None:
    """All of them, or those whose key begins with a prefix, which need not end where a token ends."""
    for key in ("tool.b", "agent.b", "agent.a", "agents", "tool.a"):
        await state.put(key, key.encode())
    await state.put("agent.a", b"again")
    await state.delete("tool.b")

    assert ["agent.a", "agent.b", "agents", "tool.a"] == [entry.key for entry in await state.entries()]
    assert ["agent.a", "agent.b"] == [entry.key for entry in await state.entries("agent.")]
    assert ["agent.a", "agent.b", "agents"] == [entry.key for entry in await state.entries("agent")]
    assert [b"again"] == [entry.value for entry in await state.entries("agent.a")]


@pytest.mark.parametrize("key", ["", "a b", "a.*", ">", ".a", "a.", "a..b"])
async def test_a_key_that_is_none_is_refused(state: Bucket, key: str) -> None:
    """Wildcards above all: they would be stored literally and match other keys when read."""
    with pytest.raises(MeshError):
        await state.put(key, b"1")

    assert [] == list(await state.entries())


async def test_keys_may_have_every_sign_that_is_allowed(state: Bucket) -> None:
    """Letters, digits and `_ = . / -`."""
    keys = ["A-z_0.9", "name@".replace("@", "=1/2"), "workflow.support.v1-2"]
    for key in keys:
        await state.put(key, key.encode())

    assert sorted(keys) == [entry.key for entry in await state.entries()]


# --- lifetimes -------------------------------------------------------------------------------------------------------


async def test_a_value_may_have_a_lifetime(transport: Transport) -> None:
    """It is gone after its seconds, others stay."""
    await transport.create_stream(bucket(allow_msg_ttl=True))
    state = await transport.bucket("STATE")
    await state.put("short", b"1", ttl=1.0)
    await state.put("long", b"1")

    async def gone() -> bool:
        return await state.get("short") is None

    assert not await gone()
    assert await eventually(gone)
    assert b"1" == await value(state, "long")


async def test_a_lifetime_needs_a_bucket_that_allows_it(state: Bucket) -> None:
    """Refused, and not stored for ever instead."""
    with pytest.raises(MeshError):
        await state.put("a", b"1", ttl=1.0)

    assert await state.get("a") is None


async def test_a_heartbeat_that_ends_is_seen_as_a_deletion(transport: Transport) -> None:
    """The registry's way: entries live two seconds, are refreshed, and when that stops a watcher is told."""
    age: dict[str, Any] = {"max_age": 2 * SECOND, "duplicate_window": SECOND, "subject_delete_marker_ttl": 2 * SECOND}
    await transport.create_stream(bucket(allow_msg_ttl=True, **age))
    registry = await transport.bucket("STATE")
    await registry.put("stops", b"1")
    async with Watcher(registry) as watcher:

        async def beat() -> bool:
            await registry.put("lives", b"1")
            return ("stops", b"", True) in watcher.seen

        await eventually(beat)
        assert ["lives"] == [entry.key for entry in await registry.entries()]


# --- watching --------------------------------------------------------------------------------------------------------


async def test_a_watcher_sees_what_is_there_and_then_every_change(state: Bucket) -> None:
    """Present values first, then puts and deletions in the order they happen."""
    await state.put("a", b"1")
    await state.put("b", b"1")
    async with Watcher(state) as watcher:
        await eventually(lambda: len(watcher.seen) == 2)
        await state.put("a", b"2")
        await eventually(lambda: len(watcher.seen) == 3)
        await state.delete("b")
        await eventually(lambda: len(watcher.seen) == 4)

    assert [("a", b"1", False), ("b", b"1", False)] == sorted(watcher.seen[:2])
    assert [("a", b"2", False), ("b", b"", True)] == watcher.seen[2:]


async def test_a_watcher_does_not_begin_with_deletions(state: Bucket) -> None:
    """What was deleted before is not there."""
    await state.put("gone", b"1")
    await state.delete("gone")
    await state.put("here", b"1")
    async with Watcher(state) as watcher:
        await eventually(lambda: ("here", b"1", False) in watcher.seen)

    assert [("here", b"1", False)] == watcher.seen


async def test_a_watcher_sees_its_prefix_only(state: Bucket) -> None:
    """In what is there and in what changes."""
    await state.put("agent.a", b"1")
    await state.put("tool.a", b"1")
    async with Watcher(state, "agent.") as watcher:
        await eventually(lambda: watcher.seen)
        await state.put("tool.b", b"1")
        await state.put("agent.b", b"1")
        await eventually(lambda: len(watcher.seen) == 2)

    assert [("agent.a", b"1", False), ("agent.b", b"1", False)] == watcher.seen


async def test_a_watcher_of_an_empty_bucket_waits(state: Bucket) -> None:
    """The first value ends the wait."""
    async with Watcher(state) as watcher:
        await state.put("a", b"1")
        await eventually(lambda: watcher.seen)

    assert [("a", b"1", False)] == watcher.seen
