"""What the detector remembers: a fold of the audit stream, bounded, in a form that can be stored. Pure.

Every map is kept in the order in which its keys were last used. Where one holds more than it may, the key that was not
used for longest is forgotten; that depends on nothing but the history, so every detector forgets the same.
"""

from collections.abc import Mapping

import msgspec

from agentflow.payloads import Evidence

VERSION = 1
"""Of the stored form; a state of another version is not used."""

MOST_EVIDENCE = 8
"""Envelopes a finding names at most: the last ones."""

ROOM = 4_000_000
"""Bytes, about, that the memories of all rules together may take; each rule has an equal part."""

MOST_CALLS = 2_000
"""Calls without an outcome that are remembered."""

MOST_RATES = 1_000
"""Principals and tenants whose calls of the present minute are counted."""


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """What one rule remembers about one key."""

    times: tuple[int, ...] = ()
    """Of the calls that count, in microseconds; the last so many as the rule needs."""
    evidence: tuple[Evidence, ...] = ()
    muted: int = 0
    """Until then nothing counts: a finding was made, and is not made again for the same."""
    count: int = 0
    """Failures in a row, or calls in the present period."""
    periods: tuple[int, ...] = ()
    """Calls in each period before."""
    began: int = 0
    """When the present period began."""
    known: tuple[str, ...] | None = None
    """Permissions that are in a tool's scope."""

    @property
    def weight(self) -> int:
        """Bytes it takes, about."""
        known = sum(map(len, self.known or ()))
        return 64 + 9 * len(self.times) + 160 * len(self.evidence) + 5 * len(self.periods) + known


class Shelf(msgspec.Struct, frozen=True, array_like=True):
    """All that one rule remembers."""

    memories: dict[str, Memory] = {}
    weight: int = 0

    def put(self, key: str, memory: Memory, room: int) -> "Shelf":
        """The shelf with that memory as the one used last."""
        memories = dict(self.memories)
        before = memories.pop(key, None)
        weight = self.weight - (_cost(key, before) if before else 0) + _cost(key, memory)
        memories[key] = memory
        for oldest in list(memories) if weight > room else ():
            if weight <= room or oldest == key:
                break
            weight -= _cost(oldest, memories.pop(oldest))
        return Shelf(memories, weight)


class Position(msgspec.Struct, frozen=True):
    """The last message that was folded."""

    seq: int = 0
    """Sequence in `AF_AUDIT`; 0 before the first."""
    sha256: str = ""
    """Of its bytes, since a sequence alone is no identity."""


class State(msgspec.Struct, frozen=True):
    """The fold of the audit stream up to a position."""

    version: int = VERSION
    position: Position = Position()
    now: int = 0
    """Time of the last message, in microseconds; it never goes back."""
    shelves: dict[str, Shelf] = {}
    """By the digest of the rule."""
    calls: dict[str, int] = {}
    """When calls were stored that have no outcome yet."""
    rates: dict[str, tuple[int, int]] = {}
    """Minute and calls in it, by `principal:…` and `tenant:…`."""


def remember(entries: Mapping[str, int], key: str, value: int, most: int) -> dict[str, int]:
    """The map with `key` as the one used last, and without the oldest where there are more than `most`."""
    found = {name: each for name, each in entries.items() if name != key}
    found[key] = value
    while len(found) > most:
        del found[next(iter(found))]
    return found


def _cost(key: str, memory: Memory) -> int:
    return len(key) + memory.weight
