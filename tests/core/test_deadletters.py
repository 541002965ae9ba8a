"""Dead letters: the bytes, the reason and the place of a message that was given up, stored once."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.envelope import MAX_INLINE_PAYLOAD, Sealed, claim_in, unseal
from agentflow.errors import NotStored, PublishFailed, SubjectError
from agentflow.mesh import deadletters
from agentflow.mesh.deadletters import MAX_INLINE_BODY, write_dead_letter
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Message
from agentflow.payloads import DeadLetter
from agentflow.schemas import payload_as
from agentflow.testing import FixedClock, memory_mesh
from tests.contract.meshes import objects as object_store

DEAD = {"name": "AF_DEAD", "subjects": ["dead.>"]}
STORED_AT = datetime(2026, 11, 20, 18, 0, 0, 123_456, tzinfo=UTC)


@dataclass
class Given:
    """A delivery as a consumer hands it over."""

    message: Message
    deliveries: int = 9
    settled: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        self.settled.append("ack")

    async def nak(self, delay: float = 0.0) -> None:
        self.settled.append("nak")

    async def in_progress(self) -> None:
        self.settled.append("in_progress")

    async def term(self) -> None:
        self.settled.append("term")


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A broker with dead letters and artifacts."""
    async with memory_mesh([DEAD, object_store("AF_ARTIFACTS")], clock=FixedClock()) as transport:
        yield transport


def given_up(body: bytes = b'{"goal":', *, subject: str = "workflows.run-1.in", deliveries: int = 9) -> Given:
    """A delivery of a stored message."""
    return Given(Message("AF_MESSAGES", 7, subject, body, STORED_AT), deliveries)


async def write(mesh: MemoryTransport, given: Given, code: str = "input.bad", reason: str = "no JSON") -> int:
    """Write a letter; returns its sequence."""
    return (await write_dead_letter(mesh, given, "planner", "planner-service", code, reason)).seq


async def stored(mesh: MemoryTransport) -> list[Sealed]:
    """The letters there are, opened under their subjects."""
    return [unseal(message.body, message.subject) async for message in mesh.read("AF_DEAD")]


async def test_a_letter_says_what_was_given_up_and_why(mesh: MemoryTransport) -> None:
    """With the original bytes, on the subject of the stream and the consumer."""
    await write(mesh, given_up())

    (letter,) = await stored(mesh)
    assert "dead.AF_MESSAGES.planner" == letter.envelope.subject
    assert ("message.dead/1", "planner-service", "operator") == (
        letter.envelope.schema,
        letter.envelope.sender,
        letter.envelope.to,
    )
    assert DeadLetter(
        stream="AF_MESSAGES",
        consumer="planner",
        seq=7,
        subject="workflows.run-1.in",
        deliveries=9,
        code="input.bad",
        reason="no JSON",
        body_base64=base64.b64encode(b'{"goal":').decode(),
    ) == payload_as(letter, DeadLetter)


async def test_a_letter_settles_nothing(mesh: MemoryTransport) -> None:
    """The message is ended by whoever gave it up, once the letter is known to be stored."""
    given = given_up()

    await write(mesh, given)

    assert [] == given.settled


async def test_a_letter_has_the_time_of_the_message(mesh: MemoryTransport) -> None:
    """Not the writer's: its bytes depend on nothing but the delivery and the reason."""
    await write(mesh, given_up())

    assert "2026-11-20T18:00:00.123456Z" == (await stored(mesh))[0].envelope.ts


async def test_the_same_letter_is_stored_once(mesh: MemoryTransport) -> None:
    """Written again after a crash it makes the same bytes, and the broker knows them."""
    first = await write(mesh, given_up())

    assert first == await write(mesh, given_up())
    assert 1 == len(await stored(mesh))


async def test_a_lost_answer_does_not_make_two_letters(mesh: MemoryTransport) -> None:
    """The letter landed, its acknowledgement did not."""
    mesh.broker.faults.lose_ack("dead.>")

    await write(mesh, given_up())

    assert 1 == len(await stored(mesh))


