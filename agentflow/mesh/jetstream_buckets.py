"""Buckets and object stores on JetStream.

A bucket is read and written by its stream's own rules (`$KV.<bucket>.<key>`, the wire form every NATS client shares),
through the leader; watching takes core messages as hints and reads what was stored.
"""

import asyncio
import base64
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors
from nats.js.object_store import ObjectStore

from agentflow.errors import Conflict, EvidenceError, NotStored
from agentflow.mesh.jetstream_api import translate
from agentflow.mesh.transport import Entry, Message

if TYPE_CHECKING:
    from agentflow.mesh.jetstream import JetStreamTransport

_REMOVED = ("DEL", "PURGE")
_PASSES = 10
"""A key that is written while a bucket is listed moves to the end of its stream, past the reader, who follows it there."""


class JetStreamBucket:
    """A key-value bucket."""

    def __init__(self, transport: "JetStreamTransport", name: str) -> None:
        self._transport, self._stream, self._prefix = transport, f"KV_{name}", f"$KV.{name}."

    def _entry(self, message: Message) -> Entry:
        removed = message.headers.get("KV-Operation") in _REMOVED or "Nats-Marker-Reason" in message.headers
        key = message.subject.removeprefix(self._prefix)
        return Entry(key, message.body, message.seq, message.time, deleted=removed)

    async def _last(self, key: str) -> Entry | None:
        message = await self._transport.last(self._stream, self._prefix + key)
        return self._entry(message) if message else None

    async def _put(self, key: str, value: bytes, headers: dict[str, str], expect: int | None = None) -> int:
        stored = await self._transport.publish(
            self._prefix + key, value, stream=self._stream, headers=headers, expect=expect
        )
        return stored.seq

    async def get(self, key: str) -> Entry | None:
        """The present value, or None."""
        entry = await self._last(key)
        return None if entry is None or entry.deleted else entry

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Set it; `ttl` in seconds where the bucket allows it."""
        return await self._put(key, value, {"Nats-TTL": f"{max(1, round(ttl))}s"} if ttl else {})

    async def create(self, key: str, value: bytes) -> int:
        """Set it if absent."""
        try:
            return await self._put(key, value, {}, expect=0)
        except Conflict:
            entry = await self._last(key)
            if entry is None or not entry.deleted:
                raise
            return await self._put(key, value, {}, expect=entry.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Set it if it has not changed since `revision`."""
        return await self._put(key, value, {}, expect=revision)

    async def delete(self, key: str) -> None:
        """Remove it."""
        await self._put(key, b"", {"KV-Operation": "DEL"})

    async def _changes(self, prefix: str, start: int) -> AsyncIterator[Entry]:
        async for message in self._transport.read(self._stream, f"{self._prefix}>", start=start):
            entry = self._entry(message)
            if entry.key.startswith(prefix):
                yield entry

    async def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Present values, sorted by key."""
        latest: dict[str, Entry] = {}
        following = 1
        for _ in range(_PASSES):
            begun = following
            async for entry in self._changes(prefix, begun):
                latest[entry.key] = entry
                following = entry.revision + 1
            if following == begun:
                break
        return [latest[key] for key in sorted(latest) if not latest[key].deleted]

    async def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Present values, then changes."""
        hints = self._transport.follow(f"{self._prefix}>")
        await hints.ready()
        try:
            following, first = 1, True
            while True:
                async for entry in self._changes(prefix, following):
                    if not (first and entry.deleted):
                        yield entry
                    following = entry.revision + 1
                first = False
                await hints.next(timeout=1.0)
        finally:
            await hints.close()


def _digest(data: bytes) -> str:
    """SHA-256 as object stores write it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()


class JetStreamObjects:
    """An object store of content-addressed blobs."""

    def __init__(self, transport: "JetStreamTransport", store: ObjectStore, name: str) -> None:
        self._transport, self._store, self._name = transport, store, name

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data`; skipped when it is there."""
        if await self.has(name):
            return
        await self._do(f"put {name}", self._store.put(name, io.BytesIO(data)))

    async def get(self, name: str) -> bytes:
        """The bytes; raises `NotStored`, and `EvidenceError` (`artifact.altered`) for others than were put.

        The chunks are read like any history. The client's own `get` makes a consumer for each object, which stays on
        the server for seconds, and it waits without end for a chunk that is not there.
        """
        info = await self._do(f"get {name}", self._store.get_info(name))
        found = b""
        if info.size:
            parts = self._transport.read(f"OBJ_{self._name}", f"$O.{self._name}.C.{info.nuid}")
            found = b"".join([chunk.body async for chunk in parts])
        kept = (info.digest or "").partition("=")[2]
        if len(found) != (info.size or 0) or (kept and kept != _digest(found)):
            raise EvidenceError(f"get {name} in {self._name}: the bytes are not those kept", code="artifact.altered")
        return found

    async def has(self, name: str) -> bool:
        """Whether it is there."""
        with contextlib.suppress(NotStored):
            await self._do(f"look for {name}", self._store.get_info(name))
            return True
        return False

    async def _do(self, doing: str, work: Any) -> Any:
        try:
            return await asyncio.wait_for(work, 30.0)
        except nats.js.errors.NotFoundError as error:
            raise NotStored(f"{doing} in {self._name}: not there", code="mesh.not_stored") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise translate(error, f"{doing} in {self._name}") from error
