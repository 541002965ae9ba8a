"""Verification of what a broker has: what is read, what is left out, and what is refused; in memory and for real."""

import asyncio
from datetime import datetime, timedelta

import msgspec
import pytest

from agentflow.artifacts import check_in
from agentflow.clock import SystemClock
from agentflow.envelope import ChainPlace, Sealed, unseal
from agentflow.errors import InputError, NotStored, SubjectError
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.mesh.transport import Transport
from agentflow.payloads import Consumed, GoalRejected, GoalSubmitted
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose
from agentflow.testing import START, FixedClock
from agentflow_streams.definitions import definition_of
from agentflow_streams.history import read_stream, read_workflow
from agentflow_streams.provision import provision
from agentflow_streams.verification import DEFAULT_STREAMS, verify
from tests.streams.checking import at
from tests.streams.histories import Mesh, Recording, Story, record, without
from tests.streams.pouring import pour

STORIES = [Story("a", ("agent_with_tools", "tool")), Story("ab", ("agent",), plain=True, junk=True)]
DAY = 86_400


def now() -> datetime:
    """The machine's time."""
    return SystemClock().now()


async def test_a_mesh_verifies(mesh: Transport) -> None:
    """Everything that was recorded is read, counted and sound."""
    recording = record(STORIES, [0, 1] * 10)
    await pour(mesh, recording)
    result = await verify(mesh, now=now())

    assert () == result.damages
    assert len(recording.messages) == sum(stream.messages for stream in result.streams)
    assert (2, 2) == (result.runs, result.adopted)


async def test_an_empty_mesh_verifies(mesh: Transport) -> None:
    """Nothing is sound, and nothing is vouched for."""
    await provision(mesh)
    result = await verify(mesh, now=now())

    assert (True, 0, 0) == (result.ok, result.envelopes, result.runs)
    assert result.not_vouched


async def test_a_run_is_verified_by_itself(mesh: Transport) -> None:
    """Only what names the run is read, also where another run's name begins like it."""
    await pour(mesh, record(STORIES, [0, 1] * 10))
    result = await verify(mesh, now=now(), workflow="a")

    assert result.ok
    assert 1 == result.runs
    assert 18 == result.envelopes
    assert any("Only what names run a was read" in sentence for sentence in result.not_vouched)


async def test_damage_to_another_run_is_not_this_runs(mesh: Transport) -> None:
    """And damage to this one is."""
    recording = record(STORIES, [0, 1] * 10)
    index = next(i for i, each in enumerate(recording.messages) if each.stream == "AF_AUDIT")
    await pour(mesh, without(recording, index))

    assert (await verify(mesh, now=now(), workflow="ab")).ok
    assert not (await verify(mesh, now=now(), workflow="a")).ok


async def test_an_edited_message_of_a_run_is_found_by_its_name(mesh: Transport) -> None:
    """Its metadata still says which run it belongs to."""
    recording = record(STORIES)
    index = next(i for i, each in enumerate(recording.messages) if b"tool.outcome" in each.body)
    before = recording.messages[index]
    edited = Recording(list(recording.messages))
    edited.messages[index] = msgspec.convert(before, type(before), from_attributes=True)
    object.__setattr__(edited.messages[index], "body", before.body.replace(b'"hits":3', b'"hits":4'))
    await pour(mesh, edited)
    result = await verify(mesh, now=now(), workflow="a")

    assert ["edited"] == [damage.kind for damage in at(result, before.stream, before.seq)]


async def test_an_unknown_run_is_not_found(mesh: Transport) -> None:
    """A typo must not read as "ok"."""
    await pour(mesh, record(STORIES))
    with pytest.raises(NotStored, match="'c'") as caught:
        await verify(mesh, now=now(), workflow="c")
    assert "run.unknown" == caught.value.error_code


async def test_a_run_id_is_checked(mesh: Transport) -> None:
    """It becomes part of a subject."""
    with pytest.raises(SubjectError):
        await verify(mesh, now=now(), workflow="a.>")


@pytest.mark.parametrize("names", [("AF_MESSAGES",), ("AF_AUDIT", "AF_AGENTS")])
async def test_some_streams_are_verified_by_themselves(mesh: Transport, names: tuple[str, ...]) -> None:
    """What rests on others is told as not checked."""
    await pour(mesh, record(STORIES, [0, 1] * 10))
    result = await verify(mesh, now=now(), streams=names)

    assert result.ok
    assert list(names) == [stream.name for stream in result.streams]
    assert any("other stream" in sentence for sentence in result.not_vouched)


async def test_an_unknown_stream_is_refused(mesh: Transport) -> None:
    """With its name."""
    await provision(mesh)
    with pytest.raises(NotStored, match="AF_MESSAGE") as caught:
        await verify(mesh, now=now(), streams=["AF_MESSAGE"])
    assert "stream.unknown" == caught.value.error_code


async def test_a_broker_without_a_mesh_is_refused(mesh: Transport) -> None:
    """Nothing to verify is not "ok"."""
    with pytest.raises(NotStored, match="no streams of a mesh"):
        await verify(mesh, now=now())


