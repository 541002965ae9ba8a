"""Storing envelopes for certain: lost acknowledgements, lost publishes, conflicts with oneself and with others."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from agentflow import subjects
from agentflow.envelope import ChainPlace, Ref, Sealed, seal, unseal
from agentflow.errors import Conflict, NondeterminismError, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh import publishing
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import Landing, is_sealed, store, store_once, store_result
from agentflow.mesh.transport import Message, Stored
from agentflow.payloads import Failure, Payload, StepCompleted, StepFailed
from agentflow.testing import START, FixedClock, envelope, goal, memory_mesh

STREAMS = [{"name": "AF_MESSAGES", "subjects": ["workflows.>"]}]
RESULT = subjects.workflow_result("run-1", "step-1")
KINDS = ("lost", "dropped", "late", "disconnected")
CAUSE = Ref("01KE0000000000000000000000", "a" * 64)


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A broker with the stream of runs."""
    async with memory_mesh(STREAMS) as transport:
        yield transport


def result(payload: Payload | None = None, **more: Any) -> Sealed:
    """The result of a step, on the subject where it is stored once."""
    return envelope(payload or StepCompleted({"n": 1}), RESULT, **{"causes": (CAUSE,), **more})


async def bodies(mesh: MemoryTransport) -> list[bytes]:
    """All that is stored, in order."""
    return [message.body async for message in mesh.read("AF_MESSAGES")]


async def test_an_envelope_is_stored_on_its_own_subject(mesh: MemoryTransport) -> None:
    """With its trace context and its hash as the id that the broker compares."""
    sealed = goal("support")

    stored = await store(mesh, sealed, headers={"X-Note": "mine"})

    found = await mesh.get("AF_MESSAGES", stored.seq)
    assert Stored("AF_MESSAGES", 1) == stored
    assert found is not None
    assert (sealed.envelope.subject, sealed.body) == (found.subject, found.body)
    assert sealed.hash == found.headers["Nats-Msg-Id"]
    assert f"00-{sealed.envelope.trace_id}-{sealed.envelope.span_id}-00" == found.headers["traceparent"]
    assert "mine" == found.headers["X-Note"]


async def test_an_expected_sequence_goes_without_an_id(mesh: MemoryTransport) -> None:
    """The guard is the sequence; an id could only make the broker drop the message."""
    await store(mesh, goal("support"), expect=0)

    found = await mesh.get("AF_MESSAGES", 1)
    assert found is not None
    assert "Nats-Msg-Id" not in found.headers


@pytest.mark.parametrize("expect", [None, 0])
async def test_storing_again_finds_what_is_there(mesh: MemoryTransport, expect: int | None) -> None:
    """The same envelope twice is one message, and the second answer says duplicate."""
    sealed = goal("support")

    answers = [await store(mesh, sealed, expect=expect) for _ in range(2)]

    assert [Stored("AF_MESSAGES", 1), Stored("AF_MESSAGES", 1, duplicate=True)] == answers
    assert [sealed.body] == await bodies(mesh)


# --- what goes wrong on the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("expect", [None, 0])
async def test_a_lost_acknowledgement_is_found_out(mesh: MemoryTransport, expect: int | None) -> None:
    """It was stored, nobody said so: the repetition or the read-back tells, and it is there once."""
    sealed = goal("support")
    mesh.broker.faults.lose_ack()

    stored = await store(mesh, sealed, expect=expect)

    assert Stored("AF_MESSAGES", 1, duplicate=True) == stored
    assert [sealed.body] == await bodies(mesh)


@pytest.mark.parametrize("expect", [None, 0])
async def test_a_lost_publish_is_repeated(mesh: MemoryTransport, expect: int | None) -> None:
    """Nothing arrived: the read-back finds nothing, and the same bytes are sent again."""
    sealed = goal("support")
    mesh.broker.faults.drop()

    stored = await store(mesh, sealed, expect=expect)

    assert Stored("AF_MESSAGES", 1) == stored
    assert [sealed.body] == await bodies(mesh)


