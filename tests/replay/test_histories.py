"""Recorded histories, good and deliberately bad ones, as they lie in the repository: each is judged for what it is."""

import json
from pathlib import Path

import pytest

from agentflow_streams.recordings import Histories, decode, encode
from agentflow_streams.replay import replay_histories
from tests.replay.damage import BAD
from tests.replay.record import HISTORIES, STORIES

GOOD = sorted((HISTORIES / "good").glob("*.json"))
BAD_FILES = sorted((HISTORIES / "bad").glob("*.json"))


def read(path: Path) -> Histories:
    """The histories in a file."""
    return decode(path.read_bytes(), str(path))


def test_every_history_that_is_described_is_there_and_no_other() -> None:
    """The script, the table and the files agree; a history that nobody replays proves nothing."""
    assert set(STORIES) == {path.stem for path in GOOD}
    assert set(BAD) == {path.stem for path in BAD_FILES}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
async def test_a_good_history_matches(path: Path) -> None:
    """What a planner decided on a real mesh, this planner decides again, byte for byte."""
    report = await replay_histories(read(path))

    assert (1, 1) == (report.replay.runs, report.replay.matched), report
    assert 1.0 == report.replay.fidelity
    assert report.ok
    assert 0 == report.replay.pending


@pytest.mark.parametrize("path", BAD_FILES, ids=lambda path: path.stem)
async def test_a_bad_history_never_matches_and_says_why(path: Path) -> None:
    """Every damage is told as what it is."""
    report = await replay_histories(read(path))
    _, _, expected = BAD[path.stem]

    told = {each.kind for each in report.divergences} | {each.code for each in report.not_replayable}
    assert {expected} == told
    assert not report.ok
    assert (1, 0) == (report.replay.runs, report.replay.matched)


@pytest.mark.parametrize("name", [name for name, (_, _, kind) in BAD.items() if "." not in kind])
async def test_a_divergence_shows_both_sides_and_where_they_differ(name: str) -> None:
    """Where there are two sides, both are told in full, with the members in which they differ."""
    [divergence] = (await replay_histories(read(HISTORIES / "bad" / f"{name}.json"))).divergences

    assert divergence.decision or divergence.kind == "unreadable"
    assert divergence.seq > 0
    if divergence.kind in ("decision", "clock", "seed", "edited", "command"):
        assert divergence.recorded != divergence.decided
        assert divergence.differences
        for difference in divergence.differences:
            assert difference.recorded != difference.decided


async def test_another_way_taken_shows_the_conditions_and_what_they_read() -> None:
    """The record took one way, the conditions lead another: what they read stands beside both."""
    [divergence] = (await replay_histories(read(HISTORIES / "bad" / "another_transition.json"))).divergences

    by_text = {each.expression: each for each in divergence.conditions}
    found = by_text["output.in_stock"]
    assert found.recorded is not None
    assert found.decided is not None
    assert ("ship", "refused") == (found.recorded.to, found.decided.to)
    assert {"output.in_stock": True} == found.decided.values
    assert {"output.price": 20, "context.limit": 100} == by_text["output.price > context.limit"].decided.values  # type: ignore[union-attr]  # it was evaluated on both sides
    assert {"/payload/state", "/payload/conditions/1/to"} <= {each.path for each in divergence.differences}


async def test_only_the_altered_decision_counts_against_fidelity() -> None:
    """After a divergence the run is folded on as recorded, so the others are judged by themselves."""
    report = await replay_histories(read(HISTORIES / "bad" / "another_output.json"))

    assert (3, 2) == (report.replay.decisions, report.replay.matched_decisions)
    assert 2 / 3 == report.replay.fidelity


@pytest.mark.parametrize("path", [*GOOD, *BAD_FILES], ids=lambda path: path.stem)
def test_a_history_is_small_and_reads_the_same_after_writing(path: Path) -> None:
    """Files a person can look through, laid out alike."""
    assert path.stat().st_size < 64 * 1024
    assert path.read_bytes() == encode(read(path))
    assert "agentflow.histories/1" == json.loads(path.read_bytes())["format"]
