"""What an agent tells of its own accord: one chain for each incarnation, whatever the broker does meanwhile."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.chain import examine, link_of
from agentflow.envelope import unseal
from agentflow.errors import MeshError, PublishFailed, Unreachable
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Transport
from agentflow.payloads import Lifecycle
from agentflow.schemas import payload_as
from agentflow.subjects import agent_out
from agentflow.testing import FixedClock, memory_mesh
from agentflow_runtime import journal as module
from agentflow_runtime.journal import Journal
from tests.services.runtime.harness import Desk

OUT = agent_out("greeter")


def journal(mesh: MemoryTransport, *, incarnation: str = "one") -> Journal:
    """The journal of agent `greeter`."""
    counter = iter(range(1_000_000))
    return Journal(
        cast(Transport, mesh),
        FixedClock(),
        lambda count: next(counter).to_bytes(count, "big"),
        producer="greeter",
        incarnation=incarnation,
        patience=0.0,
    )


def note(detail: str) -> Lifecycle:
    """An event."""
    return Lifecycle("greeter", "one", "started", detail)


async def told(mesh: MemoryTransport) -> list[str]:
    """The events that are stored."""
    return [payload_as(unseal(each.body, OUT), Lifecycle).detail for each in await Desk(mesh).stored("AF_AGENTS", OUT)]


async def test_events_are_one_chain_that_rests_on_nothing(mesh: MemoryTransport) -> None:
    """Also when they are told at the same time: one publish is in flight."""
    events = journal(mesh)
    await asyncio.gather(*(events.tell(OUT, note(str(n))) for n in range(5)))
    stored = [unseal(each.body, OUT) for each in await Desk(mesh).stored("AF_AGENTS", OUT)]
    assert examine([link_of(sealed, "AF_AGENTS", n) for n, sealed in enumerate(stored)]) == []
    assert {sealed.envelope.chain for sealed in stored} == {"events:greeter:one"}
    assert await told(mesh) == ["0", "1", "2", "3", "4"]
    assert {(sealed.envelope.sender, sealed.envelope.to) for sealed in stored} == {("greeter", "operator")}


async def test_another_incarnation_has_a_chain_of_its_own(mesh: MemoryTransport) -> None:
    """So a process that was killed leaves no gap behind."""
    await journal(mesh).tell(OUT, note("a"))
    sealed = await journal(mesh, incarnation="two").tell(OUT, note("b"))
    assert (sealed.envelope.chain, sealed.envelope.chain_seq) == ("events:greeter:two", 0)


FAULTS = st.lists(st.sampled_from(["none", "lose_ack", "drop", "disconnect"]), max_size=12)


@given(FAULTS)
async def test_the_chain_has_no_gap_and_no_branch_whatever_the_broker_does(faults: list[str]) -> None:
    """An event whose fate is unknown is made sure of before the next, with the same bytes."""
    async with memory_mesh() as mesh:
        events = journal(mesh)
        for index, fault in enumerate(faults):
            if fault != "none":
                getattr(mesh.broker.faults, fault)()
            try:
                await events.tell(OUT, note(str(index)))
            except MeshError:
                continue
        await events.tell(OUT, note("last"))
        stored = [unseal(each.body, OUT) for each in await Desk(mesh).stored("AF_AGENTS", OUT)]
        assert examine([link_of(sealed, "AF_AGENTS", n) for n, sealed in enumerate(stored)]) == []
        assert (await told(mesh))[-1] == "last"


async def test_an_event_that_was_refused_for_certain_gives_its_place_away(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not stored, so the next one may have its place."""

    async def refuse(*args: object, **kwargs: object) -> object:
        raise PublishFailed("no space")

    events = journal(mesh)
    with monkeypatch.context() as patch:
        patch.setattr(module, "store", refuse)
        with pytest.raises(PublishFailed):
            await events.tell(OUT, note("refused"))
    sealed = await events.tell(OUT, note("next"))
    assert sealed.envelope.chain_seq == 0
    assert await told(mesh) == ["next"]


async def test_no_connection_is_told(mesh: MemoryTransport) -> None:
    """The caller decides whether that matters."""
    mesh.broker.stop()
    with pytest.raises(Unreachable):
        await journal(mesh).tell(OUT, note("x"))
