"""A run as its client sees it: result, events and state, on a mesh in memory with a planner that obeys the test."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentflow import RunCancelled, RunFailed, RunTimeout, subjects
from agentflow.chain import workflow_chain
from agentflow.client import Client
from agentflow.envelope import MAX_INLINE_PAYLOAD, claim_in
from agentflow.errors import EvidenceError, NotStored, Unreachable
from agentflow.mesh.memory import MemoryTransport
from agentflow.payloads import GoalSubmitted, RunCompleted
from agentflow.run import Run
from agentflow.runs import RunEvent, RunState
from agentflow.testing import envelope, memory_mesh
from tests.support.fake_planner import STREAM, FakePlanner, failure
from tests.support.waiting import eventually, stays


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A provisioned mesh in memory, on which time passes."""
    async with memory_mesh() as transport:
        yield transport


@pytest.fixture
def client(mesh: MemoryTransport) -> Client:
    """A client of it."""
    return Client(mesh)


@pytest.fixture
def planner(mesh: MemoryTransport) -> FakePlanner:
    """Its planner."""
    return FakePlanner(mesh)


async def collect(run: Run) -> list[RunEvent]:
    """Every event of a run that ends."""
    async with asyncio.timeout(5):
        return [event async for event in run.events()]


# --- results -------------------------------------------------------------------------------------------------------


async def test_the_result_is_the_output_of_a_completed_run(client: Client, planner: FakePlanner) -> None:
    """Also for a handle that was made after the run had ended."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.complete("run-1", {"greeting": "Hello"})

    assert {"greeting": "Hello"} == await run.result(timeout=5)
    assert {"greeting": "Hello"} == await client.run("run-1").result(timeout=5)


async def test_waiting_ends_as_soon_as_the_end_is_stored(
    client: Client, planner: FakePlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's hint wakes the waiter, who would not look for a minute."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 60.0)
    run = await client.submit("greet", id="run-1")
    waiting = asyncio.create_task(run.result())
    await planner.accept("run-1")
    await stays(lambda: not waiting.done(), "waiting")

    await planner.complete("run-1", 42)
    assert 42 == await asyncio.wait_for(waiting, 20)


async def test_a_lost_hint_delays_a_result_and_no_more(
    client: Client, planner: FakePlanner, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints are at most once: the stream is looked at from time to time."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 0.05)
    monkeypatch.setattr(mesh.broker.core, "emit", lambda *_: None)
    run = await client.submit("greet", id="run-1")
    waiting = asyncio.create_task(run.result(timeout=5))
    await planner.accept("run-1")
    await planner.complete("run-1", 42)

    assert 42 == await waiting


async def test_a_broker_that_is_away_is_waited_for(
    client: Client, planner: FakePlanner, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of the server in the middle of a wait is not the caller's concern, even at its beginning."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 0.02)
    run = await client.submit("greet", id="run-1")
    mesh.broker.stop()
    waiting = asyncio.create_task(run.result(timeout=5))
    await stays(lambda: not waiting.done(), "waiting")
    mesh.broker.start()
    await planner.complete("run-1", 42)

    assert 42 == await waiting


async def test_a_connection_that_closed_for_good_ends_the_wait(
    client: Client, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nobody left to wait for."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 0.02)
    run = await client.submit("greet", id="run-1")
    waiting = asyncio.create_task(run.result(timeout=5))
    await stays(lambda: not waiting.done(), "waiting", during=0.05)
    mesh.lose("thrown out")

    with pytest.raises(Unreachable):
        await waiting


async def test_a_failed_run_raises_with_the_facts_of_its_failure(client: Client, planner: FakePlanner) -> None:
    """Code, message and blame come from the failure that ended it."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.fail("run-1", failure("step.timeout", "too slow"))

    with pytest.raises(RunFailed, match="too slow") as caught:
        await run.result(timeout=5)
    assert "step.timeout" == caught.value.error_code
    assert ("run-1", "agent") == (caught.value.fields["run_id"], caught.value.fields["blame"])


