"""The record of one handling: places in the order of asking, adoption, and what happens when it breaks."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.chain import handling_chain
from agentflow.clock import SystemClock
from agentflow.envelope import Sealed
from agentflow.errors import NondeterminismError, NotStored, OutcomeUnknown, PublishFailed, StepError
from agentflow.mesh import publishing
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Transport
from agentflow.payloads import RunSignalled, ToolRequested
from agentflow.registry import ARTIFACTS
from agentflow.schemas import payload_as
from agentflow.subjects import tool_call
from agentflow.testing import envelope, memory_mesh
from agentflow_runtime import recording
from agentflow_runtime.recording import Recorder
from agentflow_runtime.steps import effect_id
from tests.services.runtime.harness import Desk, step

DEADLINE = "2026-01-01T00:00:30.000000Z"


def asks(tool: str, **input: object) -> ToolRequested:
    """A call's payload."""
    return ToolRequested(tool, dict(input), DEADLINE)


async def recorder(mesh: MemoryTransport, cause: Sealed, *, fresh: bool = True) -> Recorder:
    """The record of an attempt at handling `cause`."""
    return Recorder(cast(Transport, mesh), await mesh.objects(ARTIFACTS), SystemClock(), cause, "worker", fresh=fresh)


async def tools_stored(desk: Desk) -> list[str]:
    """The tools that were called, in the order the calls were stored."""
    return [payload_as(call, ToolRequested).tool for call in await desk.calls()]


async def test_effects_are_stored_in_the_order_they_were_asked_for(mesh: MemoryTransport, desk: Desk) -> None:
    """Concurrent calls do not race for places: asking takes the place, storing only follows."""
    record = await recorder(mesh, step("worker"))
    landings = await asyncio.gather(*(record.call(asks(f"tool-{n}")) for n in range(5)))
    assert [landing.sealed.envelope.chain_seq for landing in landings] == [0, 1, 2, 3, 4]
    assert await tools_stored(desk) == ["tool-0", "tool-1", "tool-2", "tool-3", "tool-4"]
    assert (record.place.seq, record.place.prev_hash, record.fresh) == (5, landings[-1].sealed.hash, True)


async def test_a_call_nobody_waits_for_keeps_its_place(mesh: MemoryTransport, desk: Desk) -> None:
    """A handler that gives up waiting does not stop the store: the next effect would take its place."""
    record = await recorder(mesh, step("worker"))

    async def wait_for_first() -> None:
        await asyncio.shield(record.call(asks("slow")))

    waiting = asyncio.create_task(wait_for_first())
    await asyncio.sleep(0)
    waiting.cancel()
    await record.call(asks("next"))
    assert await tools_stored(desk) == ["slow", "next"]


async def test_a_second_attempt_adopts_and_goes_on_from_what_is_stored(mesh: MemoryTransport, desk: Desk) -> None:
    """Its own envelopes have another `ts`, so another hash; the chain rests on the stored ones."""
    cause = step("worker")
    first, second = await recorder(mesh, cause), await recorder(mesh, cause)
    landed = [await first.call(asks("a")), await first.call(asks("b"))]
    again = [await second.call(asks("a")), await second.call(asks("b")), await second.call(asks("c"))]
    assert [each.adopted for each in again] == [True, True, False]
    assert [each.sealed.hash for each in again[:2]] == [each.sealed.hash for each in landed]
    assert again[2].sealed.envelope.prev_hash == landed[1].sealed.hash
    assert not second.fresh
    assert await tools_stored(desk) == ["a", "b", "c"]


@given(st.integers(0, 5), st.integers(0, 5), st.booleans())
async def test_catching_up_finds_the_end_of_any_earlier_attempt(earlier: int, now: int, fresh: bool) -> None:
    """However far each attempt came, the next place is behind the last recorded effect."""
    async with memory_mesh() as mesh:
        cause = step("worker")
        first, second = await recorder(mesh, cause), await recorder(mesh, cause, fresh=fresh and earlier == 0)
        for record, count in ((first, earlier), (second, now)):
            for index in range(count):
                await record.call(asks("tool", n=index))
        assert await second.catch_up() == max(0, earlier - now)
        assert second.place.seq == max(earlier, now)


async def test_a_first_attempt_that_met_nothing_does_not_look_further(mesh: MemoryTransport) -> None:
    """The usual case costs no read."""
    record = await recorder(mesh, step("worker"))
    await record.call(asks("a"))
    await mesh.close()
    assert await record.catch_up() == 0


@pytest.mark.parametrize("change", [asks("other"), asks("a", n=2)], ids=["another tool", "another input"])
async def test_an_attempt_that_asks_for_something_else_is_found_out(
    change: ToolRequested, mesh: MemoryTransport, desk: Desk
) -> None:
    """Not only another input: also another tool at the same place meets the first attempt's call."""
    cause = step("worker")
    await (await recorder(mesh, cause)).call(asks("a", n=1))
    second = await recorder(mesh, cause)
    with pytest.raises(NondeterminismError) as found:
        await second.call(change)
    assert '"a"' in str(found.value.fields["before"])
    assert change.tool in str(found.value.fields["now"])
    assert second.broken is found.value
    assert await tools_stored(desk) == ["a"]


