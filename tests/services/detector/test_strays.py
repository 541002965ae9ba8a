"""What no service takes: judged by subject and body, and recorded as a dead letter, once."""

import contextlib
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.chain import audit_chain, handling_chain
from agentflow.envelope import ChainPlace, Ref, Sealed, sha256_hex, unseal
from agentflow.errors import InputError
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Message
from agentflow.payloads import DeadLetter, Failure, Payload, RunSignalled, ToolFailed, ToolRequested
from agentflow.registry import CONFIG, AgentDeclaration, agent_key
from agentflow.schemas import payload_as
from agentflow.testing import envelope, goal, memory_mesh
from agentflow_detector.doorkeeping import NAME, READS, Doorkeeper
from agentflow_detector.strays import CODES, SCHEMAS_OF, stray
from tests.services.planner.meshes import Delivered

CALL = "01KE0000000000000000000001"
FAILED = ToolFailed(Failure("tool.boom", "Boom", "it broke", "tool"))


def call() -> Sealed:
    """A tool call, on the subject that its id names."""
    made = envelope(ToolRequested("book", {}, "2026-01-01T00:00:00.000000Z"), subjects.tool_call(CALL))
    members = json.loads(made.body)
    members.pop("envelope_hash")
    members["id"] = CALL
    rest = json.dumps(members, separators=(",", ":")).encode()
    return unseal(b'{"envelope_hash":"' + sha256_hex(rest).encode() + b'",' + rest[1:])


def result(payload: Payload = FAILED, place: ChainPlace | None = None, causes: tuple[Ref, ...] | None = None) -> Sealed:
    """The result of the call, as the executor seals it but for what is given."""
    cause = call()
    subject = subjects.tool_result("clerk", CALL)
    place, causes = place or handling_chain(cause), (cause.ref,) if causes is None else causes
    return envelope(payload, subject, sender="executor", place=place, causes=causes)


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("workflows.*.in", "stray.subject"),
        ("workflows.>", "stray.subject"),
        ("workflows.a", "stray.subject"),
        ("workflows.a.in.more", "stray.subject"),
        ("agents.a b.in", "stray.subject"),
        ("tools.nonsense", "stray.subject"),
        ("tools.calls.a.b", "stray.subject"),
        ("workflows.caf\u00e9.in", "stray.subject"),
        ("workflows." + "x" * 3000 + ".in", "stray.subject"),
        ("agents.nobody.in", "stray.agent"),
        ("agents.nobody.in." + CALL, "stray.agent"),
        ("timers.due.nobody.x.1", "stray.timer"),
        ("tools.results.clerk." + CALL, "envelope.not_sealed"),
        ("agents.clerk.out", "envelope.not_sealed"),
        ("workflows.a.out", "envelope.not_sealed"),
        ("protocols.net.call", "envelope.not_sealed"),
        ("dead.AF_AGENTS.agent-clerk", "envelope.not_sealed"),
    ],
)
def test_junk_where_nobody_reads_has_a_code(subject: str, code: str) -> None:
    """By where it is: outside the grammar, without a reader, or where only the mesh writes."""
    found = stray(subject, b"junk", {"clerk"})
    assert found is not None
    assert (found.code, bool(found.reason)) == (code, True)


@pytest.mark.parametrize(
    "subject",
    ["workflows.a.in", "workflows.a.results.b", "tools.calls.a", "agents.clerk.in", "agents.clerk.in.x",
     "timers.due.planner.a.1", "timers.set.planner.a.1"],
)  # fmt: skip
def test_what_has_a_reader_is_left_to_it(subject: str) -> None:
    """Whatever its body: one record for a message is enough."""
    assert stray(subject, b"junk", {"clerk"}) is None


def test_what_the_mesh_writes_is_no_stray() -> None:
    """A result on the chain of its call, from its call."""
    made = result()
    assert stray(made.envelope.subject, made.body, set()) is None


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (result(payload=RunSignalled("go")), "stray.schema"),
        (result(place=ChainPlace("handling:" + "0" * 26)), "stray.chain"),
        (result(place=audit_chain(call())), "stray.chain"),
        (result(causes=()), "stray.chain"),
        (result(causes=(Ref("01KE0000000000000000000009", "a" * 64),)), "stray.chain"),
    ],
)
def test_a_sound_envelope_that_has_no_place_there_is_a_stray(made: Sealed, code: str) -> None:
    """Its hash is right, and it is somebody else's."""
    found = stray(made.envelope.subject, made.body, set())
    assert found is not None
    assert found.code == code


def test_the_codes_and_schemas_named_exist() -> None:
    """So that a typing error does not refuse what the mesh writes."""
    from agentflow.payloads import SCHEMAS

    assert {schema for schemas in SCHEMAS_OF.values() for schema in schemas} <= set(SCHEMAS)
    assert all(code.startswith("stray.") for code in CODES)


@given(st.text(max_size=40), st.binary(max_size=40))
def test_every_message_can_be_judged(subject: str, body: bytes) -> None:
    """Any subject, any bytes: a verdict, and never an error."""
    found = stray(subject, body, set())
    assert found is None or (found.code and found.reason)


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[tuple[MemoryTransport, Doorkeeper]]:
    """A mesh and somebody at its door."""
    async with memory_mesh() as mesh:
        yield mesh, Doorkeeper(mesh)


async def stored(mesh: MemoryTransport, stream: str, subject: str, body: bytes) -> Message:
    """A message as the broker has it."""
    place = await mesh.publish(subject, body, stream=stream)
    message = await mesh.get(stream, place.seq)
    assert message is not None
    return message


async def test_a_stray_becomes_a_dead_letter_with_its_code() -> None:
    """On a subject of its own, with the bytes."""
    async with door() as (mesh, keeper):
        message = await stored(mesh, "AF_AGENTS", "agents.nobody.in", b"hello?")
        delivery = Delivered(message)
        with pytest.raises(InputError) as caught:
            await keeper.handle(delivery)
        await keeper.give_up(delivery, caught.value.error_code, caught.value.message)
        [letter] = [each async for each in mesh.read("AF_DEAD", f"dead.AF_AGENTS.{NAME}")]
        payload = payload_as(unseal(letter.body, letter.subject), DeadLetter)
        assert (payload.code, payload.subject, payload.seq) == ("stray.agent", "agents.nobody.in", message.seq)
        await keeper.handle(Delivered(letter))


async def test_an_agent_that_was_declared_a_moment_ago_is_known() -> None:
    """A message that came for it before is a stray, the next is not."""
    async with door() as (mesh, keeper):
        message = await stored(mesh, "AF_AGENTS", "agents.late.in", b"{}")
        with pytest.raises(InputError):
            await keeper.handle(Delivered(message))
        declared = msgspec.json.encode(AgentDeclaration("late"))
        await (await mesh.bucket(CONFIG)).put(agent_key("late"), declared)
        await keeper.handle(Delivered(message))


async def test_what_is_read_by_others_passes() -> None:
    """A goal, sealed or not, is the planner's."""
    async with door() as (mesh, keeper):
        for body in (b"junk", goal("support").body):
            await keeper.handle(Delivered(await stored(mesh, "AF_MESSAGES", "workflows.run-1.in", body)))


async def test_every_stream_with_an_entry_is_read() -> None:
    """A stream nobody looks after would be a hole; only signed heads are not read yet."""
    async with memory_mesh() as mesh:
        names = {name for name in await mesh.stream_names() if name.startswith("AF_")}
    assert names - {"AF_CHECKPOINTS"} == set(READS)
