"""The lifecycle of a hosted agent: which transitions there are, what is told of them, and what a type checker refuses."""

import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.payloads import Lifecycle
from agentflow_runtime.lifecycle import (
    MAX_REASON,
    AgentState,
    Failed,
    Loaded,
    Running,
    Stopped,
    Unloaded,
    announcement,
)
from tests.services.runtime import typing_lifecycle

TRANSITIONS: dict[type[Any], dict[str, type[Any]]] = {
    Unloaded: {"load": Loaded},
    Loaded: {"start": Running, "fail": Failed},
    Running: {"stop": Stopped, "fail": Failed},
    Stopped: {"start": Running, "unload": Unloaded},
    Failed: {"reload": Loaded, "unload": Unloaded},
}
"""Every legal transition: from, by which method, to."""

STATES: list[AgentState] = [Unloaded("a"), Loaded("a"), Running("a"), Stopped("a"), Failed("a", "no disk")]


def move(state: Any, name: str) -> Any:
    """The state a transition leads to."""
    transition = getattr(state, name)
    return transition("boom") if name == "fail" else transition()


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_each_state_has_its_transitions_and_no_others(state: AgentState) -> None:
    """What is not legal from a state is not there to be called."""
    names = {name for moves in TRANSITIONS.values() for name in moves}
    assert {name for name in names if hasattr(state, name)} == set(TRANSITIONS[type(state)])


@given(st.lists(st.integers(0, 5), max_size=30))
def test_any_walk_keeps_to_the_transitions_and_to_the_agent(choices: list[int]) -> None:
    """However transitions follow each other, each leads where the table says and stays with the same agent."""
    state: Any = Unloaded("greeter")
    for choice in choices:
        moves = TRANSITIONS[type(state)]
        name = sorted(moves)[choice % len(moves)]
        after = move(state, name)
        assert type(after) is moves[name]
        assert after.agent_id == "greeter"
        state = after


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_every_state_can_be_written_down_and_read_back(state: AgentState) -> None:
    """A stored state comes back as the type it was: persistence covers all of them."""
    assert msgspec.json.decode(msgspec.json.encode(state), type=AgentState) == state


def test_states_are_immutable() -> None:
    """A state cannot be turned into another in place."""
    with pytest.raises(AttributeError):
        Running("a").agent_id = "b"  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (Running("a"), Lifecycle("a", "inc", "started")),
        (Stopped("a"), Lifecycle("a", "inc", "stopped")),
        (Failed("a", "no disk"), Lifecycle("a", "inc", "failed", "no disk")),
    ],
)
def test_entering_a_state_is_told(state: Running | Stopped | Failed, told: Lifecycle) -> None:
    """The event names the agent, the incarnation, the state and the reason of a failure."""
    assert announcement(state, "inc") == told


def test_the_reason_of_a_failure_is_bounded() -> None:
    """A failure told with a novel keeps its beginning."""
    assert Loaded("a").fail("x" * 10_000).reason == "x" * MAX_REASON


def test_a_transition_takes_less_than_a_microsecond() -> None:
    """The measure of CX-046-01: the best of several runs, so that a busy machine does not decide."""
    running, rounds = Running("a"), 20_000
    best = min(timeit.repeat(running.stop, number=rounds, repeat=7)) / rounds
    assert best < 1e-6


ILLEGAL = {
    "stop what does not run": "Loaded('a').stop()",
    "load what is loaded": "Loaded('a').load()",
    "start what is unloaded": "Unloaded('a').start()",
    "start what failed": "Failed('a', 'why').start()",
    "reload what runs": "Running('a').reload()",
    "fail what is stopped": "Stopped('a').fail('why')",
    "take messages before the start": "take_messages(Loaded('a'))",
    "take messages after the end": "take_messages(Running('a').stop())",
    "announce what nobody may see": "announcement(Loaded('a'), 'inc')",
}


def test_a_type_checker_refuses_every_illegal_transition_and_operation(tmp_path: Path) -> None:
    """Each illegal line is an error on its own line; the legal ones beside them and the asserted types are none."""
    head = [
        "from agentflow_runtime.lifecycle import Failed, Loaded, Running, Stopped, Unloaded, announcement",
        "def take_messages(agent: Running) -> None: ...",
        "take_messages(Unloaded('a').load().start())",
        "announcement(Failed('a', 'why').reload().start().stop(), 'inc')",
    ]
    illegal, legal = tmp_path / "illegal.py", tmp_path / "legal.py"
    illegal.write_text("\n".join([*head, *ILLEGAL.values(), ""]))
    legal.write_text(Path(typing_lifecycle.__file__).read_text())
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    command = [sys.executable, "-m", "mypy", *options, str(illegal), str(legal)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    errors = [line.split(":")[:2] for line in said.stdout.splitlines() if ": error:" in line]
    expected = {("illegal.py", len(head) + 1 + index) for index in range(len(ILLEGAL))}
    assert {(Path(path).name, int(line)) for path, line in errors} == expected, said.stdout + said.stderr


def test_the_legal_transitions_run() -> None:
    """What the type checker is asked to assert also holds when it is run."""
    typing_lifecycle.legal_transitions()
    assert [typing_lifecycle.what_a_state_may_do(state) for state in STATES] == ["no reason"] * 4 + ["no disk"]
