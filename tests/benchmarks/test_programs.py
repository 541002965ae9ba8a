"""The benchmark programs run to their end, say what the README says of them, and leave nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(420)]


def run(*arguments: str) -> tuple[int, dict[str, object]]:
    """A program's exit code and the JSON it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert ended.stdout, ended.stderr
    found: dict[str, object] = json.loads(ended.stdout)
    return ended.returncode, found


def test_the_benchmark_of_the_mesh_prints_figures_beside_a_floor(tmp_path: Path) -> None:
    """Each figure has value, unit, floor and ratio; conditions say what they were measured under; it goes on from a file."""
    keep = tmp_path / "figures.json"
    arguments = ("benchmarks.mesh", "--json", "--quick", "--fsync=always", "--only=workflows", f"--keep={keep}")
    code, found = run(*arguments)

    assert 0 == code
    figures, conditions = found["figures"], found["conditions"]
    assert isinstance(figures, dict)
    assert isinstance(conditions, dict)
    assert all(figure["value"] > 0 and figure["floor"] > 0 and figure["ratio"] > 0 for figure in figures.values())
    assert figures["always.workflow_messages_stored"]["value"] == figures["always.workflow_messages_stored"]["floor"]
    assert {"cpu", "cores", "python", "nats_server", "nats_py", "filesystem", "date", "load_before"} <= set(conditions)
    assert (code, found) == run(*arguments)
    assert [] == [each.pid for each in psutil.Process().children(recursive=True) if "floor" in " ".join(each.cmdline())]


def test_nothing_grows_under_half_of_the_greatest_load() -> None:
    """Forty seconds of soak: memory, files, threads and consumers stay, and every run ends."""
    code, found = run("benchmarks.soak", "--minutes=0.67", "--every=1", "--json")

    assert (0, True, []) == (code, found["ok"], found["grew"]), found
    load = found["load"]
    assert isinstance(load, dict)
    assert load["runs_begun"] == load["runs_ended"] > 0
