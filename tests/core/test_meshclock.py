"""The broker's time: readings narrow it, a machine's wall clock does not move it, a server's that was set does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import SystemClock
from agentflow.errors import ConfigError
from agentflow.meshclock import DRIFT, MeshClock, Offset, narrowed
from agentflow.settings import ServiceSettings, load
from agentflow.skew import SkewedClock, seconds_of
from agentflow.testing import START, FixedClock


class Steady:
    """A steady clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The present reading."""
        return self.seconds


def test_without_a_reading_it_is_the_machines_time() -> None:
    """A process that has heard nothing yet knows nothing better."""
    clock = MeshClock(FixedClock(), Steady())
    assert (START, 0.0) == (clock.now(), clock.skew())


def test_after_a_reading_it_is_the_servers_time_carried_on_by_the_steady_clock() -> None:
    """Whatever the machine's wall clock says, and wherever it jumps."""
    steady, offset = Steady(), timedelta(hours=-1)
    machine = SkewedClock(FixedClock(START), str(offset.total_seconds()))
    clock = MeshClock(machine, steady)
    clock.heard(START, 999.9, 1000.1)
    steady.seconds += 5
    assert abs((clock.now() - START).total_seconds() - 5) < 0.01
    assert clock.skew() == pytest.approx(-3605, abs=0.2)


def test_readings_narrow_each_other() -> None:
    """A slow answer leaves doubt, a fast one takes it away, and a slow one later does not bring it back."""
    known = narrowed(None, START, 0.0, 10.0)
    assert 5.0 == known.doubt
    known = narrowed(known, START + timedelta(seconds=12), 12.0, 12.02)
    assert known.doubt == pytest.approx(0.01)
    assert narrowed(known, START + timedelta(seconds=25), 20.0, 30.0).doubt < 0.02


def test_a_server_whose_clock_was_set_is_followed() -> None:
    """A reading that cannot be true beside the others counts alone."""
    known = narrowed(None, START, 0.0, 0.1)
    jumped = narrowed(known, START + timedelta(hours=1), 1.0, 1.1)
    assert jumped.middle - known.middle == pytest.approx(3599, abs=0.2)


def test_doubt_grows_with_time() -> None:
    """Two crystals run apart."""
    assert Offset(0.0, 0.0, 0.0).later(1000.0).doubt == pytest.approx(1000 * DRIFT)


@given(
    st.floats(-1e9, 1e9),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=20),
)
def test_the_true_offset_is_always_within_the_bounds(true: float, readings: list[tuple[float, float, float]]) -> None:
    """However long the way there and the way back took."""
    known, steady = None, 0.0
    for there, back, pause in readings:
        asked = steady + pause
        dated, answered = asked + there, asked + there + back
        moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=dated + true)
        known = narrowed(known, moment, asked, answered)
        assert known.low - 1e-3 <= true <= known.high + 1e-3
        steady = answered


def test_an_offset_is_seconds_or_a_file_that_holds_them(tmp_path: Path) -> None:
    """A file is read every time; one that is not there counts as none."""
    path = tmp_path / "offset"
    clock = SkewedClock(FixedClock(), str(path))
    assert START == clock.now()
    path.write_text("-3600\n")
    assert START - timedelta(hours=1) == clock.now()
    path.write_text("half writ")
    assert START == clock.now()
    assert (90.5, 90.5) == (seconds_of("90.5"), (SkewedClock(FixedClock(), "90.5").now() - START).total_seconds())


def test_an_offset_that_is_neither_is_refused_at_the_start() -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigError, match="clock-offset"):
        load(ServiceSettings, clock_offset="soon")
    assert load(ServiceSettings, clock_offset="3600").clock_offset == "3600"


def test_the_machines_clock_is_told_when_it_is_certainly_wrong() -> None:
    """Not where the doubt is larger than the difference."""
    steady = Steady()
    clock = MeshClock(SystemClock(), steady)
    clock.heard(SystemClock().now() - timedelta(seconds=3), 990.0, 1000.0)
    assert clock.skew() == 0.0
    clock.heard(SystemClock().now() - timedelta(seconds=3), 999.9, 1000.0)
    assert clock.skew() == pytest.approx(3, abs=0.2)
