"""What a verification says: damage, warnings, and what it cannot vouch for. Pure.

Three things are kept apart wherever this is shown (architecture, section 3.2): *integrity* (the bytes are the ones that
were sealed), *continuity* (no chain has a gap) and *completeness* (nothing is cut off behind the last message), which
only a signed head kept elsewhere proves. Nothing here proves completeness, so `not_vouched` is never empty.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

Kind = Literal["edited", "moved", "missing", "duplicated", "reordered", "branched", "unlinked", "foreign"]
"""Kinds of damage.

`edited`: bytes that are not the ones sealed. `moved`: stored under a subject it was not sealed for. `missing`: something
refers to it, and it is not there. `duplicated`: stored twice. `reordered`: stored behind what came after it. `branched`:
two envelopes at one place of a chain. `unlinked`: a hash that is not the hash of what it names. `foreign`: nothing the
mesh writes, where only the mesh may write.
"""


class Damage(msgspec.Struct, frozen=True, order=True):
    """One damage, and where it shows. A missing message shows where something refers to it."""

    stream: str
    seq: int
    kind: Kind
    chain: str
    """Empty where it is not known."""
    detail: str
    """One sentence."""


class Caution(msgspec.Struct, frozen=True, order=True):
    """Something a person should know that is not damage."""

    stream: str
    seq: int
    detail: str


class OpenRun(msgspec.Struct, frozen=True, order=True):
    """A run without a terminal envelope, and the last that is known of it."""

    workflow: str
    chain: str
    stream: str
    seq: int


class StreamScope(msgspec.Struct, frozen=True):
    """What of one stream is read."""

    name: str
    covers: tuple[str, ...]
    """The streams of the mesh whose subjects it holds: itself, or what a copy is a copy of."""
    first_seq: int
    last_seq: int
    whole: bool = True
    """Every message between the two is read, so a sequence that is not there is damage."""
    horizon: datetime | None = None
    """None: it holds everything since it was made. Else what is older than this may have expired, or was not asked
    for."""


class Scope(msgspec.Struct, frozen=True):
    """What is read, all in all."""

    streams: tuple[StreamScope, ...]
    workflow: str = ""
    """Only what belongs to this run is read; empty for everything."""

    def covered(self) -> frozenset[str]:
        """The streams that are read, copies under the names of what they are copies of."""
        return frozenset(name for stream in self.streams for name in (stream.name, *stream.covers))

    def holding(self, seen: Mapping[str, frozenset[str]]) -> "Scope":
        """The same, where streams also cover those of the mesh whose envelopes were `seen` in them."""
        return msgspec.structs.replace(
            self,
            streams=tuple(
                msgspec.structs.replace(s, covers=tuple(sorted({*s.covers, *seen.get(s.name, ())})))
                for s in self.streams
            ),
        )

    def shortened(self, names: frozenset[str]) -> list[StreamScope]:
        """Those of the named streams whose front is not there."""
        return [s for s in self.streams if s.horizon is not None and names.intersection((s.name, *s.covers))]

    def horizon(self, names: frozenset[str]) -> datetime | None:
        """The latest horizon of the named streams; what is younger must be there. None: everything must."""
        return max((s.horizon for s in self.shortened(names) if s.horizon is not None), default=None)


class StreamSummary(msgspec.Struct, frozen=True):
    """What was read of one stream."""

    name: str
    first_seq: int
    last_seq: int
    messages: int


class Verification(msgspec.Struct, frozen=True):
    """The result."""

    ok: bool
    """Whether no damage was found in what was read."""
    envelopes: int
    """Sealed envelopes that verify by themselves."""
    adopted: int
    """Plain messages on `workflows.<id>.in` that a decision accounts for."""
    chains: int
    runs: int
    open_runs: tuple[OpenRun, ...]
    damages: tuple[Damage, ...]
    warnings: tuple[Caution, ...]
    not_vouched: tuple[str, ...]
    """What this does not prove, one sentence each."""
    streams: tuple[StreamSummary, ...]
    unchecked: int = 0
    """Places and references that were not checked: they may be on streams that were not read, or have expired."""
