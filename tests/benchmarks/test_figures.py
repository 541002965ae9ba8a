"""The arithmetic of the figures: medians, percentiles, lines, and what counts as growth."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import figure, percentile, slope, table
from benchmarks.steady import Series, series_of, verdict

_numbers = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


def test_a_figure_is_the_median_beside_the_floors_and_their_quotient() -> None:
    """One slow repetition moves neither side, and the spread still shows it."""
    found = figure([2.0, 4.0, 100.0], [1.0, 2.0, 3.0], "ms")

    assert (4.0, 2.0, 2.0) == (found.value, found.floor, found.ratio)
    assert {"value": 4.0, "unit": "ms", "floor": 2.0, "ratio": 2.0, "spread": [2.0, 100.0]} == found.plain()


def test_without_a_floor_there_is_no_quotient() -> None:
    """Neither a missing floor nor one of nothing is divided by."""
    assert figure([1.0], [], "ms").ratio is None
    assert figure([1.0], [0.0], "ms").ratio is None


@given(_numbers, st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    """It is one of the values; at least the share lies at or below it, and less below any smaller value."""
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) <= math.ceil(share * len(values)) - 1 + 1e-9


def test_the_percentile_of_nothing_is_refused() -> None:
    """A measurement that measured nothing must not end in a figure."""
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


@given(st.floats(-10, 10), st.floats(-100, 100), st.integers(2, 30))
def test_the_slope_of_a_line_is_found(rise: float, start: float, count: int) -> None:
    """Points on a line give its slope."""
    assert slope([(x, start + rise * x) for x in range(count)]) == pytest.approx(rise, abs=1e-6)


def test_too_few_points_rise_nowhere() -> None:
    """One point, or several at one time, are no line."""
    assert [0.0, 0.0, 0.0] == [slope([]), slope([(1, 5)]), slope([(1, 5), (1, 9)])]


def test_the_table_has_a_line_for_every_figure() -> None:
    """Also for one without a floor."""
    shown = table({"a": figure([1.5], [], "ms").plain(), "b": figure([3.0], [1.0], "runs/s").plain()})

    assert ["figure", "a", "b"] == [line.split()[0] for line in shown.splitlines()]
    assert "3.00x" in shown


def line(name: str, rise: float, count: int = 20) -> list[tuple[float, dict[str, float]]]:
    """Samples that rise by so much a second."""
    return [(second, {name: 50 + rise * second}) for second in range(count)]


def test_what_rises_in_the_second_half_is_told() -> None:
    """Memory that rises by 1 MiB a second is no noise."""
    found = verdict(series_of(line("planner.rss_mib", 1.0)))

    assert not found["ok"]
    assert ["planner.rss_mib"] == found["grew"]


def test_what_rises_only_in_the_first_half_is_flat() -> None:
    """Caches fill, modules are imported: what counts is whether it goes on."""
    samples = [(float(second), {"planner.rss_mib": 50.0 + min(second, 9) * 5}) for second in range(20)]

    assert verdict(series_of(samples))["ok"]


def test_the_servers_memory_is_shown_and_not_judged() -> None:
    """It holds something for each subject by design; its files count as everybody's."""
    found = verdict(series_of(line("nats-server.rss_mib", 9.0)))
    assert found["ok"]
    assert found["series"]["nats-server.rss_mib"]["limit"] is None
    assert not verdict(series_of(line("nats-server.files", 9.0)))["ok"]


def test_without_samples_there_is_no_verdict() -> None:
    """Silence is no proof that nothing grew."""
    with pytest.raises(ValueError, match="nothing was sampled"):
        verdict([])


def test_a_series_of_one_point_does_not_grow() -> None:
    """There is nothing to compare it with."""
    assert 0.0 == Series("x", "count", 1.0, [(0.0, 5.0)]).growth
