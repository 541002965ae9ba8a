"""A planner that decides otherwise than the one that recorded is caught, whatever it is that it does otherwise."""

import hashlib
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from agentflow.clock import SystemClock, format_time
from agentflow.payloads import Decision, GoalAccepted, RunAdvanced
from agentflow_planner import redeciding, sending
from agentflow_planner.machine import Decided, Verdict, decide
from agentflow_planner.runs import Input, RunState
from agentflow_planner.sealing import seal_decision
from agentflow_streams.recordings import Histories
from agentflow_streams.replay import replay_histories
from agentflow_streams.replaying import Outcome
from tests.replay.worlds import Lived, life, replayed

Change = Callable[[Decision], Any]


def played() -> Lived:
    """A run with a retry, a signal and a branch."""
    world = life()
    world.submit(n=1)
    world.fail()
    world.fire()
    world.answer({})
    world.signal("go", n=1)
    world.answer({"again": False, "n": 11})
    world.answer({})
    assert "completed" == world.state.status
    return world


RECORDED: Histories = played().histories
"""By the planner as it is."""


def mutate(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Make the planner that replays decide otherwise."""

    def mutant(state: RunState, given: Input, plan: Any) -> Verdict:
        verdict = decide(state, given, plan)
        if isinstance(verdict, Decided) and isinstance(verdict.recorded, Decision):
            return Decided(change(verdict.recorded))
        return verdict

    monkeypatch.setattr(redeciding, "decide", mutant)


def judged() -> Outcome:
    """The outcome under the planner as it is now."""
    return replayed(RECORDED)


def test_the_planner_as_it_is_matches() -> None:
    """What the mutants are compared with."""
    assert ("matched", 7, 7) == ((o := judged()).verdict, o.decisions, o.matched)


def test_another_branch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that turns the other way at a condition; what the condition read stands in the divergence."""
    mutate(monkeypatch, lambda d: replace(d, state="done") if d.conditions else d)
    outcome = judged()

    assert "diverged" == outcome.verdict
    assert outcome.divergence is not None
    assert "decision" == outcome.divergence.kind
    assert ["/envelope_hash", "/payload/state"] == [each.path for each in outcome.divergence.differences]
    assert ["output.again == true", "output.n > 10"] == [each.expression for each in outcome.divergence.conditions]
    assert {"output.n": 11} == outcome.divergence.conditions[1].recorded.values  # type: ignore[union-attr]  # it was evaluated
    assert 6 == outcome.matched


def test_jitter_from_the_machine_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry delay that is drawn and not derived."""
    mutate(
        monkeypatch,
        lambda d: replace(d, retry_at=d.retry_at[:-4] + f"{secrets.randbelow(999):03}Z") if d.retry_at else d,
    )
    outcome = judged()

    assert "diverged" == outcome.verdict
    assert outcome.divergence is not None
    assert "/payload/retry_at" in {each.path for each in outcome.divergence.differences}


def test_the_clock_of_the_machine_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that is dated by whoever makes it: only times differ, and that is what is told."""

    def now(state: RunState, given: Input, recorded: Any) -> Any:
        return seal_decision(state, replace(given, time=SystemClock().now()), recorded)

    monkeypatch.setattr(redeciding, "seal_decision", now)
    outcome = judged()

    assert ("diverged", 0) == (outcome.verdict, outcome.matched)
    assert outcome.divergence is not None
    assert "clock" == outcome.divergence.kind
    assert ["/envelope_hash", "/ts"] == [each.path for each in outcome.divergence.differences]


def test_a_clock_in_the_decision_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time that gets into what is decided."""
    mutate(monkeypatch, lambda d: replace(d, retry_at=format_time(SystemClock().now())) if d.retry_at else d)

    assert "diverged" == judged().verdict


def test_another_seed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that is drawn when the run begins."""
    seed = hashlib.sha256(b"another").hexdigest()[:32]
    mutate(monkeypatch, lambda d: replace(d, seed=seed) if isinstance(d, GoalAccepted) else d)
    outcome = judged()

    assert outcome.divergence is not None
    assert ("seed", 0) == (outcome.divergence.kind, outcome.divergence.index)
    assert 6 == outcome.matched


def test_an_id_of_its_own_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span that is new every time: only ids differ."""

    def sealed(state: RunState, given: Input, recorded: Any) -> Any:
        return seal_decision(state, replace(given, trace_id=secrets.token_hex(16)), recorded)

    monkeypatch.setattr(redeciding, "seal_decision", sealed)
    outcome = judged()

    assert outcome.divergence is not None
    assert "ids" == outcome.divergence.kind


def test_another_input_for_a_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that is rendered otherwise: the hash of the command shows it."""
    original = sending.commands_of

    def otherwise(*given: Any) -> Any:
        return tuple(
            replace_outgoing(out, command=replace(out.command, payload_sha256="0" * 64)) for out in original(*given)
        )

    monkeypatch.setattr("agentflow_planner.machine.commands_of", otherwise)
    outcome = judged()

    assert outcome.divergence is not None
    assert "/payload/commands/0/payload_sha256" in {each.path for each in outcome.divergence.differences}


def replace_outgoing(out: sending.Outgoing, **changed: Any) -> sending.Outgoing:
    """An outgoing message with members changed."""
    return sending.Outgoing(**{"command": out.command, "payload": out.payload, "to": out.to, **changed})


def test_a_planner_that_takes_no_note_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores what was decided: the recorded decision would not have been made."""
    from agentflow_planner.machine import Ignored

    def lazy(state: RunState, given: Input, plan: Any) -> Verdict:
        verdict = decide(state, given, plan)
        is_advance = isinstance(verdict, Decided) and isinstance(verdict.recorded, RunAdvanced)
        return Ignored("lazy") if is_advance else verdict

    monkeypatch.setattr(redeciding, "decide", lazy)
    outcome = judged()

    assert outcome.divergence is not None
    assert "extra" == outcome.divergence.kind
    assert "lazy" in outcome.divergence.detail
    assert outcome.divergence.decided is None


def test_a_planner_that_breaks_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, the run is told as one that cannot be replayed."""

    def broken(*_: Any) -> Verdict:
        raise KeyError("go")

    monkeypatch.setattr(redeciding, "decide", broken)
    outcome = judged()

    assert ("not_replayable", "history.unfoldable") == (outcome.verdict, outcome.code)
    assert "KeyError" in outcome.detail


@pytest.mark.parametrize("reach", ["socket", "process", "file"])
async def test_a_planner_that_reaches_outside_is_stopped(
    reach: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """No connection is made, no process started, no file written, and the run does not match."""

    def outside(_: Decision) -> Any:
        match reach:
            case "socket":
                socket.create_connection(("127.0.0.1", 9), timeout=1)
            case "process":
                subprocess.run([sys.executable, "-c", ""], check=False)
            case _:
                (tmp_path / "note").write_text("x")

    mutate(monkeypatch, outside)
    report = await replay_histories(RECORDED)

    assert ["replay.isolated"] == [each.code for each in report.not_replayable]
    assert not (tmp_path / "note").exists()


async def test_nothing_connects_while_recorded_histories_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every way to a network cut, a replay of a file is the same."""

    def connect(*_: Any) -> None:
        raise AssertionError("a replay connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    monkeypatch.setattr(socket.socket, "sendto", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)

    assert (await replay_histories(RECORDED)).ok
