"""What the runtime does not handle: a dead letter with the bytes and the reason, before the message is forgotten."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentflow import subjects
from agentflow.agent import HandlerContext
from agentflow.envelope import sha256_hex
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.payloads import DeadLetter, Payload, RunSignalled, StepRequested
from agentflow.registry import ARTIFACTS
from agentflow.schemas import payload_as
from agentflow.testing import envelope
from agentflow_runtime.delivery import answers
from agentflow_runtime.hosting import HostedAgent
from tests.services.runtime.harness import (
    Desk,
    FakeExecutor,
    Process,
    function_agent,
    hosted,
    quick,
    request,
    step,
    until,
    work,
)

Input = dict[str, Any]
SUBJECT = "agents.worker.in.01J0000000000000000000000Z"


def counting() -> tuple[HostedAgent, list[str]]:
    """An agent that answers at once, and the messages it ran for."""
    ran: list[str] = []

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        ran.append(ctx.message.id)
        return "done"

    return function_agent(handler), ran


def altered() -> bytes:
    """An envelope with one byte of its payload changed."""
    return step("worker", {"text": "hello"}).body.replace(b"hello", b"hallo")


def rehashed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A step whose members were changed and hashed again, as a stranger who knows the form can do."""
    members = json.loads(step("worker").body)
    members.pop("envelope_hash")
    members["subject"] = SUBJECT
    change(members)
    rest = json.dumps(members, separators=(",", ":")).encode()
    return b'{"envelope_hash":"' + sha256_hex(rest).encode() + b'",' + rest[1:]


def without_envelope(body: bytes) -> tuple[bytes, str]:
    """A body on the agent's subject."""
    return body, SUBJECT


JUNK: dict[str, tuple[Callable[[], tuple[bytes, str]], str]] = {
    "empty": (lambda: without_envelope(b""), "envelope.not_sealed"),
    "null": (lambda: without_envelope(b"null"), "envelope.not_sealed"),
    "not json": (lambda: without_envelope(b"\xff\xfe hello"), "envelope.not_sealed"),
    "plain json": (lambda: without_envelope(b'{"goal":"support"}'), "envelope.not_sealed"),
    "deep nesting": (lambda: without_envelope(b"[" * 100_000), "envelope.not_sealed"),
    "another hash": (lambda: without_envelope(altered()), "envelope.hash_mismatch"),
    "moved": (lambda: (step("worker").body, SUBJECT), "envelope.moved"),
    "too large": (lambda: without_envelope(b"x" * 600_000), "envelope.too_large"),
    "unknown schema": (lambda: (rehashed(lambda m: m.update(schema="goal.less/1")), SUBJECT), "schema.unknown"),
    "another version": (lambda: (rehashed(lambda m: m.update(schema="step.requested/9")), SUBJECT), "schema.unknown"),
    "payload of another schema": (lambda: (rehashed(lambda m: m.update(payload={"a": 1})), SUBJECT), "schema.mismatch"),
    "a member too many": (lambda: (rehashed(lambda m: m["payload"].update(more=1)), SUBJECT), "schema.mismatch"),
    "no workflow": (lambda: (rehashed(lambda m: m["metadata"].pop("workflow_id")), SUBJECT), "reply.invalid"),
    "no reply address": (lambda: (rehashed(lambda m: m["metadata"].pop("reply_to")), SUBJECT), "reply.invalid"),
}


@pytest.mark.parametrize("name", JUNK)
async def test_junk_becomes_a_dead_letter_and_harms_nobody(name: str, mesh: MemoryTransport, desk: Desk) -> None:
    """The letter keeps bytes, place, code and reason; the next message is handled as if nothing had been."""
    make, code = JUNK[name]
    body, subject = make()
    stored = await mesh.publish(subject, body, stream="AF_AGENTS")
    agent, ran = counting()
    async with hosted(mesh, agent):
        await until(desk.dead_letters)
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "done"
        await until(lambda: settled(desk))
    assert ran == [sent.envelope.id]
    [letter] = await desk.dead_letters()
    assert (letter.code, letter.stream, letter.seq, letter.consumer) == (code, "AF_AGENTS", stored.seq, "agent-worker")
    assert (letter.subject, letter.deliveries) == (subject, 1)
    assert letter.reason
    assert await original(mesh, letter) == body


