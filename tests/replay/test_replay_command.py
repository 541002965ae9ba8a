"""`agentflow replay`, as a shell runs it: output, errors, exit codes, against files and against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from agentflow.cli import session
from agentflow.errors import NotStored
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow_streams import replay_command
from agentflow_streams.replay import replay_runs
from tests.replay.record import HISTORIES, STORIES, Recorder, recording

BAD, GOOD = HISTORIES / "bad", HISTORIES / "good"


def run(*arguments: str) -> Result:
    """Run the command in this process, as `agentflow` would."""
    app = typer.Typer(rich_markup_mode=None)
    replay_command.register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["replay", *arguments])


async def shell(*arguments: str) -> Result:
    """The same beside a running event loop: a command has a loop of its own."""
    return await asyncio.to_thread(run, *arguments)


def told(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def test_a_good_file_matches_and_ends_with_nought() -> None:
    """For people, and as JSON with every count."""
    plain, as_json = run("--file", str(GOOD / "retried.json")), run("--file", str(GOOD / "retried.json"), "--json")

    assert (0, 0) == (plain.exit_code, as_json.exit_code), plain.output
    assert "replay    matched: 1 of 1 runs" in plain.stdout
    assert "fidelity  100.00%" in plain.stdout
    figures = told(as_json)["replay"]
    assert {
        "runs": 1,
        "matched": 1,
        "diverged": 0,
        "not_replayable": 0,
        "fidelity": 1.0,
        "decisions": 7,
    }.items() <= figures.items()
    assert ([], []) == (told(as_json)["divergences"], told(as_json)["not_replayable"])


def test_a_divergence_is_shown_with_both_decisions_and_what_the_conditions_read() -> None:
    """What a person needs to see why, in one screen; and 1 at the end."""
    result = run("--file", str(BAD / "another_transition.json"))

    assert 1 == result.exit_code
    lines = result.stdout.splitlines()
    assert lines[0].startswith("shipped  decision  decision 1 at AF_MESSAGES ")
    at = lines.index("    /payload/state")
    assert ['recorded       "ship"', 'decided again  "refused"'] == [line.strip() for line in lines[at + 1 : at + 3]]
    at = lines.index("    condition output.in_stock")
    assert "recorded       true, to ship  (output.in_stock = true)" == lines[at + 1].strip()
    assert "decided again  true, to refused  (output.in_stock = true)" == lines[at + 2].strip()
    assert "    recorded: run.advanced/1" in lines
    assert "    decided again: run.completed/1" in lines
    assert "replay    DIFFERS: 0 of 1 runs were decided again byte for byte" in lines


def test_a_divergence_is_told_in_json() -> None:
    """Index, decision, place, kind, both sides, differences and conditions."""
    result = run("--file", str(BAD / "another_transition.json"), "--json")

    assert 1 == result.exit_code
    [divergence] = told(result)["divergences"]
    assert ("shipped", 1, "decision") == tuple(divergence[name] for name in ("workflow", "index", "kind"))
    assert "ship" == divergence["recorded"]["payload"]["state"]
    assert "refused" == divergence["decided"]["payload"]["state"]
    assert {"path": "/payload/state", "recorded": "ship", "decided": "refused"} in divergence["differences"]
    assert {"output.in_stock": True} == divergence["conditions"][-1]["decided"]["values"]


def test_what_cannot_be_replayed_is_told_with_its_code() -> None:
    """And ends with 1: it is no match."""
    plain, as_json = (
        run("--file", str(BAD / "missing_input.json")),
        run("--file", str(BAD / "missing_input.json"), "--json"),
    )

    assert (1, 1) == (plain.exit_code, as_json.exit_code)
    assert "shipped  not replayable  input.missing:" in plain.stdout
    assert ["input.missing"] == [each["code"] for each in told(as_json)["not_replayable"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which runs?"),
        (["a", "--all"], "not both"),
        (["a", "--since", "2h"], "go with --all"),
        (["a", "--from-seq", "7"], "go with --all"),
        (["--file", "x", "--dump", "y"], "exclude each other"),
        (["--file", "no-such-file.json"], "No such file"),
        (["--all", "--since", "yesterday"], "since"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], words: str) -> None:
    """With 2, before anything is connected, and as JSON where that is asked for."""
    plain, as_json = run(*arguments), run(*arguments, "--json")

    assert (2, 2) == (plain.exit_code, as_json.exit_code), plain.output
    assert words in plain.stderr
    assert words in told(as_json)["error"]["message"]


def test_a_file_without_that_run_is_an_error() -> None:
    """Not found is 3."""
    assert 3 == run("other", "--file", str(GOOD / "retried.json")).exit_code


def test_without_a_mesh_nothing_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is 4, and says how to get one."""
    monkeypatch.setattr(session, "CONNECT_TIMEOUT", 0.2)
    result = run("--all", "--nats-url", "nats://127.0.0.1:9")

    assert 4 == result.exit_code
    assert "hint:" in result.stderr


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[tuple[Recorder, str]]:
    """A real server with a planner and agents, and its address."""
    async with recording(tmp_path / "nats") as found:
        yield found, found.url


@pytest.mark.slow
async def test_runs_on_a_real_server_are_replayed_recorded_and_bounded(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    """By name, all, by sequence; and a dump of them is replayed without the server, to the same figures."""
    found, url = recorder
    for name in ("shipped", "junk_and_other_goal", "approval_timed_out"):
        await found.play(name, STORIES[name])

    one = await shell("shipped", "--json", "--nats-url", url)
    every = await shell("--all", "--json", "--nats-url", url)
    bounded = await shell("--all", "--to-seq", "4", "--json", "--nats-url", url)
    assert (0, 0, 0) == (one.exit_code, every.exit_code, bounded.exit_code), every.output
    assert (1, 3) == (told(one)["replay"]["matched"], told(every)["replay"]["matched"])
    assert "messages" in every.stderr
    assert (1, 4) == (told(bounded)["replay"]["runs"], told(bounded)["replay"]["to_seq"])

    path = tmp_path / "dump.json"
    dumped = await shell("--all", "--dump", str(path), "--json", "--nats-url", url)
    assert 3 == told(dumped)["dump"]["runs"]
    from_file = await shell("--file", str(path), "--json")
    assert 0 == from_file.exit_code
    for figure in ("runs", "matched", "decisions", "commands"):
        assert told(every)["replay"][figure] == told(from_file)["replay"][figure]

    with pytest.raises(NotStored):
        await _no_run(found.mesh)
    missing = await shell("nope", "--json", "--nats-url", url)
    assert (3, "run.unknown") == (missing.exit_code, told(missing)["error"]["code"])


async def _no_run(mesh: JetStreamTransport) -> None:
    await replay_runs(mesh, runs=["nope"])
