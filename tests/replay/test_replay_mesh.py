"""Replay of what a mesh has: read only, in one pass, whatever is missing by now. On the memory mesh, with real planners."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from agentflow.artifacts import check_in
from agentflow.errors import ConfigError, Denied, InputError, NotStored
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Message, StreamInfo
from agentflow.payloads import StepCompleted
from agentflow_streams import installed, replay
from agentflow_streams.fidelity import ReplayReport
from agentflow_streams.installed import installed_deciders
from agentflow_streams.readonly import ReadOnly
from agentflow_streams.recorder import record_runs
from agentflow_streams.replay import replay_histories, replay_runs
from tests.services.planner.meshes import Delivered, PlannerMesh, planner_mesh


@pytest.fixture
async def mesh() -> AsyncIterator[PlannerMesh]:
    """A provisioned memory mesh with the sample definition."""
    async with planner_mesh() as found:
        yield found


async def begin(mesh: PlannerMesh, run: str) -> None:
    """A run that waits for its first step."""
    await mesh.planner().handle(Delivered(await mesh.submit(run, n=1)))


async def answer(mesh: PlannerMesh, run: str, output: Any = None) -> None:
    """The run's last command is answered."""
    own = [command for command in await mesh.commands() if command.workflow_id == run]
    message = await mesh.answer(own[-1], StepCompleted(output={"n": 1, **(output or {})}), run)
    await mesh.planner().handle(Delivered(message))


async def finish(mesh: PlannerMesh, *runs: str) -> None:
    """Runs from their goals to their ends, interleaved: three decisions and two commands each."""
    for run in runs:
        await begin(mesh, run)
    for _ in range(2):
        for run in runs:
            await answer(mesh, run)


class Counting(MemoryTransport):
    """A connection that counts what is asked of it."""

    def __init__(self, mesh: PlannerMesh) -> None:
        super().__init__(mesh.transport.broker)
        self.reads: list[tuple[str, str]] = []

    def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History, and a note of who asks for it."""
        self.reads.append((stream, subject))
        return super().read(stream, subject, start=start, end=end)


def totals(report: ReplayReport) -> tuple[int, int, int, int]:
    """Runs, those that matched, decisions, commands."""
    return report.replay.runs, report.replay.matched, report.replay.decisions, report.replay.commands


async def test_all_runs_are_replayed_in_one_pass(mesh: PlannerMesh) -> None:
    """Their stream is read once however many there are, and so is every stream of commands."""
    await finish(mesh, "a", "b", "c")
    counting = Counting(mesh)

    report = await replay_runs(counting)

    assert (3, 3, 9, 6) == totals(report)
    assert 1.0 == report.replay.fidelity
    assert [("AF_AGENTS", "agents.*.in.*"), ("AF_AUDIT", "tools.calls.*"), ("AF_MESSAGES", ">")] == counting.reads


async def test_named_runs_are_read_by_themselves(mesh: PlannerMesh) -> None:
    """Only what is stored under their subjects, and each once."""
    await finish(mesh, "a", "b")
    counting = Counting(mesh)

    assert (1, 1, 3, 2) == totals(await replay_runs(counting, runs=["b", "b"]))
    assert [("AF_MESSAGES", "workflows.b.>")] == counting.reads


async def test_a_run_that_is_not_there_is_an_error(mesh: PlannerMesh) -> None:
    """Nothing stored is not the same as nothing wrong; an id that could be a pattern is refused."""
    with pytest.raises(NotStored) as refused:
        await replay_runs(mesh.transport, runs=["nope"])
    assert "run.unknown" == refused.value.error_code
    with pytest.raises(InputError):
        await replay_runs(mesh.transport, runs=["*"])


async def test_an_empty_mesh_has_nothing_to_replay(mesh: PlannerMesh) -> None:
    """No run, no decision, and no share of them."""
    report = await replay_runs(mesh.transport)

    assert (0, 0, 0, 0) == totals(report)
    assert report.replay.fidelity is None
    assert report.ok


async def test_a_run_under_way_matches_as_far_as_it_has_come(mesh: PlannerMesh) -> None:
    """It is told as open; what waits for a decision is counted and is no divergence."""
    await begin(mesh, "a")
    await mesh.cancel("a")

    report = await replay_runs(mesh.transport)
    assert (1, 1, 1, 1) == totals(report)
    assert (1, 1) == (report.replay.open, report.replay.pending)


async def test_timers_retries_and_junk_match(mesh: PlannerMesh) -> None:
    """Two time-outs and a refusal; fired timers are found by their sequence, or made again where they are gone."""
    await begin(mesh, "a")
    await mesh.planner().handle(Delivered(await mesh.plain(b"{", "a")))
    for _ in range(4):
        mesh.clock.advance(11)
        for message in await mesh.due():
            await mesh.planner().handle(Delivered(message))
    assert (await mesh.state("a")).ended

    report = await replay_runs(mesh.transport)
    assert report.ok, report
    assert report.replay.decisions >= 4
    kept = await record_runs(ReadOnly(mesh.transport), ["a"])
    assert "AF_TIMERS" in {each.stream for each in kept.messages}
    assert (await replay_histories(kept)).ok


async def test_a_large_payload_is_fetched_and_one_that_is_gone_is_told(mesh: PlannerMesh) -> None:
    """What an input refers to is part of it."""
    await begin(mesh, "a")
    [command] = await mesh.commands()
    payload = StepCompleted(output={"n": 1, "text": "x" * 200_000})
    await check_in(mesh.objects, payload)
    await mesh.planner().handle(Delivered(await mesh.answer(command, payload, "a")))
    assert (await replay_runs(mesh.transport)).ok

    kept = await record_runs(ReadOnly(mesh.transport), ["a"])
    assert 2 == len(kept.artifacts)
    assert (await replay_histories(kept)).ok
    small = {name: blob for name, blob in kept.artifacts.items() if len(blob.data) < 10_000}
    report = await replay_histories(msgspec.structs.replace(kept, artifacts=small))
    assert ["input.payload_missing"] == [each.code for each in report.not_replayable]


async def test_a_run_that_goes_on_after_it_was_put_away_is_read_again(
    mesh: PlannerMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for no ended run, a late input makes the run be read by itself; it is counted once."""
    monkeypatch.setattr(replay, "MAX_ENDED", 0)
    await finish(mesh, "a", "b")
    await mesh.planner().handle(Delivered(await mesh.signal("go", "a")))
    counting = Counting(mesh)

    assert (2, 2, 7, 4) == totals(await replay_runs(counting))
    assert ("AF_MESSAGES", "workflows.a.>") == counting.reads[-1]


