"""Giving work and looking at it, on a mesh in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow import subjects
from agentflow.cli import runs as runs_commands
from agentflow.client import Client
from agentflow.definitions import store_definition
from agentflow.mesh.memory import MemoryTransport
from agentflow.testing import START
from tests.cli.terminal import URL, Mesh, Terminal
from tests.support.fake_planner import STREAM, FakePlanner, failure


@pytest.fixture(autouse=True)
def greet(mesh: Mesh) -> None:
    """A definition that is applied."""

    async def apply(transport: MemoryTransport) -> None:
        await store_definition(transport, b"greet", "greet", "1.0.0", "fsm", applied=START)

    mesh.do(apply)


def given(mesh: Mesh, run_id: str, *steps: Callable[[FakePlanner], Awaitable[Any]]) -> None:
    """A run that was submitted, and what the planner has decided about it."""

    async def work(transport: MemoryTransport) -> None:
        await Client(transport).submit("greet", {"name": "Ada"}, id=run_id)
        planner = FakePlanner(transport)
        for step in steps:
            await step(planner)

    mesh.do(work)


def completed(run_id: str) -> tuple[Callable[[FakePlanner], Awaitable[Any]], ...]:
    """A run's way to a good end."""
    return (
        lambda planner: planner.accept(run_id),
        lambda planner: planner.result(run_id, {"greeting": "Hello"}),
        lambda planner: planner.complete(run_id, {"greeting": "Hello"}),
    )


# --- submit --------------------------------------------------------------------------------------------------------


def test_submit_prints_the_id_and_nothing_else(terminal: Terminal, mesh: Mesh) -> None:
    """So that a script can take it; people get a hint beside it."""
    ended = terminal("submit", "greet", "--input", '{"name": "Ada"}', "--id", "run-1")

    assert (0, "run-1\n") == (ended.code, ended.out)
    assert "stored as a run of greet@1.0.0; agentflow watch run-1" in ended.err


def test_submit_says_what_was_acknowledged(terminal: Terminal, mesh: Mesh) -> None:
    """Stored; not done."""
    found = terminal("submit", "greet@1.0.0", "--id", "run-1", "--json").json

    assert {"run": "run-1", "workflow": "greet@1.0.0", "stored": True} == found


def test_submit_reads_its_input_from_a_file(terminal: Terminal, mesh: Mesh, tmp_path: Path) -> None:
    """And the same again is the same run."""
    (tmp_path / "input.json").write_text('{"name": "Ada"}')
    for _ in range(2):
        ended = terminal("submit", "greet", "-i", f"@{tmp_path / 'input.json'}", "--id", "run-1")
        assert 0 == ended.code

    async def count(transport: MemoryTransport) -> int:
        return len([message async for message in transport.read(STREAM, subjects.workflow_in("run-1"))])

    assert 1 == mesh.do(count)


