"""`agentflow dead`: what was given up, what it was, and having it handled again."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from agentflow import subjects
from agentflow.chain import audit_chain
from agentflow.client import Client
from agentflow.clock import SystemClock, format_time
from agentflow.envelope import Sealed, claim_for, unseal
from agentflow.mesh.deadletters import MAX_INLINE_BODY, write_dead_letter
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Message
from agentflow.payloads import AuditOutcome, Failure, StepCompleted, StepFailed, StepRequested, ToolRequested
from agentflow.testing import envelope
from tests.cli.terminal import Mesh, Terminal
from tests.support.fake_planner import FakePlanner, failure

Work = Callable[[MemoryTransport], Awaitable[Any]]


class GivenUp:
    """A delivery that is given up."""

    def __init__(self, message: Message) -> None:
        self.message, self.deliveries = message, 9

    async def ack(self) -> None:
        """Nothing."""

    async def nak(self, delay: float = 0.0) -> None:
        """Nothing."""

    async def in_progress(self) -> None:
        """Nothing."""

    async def term(self) -> None:
        """Nothing."""


def bury(
    mesh: Mesh, body: bytes = b"\x00junk", subject: str = "agents.helper.in", *, code: str = "input.bad", by: str = ""
) -> str:
    """A message that was stored and given up; returns the letter's id."""

    async def work(transport: MemoryTransport) -> str:
        stream = subjects.stream_of(subject)
        seq = (await transport.publish(subject, body, stream=stream)).seq
        message = await transport.get(stream, seq)
        assert message is not None
        await write_dead_letter(transport, GivenUp(message), by or "agent-helper", "runtime", code, "no use")
        last = await transport.last("AF_DEAD", subjects.dead(stream, by or "agent-helper"))
        assert last is not None
        return unseal(last.body, last.subject).envelope.id

    return mesh.do(work)


def step(run: str = "run-1", *, seconds: float = 3600.0, index: int = 0) -> Sealed:
    """A step that was requested."""
    deadline = format_time(SystemClock().now() + timedelta(seconds=seconds))
    id = envelope(StepCompleted(None), "agents.helper.in", index=index).envelope.id
    request = StepRequested("greet@1", "work", 1, {"text": "x"}, deadline)
    made = envelope(request, subjects.agent_in("helper", id), index=index, metadata={"workflow_id": run})
    return made


def buried_step(mesh: Mesh, sealed: Sealed) -> str:
    """A step that was given up."""
    return bury(mesh, sealed.body, sealed.envelope.subject, code="delivery.exhausted")


def answered(mesh: Mesh, sealed: Sealed, payload: StepCompleted | StepFailed) -> None:
    """Store a step's result."""
    subject = subjects.workflow_result(sealed.workflow_id, sealed.envelope.id)
    result = envelope(payload, subject, causes=(sealed.ref,))

    async def work(transport: MemoryTransport) -> None:
        await store(transport, result)

    mesh.do(work)


# --- ls and show -----------------------------------------------------------------------------------------------------


def test_letters_are_listed_with_what_became_of_them(terminal: Terminal, mesh: Mesh) -> None:
    """The oldest first; narrowed by stream, consumer, code and time."""
    one = bury(mesh)
    two = bury(mesh, subject="tools.calls.c1", code="call.misplaced", by="executor")

    rows = terminal("dead", "ls", "--json").json
    assert [(one, "open", "input.bad"), (two, "open", "call.misplaced")] == [
        (row["id"], row["status"], row["code"]) for row in rows
    ]
    for options, expected in (
        (("--stream", "AF_AUDIT"), [two]),
        (("--consumer", "agent-helper"), [one]),
        (("--code", "input.bad"), [one]),
        (("--since", "1h"), [one, two]),
        (("--since", "2100-01-01T00:00:00Z"), []),
    ):
        assert expected == [row["id"] for row in terminal("dead", "ls", *options, "--json").json]
    assert one in terminal("dead", "ls").out