@pytest.mark.parametrize("expect", [None, 0])
@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)), ids="-".join)
async def test_whatever_goes_wrong_it_is_stored_once(expect: int | None, kinds: tuple[str, str]) -> None:
    """Every pair of faults, one behind the other, and a late message that lands after all is over."""
    clock, sealed = FixedClock(), goal("support")
    async with memory_mesh(STREAMS, clock=clock) as mesh:
        faults = mesh.broker.faults
        plan = {
            "lost": faults.lose_ack,
            "dropped": faults.drop,
            "late": lambda: faults.delay(1.0),
            "disconnected": faults.disconnect,
        }
        for kind in kinds:
            plan[kind]()

        stored = await store(mesh, sealed, expect=expect)
        clock.advance(2.0)

        assert 1 == stored.seq
        assert [sealed.body] == await bodies(mesh)


async def test_a_conflict_that_is_really_ours(mesh: MemoryTransport) -> None:
    """The first attempt lands after it was read back as absent; the second conflicts with it, and that is fine."""
    sealed = goal("support")
    mesh.broker.faults.delay(0.001)

    stored = await store(mesh, sealed, expect=0)

    assert Stored("AF_MESSAGES", 1, duplicate=True) == stored
    assert [sealed.body] == await bodies(mesh)


async def test_a_conflict_with_another_carries_what_is_there(mesh: MemoryTransport) -> None:
    """Somebody else was first: the caller gets their message, and ours is not stored."""
    theirs, ours = goal("support"), goal("sales")
    await store(mesh, theirs, expect=0)

    with pytest.raises(Conflict) as conflict:
        await store(mesh, ours, expect=0)

    there = conflict.value.fields["stored"]
    assert isinstance(there, Message)
    assert theirs.body == there.body
    assert [theirs.body] == await bodies(mesh)


async def test_an_unknown_outcome_where_another_is_there_is_a_conflict(mesh: MemoryTransport) -> None:
    """Our publish was lost and somebody else's is stored: the read-back sees theirs, and nothing is repeated."""
    theirs, ours = goal("support"), goal("sales")
    await store(mesh, theirs, expect=0)
    mesh.broker.faults.drop()

    with pytest.raises(Conflict):
        await store(mesh, ours, expect=0)

    assert [theirs.body] == await bodies(mesh)


async def test_a_subject_that_should_not_be_empty_is_a_conflict(mesh: MemoryTransport) -> None:
    """Whoever expects a message that is not there rests on a history that is gone."""
    with pytest.raises(Conflict) as conflict:
        await store(mesh, goal("support"), expect=7)

    assert conflict.value.fields["stored"] is None
    assert 7 == conflict.value.fields["expect"]


async def test_ours_with_another_on_top_is_a_conflict(mesh: MemoryTransport) -> None:
    """Repeated after somebody went on from it, our message is no longer the last: the caller has to read the history."""
    first, second = goal("support"), goal("support", index=1)
    stored = await store(mesh, first, expect=0)
    await store(mesh, second, expect=stored.seq)

    with pytest.raises(Conflict) as conflict:
        await store(mesh, first, expect=0)

    there = conflict.value.fields["stored"]
    assert isinstance(there, Message)
    assert second.body == there.body


async def test_junk_under_our_id_is_noticed(mesh: MemoryTransport) -> None:
    """A broker that answers duplicate for other bytes has not stored ours, and the error says so."""
    sealed = goal("support")
    await mesh.publish("workflows.other.in", b"junk", stream="AF_MESSAGES", msg_id=sealed.hash)

    with pytest.raises(PublishFailed) as taken:
        await store(mesh, sealed)

    assert "mesh.id_taken" == taken.value.error_code
    assert [b"junk"] == await bodies(mesh)


async def test_a_certain_failure_is_not_repeated() -> None:
    """Without a stream there is nothing to wait for."""
    async with memory_mesh([]) as mesh:
        mesh.broker.faults.lose_ack("workflows.never.in")

        with pytest.raises(PublishFailed) as failure:
            await store(mesh, goal("support"))

        assert "mesh.no_stream" == failure.value.error_code


# --- patience --------------------------------------------------------------------------------------------------------