async def test_a_broken_record_refuses_all_that_follows_and_is_caught_up_with(mesh: MemoryTransport) -> None:
    """No effect is stored behind a gap; the result goes behind what the first attempt recorded."""
    cause = step("worker")
    first, second = await recorder(mesh, cause), await recorder(mesh, cause)
    for tool in ("a", "b", "c"):
        await first.call(asks(tool))
    ends = await asyncio.gather(*(second.call(asks(tool)) for tool in ("a", "x", "y")), return_exceptions=True)
    assert [type(end) for end in ends[1:]] == [NondeterminismError, NondeterminismError]
    assert await second.catch_up() == 2
    assert second.place == first.place


def break_with(error: Exception) -> Callable[..., object]:
    """A `store_once` that fails."""

    async def failing(*args: object, **kwargs: object) -> object:
        raise error

    return failing


@pytest.mark.parametrize("error", [OutcomeUnknown("silence"), PublishFailed("no space"), RuntimeError("a bug")])
async def test_a_record_that_cannot_be_stored_is_broken(
    error: Exception, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is kept, and everything asked for later is refused with it."""
    record = await recorder(mesh, step("worker"))
    monkeypatch.setattr(recording, "store_once", break_with(error))
    ends = await asyncio.gather(record.call(asks("a")), record.call(asks("b")), return_exceptions=True)
    assert list(ends) == [error, error]
    assert record.broken is error
    await record.settle()


async def test_an_acknowledgement_that_got_lost_does_not_break_the_record(mesh: MemoryTransport, desk: Desk) -> None:
    """The store reads back what landed; the chain goes on."""
    mesh.broker.faults.lose_ack("tools.calls.>")
    record = await recorder(mesh, step("worker"))
    await record.call(asks("a"))
    await record.call(asks("b"))
    assert await tools_stored(desk) == ["a", "b"]
    assert record.broken is None


async def test_junk_under_a_calls_subject_fails_the_step_and_blames_the_mesh(mesh: MemoryTransport) -> None:
    """Somebody stored something else where only this call belongs: no effect, and no second try can help."""
    cause = step("worker")
    subject = tool_call(effect_id(cause.envelope.id, "worker", 0))
    await store(cast(Transport, mesh), envelope(RunSignalled("junk"), subject))
    record = await recorder(mesh, cause)
    with pytest.raises(StepError) as refused:
        await record.call(asks("a"))
    assert (refused.value.error_code, refused.value.blame) == ("tool.call_refused", "mesh")
    assert await record.catch_up() == 0


async def test_a_call_too_large_for_an_envelope_goes_by_reference(mesh: MemoryTransport, desk: Desk) -> None:
    """The input is kept as an artifact; a second attempt finds the same."""
    cause, big = step("worker"), "x" * 200_000
    await (await recorder(mesh, cause)).call(asks("a", text=big))
    landing = await (await recorder(mesh, cause)).call(asks("a", text=big))
    claim = bytes((await desk.calls())[0].envelope.payload)
    assert landing.adopted
    assert claim.startswith(b'{"artifact":')
    objects = await mesh.objects(ARTIFACTS)
    assert big.encode() in await objects.get(name_in(claim))


def name_in(claim: bytes) -> str:
    """The artifact a claim check names."""
    return claim.split(b'"')[3].decode()


async def test_an_artifact_that_cannot_be_kept_breaks_the_record(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    """A call that refers to nothing is never stored."""
    monkeypatch.setattr("agentflow.artifacts.keep", break_with(NotStored("no bucket")))
    record = await recorder(mesh, step("worker"))
    with pytest.raises(NotStored):
        await record.call(asks("a"))
    assert await desk.calls() == []


async def test_a_handler_has_a_bounded_number_of_effects(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result names the outcome of each, and must fit into an envelope."""
    monkeypatch.setattr(recording, "MAX_EFFECTS", 2)
    record = await recorder(mesh, step("worker"))
    record.call(asks("a"))
    record.call(asks("b"))
    with pytest.raises(StepError) as refused:
        record.call(asks("c"))
    assert refused.value.error_code == "agent.too_many_effects"
    await record.settle()
    assert record.broken is None


async def test_abandoning_stops_what_is_not_stored_yet(
    mesh: MemoryTransport, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is given back: no store goes on behind the next attempt's back."""
    monkeypatch.setattr(publishing, "ATTEMPT_TIMEOUT", 0.01)
    mesh.broker.faults.drop("tools.calls.>", times=1000)
    record = await recorder(mesh, step("worker"))
    stores = [record.call(asks("a")), record.call(asks("b"))]
    await asyncio.sleep(0)
    record.abandon()
    await record.settle()
    assert all(each.cancelled() for each in stores)
    assert await desk.calls() == []


async def test_the_first_place_rests_on_the_message(mesh: MemoryTransport) -> None:
    """Before anything is recorded the result would rest on the message itself."""
    cause = step("worker")
    assert (await recorder(mesh, cause)).place == handling_chain(cause)
