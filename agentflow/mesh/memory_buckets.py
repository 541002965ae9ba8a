"""Buckets and object stores of the in-memory broker: rules for reading a stream, as on the server.

A bucket is the stream `KV_<name>`, a key the subject `$KV.<name>.<key>`; an object store is the stream `OBJ_<name>`.
"""

import base64
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from agentflow.errors import Conflict, NotStored
from agentflow.mesh.memory_stream import MemoryStream, check_message
from agentflow.mesh.memory_time import Timeline
from agentflow.mesh.transport import Entry, Message

_CHUNK = 128 * 1024
"""Bytes of an object one message holds, as with NATS' clients."""

Turn = Callable[[], AbstractContextManager[datetime]]
"""A turn of the timeline that raises `Unreachable` when the broker cannot be reached."""


class MemoryBucket:
    """A key-value bucket."""

    def __init__(self, stream: MemoryStream, name: str, timeline: Timeline, turn: Turn, limit: int) -> None:
        self._stream, self._prefix, self._timeline = stream, f"$KV.{name}.", timeline
        self._turn, self._limit = turn, limit

    def _entry(self, message: Message) -> Entry:
        removed = "KV-Operation" in message.headers or "Nats-Marker-Reason" in message.headers
        key = message.subject.removeprefix(self._prefix)
        return Entry(key, message.body, message.seq, message.time, deleted=removed)

    def _put(self, key: str, value: bytes, headers: Mapping[str, str], expect: int | None = None) -> int:
        subject = self._prefix + key
        check_message(subject, value, headers, self._limit)
        with self._turn() as now:
            return self._stream.store(subject, value, headers, now=now, expect=expect).seq

    def _last(self, key: str) -> Entry | None:
        with self._turn():
            message = self._stream.last(self._prefix + key)
        return self._entry(message) if message else None

    async def get(self, key: str) -> Entry | None:
        """The present value, or None."""
        entry = self._last(key)
        return None if entry is None or entry.deleted else entry

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Set it; `ttl` in seconds, at least one, where the bucket allows it."""
        return self._put(key, value, {"Nats-TTL": f"{max(1, round(ttl))}s"} if ttl else {})

    async def create(self, key: str, value: bytes) -> int:
        """Set it if absent."""
        try:
            return self._put(key, value, {}, expect=0)
        except Conflict:
            entry = self._last(key)
            if entry is None or not entry.deleted:
                raise
            return self._put(key, value, {}, expect=entry.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Set it if it has not changed since `revision`."""
        return self._put(key, value, {}, expect=revision)

    async def delete(self, key: str) -> None:
        """Remove it."""
        self._put(key, b"", {"KV-Operation": "DEL"})

    def _changes(self, prefix: str, start: int) -> Iterator[Entry]:
        entries = map(self._entry, self._stream.select(f"{self._prefix}>", start, self._stream.last_seq))
        return (entry for entry in entries if entry.key.startswith(prefix))

    async def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Present values, sorted by key."""
        with self._turn():
            latest = {entry.key: entry for entry in self._changes(prefix, 1)}
        return [latest[key] for key in sorted(latest) if not latest[key].deleted]

    async def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Present values, then changes."""
        following = 1
        present = True
        while True:
            with self._turn():
                last, found = self._stream.last_seq, list(self._changes(prefix, following))
            for entry in found:
                if not (present and entry.deleted):
                    yield entry
            present, following = False, last + 1
            await self._timeline.until(functools.partial(self._next_change, prefix, following))

    def _next_change(self, prefix: str, start: int) -> Entry | None:
        return next(self._changes(prefix, start), None)


class MemoryObjects:
    """An object store of content-addressed blobs: chunks, and behind them a message that says they are complete."""

    def __init__(self, stream: MemoryStream, name: str, turn: Turn) -> None:
        self._stream, self._name, self._turn = stream, name, turn

    def _subject(self, kind: str, name: str) -> str:
        return f"$O.{self._name}.{kind}.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data`; skipped when it is there."""
        with self._turn() as now:
            if self._stream.last(self._subject("M", name)) is not None:
                return
            for start in range(0, len(data), _CHUNK):
                self._stream.store(self._subject("C", name), data[start : start + _CHUNK], {}, now=now)
            self._stream.store(self._subject("M", name), b"", {}, now=now)

    async def get(self, name: str) -> bytes:
        """The bytes; raises `NotStored`."""
        with self._turn():
            if self._stream.last(self._subject("M", name)) is None:
                raise NotStored(f"get {name} in {self._name}: not there", name=name)
            chunks = self._stream.select(self._subject("C", name), 1, self._stream.last_seq)
            return b"".join(chunk.body for chunk in chunks)

    async def has(self, name: str) -> bool:
        """Whether it is there."""
        with self._turn():
            return self._stream.last(self._subject("M", name)) is not None
