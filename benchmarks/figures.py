"""Figures: what was measured, beside what the same work costs without us. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """The median over the repetitions, ours and the floor's, with the least and the most of ours."""

    value: float
    unit: str
    floor: float | None
    least: float
    most: float

    @property
    def ratio(self) -> float | None:
        """Ours divided by the floor: of a time the less the better, of a rate the more."""
        return round(self.value / self.floor, 3) if self.floor else None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "ratio": self.ratio,
            "spread": [self.least, self.most],
        }


def figure(ours: Sequence[float], floor: Sequence[float], unit: str) -> Figure:
    """A figure from the repetitions; `floor` may be empty where there is none."""
    return Figure(
        _short(statistics.median(ours)),
        unit,
        _short(statistics.median(floor)) if floor else None,
        _short(min(ours)),
        _short(max(ours)),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed; raises `ValueError` for none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How steeply a line through the points rises (least squares); 0 for less than two of them."""
    if len(points) < 2 or len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures for people, a line each."""
    lines = [f"{'figure':<34}{'ours':>10} {'unit':<10}{'floor':>10}{'ratio':>9}   least … most"]
    for name, found in figures.items():
        floor = "-" if found["floor"] is None else f"{found['floor']:g}"
        ratio = "-" if found["ratio"] is None else f"{found['ratio']:.2f}x"
        least, most = found.get("spread", (found["value"], found["value"]))
        lines.append(f"{name:<34}{found['value']:>10g} {found['unit']:<10}{floor:>10}{ratio:>9}   {least:g} … {most:g}")
    return "\n".join(lines)


def _short(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")