def test_without_letters_that_is_said(terminal: Terminal, mesh: Mesh) -> None:
    """And the list is empty."""
    assert [] == terminal("dead", "ls", "--json").json
    assert "there are no dead letters" in terminal("dead", "ls").err


def test_junk_is_shown_as_bytes(terminal: Terminal, mesh: Mesh) -> None:
    """By the end of its id, with its offsets; cut unless all is asked for."""
    id = bury(mesh, b"\x00junk" * 1000)
    shown = terminal("dead", "show", id[-6:], "--json").json

    assert (True, 5000, True, True) == (shown["verified"], shown["size"], shown["still_stored"], shown["truncated"])
    assert "00000000  00 6a 75 6e 6b 00 6a 75 6e 6b 00 6a 75 6e 6b 00  .junk.junk.junk." == shown["body"][0]
    assert 128 == len(shown["body"])
    assert 313 == len(terminal("dead", "show", id, "--full", "--json").json["body"])
    assert "--full shows all" in terminal("dead", "show", id).err


def test_an_envelope_is_decoded(terminal: Terminal, mesh: Mesh) -> None:
    """With its payload, and what a retry would come to."""
    id = buried_step(mesh, step())
    shown = terminal("dead", "show", id, "--json").json

    assert ("step.requested/1", {"text": "x"}) == (shown["message"]["schema"], shown["message"]["payload"]["input"])
    assert ("helps", "run-1") == (shown["outlook"], shown["run"])
    assert '"schema": "step.requested/1"' in terminal("dead", "show", id).out


def test_a_large_body_is_fetched_and_checked(terminal: Terminal, mesh: Mesh) -> None:
    """An artifact that is gone is said, and the rest is shown all the same."""
    body = b"x" * (MAX_INLINE_BODY + 1)
    id = bury(mesh, body)
    shown = terminal("dead", "show", id, "--json").json
    assert (True, len(body), f"artifact {claim_for(body).artifact}") == (
        shown["verified"],
        shown["size"],
        shown["kept_in"],
    )

    mesh.do(_lose_artifacts)
    lost = terminal("dead", "show", id, "--json").json
    assert (False, "dead.body_damaged", "no use") == (lost["verified"], lost["outlook"], lost["reason"])
    assert lost["problem"] in terminal("dead", "show", id).out
    refused = terminal("dead", "retry", id, "--json")
    assert (1, ["dead.body_damaged"]) == (refused.code, [each["code"] for each in refused.json])


async def _lose_artifacts(transport: MemoryTransport) -> None:
    config = dict(transport.broker.streams["OBJ_AF_ARTIFACTS"].config)
    transport.broker.streams.pop("OBJ_AF_ARTIFACTS")
    await transport.create_stream(config)


@pytest.mark.parametrize(("given", "code"), [("nothing", "dead.unknown"), ("abc", "dead.unknown")])
def test_a_letter_that_is_not_there_is_not_found(given: str, code: str, terminal: Terminal, mesh: Mesh) -> None:
    """With the exit code of what is not found."""
    ended = terminal("dead", "show", given, "--json")

    assert (3, code) == (ended.code, ended.json["error"]["code"])


# --- retry -----------------------------------------------------------------------------------------------------------


def test_a_retry_is_stored_once(terminal: Terminal, mesh: Mesh) -> None:
    """Asked for twice it says so the second time; the list shows it."""
    id = buried_step(mesh, step())

    (first,) = terminal("dead", "retry", id, "--json").json
    (second,) = terminal("dead", "retry", id, "--json").json

    assert ("retried", "already") == (first["outcome"], second["outcome"])
    assert ["retried"] == [row["status"] for row in terminal("dead", "ls", "--json").json]
    assert 1 == mesh.do(lambda transport: _count(transport, "AF_AGENTS", first["redelivered"]))


async def _count(transport: MemoryTransport, stream: str, subject: str) -> int:
    return len([message async for message in transport.read(stream, subject)])