async def test_patience_ends_with_the_outcome_unknown(mesh: MemoryTransport) -> None:
    """Nobody ever answers: after the patience the caller is told that it is not known, and what was tried is bounded."""
    mesh.broker.faults.drop(times=1000)

    with pytest.raises(OutcomeUnknown):
        await store(mesh, goal("support"), patience=0.3)

    attempts = 1000 - len(mesh.broker.faults.planned)
    assert 2 <= attempts <= 15


async def test_patience_ends_with_nobody_reached(mesh: MemoryTransport) -> None:
    """Never connected is another answer than never heard of."""
    mesh.broker.stop()

    with pytest.raises(Unreachable):
        await store(mesh, goal("support"), patience=0.2)


async def test_without_patience_there_is_one_attempt(mesh: MemoryTransport) -> None:
    """And its outcome is the caller's."""
    mesh.broker.faults.drop(times=2)

    with pytest.raises(OutcomeUnknown):
        await store(mesh, goal("support"), patience=0)

    assert 1 == len(mesh.broker.faults.planned)


async def test_a_broker_that_comes_back_in_time_is_waited_for(mesh: MemoryTransport) -> None:
    """Down when the call is made, up a moment later."""
    mesh.broker.stop()
    storing = asyncio.create_task(store(mesh, goal("support"), patience=5))
    for _ in range(10):
        await asyncio.sleep(0)
    mesh.broker.start()

    assert Stored("AF_MESSAGES", 1) == await storing


# --- stored once, for ever -------------------------------------------------------------------------------------------


async def test_the_first_of_its_subject_is_stored(mesh: MemoryTransport) -> None:
    """Nothing was adopted."""
    sealed = result()

    assert Landing(Stored("AF_MESSAGES", 1), sealed, adopted=False) == await store_once(mesh, sealed)


async def test_an_earlier_attempt_is_adopted(mesh: MemoryTransport) -> None:
    """The same id, cause and payload, made at another time: what is stored counts, and the caller goes on from it."""
    before = result(at=START)
    again = seal_again(before, ts="2026-01-01T00:05:00.000000Z")
    await store_once(mesh, before)

    landing = await store_once(mesh, again)

    assert before.body != again.body
    assert landing.adopted
    assert (before.hash, before.body) == (landing.sealed.hash, landing.sealed.body)
    assert [before.body] == await bodies(mesh)


async def test_the_very_same_bytes_are_adopted_too(mesh: MemoryTransport) -> None:
    """A repetition of what is already there stores nothing."""
    sealed = result()
    await store_once(mesh, sealed)

    landing = await store_once(mesh, sealed)

    assert landing == Landing(Stored("AF_MESSAGES", 1, duplicate=True), sealed, adopted=True)


async def test_a_lost_acknowledgement_is_adopted(mesh: MemoryTransport) -> None:
    """It is our own, found by reading back."""
    sealed = result()
    mesh.broker.faults.lose_ack()

    landing = await store_once(mesh, sealed)

    assert sealed == landing.sealed
    assert [sealed.body] == await bodies(mesh)


@pytest.mark.parametrize(
    "now",
    [StepCompleted({"n": 2}), StepFailed(Failure("step.error", "StepError", "no", "agent"))],
    ids=["payload", "schema"],
)
async def test_another_payload_under_the_same_id_is_nondeterminism(mesh: MemoryTransport, now: Payload) -> None:
    """A handler that ran again asked for something else: the error shows both, and the first one stays."""
    before = result()
    await store_once(mesh, before)

    with pytest.raises(NondeterminismError) as found:
        await store_once(mesh, result(now))

    assert "handler.nondeterministic" == found.value.error_code
    assert '{"output":{"n":1}}' == found.value.fields["before"]
    assert found.value.fields["before"] != found.value.fields["now"]
    assert [before.body] == await bodies(mesh)


@pytest.mark.parametrize("more", [{"index": 1}, {"causes": (Ref(CAUSE.id, "b" * 64),)}, {"causes": ()}])
async def test_somebody_elses_envelope_is_a_conflict(mesh: MemoryTransport, more: dict[str, Any]) -> None:
    """Another id, or another cause: not an attempt at the same thing."""
    theirs = result(**more)
    await store_once(mesh, theirs)

    with pytest.raises(Conflict) as conflict:
        await store_once(mesh, result())

    there = conflict.value.fields["stored"]
    assert isinstance(there, Message)
    assert theirs.body == there.body


