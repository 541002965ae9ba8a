"""What the floor replays is what a run stored."""

import pytest

from benchmarks.script import Script, Write, kind_of, script_of

SEEN = [
    ("workflows.r.in", 100),
    ("workflows.r.out", 200),
    ("timers.set.planner.r.0", 90),
    ("agents.a.in.c1", 150),
    ("workflows.r.results.c1", 120),
    ("workflows.r.out", 210),
]


def test_a_run_becomes_rounds_of_what_was_written_about_each_input() -> None:
    """The decider's writes belong to the message before them, and every result begins a round."""
    found = script_of(SEEN)

    assert Write("input", 100) == found.start
    assert [["decision", "timer", "command"], ["decision"]] == [[w.kind for w in writes] for writes in found.rounds]
    assert [Write("result", 120)] == found.answers
    assert len(SEEN) == found.messages


def test_a_script_survives_being_written_down() -> None:
    """The floor's processes read it from a file."""
    script = script_of(SEEN)

    assert script == Script.from_plain(script.plain())


@pytest.mark.parametrize("seen", [[], SEEN[1:]])
def test_a_run_that_was_not_seen_from_its_beginning_is_no_script(seen: list[tuple[str, int]]) -> None:
    """A floor that stores less than we do would flatter it."""
    with pytest.raises(ValueError, match="begins with its input"):
        script_of(seen)


def test_what_is_no_part_of_a_run_is_refused() -> None:
    """A tool call is not in the three steps, so the floor has no place for it."""
    with pytest.raises(ValueError, match="no part of a run"):
        kind_of("tools.calls.x")
