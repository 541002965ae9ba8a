"""Messages that are no calls, calls that cannot be handled, and calls that were delivered too often: never silence."""

import base64
from typing import Any

import pytest

from agentflow import subjects
from agentflow.chain import handling_chain
from agentflow.envelope import ChainPlace, Sealed, sha256_hex
from agentflow.errors import EvidenceError, InputError
from agentflow.ids import derive_id
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.payloads import CancelRequested, ToolCompleted, ToolFailed, ToolRequested
from agentflow.schemas import compose, payload_as
from tests.services.executor.harness import (
    Desk,
    HandDelivery,
    ScriptedSandbox,
    call,
    catalog,
    envelope,
    planned,
    ran,
    request,
)
from tests.services.executor.test_crash_windows import Killed

REASON = "delivered 9 times; allowed are 8"


@pytest.fixture
def script() -> ScriptedSandbox:
    """A sandbox without a script."""
    return ScriptedSandbox()


@pytest.fixture
def desk(mesh: MemoryTransport, script: ScriptedSandbox) -> Desk:
    """An executor with the sample tools."""
    return Desk(mesh, catalog(), script)


async def exhausted(desk: Desk, delivery: HandDelivery) -> None:
    """The worker gives the delivery up."""
    last = HandDelivery(delivery.message, 9)
    await (await desk.handler()).give_up(last, "delivery.exhausted", REASON)


def error_of(answer: Sealed) -> tuple[str, str, bool]:
    """Code, blame and retryable of a failed answer."""
    error = payload_as(answer, ToolFailed).error
    return error.code, error.blame, error.retryable


# --- delivered too often -------------------------------------------------------------------------------------------


async def test_an_exhausted_call_becomes_a_dead_letter_and_a_failure(desk: Desk) -> None:
    """Both: the operator has the bytes, the caller an answer, and the audit says the same."""
    asked = planned("add", {"a": 1})
    delivery = await desk.send(asked)
    await exhausted(desk, delivery)

    [letter] = await desk.dead()
    assert ("AF_AUDIT", "executor", delivery.message.seq, 9) == (
        letter.stream,
        letter.consumer,
        letter.seq,
        letter.deliveries,
    )
    assert ("delivery.exhausted", REASON) == (letter.code, letter.reason)
    assert asked.body == base64.b64decode(letter.body_base64)
    assert ("delivery.exhausted", "mesh", False) == error_of(await desk.answer(asked))
    assert ["tool.outcome/1"] == await desk.entries(asked)


async def test_an_exhausted_call_with_an_open_effect_is_not_called_a_failure(
    desk: Desk, script: ScriptedSandbox
) -> None:
    """Its executors died behind the intent: the effect may have happened, and a person decides."""

    def die(job: object) -> Any:
        raise Killed

    script.script = [die]
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    with pytest.raises(Killed):
        await (await desk.handler()).handle(delivery)
    await exhausted(desk, delivery)

    assert ("effect.outcome_unknown", "tool", False) == error_of(await desk.answer(asked))
    assert ["tool.intent/1", "tool.outcome/1"] == await desk.entries(asked)
    assert 1 == len(await desk.dead())


