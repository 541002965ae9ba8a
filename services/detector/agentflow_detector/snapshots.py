"""The stored form of a state: packed, compressed, cut into parts a bucket takes, and checked when it is read. Pure.

The head is written last and names the parts by slot, number and hash, so a snapshot that was cut off in the middle is
none. One of another version of the form is none either: the state is folded again from the stream.
"""

import zlib

import msgspec

from agentflow.envelope import sha256_hex
from agentflow_detector.state import VERSION, Position, State

HEAD = "detector.snapshot"
"""Key of the head in `AF_STATE`."""

PART = 512 * 1024
"""Bytes of one part."""

_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(State)


class Head(msgspec.Struct, frozen=True):
    """What the head says."""

    version: int
    position: Position
    slot: str
    """`a` or `b`: the parts of the snapshot before are not overwritten."""
    parts: int
    sha256: str
    """Of all parts together."""


def part_key(slot: str, number: int) -> str:
    """Key of a part in `AF_STATE`."""
    return f"{HEAD}.{slot}.{number}"


def pack(state: State, slot: str) -> tuple[Head, list[bytes]]:
    """A state as its head and its parts."""
    data = zlib.compress(_packer.encode(state), 1)
    parts = [data[at : at + PART] for at in range(0, len(data), PART)]
    return Head(VERSION, state.position, slot, len(parts), sha256_hex(data)), parts


def read_head(value: bytes) -> Head | None:
    """The head in a stored value, or None where it is none of this version."""
    try:
        head = msgspec.json.decode(value, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return head if head.version == VERSION and head.slot in ("a", "b") and 0 < head.parts <= 64 else None


def unpack(head: Head, parts: list[bytes]) -> State | None:
    """The state in the parts, or None where they are not those the head names."""
    data = b"".join(parts)
    if len(parts) != head.parts or sha256_hex(data) != head.sha256:
        return None
    try:
        state = _unpacker.decode(zlib.decompress(data))
    except (zlib.error, msgspec.DecodeError, RecursionError):
        return None
    return state if state.version == VERSION and state.position == head.position else None
