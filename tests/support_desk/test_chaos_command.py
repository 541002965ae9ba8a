"""The flags of `agentflow demo --chaos`, its exit code, and what it prints for people."""

from pathlib import Path
from typing import Any

import pytest

from agentflow.cli import app
from agentflow.errors import InputError
from agentflow_support_desk import commands, demo
from agentflow_support_desk.chaos import Wish
from agentflow_support_desk.commands import chaos_wish, failings, is_good, show
from agentflow_support_desk.demo import Outcome
from agentflow_support_desk.desk import Desk

SPREAD = {"p50": 1.0, "max": 2.0}
QUIET: dict[str, Any] = {
    "tickets": 4,
    "completed": 4,
    "escalated": 0,
    "failed": 0,
    "accuracy": None,
    "workflow_ms": {"p50": 1.0, "p95": 2.0},
    "workflows_per_s": 1.0,
    "lost": 0,
    "duplicates": 0,
    "verify": {"ok": True, "envelopes": 10, "chains": 2},
    "replay": {"runs": 4, "matched": 4},
    "anomalies": 1,
    "blocked": 1,
    "data_dir": "x",
}
CHAOS: dict[str, Any] = {
    "kills": {"planner": 3},
    "freezes": {"runtime": 1},
    "in_flight": {"least": 2, "idle_faults": 0},
    "recovery_ms": SPREAD,
    "restart_ms": SPREAD,
    "reconciled": 1,
    "reconciled_happened": 0,
    "reconciled_lost": 0,
    "unknown": 0,
    "doubled": 0,
    "dead_letters": 0,
    "unasked_ends": {},
    "chaos": {"seed": 5},
}


def outcome(tmp_path: Path, **more: Any) -> Outcome:
    """What a demo came to."""
    return Outcome({**QUIET, **more}, {"answered": 4}, [], Desk(tmp_path), [], [])


def test_the_flags_make_a_wish() -> None:
    """Three kills unless told otherwise, and a seed of its own, so that it can be given again."""
    assert Wish(7, 3) == chaos_wish(chaos=True, seed=7, kills=None)
    assert Wish(0, 5) == chaos_wish(chaos=True, seed=0, kills=5)
    assert chaos_wish(chaos=False, seed=None, kills=None) is None
    drawn = {wish.seed for wish in (chaos_wish(chaos=True, seed=None, kills=None) for _ in range(20)) if wish}
    assert len(drawn) > 1


@pytest.mark.parametrize("flags", [{"seed": 1, "kills": None}, {"seed": None, "kills": 2}])
def test_its_flags_without_it_are_refused(flags: dict[str, Any]) -> None:
    """They would do nothing, in silence."""
    with pytest.raises(InputError) as caught:
        chaos_wish(chaos=False, **flags)

    assert "usage.exclusive" == caught.value.error_code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "1"], "error[usage.exclusive]"),
        (["--chaos", "--limit", "3"], "error[chaos.too_few_tickets]: 3 tickets are too few for 4 faults"),
        (["--chaos", "--kills", "0"], "--kills"),
        (["--chaos", "--seed", "-1"], "--seed"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, and no folder is made."""
    code = app.run(["demo", "--data-dir", str(tmp_path / "demo"), *arguments])

    assert 2 == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_wish_reaches_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed and kills; a quiet demo has none."""
    wishes: list[Wish | None] = []

    async def run_demo(*_: object, chaos: Wish | None, **__: object) -> Outcome:
        wishes.append(chaos)
        return outcome(tmp_path)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    for arguments in (["--chaos", "--seed", "4", "--kills", "2"], []):
        assert 0 == app.run(["demo", "--json", "--data-dir", str(tmp_path / "demo"), *arguments])

    assert [Wish(4, 2), None] == wishes


def test_a_quiet_demo_needs_no_figures_of_chaos(tmp_path: Path) -> None:
    """It is good without them."""
    assert is_good(outcome(tmp_path))
    assert [] == failings(outcome(tmp_path))


def test_a_chaos_run_is_good_when_everything_was_shown(tmp_path: Path) -> None:
    """And not where a fault proved nothing, though all tickets are well."""
    assert is_good(outcome(tmp_path, **CHAOS))
    idle = outcome(tmp_path, **{**CHAOS, "in_flight": {"least": 0, "idle_faults": 2}})
    assert not is_good(idle)
    assert ["2 faults fell while no ticket was in flight: they prove nothing"] == failings(idle)


def test_people_see_what_was_struck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the seed that makes it again."""
    show(outcome(tmp_path, **{**CHAOS, "dead_letters": 1}))
    said = capsys.readouterr().out

    assert "killed: planner 3; frozen: runtime (seed 5)" in said
    assert "at least 2 tickets" in said
    assert "1 messages were given up" in said


def test_the_command_is_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's help imports it, and nothing of the storm with it."""
    assert not {"Storm", "LocalMesh", "asyncio"} & set(vars(commands))
