"""The client on a real server: what the tests in memory show, where it could differ, and the server's absence."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentflow import RunTimeout, blocking, subjects
from agentflow.client import Client
from agentflow.definitions import find_definition, store_definition
from agentflow.envelope import MAX_INLINE_PAYLOAD, unseal
from agentflow.errors import Conflict, Unreachable
from agentflow.mesh.embedded import EmbeddedServer
from agentflow.testing import START
from agentflow_streams.provision import provision
from tests.support.fake_planner import STREAM, FakePlanner
from tests.support.waiting import eventually, stays


@dataclass(frozen=True, slots=True)
class Real:
    """A client, a planner that does what it is told, and their server."""

    server: EmbeddedServer
    client: Client
    planner: FakePlanner


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Real]:
    """All three, on a provisioned mesh; the planner has a connection of its own."""
    async with EmbeddedServer.running(tmp_path / "data") as server, Client.connect(server.url) as client:
        await provision(client.transport, capacity=1 / 16)
        async with Client.connect(server.url) as other:
            yield Real(server, client, FakePlanner(other.transport))


async def back(real: Real) -> None:
    """Start the server again, and wait until the planner has found it."""
    await real.server.restart()
    await eventually(lambda: real.planner.connected, "the planner's return")


async def test_a_run_from_submit_to_result(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end itself wakes the waiter, who would not look for a minute; every event is there, in order."""
    monkeypatch.setattr("agentflow.run.POLL_FIRST", 60.0)
    run = await real.client.submit("greet", {"name": "Ada"}, id="run-1")
    waiting = asyncio.create_task(run.result(timeout=20))
    await real.planner.accept("run-1")
    await real.planner.result("run-1", {"greeting": "Hello"})
    await stays(lambda: not waiting.done(), "waiting")
    await real.planner.complete("run-1", {"greeting": "Hello"})

    assert {"greeting": "Hello"} == await asyncio.wait_for(waiting, 20)
    assert ["goal.submitted/1", "goal.accepted/1", "step.completed/1", "run.completed/1"] == [
        event.schema async for event in run.events()
    ]
    assert "completed" == (await run.state()).status


async def test_submitting_is_idempotent_by_the_servers_own_check(real: Real) -> None:
    """Eight at once from two connections are one run; another goal is refused."""
    async with Client.connect(real.server.url) as other:
        runs = await asyncio.gather(
            *(client.submit("greet", {"a": 1}, id="run-1") for client in [real.client, other] * 4)
        )
        with pytest.raises(Conflict) as caught:
            await other.submit("greet", {"a": 2}, id="run-1")

    assert {"run-1"} == {run.id for run in runs}
    assert "run.id_taken" == caught.value.error_code
    stored = [m async for m in real.client.transport.read(STREAM, subjects.workflow_in("run-1"))]
    assert 1 == len(stored)


async def test_a_large_input_and_a_large_output_travel_by_claim_check(real: Real) -> None:
    """Through the server's object store."""
    large = "x" * (4 * MAX_INLINE_PAYLOAD)
    run = await real.client.submit("greet", {"text": large}, id="run-1")
    await real.planner.accept("run-1")
    await real.planner.complete("run-1", large)

    assert large == await run.result(timeout=20)
    first = await real.client.transport.first(STREAM, subjects.workflow_in("run-1"))
    assert first is not None
    assert len(first.body) < 2000


async def test_a_wait_outlives_a_crash_of_the_server(real: Real) -> None:
    """Killed and started again in the middle of a wait: the result arrives, and nothing acknowledged is lost."""
    run = await real.client.submit("greet", id="run-1")
    waiting = asyncio.create_task(run.result(timeout=60))
    await stays(lambda: not waiting.done(), "waiting")
    await real.server.kill()
    await stays(lambda: not waiting.done(), "waiting")
    await back(real)
    await real.planner.accept("run-1")
    await real.planner.complete("run-1", 42)
    assert 42 == await waiting


