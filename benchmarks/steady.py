"""Whether what was sampled over a time stays as it is or grows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import slope

MEMORY_LIMIT = 4.0
"""MiB that a process may seem to have grown by over the second half: an allocator's noise is about 1."""

COUNT_LIMIT = 4.0
"""Files, threads or consumers that may seem to have been added over the second half; work in hand comes and goes."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one process, over time."""

    name: str
    unit: str
    limit: float | None
    """What it may grow by over the second half; None where growth is expected and only shown."""
    points: Sequence[tuple[float, float]]
    """(second, value), in order of time."""

    @property
    def growth(self) -> float:
        """By how much the second half rises, read off a straight line through it: single peaks do not count."""
        late = self.second_half()
        return slope(late) * (late[-1][0] - late[0][0]) if late else 0.0

    @property
    def flat(self) -> bool:
        """Whether it stays as it is."""
        return self.limit is None or self.growth <= self.limit

    def second_half(self) -> Sequence[tuple[float, float]]:
        """The points behind the middle of the time: the first half fills caches."""
        if not self.points:
            return ()
        middle = (self.points[0][0] + self.points[-1][0]) / 2
        return [point for point in self.points if point[0] >= middle]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "unit": self.unit,
            "first": self.points[0][1] if self.points else None,
            "last": self.points[-1][1] if self.points else None,
            "growth": round(self.growth, 3),
            "limit": self.limit,
            "flat": self.flat,
        }


def verdict(series: Sequence[Series]) -> dict[str, Any]:
    """What grew, and whether all that must not did not. Raises `ValueError` for nothing: no sample is no proof."""
    if not any(each.points for each in series):
        raise ValueError("nothing was sampled")
    return {
        "ok": all(each.flat for each in series),
        "grew": [each.name for each in series if not each.flat],
        "series": {each.name: each.plain() for each in series},
    }


def series_of(samples: Sequence[tuple[float, Mapping[str, float]]]) -> list[Series]:
    """The series in samples of (second, value by name); a name says the unit at its end: `planner.rss_mib`."""
    names = dict.fromkeys(name for _, values in samples for name in values)
    return [
        Series(name, unit, limit, [(second, values[name]) for second, values in samples if name in values])
        for name in names
        for unit, limit in [_kind(name)]
    ]


def _kind(name: str) -> tuple[str, float | None]:
    if name.endswith("_mib"):
        return "MiB", None if name.startswith("nats-server.") else MEMORY_LIMIT  # half a KiB for each subject it holds
    return "count", COUNT_LIMIT
