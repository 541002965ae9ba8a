"""Readiness: one thing that is not fine, or that nobody looked at, and the process is not ready."""

from hypothesis import given
from hypothesis import strategies as st

from agentflow.telemetry.health import LIFE, Health
from agentflow.telemetry.readiness import LAGGING_AFTER, STALE, STUCK_AFTER, observed, report
from agentflow.testing import START, FixedClock


class Monotonic:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def healthy() -> tuple[Health, FixedClock, Monotonic]:
    """A process that is fine."""
    clock, monotonic = FixedClock(START), Monotonic()
    health = Health(clock, monotonic)
    health.says(LIFE, ok=True)
    health.says("broker", ok=True, good_for=6.0)
    health.turned()
    return health, clock, monotonic


def test_a_process_that_has_just_begun_is_alive_and_not_ready() -> None:
    """It has not registered, and says so; that takes as long as it takes."""
    monotonic = Monotonic()
    health = Health(FixedClock(START), monotonic)
    monotonic.now += STUCK_AFTER * 10

    assert health.alive
    assert not health.report().ready
    assert "service.starting" == health.report().as_json()["checks"][LIFE]["code"]


def test_everything_fine_is_ready() -> None:
    """And each check says since when."""
    health, _, _ = healthy()

    found = health.report()

    assert found.ready
    assert {"lifecycle", "broker", "loop"} == set(found.checks)


def test_one_check_that_fails_is_enough() -> None:
    """With its code, its sentence, and the time it began; told again, it began no later."""
    health, clock, _ = healthy()
    clock.advance(5)
    health.says("broker", ok=False, code="mesh.unreachable", why="no connection")
    clock.advance(5)
    health.says("broker", ok=False, code="mesh.unreachable", why="still none")

    found = health.report().as_json()

    assert found["ready"] is False
    assert {
        "ok": False,
        "code": "mesh.unreachable",
        "why": "still none",
        "since": "2026-01-01T00:00:05.000000Z",
    } == found["checks"]["broker"]
    health.says("broker", ok=True)
    assert health.report().ready


def test_what_nobody_looks_at_any_more_is_not_fine() -> None:
    """A probe that died leaves a broker that seemed well."""
    health, _, monotonic = healthy()
    monotonic.now += 6.5
    health.turned()

    check = health.report().checks["broker"]

    assert (False, STALE) == (check.ok, check.code)


def test_a_loop_that_does_not_turn_is_not_ready_and_then_not_alive() -> None:
    """A blocked loop is not ready at once; it is given up only when it does not come back."""
    health, _, monotonic = healthy()
    health.says("broker", ok=True)

    monotonic.now += LAGGING_AFTER + 0.1
    assert (False, True) == (health.report().ready, health.alive)
    assert "loop.blocked" == health.report().checks["loop"].code

    monotonic.now += STUCK_AFTER
    assert not health.alive

    health.turned()
    assert (True, True) == (health.report().ready, health.alive)


def test_the_worst_lag_is_told_once() -> None:
    """A gauge that is scraped every 15 s shows what happened in between."""
    health, _, monotonic = healthy()
    health.worst_lag()
    monotonic.now += 3.0
    health.turned()

    assert [3.0, 0.0] == [health.worst_lag(), health.worst_lag()]


def test_what_there_is_nothing_to_say_about_is_gone() -> None:
    """A stream that is not in doubt any more has no check."""
    health, _, _ = healthy()
    health.says("store:AF_AUDIT", ok=False, code="mesh.outcome_unknown")
    health.forget("store:AF_AUDIT")
    health.forget("never said")

    assert health.report().ready


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=8))
def test_ready_is_exactly_when_every_check_is_fine_and_fresh(seen: list[tuple[bool, float]]) -> None:
    """Nothing else counts, and nothing is forgiven; without any check nobody is ready."""
    checks = {
        str(number): observed(None, ok=ok, code="c", why="w", now=START, seen=100.0 - age, good_for=6.0)
        for number, (ok, age) in enumerate(seen)
    }

    expected = bool(seen) and all(ok and 100.0 - (100.0 - age) <= 6.0 for ok, age in seen)

    assert expected is report(checks, 100.0).ready