async def test_a_run_that_was_pushed_out_is_read_again(mesh: PlannerMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one run, three that are interleaved are counted once each, and match."""
    monkeypatch.setattr(replay, "MAX_OPEN", 1)
    await finish(mesh, "a", "b", "c")

    assert (3, 3, 9, 6) == totals(await replay_runs(mesh.transport))


async def test_a_window_begins_in_the_middle_of_runs(mesh: PlannerMesh) -> None:
    """Runs with decisions in it are folded from their beginning; those that ended before are left out."""
    await finish(mesh, "old")
    await begin(mesh, "half")
    info = await mesh.transport.stream_info("AF_MESSAGES")
    assert info is not None
    mesh.clock.advance(5)
    await answer(mesh, "half")
    await finish(mesh, "new")

    later = await replay_runs(mesh.transport, from_seq=info.last_seq + 1)
    earlier = await replay_runs(mesh.transport, to_seq=info.last_seq)
    assert (2, 2, 5, 4) == totals(later)
    assert (2, 2, 4, 3) == totals(earlier)
    assert (info.last_seq + 1, info.last_seq) == (later.replay.from_seq, earlier.replay.to_seq)
    moment = mesh.clock.now()
    assert (2, 2, 5, 4) == totals(await replay_runs(mesh.transport, since=moment))
    assert (2, 2, 4, 3) == totals(await replay_runs(mesh.transport, until=moment))
    assert (0, 0, 0, 0) == totals(await replay_runs(mesh.transport, since=moment + timedelta(hours=1)))


async def test_an_empty_window_is_refused(mesh: PlannerMesh) -> None:
    """From behind to before is a mistake, not an empty result."""
    with pytest.raises(InputError) as refused:
        await replay_runs(mesh.transport, from_seq=9, to_seq=3)
    assert "replay.window" == refused.value.error_code


class Forgetful(MemoryTransport):
    """A connection to a mesh whose commands are gone: expired, or just not there."""

    def __init__(self, mesh: PlannerMesh, *, expired: bool) -> None:
        super().__init__(mesh.transport.broker)
        self.expired = expired

    async def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History, without commands."""
        async for message in super().read(stream, subject, start=start, end=end):
            if stream != "AF_AGENTS":
                yield message

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message, unless it is a command."""
        return None if stream == "AF_AGENTS" else await super().last(stream, subject)

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message, unless it is a command."""
        return None if stream == "AF_AGENTS" else await super().first(stream, subject)

    async def get(self, stream: str, seq: int) -> Message | None:
        """A message, unless it is a command."""
        return None if stream == "AF_AGENTS" else await super().get(stream, seq)

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream; that of commands has let go of all there was, if they expired."""
        info = await super().stream_info(name)
        if info is None or name != "AF_AGENTS" or not self.expired:
            return info
        return dataclasses.replace(info, messages=0, first_seq=info.last_seq + 1)


@pytest.mark.parametrize("runs", [[], ["a"]], ids=["all", "named"])
async def test_commands_that_have_expired_are_told_apart_from_missing_ones(mesh: PlannerMesh, runs: list[str]) -> None:
    """A stream that has let go of its front cannot have them any more; one that has not must have them."""
    await finish(mesh, "a")
    expired = await replay_runs(Forgetful(mesh, expired=True), runs=runs)
    missing = await replay_runs(Forgetful(mesh, expired=False), runs=runs)

    assert expired.ok
    assert (2, 0) == (expired.replay.expired_commands, expired.replay.commands)
    assert not missing.ok
    assert ["command_missing"] == [each.kind for each in missing.divergences]
    assert 1 == missing.replay.matched_decisions


async def test_only_reading_is_left_of_a_transport(mesh: PlannerMesh) -> None:
    """Publishing, consuming, requests and buckets are refused by name, before anything is sent."""
    reading: Any = ReadOnly(mesh.transport)

    for name in ("publish", "consume", "request", "bucket", "objects", "create_stream", "update_stream", "serve"):
        with pytest.raises(Denied) as refused:
            getattr(reading, name)
        assert "replay.read_only" == refused.value.error_code


async def test_a_replay_leaves_the_mesh_as_it_was(mesh: PlannerMesh) -> None:
    """Not a message, not a consumer, not an object more than before."""
    await finish(mesh, "a", "b")

    async def seen() -> list[Any]:
        names = await mesh.transport.stream_names()
        return [await mesh.transport.stream_info(name) for name in names]

    before = await seen()
    await replay_runs(mesh.transport)
    await record_runs(ReadOnly(mesh.transport))
    assert before == await seen()


async def test_a_mesh_without_streams_is_an_error() -> None:
    """And it says what to do."""
    with pytest.raises(NotStored) as refused:
        await replay_runs(MemoryTransport())
    assert "stream.unknown" == refused.value.error_code
    assert "apply" in str(refused.value.fields["hint"])


async def test_a_run_of_a_planner_that_is_not_here_is_no_match(mesh: PlannerMesh) -> None:
    """What cannot be judged is told with a code."""
    await finish(mesh, "a")
    report = await replay_runs(mesh.transport, deciders={"tree": installed_deciders()["fsm"]})

    assert ["decider.missing"] == [each.code for each in report.not_replayable]
    assert 0.0 == report.replay.fidelity


def test_the_planner_is_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state machine's decider is installed; where no planner is, that is said."""
    assert "fsm" in installed_deciders()
    monkeypatch.setattr(installed, "DECIDERS", "agentflow.no_such_group")
    installed_deciders.cache_clear()
    with pytest.raises(ConfigError) as refused:
        installed_deciders()
    assert "decider.not_installed" == refused.value.error_code
    installed_deciders.cache_clear()


async def test_progress_is_told(mesh: PlannerMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far the pass is, and that it is done."""
    monkeypatch.setattr(replay, "_EVERY", 2)
    await finish(mesh, "a")
    told: list[tuple[int, int]] = []
    await replay_runs(mesh.transport, progress=lambda done, total: told.append((done, total)))

    assert (6, 6) == told[-1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) == 4
