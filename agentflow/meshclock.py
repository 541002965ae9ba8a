"""The broker's time, as a process of the mesh keeps it. Pure: readings come in, times go out.

Deadlines, expiries and time-outs are moments that several hosts compare, so they are told by one clock: the server's,
which also dates every message. A process learns it from what the server stores for it anyway: a message was dated
between the moment it was sent and the moment it was acknowledged. Between two such readings the machine's steady clock
carries the time on, so a wall clock that is wrong, or jumps, moves nothing.

    server time = steady time + offset,   dated - answered ≤ offset ≤ dated - asked

Every reading bounds the offset; readings that agree narrow it, widened by what two crystals may drift apart in between.
One that does not agree means that the server's own clock was set: then it alone counts (after Marzullo's intersection).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agentflow.clock import Clock

DRIFT = 200e-6
"""Seconds per second that two clocks may run apart."""

SKEW = 1.0
"""Seconds the machine's clock may differ from the server's before it is told."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Offset:
    """Bounds of what has to be added to the steady clock, in seconds since the epoch; they held at steady time `at`."""

    low: float
    high: float
    at: float

    @property
    def middle(self) -> float:
        """The best guess."""
        return (self.low + self.high) / 2

    @property
    def doubt(self) -> float:
        """Seconds the guess may be wrong, either way."""
        return (self.high - self.low) / 2

    def later(self, at: float) -> "Offset":
        """The bounds at a later steady time."""
        drift = max(0.0, at - self.at) * DRIFT
        return Offset(self.low - drift, self.high + drift, at)


def narrowed(known: Offset | None, dated: datetime, asked: float, answered: float) -> Offset:
    """The bounds after one more reading: the server dated something between the steady times `asked` and `answered`."""
    moment = (dated - _EPOCH).total_seconds()
    read = Offset(moment - answered, moment - asked, answered)
    if known is None:
        return read
    before = known.later(answered)
    low, high = max(before.low, read.low), min(before.high, read.high)
    return Offset(low, high, answered) if low <= high else read


class MeshClock:
    """A `Clock` that tells the server's time; before the first reading it tells the machine's."""

    def __init__(self, machine: Clock, steady: Callable[[], float]) -> None:
        self._machine, self._steady = machine, steady
        self._offset: Offset | None = None

    def steady(self) -> float:
        """The machine's steady clock, in seconds: what `heard` is to be told."""
        return self._steady()

    def now(self) -> datetime:
        """The server's time, aware, in UTC."""
        if self._offset is None:
            return self._machine.now()
        return _EPOCH + timedelta(seconds=self._steady() + self._offset.middle)

    def heard(self, dated: datetime, asked: float, answered: float) -> None:
        """Take in a reading: something was asked for and answered at these steady times, and dated by the server."""
        self._offset = narrowed(self._offset, dated, asked, answered)

    def skew(self) -> float:
        """Seconds by which the machine's clock is ahead of the server's for certain (behind: negative); 0 in doubt."""
        if self._offset is None:
            return 0.0
        ahead = (self._machine.now() - self.now()).total_seconds()
        certain = max(0.0, abs(ahead) - self._offset.doubt)
        return certain if ahead > 0 else -certain