async def test_a_rejected_goal_is_a_failed_run(client: Client, planner: FakePlanner) -> None:
    """With the code the planner gave."""
    run = await client.submit("greet", id="run-1")
    await planner.reject_goal("run-1")

    with pytest.raises(RunFailed, match="no such workflow") as caught:
        await run.result(timeout=5)
    assert "definition.unknown" == caught.value.error_code


async def test_a_cancelled_run_raises(client: Client, planner: FakePlanner) -> None:
    """And it is another error than a failure."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.cancel("run-1")

    with pytest.raises(RunCancelled):
        await run.result(timeout=5)


async def test_an_input_refused_after_the_end_does_not_hide_the_end(client: Client, planner: FakePlanner) -> None:
    """The last message of a run's `out` need not be the one that ended it."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.complete("run-1", 42)
    await planner.reject_input("run-1")

    assert 42 == await run.result(timeout=5)


async def test_an_input_refused_before_the_end_ends_nothing(client: Client, planner: FakePlanner) -> None:
    """Junk can never end a live run."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.reject_input("run-1")

    with pytest.raises(RunTimeout):
        await run.result(timeout=0.05)
    assert 1 == (await run.state()).rejected_inputs


async def test_a_time_out_carries_where_the_run_stands(client: Client, planner: FakePlanner) -> None:
    """State, status and what it waits for; the run itself goes on."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1", "hello")

    with pytest.raises(RunTimeout, match="the agent 'greeter'") as caught:
        await run.result(timeout=0.05)
    state = caught.value.fields["state"]
    assert isinstance(state, RunState)
    assert ("running", "hello", "the agent 'greeter'") == (state.status, state.state, state.waiting_for)
    assert 5 == caught.value.exit_code
    await planner.complete("run-1", 42)
    assert 42 == await run.result(timeout=5)


async def test_a_time_out_before_any_planner_answered_says_so(client: Client) -> None:
    """Nobody has to guess that no planner runs."""
    run = await client.submit("greet", id="run-1")

    with pytest.raises(RunTimeout, match="a planner") as caught:
        await run.result(timeout=0.05)
    state = caught.value.fields["state"]
    assert isinstance(state, RunState)
    assert "submitted" == state.status


