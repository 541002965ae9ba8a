"""When a breaker is set, and what becomes of it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentflow.breakers import Breaker
from agentflow.clock import format_time
from agentflow.testing import START
from agentflow_detector.tripping import tripped


def breaker(anomaly: str, since: float, seconds: float, *, reset: bool = False) -> Breaker:
    """A breaker of an anomaly found so many seconds after the start."""
    begun = START + timedelta(seconds=since)
    until = begun + timedelta(seconds=seconds)
    return Breaker(format_time(until), format_time(begun), "rapid", anomaly, "why", reset)


def test_a_breaker_that_is_not_there_is_set() -> None:
    """The first block of a tool."""
    wanted = breaker("A1", 0, 30)

    assert wanted == tripped(None, None, wanted)


def test_the_same_finding_sets_it_once() -> None:
    """Whatever became of it since, also where the server's clock was set back before the reset."""
    there = breaker("A1", 0, 30)

    assert tripped(there, START, there) is None
    assert tripped(replace(there, reset=True), START - timedelta(seconds=1), there) is None


@pytest.mark.parametrize(("seconds", "is_set"), [(29, False), (30, False), (31, True)])
def test_a_block_is_only_ever_made_longer(seconds: float, is_set: bool) -> None:
    """An older or shorter one leaves it as it is."""
    wanted = breaker("A2", 0, seconds)

    assert is_set == (wanted == tripped(breaker("A1", 0, 30), START, wanted))


@pytest.mark.parametrize(("found", "is_set"), [(59, False), (60, False), (61, True)])
def test_a_reset_keeps_what_was_found_before_it_from_blocking(found: float, is_set: bool) -> None:
    """By the server's time of the reset; what is found later blocks, however short."""
    there = breaker("A1", 0, 600, reset=True)
    wanted = breaker("A2", found, 5)

    assert is_set == (wanted == tripped(there, START + timedelta(seconds=60), wanted))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8), st.randoms())
def test_the_end_of_a_block_does_not_depend_on_the_order_of_findings(
    found: list[tuple[int, int]], random: object
) -> None:
    """Two detectors, one of them late: the block ends with the last of all."""
    wanted = [breaker(f"A{number}", since, seconds) for number, (since, seconds) in enumerate(found)]
    there: Breaker | None = None
    for each in sorted(wanted, key=lambda _: random.random()):  # type: ignore[attr-defined]  # hypothesis gives no type
        there = tripped(there, START, each) or there

    assert there is not None
    assert max(each.until for each in wanted) == there.until