async def test_events_outlive_a_crash_of_the_server(real: Real) -> None:
    """None is lost and none comes twice."""
    run = await real.client.submit("greet", id="run-1")
    seen: list[str] = []

    async def follow() -> None:
        async for event in run.events():
            seen.append(event.schema)

    following = asyncio.create_task(follow())
    await real.planner.accept("run-1")
    await eventually(lambda: len(seen) == 2, "the first events")
    await real.server.kill()
    await back(real)
    await real.planner.complete("run-1")
    await asyncio.wait_for(following, 60)

    assert ["goal.submitted/1", "goal.accepted/1", "run.completed/1"] == seen


async def test_a_goal_submitted_while_the_server_is_away_is_stored_once_when_it_is_back(real: Real) -> None:
    """The publish is repeated until its outcome is known."""
    await real.server.kill()
    submitting = asyncio.create_task(real.client.submit("greet", id="run-1"))
    await stays(lambda: not submitting.done(), "submitting")
    await real.server.restart()
    await asyncio.wait_for(submitting, 60)

    stored = [m async for m in real.client.transport.read(STREAM, subjects.workflow_in("run-1"))]
    assert ["run-1"] == [unseal(message.body, message.subject).workflow_id for message in stored]


async def test_a_time_out_carries_the_state(real: Real) -> None:
    """And the run goes on."""
    run = await real.client.submit("greet", id="run-1")
    await real.planner.accept("run-1")

    with pytest.raises(RunTimeout, match="the agent 'greeter'"):
        await run.result(timeout=0.2)


async def test_a_plain_publisher_starts_the_same_run(real: Real) -> None:
    """What `nats req` sends is a goal like any other."""
    body = json.dumps({"goal": "greet", "input": {"a": 1}}).encode()
    await real.client.transport.request(subjects.workflow_in("run-1"), body)

    assert "run-1" == (await real.client.submit("greet", {"a": 1}, id="run-1")).id
    assert "plain" == (await anext(real.client.run("run-1").events())).schema


async def test_many_runs_at_once(real: Real) -> None:
    """Each gets its own result, from one client."""
    runs = [await real.client.submit("greet", {"number": n}, id=f"run-{n}") for n in range(40)]
    waiting = [asyncio.create_task(run.result(timeout=60)) for run in runs]
    for number in reversed(range(40)):
        await real.planner.complete(f"run-{number}", number)

    assert list(range(40)) == await asyncio.gather(*waiting)
    assert 40 == len(await real.client.runs(status="completed"))
    assert ["run-39", "run-38"] == [state.id for state in await real.client.runs(limit=2)]


async def test_a_definition_is_stored_and_found(real: Real) -> None:
    """As in memory."""
    for version in ("1.9.0", "1.10.0"):
        await store_definition(real.client.transport, version.encode(), "greet", version, "fsm", applied=START)

    assert b"1.10.0" == (await find_definition(real.client.transport, "greet")).source
    with pytest.raises(Conflict):
        await store_definition(real.client.transport, b"other", "greet", "1.9.0", "fsm", applied=START)


async def test_the_blocking_client_does_the_same(real: Real) -> None:
    """From a thread without a loop."""

    def work() -> object:
        with blocking.Client.connect(real.server.url) as client:
            client.submit("greet", id="run-1")
            asyncio.run_coroutine_threadsafe(real.planner.complete("run-1", 42), loop).result()
            return client.run("run-1").result(timeout=20)

    loop = asyncio.get_running_loop()
    assert 42 == await asyncio.to_thread(work)


async def test_without_a_server_connecting_ends_after_its_time(tmp_path: Path) -> None:
    """With the address in the error."""
    async with EmbeddedServer.running(tmp_path) as server:
        url = server.url

    async def connect() -> None:
        async with Client.connect(url, timeout=0.2):
            pytest.fail("connected")

    with pytest.raises(Unreachable, match=url):
        await connect()