def test_what_cannot_help_is_refused_with_what_can(terminal: Terminal, mesh: Mesh) -> None:
    """A deadline that passed, an answer that is there, a subject no consumer takes; nothing is stored."""
    late = buried_step(mesh, step(seconds=-1, index=1))
    done_step, failed_step = step(index=2), step(index=3)
    done, failed = buried_step(mesh, done_step), buried_step(mesh, failed_step)
    answered(mesh, done_step, StepCompleted({}))
    answered(mesh, failed_step, StepFailed(Failure("model.refused", "X", "no", "model")))
    nowhere = bury(mesh, subject="tools.audit.c1", by="executor")
    ended = terminal("dead", "retry", late, done, failed, nowhere, "--json")

    assert 1 == ended.code
    assert ["dead.too_late", "dead.answered", "dead.answered", "dead.not_retryable"] == [
        each["code"] for each in ended.json
    ]
    assert all("submit the goal again" in each["message"] for each in ended.json[:3])
    assert {"open"} == {row["status"] for row in terminal("dead", "ls", "--json").json}


def test_a_call_with_an_outcome_is_never_made_again(terminal: Terminal, mesh: Mesh) -> None:
    """Its ledger is closed."""
    id = envelope(StepCompleted(None), "tools.calls.x").envelope.id
    deadline = format_time(SystemClock().now() + timedelta(hours=1))
    call = envelope(ToolRequested("send", {}, deadline), subjects.tool_call(id))
    call = envelope(ToolRequested("send", {}, deadline), subjects.tool_call(call.envelope.id), index=0)
    letter = bury(mesh, call.body, call.envelope.subject, by="executor")
    outcome = AuditOutcome("send", "unknown", "0" * 64, error=Failure("effect.outcome_unknown", "X", "", "tool"))
    audit = envelope(outcome, subjects.tool_audit(call.envelope.id), place=audit_chain(call))

    async def work(transport: MemoryTransport) -> None:
        await store(transport, audit)

    mesh.do(work)
    (told,) = terminal("dead", "retry", letter, "--json").json
    assert "dead.answered" == told["code"]
    assert "recorded as unknown (effect.outcome_unknown)" in told["message"]


def test_of_a_run_that_ended_it_is_said_and_all_passes_over_it(terminal: Terminal, mesh: Mesh) -> None:
    """It stays ended; whoever names the letter has it handled all the same."""
    sealed = step()
    letter = buried_step(mesh, sealed)
    answered(mesh, sealed, StepFailed(Failure("delivery.exhausted", "DeadLetter", "too often", "mesh")))

    async def fail(transport: MemoryTransport) -> None:
        await Client(transport).submit("greet", {}, id="run-1")
        planner = FakePlanner(transport)
        await planner.accept("run-1")
        await planner.fail("run-1", failure("delivery.exhausted"))

    mesh.do(fail)
    (skipped,) = terminal("dead", "retry", "--all", "--yes", "--json").json
    (named,) = terminal("dead", "retry", letter, "--json").json

    assert ("skipped", "dead.run_ended", "retried") == (skipped["outcome"], skipped["code"], named["outcome"])
    for told in (skipped, named):
        assert "the run run-1 ended run.failed (delivery.exhausted" in told["message"]
        assert "submit the goal again" in told["message"]


def test_all_is_asked_for_and_confirmed(terminal: Terminal, mesh: Mesh) -> None:
    """Neither nothing nor both; without a terminal only with --yes; only the open ones that fit."""
    one, two = bury(mesh, b"one"), bury(mesh, b"two", code="other")

    assert 2 == terminal("dead", "retry").code
    assert 2 == terminal("dead", "retry", one, "--all").code
    refused = terminal("dead", "retry", "--all", "--json")
    assert (2, "usage.confirm") == (refused.code, refused.json["error"]["code"])
    assert [two] == [each["id"] for each in terminal("dead", "retry", "--all", "--code", "other", "-y", "--json").json]
    ended = terminal("dead", "retry", "--all", "--yes")
    assert one in ended.out
    assert two not in ended.out
    assert "agentflow dead ls" in ended.err
