"""The client against a mesh in memory, with a planner that does what the test tells it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from agentflow import subjects
from agentflow.chain import examine, link_of
from agentflow.client import Client, url_from
from agentflow.envelope import MAX_INLINE_PAYLOAD, Sealed, claim_in, unseal
from agentflow.errors import Conflict, OutcomeUnknown, SchemaError, SubjectError, Unreachable
from agentflow.ids import is_ulid
from agentflow.mesh.memory import MemoryTransport
from agentflow.payloads import CancelRequested, GoalSubmitted, RunSignalled
from agentflow.schemas import payload_as
from agentflow.testing import FixedClock, memory_mesh
from tests.support.fake_planner import STREAM, FakePlanner


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


async def inbox(mesh: MemoryTransport, run_id: str) -> list[Sealed]:
    """What is stored on a run's `in`."""
    return [unseal(m.body, m.subject) async for m in mesh.read(STREAM, subjects.workflow_in(run_id))]


# --- submitting ----------------------------------------------------------------------------------------------------


async def test_a_goal_is_stored_sealed_before_submit_returns(client: Client, mesh: MemoryTransport) -> None:
    """The message on `in` is a valid envelope that says who asks for what, on a chain of this client."""
    run = await client.submit("greet", {"name": "Ada"}, id="run-1", metadata={"region": "eu"})

    [sealed] = await inbox(mesh, "run-1")
    assert GoalSubmitted("greet", {"name": "Ada"}) == payload_as(sealed, GoalSubmitted)
    assert {"tenant": "default", "region": "eu", "workflow_id": "run-1"} == sealed.envelope.metadata
    assert ("client", 0) == (sealed.envelope.sender, sealed.envelope.chain_seq)
    assert sealed.envelope.chain.startswith("input:")
    assert sealed.envelope.chain.endswith(":run-1")
    assert "run-1" == run.id


async def test_metadata_cannot_move_a_goal_to_another_run(client: Client, mesh: MemoryTransport) -> None:
    """The run's id in the envelope is the one of its subject, whatever the caller's metadata says."""
    await client.submit("greet", id="run-1", metadata={"workflow_id": "run-2"})

    assert "run-1" == (await inbox(mesh, "run-1"))[0].workflow_id


async def test_a_run_without_an_id_gets_a_ulid(client: Client) -> None:
    """And each its own."""
    first, second = await client.submit("greet"), await client.submit("greet")

    assert is_ulid(first.id)
    assert is_ulid(second.id)
    assert first.id != second.id


async def test_the_same_goal_again_is_the_same_run(client: Client, mesh: MemoryTransport) -> None:
    """Submitting is idempotent by id, also from another client, and whatever the order of the input's keys."""
    await client.submit("greet", {"a": 1, "b": [True]}, id="run-1")
    again = await Client(mesh).submit("greet", {"b": [True], "a": 1}, id="run-1")

    assert "run-1" == again.id
    assert 1 == len(await inbox(mesh, "run-1"))


@pytest.mark.parametrize(
    ("goal", "input"), [("other", {"a": 1}), ("greet", {"a": 2}), ("greet", {"a": 1.0}), ("greet", {"a": True})]
)
async def test_another_goal_under_an_id_is_refused(client: Client, goal: str, input: dict[str, object]) -> None:
    """Goal and input have to be the same; numbers of another kind are another input."""
    await client.submit("greet", {"a": 1}, id="run-1")

    with pytest.raises(Conflict, match="run-1") as caught:
        await client.submit(goal, input, id="run-1")
    assert "run.id_taken" == caught.value.error_code


async def test_a_goal_from_a_plain_publisher_counts_too(client: Client, mesh: MemoryTransport) -> None:
    """`nats pub` and the client agree on what the same goal is; junk under an id takes the id."""
    await mesh.publish(subjects.workflow_in("run-1"), b'{"input":{"a":1},"goal":"greet"}', stream=STREAM)
    await mesh.publish(subjects.workflow_in("run-2"), b"hello", stream=STREAM)

    assert "run-1" == (await client.submit("greet", {"a": 1}, id="run-1")).id
    with pytest.raises(Conflict):
        await client.submit("greet", {"a": 1}, id="run-2")


async def test_a_signal_does_not_hide_the_goal_it_followed(client: Client) -> None:
    """The first message of a run decides what it is, not the last."""
    run = await client.submit("greet", {"a": 1}, id="run-1")
    await run.signal("hurry")

    assert "run-1" == (await client.submit("greet", {"a": 1}, id="run-1")).id


