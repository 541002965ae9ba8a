"""Putting load on something: so many in flight, no more, and only what ended in the window counts."""

import asyncio

import pytest

from benchmarks.loads import Arrivals, all_at_once, closed_loop


async def test_as_many_are_in_flight_as_were_asked_for() -> None:
    """Never more, and at some time all of them."""
    busy, most = 0, 0

    async def one() -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.002)
        busy -= 1

    sample = await closed_loop(one, in_flight=7, seconds=0.1, warm_up=0.02)

    assert (7, 0) == (most, busy)
    assert 0 < sample.rate == len(sample.latencies) / 0.1


async def test_a_machine_too_slow_for_the_window_is_still_measured() -> None:
    """What was begun counts when nothing ended in time, over the time it took."""

    async def one() -> None:
        await asyncio.sleep(0.1)

    sample = await closed_loop(one, in_flight=2, seconds=0.01, warm_up=0.0)

    assert 2 == len(sample.latencies)
    assert sample.seconds > 0.05


async def test_pieces_begun_together_are_timed_to_the_last() -> None:
    """The time is that of all of them, side by side."""
    begun: list[int] = []

    async def one() -> None:
        begun.append(1)
        await asyncio.sleep(0.02)

    taken = await all_at_once(one, 5)

    assert 5 == len(begun)
    assert taken >= 0.02


async def test_a_piece_waits_for_its_own_end() -> None:
    """The word about another does not end it."""
    arrivals = Arrivals()
    mine, other = arrivals.expect("mine"), arrivals.expect("other")
    arrivals.arrived("other")
    arrivals.arrived("nobody's")
    await arrivals.wait(other)
    assert not mine.done()
    arrivals.arrived("mine")
    await arrivals.wait(mine)


async def test_a_piece_that_never_ends_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost run is an error, not a pause."""
    monkeypatch.setattr(Arrivals, "PATIENCE", 0.01)
    arrivals = Arrivals()
    with pytest.raises(TimeoutError):
        await arrivals.wait(arrivals.expect("lost"))