async def test_a_time_out_while_the_broker_is_away_says_that(
    client: Client, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no state to carry then."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 0.01)
    run = await client.submit("greet", id="run-1")
    mesh.broker.stop()

    with pytest.raises(RunTimeout, match="broker is away") as caught:
        await run.result(timeout=0.05)
    assert caught.value.fields["state"] is None


async def test_a_run_that_does_not_exist_is_not_waited_for(client: Client) -> None:
    """A mistyped id is an answer at once."""
    run = client.run("nobody")

    for ask in (run.result(timeout=5), run.state(), run.signal("x"), run.cancel(), collect(run)):
        with pytest.raises(NotStored) as caught:
            await ask
        assert "run.unknown" == caught.value.error_code


async def test_a_large_output_is_fetched(client: Client, planner: FakePlanner) -> None:
    """A claim check is not what a caller asked for."""
    run = await client.submit("greet", id="run-1")
    sealed = await planner.complete("run-1", "x" * MAX_INLINE_PAYLOAD)

    assert claim_in(sealed.envelope.payload) is not None
    assert "x" * MAX_INLINE_PAYLOAD == await run.result(timeout=5)
    ended = (await collect(run))[-1].payload
    assert isinstance(ended, RunCompleted)
    assert "x" * MAX_INLINE_PAYLOAD == ended.output


# --- events and state ----------------------------------------------------------------------------------------------


async def test_events_come_in_order_with_the_end_last(client: Client, planner: FakePlanner) -> None:
    """Everything on the run's subjects, typed, from the goal to the end, and nothing behind it."""
    run = await client.submit("greet", {"name": "Ada"}, id="run-1")
    await planner.accept("run-1")
    await planner.result("run-1", {"greeting": "Hello"})
    await planner.complete("run-1", 42)
    await planner.reject_input("run-1")

    events = await collect(run)
    assert ["goal.submitted/1", "goal.accepted/1", "step.completed/1", "run.completed/1"] == [e.schema for e in events]
    assert sorted(event.seq for event in events) == [event.seq for event in events]
    assert GoalSubmitted("greet", {"name": "Ada"}) == events[0].payload
    assert [False, False, False, True] == [event.terminal for event in events]


async def test_events_of_a_live_run_arrive_as_they_are_stored(client: Client, planner: FakePlanner) -> None:
    """The reader sees each before the next exists."""
    run = await client.submit("greet", id="run-1")
    events = run.events()

    assert "goal.submitted/1" == (await anext(events)).schema
    await planner.accept("run-1")
    assert "goal.accepted/1" == (await anext(events)).schema
    await planner.complete("run-1")
    assert "run.completed/1" == (await anext(events)).schema
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_events_survive_an_absence_of_the_broker(
    client: Client, planner: FakePlanner, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost and none comes twice."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 0.02)
    run = await client.submit("greet", id="run-1")
    seen: list[str] = []

    async def follow() -> None:
        async for event in run.events():
            seen.append(event.schema)

    following = asyncio.create_task(follow())
    await eventually(lambda: len(seen) == 1, "the goal")
    mesh.broker.stop()
    await stays(lambda: not following.done(), "following", during=0.1)
    mesh.broker.start()
    await planner.accept("run-1")
    await planner.complete("run-1")
    await asyncio.wait_for(following, 5)

    assert ["goal.submitted/1", "goal.accepted/1", "run.completed/1"] == seen


async def test_what_a_plain_publisher_sent_is_shown_as_it_is(
    client: Client, planner: FakePlanner, mesh: MemoryTransport
) -> None:
    """A body that is no envelope is still an event; one that only looks like an envelope too."""
    bodies = [b'{"goal":"greet","input":{}}', b"hello \xff", b"[1]", b'{"envelope_hash":"' + b"0" * 64 + b'",}']
    for body in bodies:
        await mesh.publish(subjects.workflow_in("run-1"), body, stream=STREAM)
    await planner.reject_goal("run-1")

    events = await collect(client.run("run-1"))
    assert ["plain"] * 4 == [event.schema for event in events[:4]]
    assert {"goal": "greet", "input": {}} == events[0].payload
    assert {"text": "hello \ufffd"} == events[1].payload
    assert {"value": [1]} == events[2].payload
    assert events[0].envelope is None


async def test_a_decision_that_does_not_verify_is_damage(client: Client, mesh: MemoryTransport) -> None:
    """Nothing is guessed from altered bytes; what never was a decision is passed over."""
    run = await client.submit("greet", id="run-1")
    await mesh.publish(subjects.workflow_out("run-1"), b'{"status":"completed"}', stream=STREAM)
    assert "submitted" == (await run.state()).status
    decision = envelope(RunCompleted(consumed=()), subjects.workflow_out("run-1"), place=workflow_chain("run-1", "G"))
    altered = decision.body.replace(b'"reason":""', b'"reason":"x"')
    await mesh.publish(subjects.workflow_out("run-1"), altered, stream=STREAM)

    for ask in (run.result(timeout=5), run.state(), collect(run)):
        with pytest.raises(EvidenceError, match=r"workflows\.run-1\.out"):
            await ask


async def test_the_state_of_a_run_is_folded_from_its_history(client: Client, planner: FakePlanner) -> None:
    """It moves with every decision."""
    run = await client.submit("greet", id="run-1")
    assert ("submitted", "greet") == ((await run.state()).status, (await run.state()).workflow)

    await planner.accept("run-1", "hello")
    state = await run.state()
    assert ("running", "greet@1.0.0", "hello", 1) == (state.status, state.workflow, state.state, state.steps)

    await planner.advance("run-1", "approval", waits_for="approved")
    state = await run.state()
    assert ("approval", "the signal 'approved'") == (state.state, state.waiting_for)

    await planner.complete("run-1", 42)
    state = await run.state()
    assert ("completed", 42, "") == (state.status, state.output, state.waiting_for)
    assert state.ended
