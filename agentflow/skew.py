"""A machine's clock that is wrong on purpose: how a test shows that nothing depends on it.

`AF_CLOCK_OFFSET=3600` makes a process believe that it is an hour later. A path instead of a number names a file that holds
the seconds and is read every time, so that a test can make the clock jump while the process runs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from agentflow.clock import Clock


@dataclass(frozen=True, slots=True)
class SkewedClock:
    """A clock that is off by what `offset` says: seconds, or the path of a file that holds them."""

    inner: Clock
    offset: str

    def now(self) -> datetime:
        """The inner clock's time, off by so much."""
        return self.inner.now() + timedelta(seconds=seconds_of(self.offset))


def seconds_of(offset: str) -> float:
    """The seconds an offset stands for; a file that is not there, or is being written, counts as none.

    Raises `ValueError` for what is neither a number nor an absolute path.
    """
    if not offset.startswith("/"):
        return float(offset)
    try:
        return float(Path(offset).read_text())
    except (OSError, ValueError):
        return 0.0