@pytest.mark.parametrize("junk", [b"", b"junk", b'{"envelope_hash":"' + b"0" * 64 + b'",}', goal("support").body])
async def test_what_is_no_envelope_of_this_subject_is_a_conflict(mesh: MemoryTransport, junk: bytes) -> None:
    """Bytes that do not verify, or that belong elsewhere, are never adopted."""
    await mesh.publish(RESULT, junk, stream="AF_MESSAGES")

    with pytest.raises(Conflict):
        await store_once(mesh, result())


async def test_of_racing_attempts_all_end_with_the_same_envelope(mesh: MemoryTransport) -> None:
    """Ten processes handle one message: one is stored, nine adopt it."""
    attempts = [seal_again(result(), ts=f"2026-01-01T00:00:0{number}.000000Z") for number in range(10)]

    landings = await asyncio.gather(*(store_once(mesh, attempt) for attempt in attempts))

    assert 1 == len(await bodies(mesh))
    assert 1 == len({landing.sealed.hash for landing in landings})
    assert 9 == sum(landing.adopted for landing in landings)


def seal_again(sealed: Sealed, **changes: Any) -> Sealed:
    """The same envelope with some members changed."""
    members = {name: getattr(sealed.envelope, name) for name in sealed.envelope.__struct_fields__}
    return seal(type(sealed.envelope)(**{**members, **changes}))


async def test_what_claims_to_be_an_envelope_is_told_apart() -> None:
    """By its first bytes; whether it verifies is another question."""
    sealed = goal("support")

    def stored(body: bytes) -> Message:
        return Message("AF_MESSAGES", 1, sealed.envelope.subject, body, START + timedelta(0))

    assert is_sealed(stored(sealed.body))
    assert is_sealed(stored(sealed.body[:-1] + b" "))
    assert not is_sealed(stored(b'{"goal":"support"}'))
    assert unseal(sealed.body).envelope.chain == ChainPlace(sealed.envelope.chain).chain


async def strangers(mesh: MemoryTransport, *bodies: bytes) -> None:
    """What somebody put where a result belongs."""
    for body in bodies:
        await mesh.publish(RESULT, body, stream="AF_MESSAGES")


async def test_a_result_goes_behind_strangers_messages_once(mesh: MemoryTransport) -> None:
    """Junk and a forged envelope stay where they are; the second attempt adopts what the first one stored."""
    forged = envelope(StepCompleted({"n": 666}), RESULT, sender="mallory", causes=(CAUSE,))
    await strangers(mesh, b"junk", forged.body)
    mine = result()
    first, second = await store_result(mesh, mine), await store_result(mesh, mine)
    assert [b"junk", forged.body, mine.body] == await bodies(mesh)
    assert [(3, False), (3, True)] == [(each.stored.seq, each.stored.duplicate) for each in (first, second)]


async def test_a_result_is_found_between_strangers_messages(mesh: MemoryTransport) -> None:
    """Also behind others, so that nothing is stored twice; and another result of the same maker is told as such."""
    mine = result()
    await strangers(mesh, b"before", mine.body, b"behind")
    landing = await store_result(mesh, mine)
    assert (landing.stored.seq, landing.adopted) == (2, True)
    with pytest.raises(NondeterminismError):
        await store_result(mesh, result(StepCompleted({"n": 2})))
    assert 3 == len(await bodies(mesh))


async def test_strangers_that_keep_coming_end_in_a_conflict(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can keep a service busy for ever by filling a place as fast as it looks."""
    asked = []

    async def squatted(*args: Any, **kwargs: Any) -> Stored:
        asked.append(kwargs["expect"])
        await strangers(mesh, b"junk")
        return await store(*args, **kwargs)

    monkeypatch.setattr(publishing, "store", squatted)
    with pytest.raises(Conflict):
        await store_result(mesh, result())
    assert publishing.MAX_STRANGERS == len(asked) == len(await bodies(mesh))