async def test_an_exhausted_call_that_was_concluded_is_answered_with_its_outcome(
    desk: Desk, script: ScriptedSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed again and again between outcome and answer: the truth is on the chain."""
    script.script = [ran({"sum": 3})]
    asked = call("add", {"a": 2})
    delivery = await desk.send(asked)

    def die(name: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("agentflow.crash.point", lambda name: die(name) if name == "executor.after_outcome" else None)
        with pytest.raises(Killed):
            await (await desk.handler()).handle(delivery)
    await exhausted(desk, delivery)

    assert ToolCompleted({"sum": 3}) == payload_as(await desk.answer(asked), ToolCompleted)
    assert 1 == len(await desk.dead())


async def test_giving_up_twice_says_the_same_twice(desk: Desk) -> None:
    """Killed between letter and term, the next process finds both there."""
    asked = call("add", {"a": 1})
    delivery = await desk.send(asked)
    await exhausted(desk, delivery)
    first = await desk.answer(asked)
    await exhausted(desk, delivery)

    assert first == await desk.answer(asked)
    assert ["tool.outcome/1"] == await desk.entries(asked)
    assert 1 == len({(letter.seq, letter.code) for letter in await desk.dead()})


# --- calls that cannot be handled ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "sender", "code"),
    [
        (CancelRequested("stop"), "clerk", "schema.unexpected"),
        (request("add", {"a": 1}), "planner", "id.invalid"),
    ],
)
async def test_a_call_that_makes_no_sense_is_recorded_and_answered(
    desk: Desk, payload: Any, sender: str, code: str
) -> None:
    """Another schema, or a planner that does not say for which workflow: a dead letter, and a caller who knows."""
    asked = envelope(payload, sender)
    delivery = await desk.send(asked)
    with pytest.raises(InputError) as caught:
        await (await desk.handler()).handle(delivery)
    await (await desk.handler()).give_up(delivery, caught.value.error_code, caught.value.message)

    assert code == caught.value.error_code
    assert [code] == [letter.code for letter in await desk.dead()]
    assert (code, "input", False) == error_of(await desk.answer(asked))


async def test_a_call_without_a_usable_deadline_is_refused(desk: Desk) -> None:
    """Waiting for it would have no end."""
    bad = envelope(ToolRequested("add", {}, deadline="soon"), "clerk")
    delivery = await desk.send(bad)

    with pytest.raises(InputError) as caught:
        await (await desk.handler()).handle(delivery)

    assert "call.deadline" == caught.value.error_code


async def test_a_message_nobody_may_be_answered_about_is_a_dead_letter_alone(desk: Desk) -> None:
    """A forged reply subject gets no answer anywhere."""
    forged = envelope(request("add", {"a": 1}), "clerk", reply_to=subjects.workflow_result("run-9", "x"))
    delivery = await desk.send(forged)
    await (await desk.handler()).give_up(delivery, "call.reply_to", "not yours")

    assert ["call.reply_to"] == [letter.code for letter in await desk.dead()]
    assert [] == await desk.stored("AF_MESSAGES", ">")
    assert [] == await desk.stored("AF_AUDIT", "tools.results.>")
    assert [] == await desk.audit(forged)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b'{"envelope_hash":"' + b"0" * 64 + b'",}', b"x" * 400_000])
async def test_junk_is_a_dead_letter_with_its_bytes(desk: Desk, mesh: MemoryTransport, body: bytes) -> None:
    """Whatever was published on a calls subject is kept for a person to look at."""
    stored = await mesh.publish("tools.calls.junk", body, stream="AF_AUDIT")
    message = await mesh.get("AF_AUDIT", stored.seq)
    assert message is not None
    delivery = HandDelivery(message)
    with pytest.raises(InputError) as caught:
        await (await desk.handler()).handle(delivery)
    await (await desk.handler()).give_up(delivery, caught.value.error_code, caught.value.message)

    [letter] = await desk.dead()
    assert letter.code.startswith("envelope.")
    if len(body) < 1000:
        assert body == base64.b64decode(letter.body_base64)
    else:
        assert f"artifact:sha256-{sha256_hex(body)}" == letter.body_base64


# --- evidence that does not verify ---------------------------------------------------------------------------------


async def test_a_damaged_audit_chain_stops_the_call(desk: Desk, mesh: MemoryTransport) -> None:
    """Junk where the ledger should be: nothing is run on it, the letter says so, the caller is told."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    await mesh.publish(subjects.tool_audit(asked.envelope.id), b'{"junk":1}', stream="AF_AUDIT")

    with pytest.raises(EvidenceError) as caught:
        await (await desk.handler()).handle(delivery)
    await (await desk.handler()).give_up(delivery, caught.value.error_code, caught.value.message)

    assert "ledger.damaged" == caught.value.error_code
    assert ("ledger.damaged", "mesh", False) == error_of(await desk.answer(asked))
    assert ["ledger.damaged"] == [letter.code for letter in await desk.dead()]


@pytest.mark.parametrize("sender", ["executor", "clerk"])
async def test_an_entry_that_does_not_continue_the_chain_is_damage(
    desk: Desk, mesh: MemoryTransport, sender: str
) -> None:
    """A sealed envelope, but not at its place or not of the executor."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    id = derive_id(asked.envelope.id, sender, "x")
    place = (
        ChainPlace("audit:elsewhere")
        if sender == "executor"
        else ChainPlace(f"audit:{asked.envelope.id}", 0, asked.hash)
    )
    forged = compose(
        CancelRequested("x"),
        id=id,
        subject=subjects.tool_audit(asked.envelope.id),
        sender=sender,
        to="clerk",
        trace_id="0" * 32,
        span_id="0" * 16,
        ts=asked.envelope.ts,
        place=place,
    )
    await store(mesh, forged, expect=0)

    with pytest.raises(EvidenceError):
        await (await desk.handler()).handle(HandDelivery(delivery.message, 2))


async def test_a_taken_answer_subject_is_not_overwritten(
    desk: Desk, mesh: MemoryTransport, script: ScriptedSandbox
) -> None:
    """Somebody stored another answer: the outcome stays on the audit, the letter says that nobody could be told."""
    script.script = [ran({"sum": 3})]
    asked = call("add", {"a": 2})
    foreign = compose(
        ToolCompleted({"sum": 666}),
        id=derive_id(asked.envelope.id, "executor", "result"),
        subject=str(asked.envelope.metadata["reply_to"]),
        sender="executor",
        to="clerk",
        trace_id=asked.envelope.trace_id,
        span_id="0" * 16,
        ts=asked.envelope.ts,
        place=handling_chain(asked),
        causes=(asked.ref,),
    )
    await store(mesh, foreign, expect=0)
    delivery = await desk.send(asked)

    with pytest.raises(EvidenceError) as caught:
        await (await desk.handler()).handle(delivery)
    await (await desk.handler()).give_up(delivery, caught.value.error_code, caught.value.message)

    assert "handler.nondeterministic" == caught.value.error_code
    assert foreign == await desk.answer(asked)
    assert ["handler.nondeterministic"] == [letter.code for letter in await desk.dead()]
    assert ["tool.outcome/1"] == await desk.entries(asked)
