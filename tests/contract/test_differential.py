"""Both transports are given the same random calls and must give the same answers.

The other modules say what the contract is; this one looks for what nobody thought of. It is how the in-memory stream
is held to the server's own habits: which check comes first, what a limit drops, where a sequence goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.errors import MeshError
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Bucket, Message, StreamInfo, Transport
from tests.contract.meshes import bucket, stream
from tests.support.nats_server import NatsServer

SUBJECTS = ("events.a", "events.b", "events.a.b")
PATTERNS = (">", "events.*", "events.a.>", "events.b")
Answer = object
"""What a call returned, without times, or the code of the error it raised."""

Call = Callable[[Transport], Awaitable[Answer]]
Script = Callable[[Transport], Awaitable[list[Answer]]]

many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


def both(directory: Path, script: Script) -> tuple[list[Answer], list[Answer]]:
    """The answers of the memory and of a fresh server."""

    async def ask() -> tuple[list[Answer], list[Answer]]:
        real = await JetStreamTransport.connect(server.url, timeout=10)
        try:
            return await script(MemoryTransport()), await script(real)
        finally:
            await real.close()

    with NatsServer(directory) as server:
        return asyncio.run(ask())


async def answer(call: Awaitable[Answer]) -> Answer:
    """What comes of a call."""
    try:
        return await call
    except MeshError as error:
        return type(error).__name__


def plain(message: Message | None) -> Answer:
    """A message without what may differ: the moment it was stored, and the name of its stream."""
    return message and (message.seq, message.subject, message.body, message.headers.get("Nats-Msg-Id"))


def counted(info: StreamInfo | None) -> Answer:
    """What a stream says it holds; bytes are counted differently."""
    return info and (info.messages, info.first_seq, info.last_seq)


# --- streams ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publish:
    """One attempt to store."""

    subject: str
    body: bytes
    msg_id: str | None = None
    expect: int | None = None


@dataclass(frozen=True)
class Plan:
    """A stream's settings and what is done to it."""

    config: dict[str, Any]
    publishes: Sequence[Publish]
    narrowed: dict[str, Any]


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "max_msgs": st.integers(0, 4),
        "max_msgs_per_subject": st.integers(0, 3),
        "max_msg_size": st.sampled_from([0, 1000]),
        "discard": st.sampled_from(["old", "new"]),
    },
)

PUBLISHES = st.builds(
    Publish,
    subject=st.sampled_from([*SUBJECTS, "elsewhere.a"]),
    body=st.sampled_from([b"", b"x", b"y" * 2000]),
    msg_id=st.sampled_from([None, None, "one", "two"]),
)
GUARDED = st.builds(
    Publish, subject=st.sampled_from(SUBJECTS), body=st.sampled_from([b"", b"x"]), expect=st.integers(0, 6)
)


def plans() -> st.SearchStrategy[Plan]:
    """Settings, up to fourteen publishes, and narrower settings afterwards."""
    return st.builds(Plan, LIMITS, st.lists(PUBLISHES | GUARDED, max_size=14), LIMITS)


def stream_script(plan: Plan, name: str = "EVENTS") -> Script:
    """Carry a plan out and look at everything."""

    async def publish(transport: Transport, each: Publish) -> Answer:
        stored = await transport.publish(
            each.subject, each.body, stream=name, msg_id=each.msg_id, expect=each.expect, timeout=5
        )
        return stored.seq, stored.duplicate

    async def look(transport: Transport) -> list[Answer]:
        found: list[Answer] = [counted(await transport.stream_info(name))]
        for pattern in PATTERNS:
            found.append([plain(message) async for message in transport.read(name, pattern)])
        for subject in SUBJECTS:
            found.append((plain(await transport.first(name, subject)), plain(await transport.last(name, subject))))
        return found

    async def run(transport: Transport) -> list[Answer]:
        base = stream(name, "events.>", **plan.config)
        answers: list[Answer] = [await answer(created(transport, base))]
        answers += [await answer(publish(transport, each)) for each in plan.publishes]
        answers += await look(transport)
        answers.append(await answer(changed(transport, {**base, **plan.narrowed})))
        return answers + await look(transport)

    return run


async def created(transport: Transport, config: dict[str, Any]) -> Answer:
    """The outcome of creating a stream."""
    return counted(await transport.create_stream(config))


async def changed(transport: Transport, config: dict[str, Any]) -> Answer:
    """The outcome of changing one."""
    return counted(await transport.update_stream(config))


@many
@given(plan=plans())
def test_streams_answer_alike(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    """Publishes with and without guards and ids, under limits that drop or refuse, before and after a change."""
    memory, real = both(tmp_path_factory.mktemp("nats"), stream_script(plan))

    assert real == memory


# --- buckets ---------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "a.b"])
VALUES = st.sampled_from([b"", b"1", b"2"])
CHANGES = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("create"), KEYS, VALUES),
    st.tuples(st.just("update"), KEYS, VALUES, st.integers(0, 5)),
    st.tuples(st.just("delete"), KEYS),
)


def bucket_script(changes: Sequence[tuple[Any, ...]], history: int) -> Script:
    """Carry changes out and read everything after each."""

    async def state(kept: Bucket) -> Answer:
        entries = [(entry.key, entry.value, entry.revision) for entry in await kept.entries()]
        single = [await kept.get(key) for key in ("a", "b", "a.b", "c")]
        return entries, [entry and (entry.value, entry.revision) for entry in single]

    async def run(transport: Transport) -> list[Answer]:
        await transport.create_stream(bucket(max_msgs_per_subject=history))
        kept = await transport.bucket("STATE")
        answers: list[Answer] = []
        for verb, *arguments in changes:
            answers += [await answer(getattr(kept, verb)(*arguments)), await state(kept)]
        return answers

    return run


@many
@given(changes=st.lists(CHANGES, max_size=12), history=st.integers(1, 3))
def test_buckets_answer_alike(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[Any, ...]], history: int
) -> None:
    """Puts, creations, updates and deletions in any order, with revisions that hold and that do not."""
    memory, real = both(tmp_path_factory.mktemp("nats"), bucket_script(changes, history))

    assert real == memory
