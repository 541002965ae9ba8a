"""Crash points: they kill exactly where and when they are told to, and cost nothing otherwise."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentflow
from agentflow import crash

ROOT = Path(agentflow.__file__).parents[1]
SERVICES = ROOT / "services"

PROGRAM = """
import sys
from agentflow import crash
crash.arm(sys.argv[1])
for number in range(1, 5):
    print(number, flush=True)
    crash.point("executor.after_intent")
    crash.point("executor.after_outcome")
print("end", flush=True)
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave nothing armed behind."""
    yield
    crash.arm("")


def run(spec: str) -> subprocess.CompletedProcess[str]:
    """A process that passes two points four times each."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, spec], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("spec", "passed"), [("executor.after_intent", 1), ("executor.after_intent:1", 1), ("executor.after_outcome:3", 3)]
)
def test_an_armed_point_kills_at_its_count(spec: str, passed: int) -> None:
    """With SIGKILL, so that nothing can be cleaned up; and it says so, for whoever reads the test's output."""
    ended = run(spec)

    assert -signal.SIGKILL == ended.returncode
    assert [str(number) for number in range(1, passed + 1)] == ended.stdout.split()
    assert f"crash point {spec.partition(':')[0]}: SIGKILL\n" == ended.stderr


@pytest.mark.parametrize("spec", ["", "executor.after_intent:5", "planner.after_decision"])
def test_a_point_that_is_not_reached_kills_nothing(spec: str) -> None:
    """Nothing armed, the count not reached, another process's point."""
    ended = run(spec)

    assert (0, ["1", "2", "3", "4", "end"], "") == (ended.returncode, ended.stdout.split(), ended.stderr)


def test_arming_again_disarms_the_point_before() -> None:
    """One point is armed at most; an empty spec disarms it: were it armed, this process would be gone."""
    crash.arm("executor.after_intent")
    crash.arm("planner.after_decision")
    crash.point("executor.after_intent")
    crash.arm("")
    crash.point("planner.after_decision")


@given(st.sampled_from(sorted(crash.POINTS)), st.integers(1, 10**9 - 1))
def test_a_point_and_a_count_are_understood(name: str, count: int) -> None:
    """Alone it is the first time."""
    assert (name, 1) == crash.parse(name)
    assert (name, count) == crash.parse(f"{name}:{count}")


@pytest.mark.parametrize(
    "spec",
    [
        "executor",
        "executor.after_lunch",
        "executor.after_intent:",
        "executor.after_intent:0",
        "executor.after_intent:-1",
        "executor.after_intent:x",
        "executor.after_intent:1.5",
        "executor.after_intent:1:2",
        "executor.after_intent:" + "9" * 5000,
        " executor.after_intent",
        "executor.after_intent\n",
        "EXECUTOR.AFTER_INTENT",
        "executor.after_intent:١",
    ],
)
def test_a_point_that_does_not_exist_cannot_be_armed(spec: str) -> None:
    """A test that would prove nothing ends at once; the error names those there are, and disarms."""
    crash.arm("planner.after_decision")

    with pytest.raises(ValueError, match=r"unknown crash point; there are detector\.after_anomaly"):
        crash.arm(spec)

    crash.point("planner.after_decision")


def test_every_point_is_in_the_code_and_every_one_in_the_code_is_known() -> None:
    """A point that nobody passes would make a kill test pass for nothing."""
    found = {
        name
        for path in SERVICES.glob("*/agentflow_*/*.py")
        for name in re.findall(r"crash\.point\(\s*\"([^\"]+)\"\s*\)", path.read_text("utf-8"))
    }

    assert found == set(crash.POINTS)