@pytest.mark.parametrize("name", ["AF_TIMERS", "KV_AF_STATE"])
async def test_a_stream_without_evidence_is_refused(mesh: Transport, name: str) -> None:
    """Timers and buckets may forget; nothing can be concluded from them."""
    await provision(mesh)
    with pytest.raises(InputError, match="holds no evidence") as caught:
        await verify(mesh, now=now(), streams=[name])
    assert "stream.no_evidence" == caught.value.error_code


async def test_half_a_mesh_is_verified(mesh: Transport) -> None:
    """A stream that nobody made yet holds nothing."""
    recording = record([Story("a")])
    for name in ("AF_MESSAGES", "AF_AGENTS"):
        await mesh.create_stream(definition_of(name).config())
    await pour(mesh, recording, provisioned=True)
    result = await verify(mesh, now=now())

    assert result.ok
    assert {"AF_MESSAGES": 4, "AF_AGENTS": 1, "AF_AUDIT": 0, "AF_PROTOCOLS": 0, "AF_DEAD": 0} == {
        stream.name: stream.messages for stream in result.streams
    }


async def test_progress_is_told(mesh: Transport) -> None:
    """Each stream ends at its own number of messages."""
    await pour(mesh, record(STORIES))
    told: list[tuple[str, int, int]] = []
    await verify(mesh, now=now(), progress=lambda *step: told.append(step))

    assert list(DEFAULT_STREAMS) == [name for name, done, total in told if done == total]


# --- time ------------------------------------------------------------------------------------------------------------


async def aged_mesh() -> tuple[MemoryTransport, FixedClock, Mesh]:
    """A broker whose clock a test moves, with a provisioned mesh and whoever writes to it."""
    clock = FixedClock(START)
    transport = MemoryTransport(MemoryBroker(clock))
    await provision(transport)
    return transport, clock, Mesh()


async def test_what_has_expired_is_not_missing() -> None:
    """Each stream forgets at its own age; a run that is older than some of its streams still verifies."""
    transport, clock, writer = await aged_mesh()
    for story in (Story("old", ("agent_with_tools", "tool")), Story("new", ("agent_with_tools", "tool"))):
        before = len(writer.recording.messages)
        list(writer.run(story))
        await pour(transport, Recording(writer.recording.messages[before:]), provisioned=True)
        clock.advance(2 * DAY)
    left = []
    for _ in range(35):
        result = await verify(transport, now=clock.now())
        assert () == result.damages
        left.append({stream.name: stream.messages for stream in result.streams})
        clock.advance(DAY)

    assert left[0]["AF_AGENTS"] > left[1]["AF_AGENTS"] == 0  # the old run's request, then the new one's
    assert left[6]["AF_MESSAGES"] == 0 < left[6]["AF_AUDIT"]
    assert 0 == left[-1]["AF_AUDIT"]


async def test_since_leaves_out_what_is_older() -> None:
    """And does not call it missing."""
    transport, clock, writer = await aged_mesh()
    list(writer.run(Story("old", ("agent_with_tools", "tool"))))
    await pour(transport, writer.recording, provisioned=True)
    seen = len(writer.recording.messages)
    clock.advance(DAY)
    writer.start = clock.now()
    list(writer.run(Story("new", ("agent", "tool"))))
    await pour(transport, Recording(writer.recording.messages[seen:]), provisioned=True)
    result = await verify(transport, now=clock.now(), since=START + timedelta(hours=12))

    assert result.ok
    assert 1 == result.runs
    assert any("what was before has expired or was left out" in sentence for sentence in result.not_vouched)


async def test_since_in_the_middle_of_a_run_is_no_damage() -> None:
    """A run that began before the moment has lost its front, not its honour."""
    transport, clock, writer = await aged_mesh()
    for each in writer.run(Story("a", ("agent", "tool", "agent_with_tools"))):
        await transport.publish(each.subject, each.body, stream=each.stream)
        clock.advance(600)
    for hours in range(4):
        result = await verify(transport, now=clock.now(), since=START + timedelta(hours=hours))
        assert () == result.damages


async def test_since_the_future_reads_nothing(mesh: Transport) -> None:
    """Nothing was stored since."""
    await pour(mesh, record(STORIES))
    result = await verify(mesh, now=now(), since=now() + timedelta(days=1))

    assert (True, 0) == (result.ok, result.envelopes)


# --- artifacts -------------------------------------------------------------------------------------------------------


async def with_artifact(mesh: Transport, *, keep: bool) -> Sealed:
    """A goal whose payload is in the object store, or should be."""
    await provision(mesh)
    payload = GoalSubmitted("support", {"text": "x" * 200_000})
    sealed = compose(
        payload,
        id="01KDVDNA0MT7Z1N0E9Q4W2E3R4",
        subject="workflows.a.in",
        sender="client",
        to="planner",
        trace_id="0" * 32,
        span_id="0" * 16,
        ts=START,
        place=ChainPlace("input:x:a"),
        metadata={"workflow_id": "a"},
    )
    if keep:
        await check_in(await mesh.objects(ARTIFACTS), payload)
    await mesh.publish("workflows.a.in", sealed.body, stream="AF_MESSAGES")
    return sealed


