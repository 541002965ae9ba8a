"""The effect ledger under killed, frozen and doubled executors: every interleaving of a small world, many of a larger.

Proved for compensable and irreversible tools: the effect never happens twice; `completed` means that it happened, `failed`
and `refused` that it did not and will not; `unknown` is never said where a check can tell. For all: everybody who answers
gives the same answer, and a call that is left alone ends. The last tests take a rule away and see the proof fail.
"""

from collections import deque
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.payloads import AuditReconciled
from agentflow.registry import Effect
from agentflow_executor import ledger
from tests.services.executor.ledger_model import START, WALL, CheckKind, Rules, World, broken, left_alone

CASES: list[tuple[Effect, CheckKind]] = [
    ("pure", "none"),
    ("idempotent", "none"),
    ("irreversible", "truthful"),
    ("irreversible", "cannot tell"),
    ("irreversible", "none"),
]
LATE = timedelta(hours=1)


def explore(rules: Rules, entries: int) -> Iterator[World]:
    """Every world that can be reached with so many entries in the log, each once, nearest first."""
    begin = World(rules)
    seen, queue = {begin.key()}, deque([begin])
    while queue:
        world = queue.popleft()
        yield world
        for successor in world.successors():
            key = successor.key()
            if key not in seen and len(successor.log) <= entries:
                seen.add(key)
                queue.append(successor)


def first_broken(rules: Rules, entries: int = 5) -> str:
    """The promise broken in the nearest world that breaks one, or an empty string."""
    return next(filter(None, map(broken, explore(rules, entries))), "")


@pytest.mark.parametrize(("effect", "check"), CASES)
@pytest.mark.parametrize("deadline", [WALL * 0.5, LATE])
def test_no_reachable_world_breaks_a_promise(effect: Effect, check: CheckKind, deadline: timedelta) -> None:
    """All of them, with two executors and five entries: each step, each delay, each death, each clock."""
    count, peaceful = 0, set[object]()
    for world in explore(Rules(effect, check, deadline=START + deadline), entries=5):
        assert "" == broken(world)
        count += 1
        peace = (tuple(map(repr, world.log)), world.now, world.effects)
        if peace not in peaceful:
            peaceful.add(peace)
            assert "" == broken(left_alone(world))

    assert count > 500
    assert len(peaceful) > 3


@settings(max_examples=settings().max_examples * 4)
@given(data=st.data(), case=st.sampled_from(CASES), late=st.booleans())
def test_no_long_walk_breaks_a_promise(data: st.DataObject, case: tuple[Effect, CheckKind], late: bool) -> None:
    """With four executors and as many entries as it takes, along ways that hypothesis chooses."""
    world = World(Rules(*case, deadline=START + (LATE if late else WALL * 2.5), deliveries=4))
    for choice in data.draw(st.lists(st.integers(0, 2**16), min_size=20, max_size=80), "way"):
        ways = list(world.successors())
        if not ways:
            break
        world = ways[choice % len(ways)]
        assert "" == broken(world)

    assert "" == broken(left_alone(world))


# --- the proof can fail --------------------------------------------------------------------------------------------

ONCE = Rules("irreversible", "truthful")


def test_without_waiting_an_effect_happens_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks the check while a child still lives is told no, and then the child acts."""
    monkeypatch.setattr(ledger, "expiry", lambda intent: START)

    assert first_broken(ONCE)


def test_without_slack_a_slow_clock_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expiry alone is not enough where clocks differ."""
    monkeypatch.setattr(ledger, "CLOCK_SLACK", timedelta(0))

    assert first_broken(ONCE)


def test_without_the_check_a_crash_is_taken_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that died behind its effect would be reported as failed, and tried again."""
    monkeypatch.setattr(ledger, "_may_record", lambda *_: True)

    assert first_broken(ONCE)


def test_a_refund_is_not_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running again what was found without an outcome is for effects that may be repeated."""
    monkeypatch.setattr(ledger, "REPEATABLE", frozenset({"pure", "idempotent", "irreversible"}))

    assert first_broken(ONCE)


def test_guessing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that says no where it cannot tell breaks the promise."""
    monkeypatch.setattr(World, "_checked", lambda self: AuditReconciled("send", False))

    assert first_broken(ONCE)