async def test_a_letter_is_stored_once_however_late_it_is_written_again() -> None:
    """Delivered more often, after the broker's duplicate window, and by a process that has read nothing yet."""
    clock = FixedClock()
    async with memory_mesh([DEAD], clock=clock) as mesh:
        first = await write(mesh, given_up())
        clock.advance(200)
        deadletters._WRITTEN.clear()

        assert first == await write(mesh, given_up())
        assert first == await write(mesh, given_up(deliveries=10))
        assert 1 == len(await stored(mesh))


async def test_different_reasons_make_letters_of_their_own(mesh: MemoryTransport) -> None:
    """Each with an id and a chain of its own."""
    await write(mesh, given_up())
    await write(mesh, given_up(), code="input.worse")
    await write(mesh, given_up(), reason="no YAML either")

    letters = await stored(mesh)
    assert 3 == len({letter.envelope.id for letter in letters}) == len({letter.envelope.chain for letter in letters})


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe", b"null", bytes(range(256)), b"x" * MAX_INLINE_BODY])
async def test_the_bytes_are_kept_whatever_they_are(mesh: MemoryTransport, body: bytes) -> None:
    """They are the evidence, and what may be put back by hand."""
    await write(mesh, given_up(body))

    letter = payload_as((await stored(mesh))[0], DeadLetter)
    assert body == base64.b64decode(letter.body_base64, validate=True)


async def test_a_large_message_is_kept_as_an_artifact(mesh: MemoryTransport) -> None:
    """Its letter names it by its hash, and it is there before the letter is."""
    body = b"x" * (MAX_INLINE_BODY + 1)
    await write(mesh, given_up(body))

    letter = payload_as((await stored(mesh))[0], DeadLetter)
    kind, _, name = letter.body_base64.partition(":")
    assert "artifact" == kind
    assert body == await (await mesh.objects("AF_ARTIFACTS")).get(name)


async def test_the_worst_letter_is_still_inline(mesh: MemoryTransport) -> None:
    """The largest body beside texts of nothing but escapes: nothing is left out, and nothing refers to what is not kept."""
    bad = "\ud800" * 5000
    await write(mesh, given_up(b"x" * MAX_INLINE_BODY, subject="\x01" * 5000), code="c" * 100, reason=bad)
    await write(mesh, given_up(b"x" * MAX_INLINE_BODY, subject=bad), reason="\x01" * 5000)

    letters = await stored(mesh)
    assert 2 == len(letters)
    for letter in letters:
        assert claim_in(letter.envelope.payload) is None
        assert len(bytes(letter.envelope.payload)) <= MAX_INLINE_PAYLOAD
        assert len(payload_as(letter, DeadLetter).body_base64) == 4 * -(-MAX_INLINE_BODY // 3)


@settings(max_examples=25)
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=20), st.binary(max_size=20))
async def test_no_reason_and_no_bytes_keep_a_letter_from_being_written(reason: str, body: bytes) -> None:
    """Reasons quote what strangers sent."""
    async with memory_mesh([DEAD], clock=FixedClock()) as mesh:
        await write(mesh, given_up(body), reason=reason)

        letter = payload_as((await stored(mesh))[0], DeadLetter)

    assert reason.encode(errors="backslashreplace").decode() == letter.reason


async def test_without_a_stream_of_dead_letters_it_is_told() -> None:
    """The message is not given up then."""
    async with memory_mesh([]) as mesh:
        with pytest.raises(PublishFailed):
            await write(mesh, given_up())


async def test_without_a_place_for_artifacts_it_is_told() -> None:
    """A large message is not cut to fit."""
    async with memory_mesh([DEAD]) as mesh:
        with pytest.raises(NotStored):
            await write(mesh, given_up(b"x" * (MAX_INLINE_BODY + 1)))
        assert [] == await stored(mesh)


async def test_a_consumer_whose_name_is_no_token_is_refused(mesh: MemoryTransport) -> None:
    """It would write on somebody else's subject."""
    with pytest.raises(SubjectError):
        await write_dead_letter(mesh, given_up(), "planner.x", "planner", "c", "r")