async def original(mesh: MemoryTransport, letter: DeadLetter) -> bytes:
    """The bytes a dead letter keeps."""
    if letter.body_base64.startswith("artifact:"):
        return await (await mesh.objects(ARTIFACTS)).get(letter.body_base64.removeprefix("artifact:"))
    return base64.b64decode(letter.body_base64)


async def settled(desk: Desk) -> bool:
    """Whether nothing of the agent is pending."""
    return await desk.pending("worker") == 0


async def test_a_message_that_is_no_step_is_refused(mesh: MemoryTransport, desk: Desk) -> None:
    """A known schema that has no place on an agent's subject."""
    sealed = await desk.send(request(RunSignalled("go"), "worker"))
    agent, ran = counting()
    async with hosted(mesh, agent):
        await until(desk.dead_letters)
        await until(lambda: settled(desk))
    assert [letter.code for letter in await desk.dead_letters()] == ["schema.unexpected"]
    assert await desk.find(sealed) is None
    assert ran == []


def bad_deadline() -> Payload:
    """A step whose deadline is no moment."""
    return StepRequested("w@1.0.0", "work", 1, {}, "soon")


async def test_a_refused_step_that_can_be_answered_is_answered(mesh: MemoryTransport, desk: Desk) -> None:
    """Its run learns at once what is wrong, instead of waiting for its timer."""
    sealed = await desk.send(request(bad_deadline(), "worker"))
    agent, ran = counting()
    async with hosted(mesh, agent):
        failure = await desk.failure(sealed)
        await until(lambda: settled(desk))
    assert (failure.code, failure.blame, failure.retryable) == ("schema.mismatch", "input", False)
    assert [letter.code for letter in await desk.dead_letters()] == ["schema.mismatch"]
    assert await desk.breaks_after(sealed) == []
    assert ran == []


async def test_the_dead_letter_is_stored_before_the_message_is_given_up(mesh: MemoryTransport, desk: Desk) -> None:
    """Whatever happens in between, the message is in one of the two places."""
    mesh.broker.faults.disconnect("dead.>", times=3)
    letters: list[int] = []

    async def note(what: str) -> None:
        if what == "term":
            letters.append(len(await desk.dead_letters()))

    agent, _ = counting()
    async with hosted(mesh, agent) as process:
        process.wire.heard.append(note)
        await mesh.publish(SUBJECT, b"junk", stream="AF_AGENTS")
        await until(lambda: letters)
    assert letters == [1]