async def test_two_clients_that_submit_the_same_goal_at_once_start_one_run(mesh: MemoryTransport) -> None:
    """First writer wins by the server's own check; the others adopt."""
    runs = await asyncio.gather(*(Client(mesh).submit("greet", {"a": 1}, id="run-1") for _ in range(8)))

    assert {"run-1"} == {run.id for run in runs}
    assert 1 == len(await inbox(mesh, "run-1"))


async def test_a_lost_acknowledgement_does_not_start_a_run_twice(client: Client, mesh: MemoryTransport) -> None:
    """The goal landed and nobody said so: it is read back and found."""
    mesh.broker.faults.lose_ack(subjects.workflow_in("run-1"))

    await client.submit("greet", id="run-1")

    assert 1 == len(await inbox(mesh, "run-1"))


async def test_a_goal_whose_fate_is_unknown_names_its_id(
    client: Client, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id the caller can submit again and still have one run, even if it was chosen for them."""
    monkeypatch.setattr("agentflow.inputs.PATIENCE", 0.05)
    mesh.broker.stop()

    with pytest.raises(Unreachable) as caught:
        await client.submit("greet")
    assert is_ulid(str(caught.value.fields["run_id"]))
    mesh.broker.start()
    await client.submit("greet", id=str(caught.value.fields["run_id"]))


@pytest.mark.parametrize("id", ["", "a.b", "*", ">", "x" * 65, "ä"])
async def test_an_id_that_could_not_stand_in_a_subject_is_refused(client: Client, id: str) -> None:
    """Before anything is published."""
    with pytest.raises(SubjectError):
        await client.submit("greet", id=id)
    with pytest.raises(SubjectError):
        client.run(id)


@pytest.mark.parametrize("bad", [float("nan"), 2**70, {1: "x"}, object()])
async def test_an_input_that_json_would_change_is_refused(client: Client, bad: object) -> None:
    """What the agent gets is what was given, or nothing is sent."""
    with pytest.raises(SchemaError):
        await client.submit("greet", {"value": bad})


async def test_a_large_input_travels_by_claim_check(client: Client, mesh: MemoryTransport) -> None:
    """Above 128 KiB it is an artifact; the same goal is still the same goal."""
    large = {"text": "x" * MAX_INLINE_PAYLOAD}
    await client.submit("greet", large, id="run-1")
    await client.submit("greet", large, id="run-1")

    [sealed] = await inbox(mesh, "run-1")
    assert claim_in(sealed.envelope.payload) is not None
    with pytest.raises(Conflict):
        await client.submit("greet", {"text": "y" * MAX_INLINE_PAYLOAD}, id="run-1")


# --- steering ------------------------------------------------------------------------------------------------------


async def test_signals_and_cancels_follow_the_goal_on_one_chain(client: Client, mesh: MemoryTransport) -> None:
    """No gap, no branch, one trace, however many are sent at once."""
    run = await client.submit("greet", id="run-1")
    await asyncio.gather(*(run.signal("tick", {"number": number}) for number in range(10)))
    await client.run("run-1").cancel("enough")

    sent = await inbox(mesh, "run-1")
    assert list(range(12)) == [sealed.envelope.chain_seq for sealed in sent]
    assert 1 == len({sealed.envelope.trace_id for sealed in sent})
    assert [] == examine(link_of(sealed, STREAM, seq) for seq, sealed in enumerate(sent, 1))
    assert CancelRequested("enough") == payload_as(sent[-1], CancelRequested)


async def test_another_client_signals_on_a_chain_of_its_own_in_the_same_trace(
    client: Client, mesh: MemoryTransport
) -> None:
    """Chains have one writer; the trace is the run's."""
    await client.submit("greet", id="run-1")
    await Client(mesh).run("run-1").signal("approved", {"by": "ann"})

    goal, signal = await inbox(mesh, "run-1")
    assert RunSignalled("approved", {"by": "ann"}) == payload_as(signal, RunSignalled)
    assert goal.envelope.chain != signal.envelope.chain
    assert goal.envelope.trace_id == signal.envelope.trace_id


async def test_a_publish_whose_fate_is_unknown_leaves_no_gap(
    client: Client, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chain is given up and another begun, so that neither has a hole, whether it landed or not."""
    monkeypatch.setattr("agentflow.inputs.PATIENCE", 0.0)
    run = await client.submit("greet", id="run-1")
    faults = mesh.broker.faults
    for fault in (faults.drop, faults.lose_ack):
        fault(subjects.workflow_in("run-1"))
        with pytest.raises(OutcomeUnknown):
            await run.signal("tick")
        await run.signal("tock")

    sent = await inbox(mesh, "run-1")
    chains: dict[str, list[Sealed]] = {}
    for sealed in sent:
        chains.setdefault(sealed.envelope.chain, []).append(sealed)
    assert 4 == len(sent)  # goal, tock, the tick whose acknowledgement was lost, tock
    assert 3 == len(chains)
    assert [] == [b for chain in chains.values() for b in examine(link_of(s, STREAM, i) for i, s in enumerate(chain))]


async def test_a_client_may_serve_more_runs_than_it_remembers(
    client: Client, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run it forgot goes on on another chain, in the same trace: no place is held twice."""
    monkeypatch.setattr("agentflow.inputs.MAX_CHAINS", 3)
    ids = [f"run-{number}" for number in range(5)]
    for id in ids:
        await client.submit("greet", id=id)
    for _ in range(2):
        await asyncio.gather(*(client.run(id).signal("tick") for id in ids))

    chains: dict[str, list[Sealed]] = {}
    for id in ids:
        sent = await inbox(mesh, id)
        assert (3, 1) == (len(sent), len({sealed.envelope.trace_id for sealed in sent}))
        for sealed in sent:
            chains.setdefault(sealed.envelope.chain, []).append(sealed)
    assert [] == [b for chain in chains.values() for b in examine(link_of(s, STREAM, i) for i, s in enumerate(chain))]


async def test_a_run_that_has_ended_takes_nothing(client: Client, planner: FakePlanner) -> None:
    """Signals and cancels are refused before they are sent."""
    run = await client.submit("greet", id="run-1")
    await planner.accept("run-1")
    await planner.complete("run-1")

    for ask in (run.signal("late"), run.cancel()):
        with pytest.raises(Conflict) as caught:
            await ask
        assert "run.ended" == caught.value.error_code


# --- listing and connecting ----------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_and_filtered(mesh: MemoryTransport, planner: FakePlanner) -> None:
    """By status, by workflow with and without its version, and up to a limit; a goal nobody answered is listed too."""
    clock = FixedClock()
    client = Client(mesh, clock=clock)
    for number in range(4):
        await client.submit("greet", id=f"run-{number}")
        clock.advance(timedelta(minutes=1).total_seconds())
    await planner.accept("run-1")
    await planner.complete("run-1", 1)
    await planner.accept("run-2")
    await planner.reject_goal("run-3")

    assert ["run-3", "run-2", "run-1", "run-0"] == [state.id for state in await client.runs()]
    assert ["rejected", "running", "completed", "submitted"] == [state.status for state in await client.runs()]
    assert ["run-3", "run-2"] == [state.id for state in await client.runs(limit=2)]
    assert ["run-2"] == [state.id for state in await client.runs(status="running")]
    assert ["run-2", "run-1"] == [state.id for state in await client.runs(workflow="greet@1.0.0")]
    assert 4 == len(await client.runs(workflow="greet"))
    assert [] == await client.runs(workflow="other")


async def test_a_client_connects_by_url_for_the_time_of_a_block() -> None:
    """And is closed behind it, also when the block fails."""
    seen: list[Client] = []

    async def fail() -> None:
        async with Client.connect("memory://test-client") as client:
            seen.append(client)
            assert client.transport.connected
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not seen[0].transport.connected
    MemoryTransport.forget("test-client")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "nats://127.0.0.1:4222"),
        ({"NATS_URL": "nats://b:1"}, "nats://b:1"),
        ({"NATS_URL": "nats://b:1", "AF_NATS_URL": "nats://a:1"}, "nats://a:1"),
        ({"NATS_URL": "", "AF_NATS_URL": ""}, "nats://127.0.0.1:4222"),
    ],
)
def test_the_broker_is_the_one_the_environment_names(environment: dict[str, str], expected: str) -> None:
    """Ours before everybody's, then the usual port."""
    assert expected == url_from(environment)


async def test_what_is_stored_is_readable_json(client: Client, mesh: MemoryTransport) -> None:
    """`nats sub 'workflows.>'` shows something a person can read."""
    await client.submit("greet", {"name": "Ada"}, id="run-1")

    first = await mesh.first(STREAM, subjects.workflow_in("run-1"))
    assert first is not None
    assert {"goal": "greet", "input": {"name": "Ada"}} == json.loads(first.body)["payload"]
    assert {"goal": "greet", "input": {"name": "Ada"}} == msgspec.json.decode(unseal(first.body).envelope.payload)
