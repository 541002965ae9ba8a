"""Snapshots in `AF_STATE`: written now and then, read at the start. An older one never replaces a newer one."""

from typing import Any

import msgspec

from agentflow import crash
from agentflow.envelope import sha256_hex
from agentflow.errors import Conflict
from agentflow.mesh.transport import Bucket, Entry, Transport
from agentflow_detector.snapshots import HEAD, Head, pack, part_key, read_head, unpack
from agentflow_detector.state import Position, State

STREAM = "AF_AUDIT"


class Snapshots:
    """The snapshots of the fold."""

    def __init__(self, transport: Transport, bucket: Bucket, log: Any) -> None:
        self._transport, self._bucket, self._log = transport, bucket, log

    async def save(self, state: State) -> bool:
        """Write a snapshot unless there is one as new; returns whether it was written. Raises `MeshError`."""
        there = await self._bucket.get(HEAD)
        before = read_head(there.value) if there else None
        if before is not None and before.position.seq >= state.position.seq and await self._fits(before.position):
            return False
        head, parts = pack(state, "b" if before is not None and before.slot == "a" else "a")
        for number, part in enumerate(parts):
            await self._bucket.put(part_key(head.slot, number), part)
        try:
            await self._put_head(there, msgspec.json.encode(head))
        except Conflict:
            return False
        crash.point("detector.after_snapshot")
        return True

    async def load(self) -> State | None:
        """The state of the snapshot, or None where there is none that can be used; says why."""
        there = await self._bucket.get(HEAD)
        if there is None:
            return None
        head = read_head(there.value)
        state = None if head is None else await self._state(head)
        if head is None or state is None:
            self._log.warning("snapshot.unusable", why="of another version, or not whole")
            return None
        if not await self._fits(state.position):
            self._log.warning(
                "snapshot.unusable", why="the stream does not hold what it rests on", seq=state.position.seq
            )
            return None
        return state

    async def _state(self, head: Head) -> State | None:
        entries = [await self._bucket.get(part_key(head.slot, number)) for number in range(head.parts)]
        return unpack(head, [entry.value for entry in entries if entry is not None])

    async def _put_head(self, there: Entry | None, value: bytes) -> None:
        if there is None:
            await self._bucket.create(HEAD, value)
        else:
            await self._bucket.update(HEAD, value, there.revision)

    async def _fits(self, position: Position) -> bool:
        """Whether the stream still is the one that was folded: its message is there, or has expired."""
        if not position.seq:
            return True
        message = await self._transport.get(STREAM, position.seq)
        if message is not None:
            return sha256_hex(message.body) == position.sha256
        info = await self._transport.stream_info(STREAM)
        return info is not None and position.seq < info.first_seq