def test_another_goal_under_an_id_is_a_conflict(terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 7."""
    given(mesh, "run-1")
    ended = terminal("submit", "greet", "--id", "run-1")

    assert 7 == ended.code
    assert "error[run.id_taken]" in ended.err


@pytest.mark.parametrize(
    ("goal", "hint"), [("gret", "did you mean greet?"), ("zzz", "there is greet"), ("greet@9.9.9", "1.0.0")]
)
def test_a_goal_that_is_misspelt_is_not_sent(goal: str, hint: str, terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 3, with what there is; no id is spent on it."""
    ended = terminal("submit", goal, "--id", "run-1")

    assert 3 == ended.code
    assert "error[definition.unknown]" in ended.err
    assert hint in ended.err
    assert [] == terminal("runs", "--json").json


def test_submit_follows_a_run_to_its_end(terminal: Terminal, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events as they come, then the output."""
    decide_after_submit(monkeypatch, *completed("run-1"))
    ended = terminal("submit", "greet", "--id", "run-1", "--follow")

    assert 0 == ended.code
    assert ["goal.submitted", "goal.accepted", "step.completed", "run.completed"] == [
        line.split()[2] for line in ended.out.splitlines()[:4]
    ]
    assert ended.out.endswith('{\n  "greeting": "Hello"\n}\n')


def test_submit_follows_with_a_json_document_a_line(
    terminal: Terminal, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First what was stored, then every event, last the run."""
    decide_after_submit(monkeypatch, *completed("run-1"))
    first, *events, last = terminal("submit", "greet", "--id", "run-1", "--follow", "--json").lines

    assert first["stored"] is True
    assert ["goal.submitted/1", "goal.accepted/1", "step.completed/1", "run.completed/1"] == [
        each["event"]["schema"] for each in events
    ]
    assert {"output": {"greeting": "Hello"}} == events[2]["event"]["payload"] | {}
    assert ("completed", {"greeting": "Hello"}) == (last["run"]["status"], last["run"]["output"])


def decide_after_submit(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[FakePlanner], Awaitable[Any]]) -> None:
    """Let the planner decide as soon as the goal is stored."""
    submit = Client.submit

    async def submit_and_decide(self: Client, *arguments: Any, **more: Any) -> Any:
        run = await submit(self, *arguments, **more)
        planner = FakePlanner(self.transport)
        for step in steps:
            await step(planner)
        return run

    monkeypatch.setattr(Client, "submit", submit_and_decide)


# --- watch ---------------------------------------------------------------------------------------------------------


def test_a_run_that_failed_is_watched_to_its_failure(terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 1, with the failure; with JSON it is in the last document."""
    given(mesh, "run-1", lambda p: p.accept("run-1"), lambda p: p.fail("run-1", failure("step.timeout", "too slow")))
    ended = terminal("watch", "run-1")
    assert 1 == ended.code
    assert "failed: too slow (step.timeout)" in ended.err

    with_json = terminal("watch", "run-1", "--json")
    assert 1 == with_json.code
    assert ("failed", "step.timeout") == (
        with_json.lines[-1]["run"]["status"],
        with_json.lines[-1]["run"]["error"]["code"],
    )


def test_a_watch_may_have_an_end(terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 5, with what the run waits for."""
    given(mesh, "run-1", lambda planner: planner.accept("run-1"))
    ended = terminal("watch", "run-1", "--timeout", "0.1")

    assert 5 == ended.code
    assert "it waits for the agent 'greeter'" in ended.err
    with_json = terminal("watch", "run-1", "--timeout", "0.1", "--json").lines[-1]
    assert ("run.timeout", "running") == (with_json["error"]["code"], with_json["error"]["fields"]["state"]["status"])


def test_a_watch_that_is_interrupted_says_that_the_run_goes_on(
    terminal: Terminal, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130."""
    given(mesh, "run-1", lambda planner: planner.accept("run-1"))

    def interrupt(event: Any, *, as_json: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    monkeypatch.setattr(runs_commands, "_print_event", interrupt)
    ended = terminal("watch", "run-1")
    assert 130 == ended.code
    assert "the run goes on: agentflow watch run-1" in ended.err


@pytest.mark.parametrize("command", ["watch", "show"])
def test_a_run_that_is_misspelt_is_answered_with_what_is_close(command: str, terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 3."""
    given(mesh, "ticket-4711")
    ended = terminal(command, "ticket-4712")

    assert 3 == ended.code
    assert "error[run.unknown]: no run 'ticket-4712'" in ended.err
    assert "did you mean ticket-4711?" in ended.err


def test_an_id_that_cannot_be_one_is_refused(terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 2, as for any wrong argument."""
    ended = terminal("show", "a.b")

    assert 2 == ended.code
    assert "error[id.invalid]" in ended.err


# --- runs and show -------------------------------------------------------------------------------------------------


@pytest.fixture
def some(mesh: Mesh) -> None:
    """A run of every kind."""
    given(mesh, "done", *completed("done"))
    given(mesh, "live", lambda planner: planner.accept("live"))
    given(mesh, "lost", lambda planner: planner.accept("lost"), lambda planner: planner.fail("lost"))
    given(mesh, "fresh")


@pytest.mark.usefixtures("some")
def test_runs_are_listed_the_newest_first(terminal: Terminal) -> None:
    """With what each waits for, or why it failed."""
    lines = terminal("runs").out.splitlines()

    assert ["run", "fresh", "lost", "live", "done"] == [line.split()[0] for line in lines]
    assert lines[1].endswith("a planner that answers the goal")
    assert lines[2].endswith("(step.failed)")
    assert lines[3].endswith("the agent 'greeter'")


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["fresh", "lost", "live", "done"]),
        (("--limit", "2"), ["fresh", "lost"]),
        (("--status", "running"), ["live"]),
        (("--status", "completed"), ["done"]),
        (("--workflow", "greet@1.0.0"), ["lost", "live", "done"]),
        (("--workflow", "greet", "--status", "failed"), ["lost"]),
        (("--workflow", "other"), []),
    ],
)
def test_runs_are_filtered(arguments: tuple[str, ...], expected: list[str], terminal: Terminal) -> None:
    """By status and workflow, and limited after that."""
    assert expected == [run["id"] for run in terminal("runs", *arguments, "--json").json]


def test_a_filter_that_is_misspelt_is_noticed(terminal: Terminal) -> None:
    """A status that does not exist is an error; a workflow nobody applied is a hint."""
    ended = terminal("runs", "--status", "complete")
    assert 2 == ended.code
    assert "did you mean completed?" in ended.err

    ended = terminal("runs", "--workflow", "gret")
    assert (0, "") == (ended.code, ended.out)
    assert "no definition 'gret' is applied; did you mean greet?" in ended.err


def test_a_run_is_shown_with_all_there_is(terminal: Terminal, mesh: Mesh) -> None:
    """Where it stands, and every message."""
    given(mesh, "run-1", *completed("run-1"))
    shown = terminal("show", "run-1").out
    for text in ("greet@1.0.0", "completed", '{"greeting": "Hello"}', "goal.accepted", "step.completed"):
        assert text in shown

    found = terminal("show", "run-1", "--json").json
    assert ("run-1", "completed", 1) == (found["run"]["id"], found["run"]["status"], found["run"]["steps"])
    assert ["goal.submitted/1", "goal.accepted/1", "step.completed/1", "run.completed/1"] == [
        event["schema"] for event in found["events"]
    ]
    assert ("client", "planner") == (found["events"][0]["from"], found["events"][0]["to"])


def test_a_live_run_says_what_it_waits_for(terminal: Terminal, mesh: Mesh) -> None:
    """Nobody has to guess."""
    given(mesh, "run-1", lambda planner: planner.accept("run-1"))

    assert "waits for  the agent 'greeter'" in terminal("show", "run-1").out


def test_a_plain_publishers_goal_is_shown(terminal: Terminal, mesh: Mesh) -> None:
    """Whatever was sent."""

    async def publish(transport: MemoryTransport) -> None:
        await transport.publish(subjects.workflow_in("run-1"), b'{"goal":"greet"}', stream=STREAM)

    mesh.do(publish)
    assert 'plain              {"goal": "greet"}' in terminal("show", "run-1").out
    assert {"goal": "greet"} == terminal("show", "run-1", "--json").json["events"][0]["payload"]


# --- steering ------------------------------------------------------------------------------------------------------


def test_a_signal_and_a_cancel_are_stored(terminal: Terminal, mesh: Mesh) -> None:
    """And that is what they say."""
    given(mesh, "run-1", lambda planner: planner.accept("run-1"))
    assert (
        "the signal 'approved' is stored for run run-1\n"
        == terminal("signal", "run-1", "approved", "--data", '{"by": "ann"}').out
    )
    assert {"run": "run-1", "signal": "hurry", "stored": True} == terminal("signal", "run-1", "hurry", "--json").json
    assert "the cancel is stored for run run-1\n" == terminal("cancel", "run-1", "--reason", "a duplicate").out
    assert {"run": "run-1", "cancel": "", "stored": True} == terminal("cancel", "run-1", "--json").json

    events = terminal("show", "run-1", "--json").json["events"]
    assert [{"name": "approved", "data": {"by": "ann"}}, {"name": "hurry", "data": {}}] == [
        event["payload"] for event in events if event["schema"] == "run.signalled/1"
    ]
    assert [{"reason": "a duplicate"}, {"reason": ""}] == [
        event["payload"] for event in events if event["schema"] == "run.cancel_requested/1"
    ]


@pytest.mark.parametrize("arguments", [("signal", "run-1", "late"), ("cancel", "run-1")])
def test_a_run_that_ended_takes_nothing(arguments: tuple[str, ...], terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 7."""
    given(mesh, "run-1", *completed("run-1"))
    ended = terminal(*arguments)

    assert 7 == ended.code
    assert "error[run.ended]" in ended.err


@pytest.mark.parametrize("arguments", [("signal", "run-2", "late"), ("cancel", "run-2")])
def test_a_run_that_does_not_exist_takes_nothing(arguments: tuple[str, ...], terminal: Terminal, mesh: Mesh) -> None:
    """Exit code 3; the mistyped id stays free."""
    given(mesh, "run-1")
    ended = terminal(*arguments)

    assert 3 == ended.code
    assert "did you mean run-1?" in ended.err
    assert ["run-1"] == [run["id"] for run in terminal("runs", "--json").json]


def test_the_mesh_can_be_given_by_flag(terminal: Terminal, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the environment."""
    monkeypatch.setenv("AF_NATS_URL", "nats://127.0.0.1:1")
    given(mesh, "run-1")

    assert ["run-1"] == [run["id"] for run in terminal("runs", "--json", "--nats-url", URL).json]


# --- why -----------------------------------------------------------------------------------------------------------


def test_why_names_who_has_to_act(terminal: Terminal, mesh: Mesh) -> None:
    """A run that asked an agent waits for it, and no planner is alive here to decide about the answer."""
    given(mesh, "run-1", lambda planner: planner.accept("run-1"))
    ended = terminal("why", "run-1", "--json")

    assert (0, "planner.absent", "agent", "greeter") == (
        ended.code,
        ended.json["code"],
        ended.json["wait"]["kind"],
        ended.json["wait"]["owner"],
    )
    assert "agentflow-planner" in terminal("why", "run-1").out


def test_why_of_a_run_that_has_ended_and_of_one_that_is_not_there(terminal: Terminal, mesh: Mesh) -> None:
    """The first does not wait; the second is not found, and near ids are shown."""
    given(mesh, "run-1", *completed("run-1"))

    assert "completed" in terminal("why", "run-1").out
    missing = terminal("why", "run-2", "--json")
    assert (3, "run.unknown") == (missing.code, missing.json["error"]["code"])
    assert "run-1" in missing.json["error"]["hint"]