class Poison:
    """A handler that kills its process."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.ran = 0

    async def handle(self, ctx: HandlerContext, input: Input) -> Any:
        """Call a tool, then die."""
        self.ran += 1
        await ctx.call_tool("charge")
        self.processes[-1].kill()


async def test_a_message_that_kills_its_process_ends_as_a_dead_letter_before_it_runs_again(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """After the deliveries allowed: a dead letter, a failed step, and no further victim; the chain stays whole."""
    poison, settings = Poison(), quick(max_deliveries=2, ack_wait=0.3)
    executor = FakeExecutor(mesh, {"charge": lambda asked: "charged"})
    sent = await desk.send(step("worker"))
    async with executor.running():
        for name in ("first", "second"):
            async with hosted(mesh, function_agent(poison.handle), name=name, settings=settings) as victim:
                poison.processes.append(victim)
                await until(lambda: poison.processes[-1].wire.cut)
        async with hosted(mesh, function_agent(poison.handle), name="third", settings=settings):
            failure = await desk.failure(sent)
            await until(lambda: settled(desk))
    assert poison.ran == 2
    assert (failure.code, failure.blame) == ("delivery.exhausted", "mesh")
    [letter] = await desk.dead_letters()
    assert (letter.code, letter.deliveries) == ("delivery.exhausted", 3)
    assert base64.b64decode(letter.body_base64) == sent.body
    assert executor.times("charge") == 1
    assert await desk.breaks_after(sent) == []


async def test_a_message_that_was_answered_is_no_dead_letter_however_often_it_comes(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """Only its acknowledgement kept getting lost."""
    agent, ran = counting()
    async with hosted(mesh, agent, settings=quick(max_deliveries=2, ack_wait=0.15)) as process:
        process.wire.lost.update(("ack", "term"))
        sent = await desk.send(step("worker"))
        assert await desk.output(sent) == "done"
        await until(lambda: desk.deliveries("worker") >= 4)
        process.wire.lost.clear()
        await until(lambda: settled(desk))
    assert ran == [sent.envelope.id]
    assert await desk.dead_letters() == []


async def test_a_step_past_its_deadline_is_not_run(mesh: MemoryTransport, desk: Desk) -> None:
    """It fails at once: its run may have moved on."""
    agent, ran = counting()
    sent = await desk.send(step("worker", seconds=-1))
    async with hosted(mesh, agent):
        failure = await desk.failure(sent)
    assert (failure.code, failure.blame) == ("step.deadline", "agent")
    assert ran == []
    assert await desk.breaks_after(sent) == []


async def test_a_step_whose_artifact_is_gone_is_refused(mesh: MemoryTransport, desk: Desk) -> None:
    """Payloads are stored before what refers to them: one that is not there does not come by waiting."""
    agent, ran = counting()
    sent = await desk.send(step("worker", {"text": "x" * 200_000}))
    async with hosted(mesh, agent, settings=quick(max_deliveries=3)):
        failure = await desk.failure(sent)
        await until(lambda: settled(desk))
    assert (failure.code, failure.blame) == ("artifact.missing", "input")
    assert [letter.code for letter in await desk.dead_letters()] == ["artifact.missing"]
    assert ran == []


async def test_a_step_with_a_large_input_is_handled(mesh: MemoryTransport, desk: Desk) -> None:
    """Its payload is fetched by reference."""

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        return len(input["text"])

    asked = work({"text": "x" * 200_000})
    async with hosted(mesh, function_agent(handler)):
        sent = await desk.send(request(asked, "worker"), asked)
        assert await desk.output(sent) == 200_000


async def stored_results(desk: Desk, reply_to: str, count: int) -> bool:
    """Whether so many messages are stored where a result belongs."""
    return len(await desk.stored("AF_MESSAGES", reply_to)) >= count


async def test_a_result_goes_behind_what_a_stranger_put_in_its_place(mesh: MemoryTransport, desk: Desk) -> None:
    """What is stored is left alone, and does not keep the run from its result."""
    agent, _ = counting()
    sent = step("worker")
    reply_to = str(sent.envelope.metadata["reply_to"])
    squatter = envelope(RunSignalled("mine"), reply_to)
    await store(desk.mesh, squatter)
    async with hosted(mesh, agent):
        await desk.send(sent)
        await until(lambda: stored_results(desk, reply_to, 2))
        await until(lambda: settled(desk))
    found = await desk.stored("AF_MESSAGES", reply_to)
    assert [squatter.body, True] == [found[0].body, answers(found[1], sent, "worker")]
    assert (len(found), await desk.dead_letters()) == (2, [])


async def test_a_result_subject_that_was_filled_while_a_process_died_is_no_answer(
    mesh: MemoryTransport, desk: Desk
) -> None:
    """A redelivery looks at what is stored, not only whether something is: the handler runs again."""
    victims: list[Process] = []
    ran = []

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        ran.append(1)
        if len(ran) == 1:
            victims[0].kill()
        return "done"

    sent = step("worker")
    settings = quick(ack_wait=0.3)
    async with hosted(mesh, function_agent(handler), name="first", settings=settings) as first:
        victims.append(first)
        await desk.send(sent)
        await until(lambda: first.wire.cut)
        await store(desk.mesh, envelope(RunSignalled("mine"), str(sent.envelope.metadata["reply_to"])))
        async with hosted(mesh, function_agent(handler), name="second", settings=settings):
            await until(lambda: settled(desk))
    found = await desk.stored("AF_MESSAGES", str(sent.envelope.metadata["reply_to"]))
    assert [False, True] == [answers(message, sent, "worker") for message in found]
    assert (ran, await desk.dead_letters()) == ([1, 1], [])


async def test_metadata_too_large_to_be_carried_ends_as_a_dead_letter(mesh: MemoryTransport, desk: Desk) -> None:
    """A result that fits into no envelope is not tried for ever."""

    async def handler(ctx: HandlerContext, input: Input) -> Any:
        return "x" * 100_000

    asked = payload_as(step("worker"), StepRequested)
    sent = await desk.send(request(asked, "worker", metadata={"note": "y" * 450_000}))
    async with hosted(mesh, function_agent(handler)):
        failure = await desk.failure(sent)
        await until(lambda: settled(desk))
    assert failure.code == "envelope.too_large"
    assert [letter.code for letter in await desk.dead_letters()] == ["envelope.too_large"]


def test_subjects_of_dead_letters_can_be_made_for_every_agent() -> None:
    """The longest id that is hosted still leaves room for the name of its consumer."""
    assert subjects.dead("AF_AGENTS", f"agent-{'a' * 58}")
