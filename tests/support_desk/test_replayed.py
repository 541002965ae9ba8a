"""The demo ends with a replay: it counts, it is told, and a run that differs fails the demo."""

from pathlib import Path
from typing import Any

import pytest

from agentflow_streams.fidelity import ReplayReport
from agentflow_streams.recordings import decode
from agentflow_streams.replay import replay_histories
from agentflow_support_desk.commands import is_good, show
from agentflow_support_desk.demo import Outcome
from agentflow_support_desk.desk import Desk

HISTORIES = Path(__file__).parents[1] / "replay" / "histories"


async def report(name: str) -> ReplayReport:
    """The replay of one of the recorded histories."""
    return await replay_histories(decode((HISTORIES / f"{name}.json").read_bytes()))


def outcome(replayed: ReplayReport, tmp_path: Path, **changed: Any) -> Outcome:
    """What a demo of one ticket came to, with this replay at its end."""
    figures: dict[str, Any] = {
        "tickets": 1,
        "completed": 1,
        "escalated": 0,
        "failed": 0,
        "accuracy": None,
        "workflow_ms": {"p50": 1.0, "p95": 1.0},
        "workflows_per_s": 1.0,
        "verify": {"ok": True, "envelopes": 9, "chains": 3},
        "replay": {"runs": replayed.replay.runs, "matched": replayed.replay.matched},
        "anomalies": 0,
        "blocked": 0,
        "lost": 0,
        "duplicates": 0,
        "data_dir": str(tmp_path),
        **changed,
    }
    return Outcome(figures, {"answered": 1}, [], Desk(tmp_path), [], replayed.sentences())


async def test_a_run_that_matches_is_told_and_the_demo_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of the summary."""
    good = outcome(await report("good/shipped"), tmp_path)
    show(good)

    assert is_good(good)
    assert "replay: 1 of 1 runs were decided again byte for byte: all match" in capsys.readouterr().out
    assert [] == good.divergences


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad/another_output", "shipped decision 2 decision: differs in /payload/output/price"),
        ("bad/missing_input", "shipped input.missing: "),
    ],
)
async def test_a_run_that_does_not_match_fails_the_demo_and_is_named(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it differs or cannot be replayed; nothing else is wrong here."""
    bad = outcome(await report(name), tmp_path)
    show(bad)
    printed = capsys.readouterr().out

    assert not is_good(bad)
    assert "0 of 1 runs were decided again byte for byte: THEY DIFFER" in printed
    assert words in printed


async def test_a_damaged_record_fails_the_demo_as_before(tmp_path: Path) -> None:
    """A replay that matches excuses nothing else."""
    replayed = await report("good/shipped")

    assert not is_good(outcome(replayed, tmp_path, verify={"ok": False, "envelopes": 9, "chains": 3}))
    assert not is_good(outcome(replayed, tmp_path, lost=1))