async def test_a_payload_in_the_object_store_is_checked(mesh: Transport) -> None:
    """Its bytes are the ones that were sealed."""
    await with_artifact(mesh, keep=True)
    result = await verify(mesh, now=now())

    assert (True, ()) == (result.ok, result.warnings)


async def test_a_payload_that_is_gone_is_told(mesh: Transport) -> None:
    """The envelope verifies, and what it stands for is not there: a client's own doing, on an open input."""
    await with_artifact(mesh, keep=False)
    result = await verify(mesh, now=now())
    (warning,) = result.warnings

    assert (True, "AF_MESSAGES", 1) == (result.ok, warning.stream, warning.seq)
    assert "artifact sha256-" in warning.detail


async def test_a_payload_that_was_taken_and_is_gone_is_missing(mesh: Transport) -> None:
    """A decision consumed the goal, so its payload was there: now it is damage, not a client's doing."""
    goal = await with_artifact(mesh, keep=False)
    taken = Consumed(id=goal.envelope.id, hash=goal.hash, schema="goal.submitted/1", subject="workflows.a.in", seq=1)
    decision = compose(
        GoalRejected(consumed=(taken,), code="definition.unknown", message="no such definition"),
        id="01KDVDNA0MT7Z1N0E9Q4W2E3R5",
        subject="workflows.a.out",
        sender="planner",
        to="workflows.a",
        trace_id="0" * 32,
        span_id="0" * 16,
        ts=START,
        place=ChainPlace(f"workflow:a:{goal.envelope.id}"),
        causes=(goal.ref,),
        metadata={"workflow_id": "a"},
    )
    await mesh.publish("workflows.a.out", decision.body, stream="AF_MESSAGES")
    (damage,) = (await verify(mesh, now=now())).damages

    assert ("missing", "AF_MESSAGES", 1) == (damage.kind, damage.stream, damage.seq)


async def test_a_payload_that_was_changed_is_edited(mesh: Transport) -> None:
    """Somebody put other bytes under its name."""
    await with_artifact(mesh, keep=False)
    (message,) = [each async for each in mesh.read("AF_MESSAGES")]
    name = msgspec.json.decode(unseal(message.body).envelope.payload)["artifact"]
    await (await mesh.objects(ARTIFACTS)).put(name, b"{}")
    (damage,) = (await verify(mesh, now=now())).damages

    assert ("edited", "input:x:a") == (damage.kind, damage.chain)


async def test_without_an_object_store_payloads_are_not_checked(mesh: Transport) -> None:
    """That is a warning: nobody looked."""
    await with_artifact(mesh, keep=True)
    (record,) = [each async for each in read_stream(mesh, "AF_MESSAGES")]

    assert record.claim is not None
    assert record.payload is None


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_a_stream_is_read_in_its_order(mesh: Transport) -> None:
    """From a sequence to a sequence."""
    await pour(mesh, record(STORIES))
    everything = [each.seq async for each in read_stream(mesh, "AF_MESSAGES")]
    part = [each.seq async for each in read_stream(mesh, "AF_MESSAGES", start=3, end=5)]

    assert sorted(everything) == everything
    assert [3, 4, 5] == part


async def test_a_stream_that_does_not_exist_cannot_be_read(mesh: Transport) -> None:
    """Rather than being empty."""
    with pytest.raises(NotStored, match="NOTHING"):
        _ = [each async for each in read_stream(mesh, "NOTHING")]


async def test_a_run_is_read_with_all_that_names_it(mesh: Transport) -> None:
    """Its own subjects on one stream, metadata on the others."""
    await pour(mesh, record(STORIES, [0, 1] * 10))
    audit = [each async for each in read_workflow(mesh, "AF_AUDIT", "a")]
    agents = [each async for each in read_workflow(mesh, "AF_AGENTS", "ab")]

    assert {"a"} == {each.sealed.workflow_id for each in audit if each.sealed}
    assert 1 == len(agents)


async def test_a_mesh_at_work_verifies(mesh: Transport) -> None:
    """Runs go on while they are verified, again and again."""
    await provision(mesh)
    recording = record([Story(f"run-{n}", ("agent_with_tools", "tool", "agent"), plain=n % 2 == 0) for n in range(8)])
    writing = asyncio.create_task(pour(mesh, recording, provisioned=True))
    results = []
    while not writing.done():
        results.append(await verify(mesh, now=now()))
        await asyncio.sleep(0)
    await writing
    results.append(await verify(mesh, now=now()))

    assert [()] * len(results) == [result.damages for result in results]
    assert 8 == results[-1].runs


async def test_spontaneous_events_are_part_of_the_evidence(mesh: Transport) -> None:
    """They have a chain for each incarnation."""
    writer = Mesh()
    list(writer.lifecycle("helper", 3))
    await pour(mesh, without(writer.recording, 1))
    (damage,) = (await verify(mesh, now=now())).damages

    assert ("missing", "AF_AGENTS", 2) == (damage.kind, damage.stream, damage.seq)
    assert damage.chain.startswith("events:helper:")
