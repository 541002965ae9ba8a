"""The main job as a user starts it: `agentflow demo`, with the shipped material and with real queries."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentflow_support_desk.demo import run_demo
from agentflow_support_desk.errors import AgentNotReadyError
from agentflow_support_desk.tickets import MATERIAL, load_tickets

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BANKING77 = (
    Path(os.environ.get("AF_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")) / "banking77" / "train.csv"
)
FIGURES = {
    "tickets",
    "completed",
    "escalated",
    "failed",
    "accuracy",
    "workflow_ms",
    "workflows_per_s",
    "verify",
    "replay",
    "lost",
    "duplicates",
    "anomalies",
    "blocked",
    "data_dir",
}


def demo(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run the demo as a process of its own; returns the JSON object it ends with."""
    argv = [sys.executable, "-m", "agentflow", "demo", "--json", "--data-dir", str(tmp_path / "demo"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def nothing_runs_in(directory: Path) -> bool:
    """No process is left that was started for this data directory."""
    return not [p.pid for p in psutil.process_iter(["cmdline", "environ"]) if str(directory) in str(p.info)]


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.timeout(300)
def test_all_shipped_tickets_are_worked_with_nothing_lost_or_done_twice(tmp_path: Path) -> None:
    """At least 150 tickets, each in a final state; the effects are counted in the files, not in the log."""
    figures = demo(tmp_path)

    assert set(figures) >= FIGURES
    assert figures["tickets"] >= 150
    assert figures["completed"] + figures["escalated"] == figures["tickets"]
    assert (figures["failed"], figures["lost"], figures["duplicates"]) == (0, 0, 0)
    assert (figures["anomalies"], figures["blocked"]) == (1, 1)
    assert figures["verify"]["ok"] is True
    assert {"runs": figures["tickets"], "matched": figures["tickets"]} == figures["replay"]
    assert figures["verify"]["envelopes"] > figures["tickets"] * 8
    assert 0.5 < figures["accuracy"] <= 1.0
    directory = Path(figures["data_dir"])
    sent, opened = lines(directory / "outbox.jsonl"), lines(directory / "cases.jsonl")
    assert len({line["call_id"] for line in sent + opened}) == figures["tickets"]
    assert len({line["ticket"] for line in sent + opened}) == len(sent + opened) == figures["tickets"]
    assert nothing_runs_in(tmp_path)


@pytest.mark.timeout(600)
def test_three_hundred_real_queries_are_worked_after_learning_from_others(tmp_path: Path) -> None:
    """Rows of banking77, classified by what was learnt from other rows of it."""
    if not BANKING77.exists():
        pytest.skip(f"{BANKING77} is not here (AF_DATA_DIR)")
    with BANKING77.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_category: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row)
    learn = [row for of_one in by_category.values() for row in of_one[:30]]
    work = [of_one[at] for at in range(30, 36) for of_one in by_category.values() if at < len(of_one)][:300]
    for name, chosen in (("learn.csv", learn), ("work.csv", work)):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("text", "category"))
            writer.writeheader()
            writer.writerows(chosen)

    figures = demo(tmp_path, "--tickets", str(tmp_path / "work.csv"), "--examples", str(tmp_path / "learn.csv"))

    assert figures["tickets"] == 300
    assert (figures["failed"], figures["lost"], figures["duplicates"]) == (0, 0, 0)
    assert figures["verify"]["ok"] is True
    assert figures["accuracy"] > 0.7


async def test_a_classifier_that_cannot_learn_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    """Examples that got past the command, on a real mesh: one clear error within the time of a start."""
    (tmp_path / "one.csv").write_text("text,category\nhello there,one\n")
    begun = time.monotonic()
    with pytest.raises(AgentNotReadyError, match=r"classifier did not start: .*1 examples of 1 intents"):
        await run_demo(
            load_tickets(MATERIAL / "tickets.csv", 1),
            tmp_path / "demo",
            examples=tmp_path / "one.csv",
            note=lambda _: None,
            progress=lambda _, __: None,
        )

    assert time.monotonic() - begun < 50
    assert nothing_runs_in(tmp_path)
