"""One call from its delivery to its answer, on the mesh in memory, with a sandbox that follows a script."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from agentflow import subjects
from agentflow.chain import handling_chain
from agentflow.clock import SystemClock
from agentflow.envelope import Sealed, encode_payload, sha256_hex
from agentflow.errors import InputError
from agentflow.ids import derive_id
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Transport
from agentflow.payloads import AuditIntent, AuditOutcome, ToolCompleted, ToolFailed
from agentflow.project import Allow, Project, ToolSpec
from agentflow.schemas import payload_as
from agentflow_executor import handling
from agentflow_executor.catalog import load_catalog
from agentflow_executor.execution import Execution, Reply
from agentflow_executor.intake import Call
from agentflow_executor.ledger import Record
from agentflow_executor.profile import Policies
from agentflow_executor.sandbox import Job
from agentflow_executor.trail import Trail, append
from tests.services.executor.harness import (
    Desk,
    HandDelivery,
    ScriptedSandbox,
    call,
    catalog,
    checked,
    crashed,
    envelope,
    large,
    planned,
    ran,
    request,
    seen,
)


@pytest.fixture
def script() -> ScriptedSandbox:
    """A sandbox without a script."""
    return ScriptedSandbox()


@pytest.fixture
def desk(mesh: MemoryTransport, script: ScriptedSandbox) -> Desk:
    """An executor with the sample tools."""
    return Desk(mesh, catalog(), script)


def failure_of(answer: Sealed) -> tuple[str, str, bool]:
    """Code, blame and retryable of a failed answer."""
    error = payload_as(answer, ToolFailed).error
    return error.code, error.blame, error.retryable


# --- the ordinary way ----------------------------------------------------------------------------------------------


async def test_an_agents_call_is_answered_to_the_agent(desk: Desk, script: ScriptedSandbox) -> None:
    """The answer is a pure function of the call but for its time: derived id, the call's trace, its chain and cause."""
    script.script = [ran({"sum": 3})]
    asked = call("add", {"a": 1, "b": 2})
    answer = await desk.handle(asked)

    found = answer.envelope
    assert ToolCompleted({"sum": 3}) == payload_as(answer, ToolCompleted)
    assert subjects.tool_result("clerk", asked.envelope.id) == found.subject
    assert derive_id(asked.envelope.id, "executor", "result") == found.id
    assert ("executor", "clerk", asked.envelope.trace_id) == (found.sender, found.to, found.trace_id)
    assert found.span_id != asked.envelope.span_id
    assert (handling_chain(asked).chain, 0, asked.hash) == (found.chain, found.chain_seq, found.prev_hash)
    [outcome] = await desk.audit(asked)
    assert (asked.ref, outcome.ref) == found.causes
    assert {"workflow_id": "run-0", "tenant": "acme"} == found.metadata


@pytest.mark.parametrize("tool", ["add", "append_line"])
async def test_a_call_from_history_that_comes_as_if_for_the_first_time_is_not_executed(
    desk: Desk, script: ScriptedSandbox, tool: str
) -> None:
    """A consumer made anew counts deliveries from one; the audit chain knows better, with an intent and without."""
    script.script = [ran({"sum": 3})]
    asked = call(tool, {"a": 1, "b": 2} if tool == "add" else {"text": "hi"})
    delivery = await desk.send(asked)
    await (await desk.handler()).handle(delivery)
    answered, audited = await desk.answer(asked), await desk.audit(asked)
    await (await desk.handler()).handle(HandDelivery(delivery.message))

    assert 1 == len(script.jobs)
    assert (answered, audited) == (await desk.answer(asked), await desk.audit(asked))


class LateClock:
    """A clock that can be moved on."""

    late = timedelta(0)

    def now(self) -> datetime:
        """The present, moved on."""
        return SystemClock().now() + self.late


@pytest.mark.parametrize("tool", ["append_line", "put"])
async def test_an_intent_that_took_long_to_store_is_taken_back_and_made_anew(
    desk: Desk, script: ScriptedSandbox, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """A tool gets its time, however slow the broker was: what was not started is said not to have happened."""
    clock, slow = LateClock(), iter([timedelta(seconds=5)])

    async def append_slowly(transport: Transport, call: Call, trail: Trail, record: Record, *more: Any) -> Trail:
        stored = await append(transport, call, trail, record, *more)
        clock.late += next(slow, timedelta(0)) if isinstance(record, AuditIntent) else timedelta(0)
        return stored

    monkeypatch.setattr(handling, "append", append_slowly)
    desk.clock = clock
    script.script = [ran({"done": True})]
    asked = call(tool, {"text": "hi"})
    await desk.handle(asked)

    assert 1 == len(script.jobs)
    assert script.jobs[0].expires > clock.now()
    assert ["tool.intent", "tool.reconciled", "tool.intent", "tool.outcome"] == [
        entry.envelope.schema.partition("/")[0] for entry in await desk.audit(asked)
    ]


async def test_a_planners_call_is_answered_to_the_run(desk: Desk, script: ScriptedSandbox) -> None:
    """On the run's own results subject, as the principal `workflow:<name>`."""
    script.script = [ran({"call": "x"})]
    asked = planned("append_line", {"text": "hi"})
    answer = await desk.handle(asked)

    assert subjects.workflow_result("run-0", asked.envelope.id) == answer.envelope.subject
    assert "workflow:support" == script.jobs[0].profile.principal
    assert "workflow:support" == payload_as((await desk.audit(asked))[0], AuditIntent).principal


async def test_a_pure_call_leaves_one_entry(desk: Desk, script: ScriptedSandbox) -> None:
    """The outcome, with hashes of what went in and what came out, what it used, and the answer's own bytes."""
    script.script = [ran({"sum": 3}, exit_code=0)]
    asked = call("add", {"a": 1, "b": 2})
    answer = await desk.handle(asked)

    [entry] = await desk.audit(asked)
    outcome = payload_as(entry, AuditOutcome)
    assert ("add", "completed", 0) == (outcome.tool, outcome.status, outcome.exit_code)
    assert sha256_hex(encode_payload({"a": 1, "b": 2})) == outcome.input_sha256
    assert sha256_hex(bytes(answer.envelope.payload)) == outcome.output_sha256
    assert bytes(answer.envelope.payload) == encode_payload(outcome.result)
    assert outcome.usage is not None
    assert (1.5, 1.0, 1000, 3) == tuple(getattr(outcome.usage, name) for name in outcome.usage.__struct_fields__)
    assert derive_id(asked.envelope.id, "executor", "audit:outcome") == entry.envelope.id
    assert "executor" == entry.envelope.sender


async def test_an_effect_is_announced_before_it_is_made(
    desk: Desk, script: ScriptedSandbox, mesh: MemoryTransport
) -> None:
    """The intent is stored when the sandbox starts: who, what, under which limits, until when."""
    asked = call("append_line", {"text": "hi"})
    before: list[str] = []

    def look(job: Job) -> Execution:
        before.extend(message.subject for message in mesh.broker.stream("AF_AUDIT").messages.values())
        return ran({"call": asked.envelope.id})

    script.script = [look]
    await desk.handle(asked)

    assert [subjects.tool_call(asked.envelope.id), subjects.tool_audit(asked.envelope.id)] == before
    intent, outcome = await desk.audit(asked)
    found = payload_as(intent, AuditIntent)
    assert ("append_line", "1.0.0", "irreversible", "clerk", 1) == (
        found.tool,
        found.tool_version,
        found.effect,
        found.principal,
        found.execution,
    )
    assert script.jobs[0].profile.sha256 == found.profile_sha256
    assert payload_as(outcome, AuditOutcome).input_sha256 == found.input_sha256
    assert derive_id(asked.envelope.id, "executor", "audit:intent", 1) == intent.envelope.id


async def test_a_job_carries_what_the_project_says(desk: Desk, script: ScriptedSandbox) -> None:
    """Settings, grants and limits come from the project file and the declaration, never from the call."""
    script.script = [ran({"call": "x"})]
    asked = call("append_line", {"text": "hi"})
    await desk.handle(asked)

    [job] = script.jobs
    assert ("call", asked.envelope.id, {"text": "hi"}, {"tool": "append_line"}) == (
        job.mode,
        job.call_id,
        job.input,
        job.settings,
    )
    assert {"outbox"} == set(job.profile.grants)
    assert 5 == job.profile.wall_seconds


async def test_a_job_ends_with_the_calls_deadline(desk: Desk, script: ScriptedSandbox) -> None:
    """Not later than the tool's own time allows, and never behind the deadline."""
    script.script = [ran({"sum": 1}), ran({"sum": 1})]
    await desk.handle(call("add", {"a": 1}, index=1, seconds=2))
    await desk.handle(call("add", {"a": 1}, index=2, seconds=1000))

    soon, later = ((job.expires - desk.clock.now()).total_seconds() for job in script.jobs)
    assert 0 < soon <= 2
    assert 29 < later <= 31


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "input", "code"),
    [
        ("fly", {}, "tool.unknown"),
        ("add", {"a": "one"}, "tool.input_invalid"),
        ("add", {}, "tool.input_invalid"),
        ("add", {"a": 1, "c": 1}, "tool.input_invalid"),
        ("add", {"a": 2**63}, None),
        ("echo", {"value": 2**65}, "tool.input_invalid"),
    ],
)
async def test_what_is_not_right_is_refused_and_recorded(
    desk: Desk, script: ScriptedSandbox, tool: str, input: dict[str, object], code: str | None
) -> None:
    """An unknown tool and an input that breaks the schema: answered, audited, and nothing was started."""
    script.script = [ran({"sum": 1})] if code is None else []
    asked = call(tool, input)
    answer = await desk.handle(asked)

    if code is not None:
        assert (code, "input", False) == failure_of(answer)
        [entry] = await desk.audit(asked)
        assert "refused" == payload_as(entry, AuditOutcome).status
        assert [] == script.jobs


async def test_a_message_about_a_bad_input_does_not_repeat_it(desk: Desk) -> None:
    """It names the place and the rule; the value stays where it is."""
    answer = await desk.handle(call("add", {"a": "4242-4242-4242-4242"}))

    message = payload_as(answer, ToolFailed).error.message
    assert "/a" in message
    assert "integer" in message
    assert "4242" not in message


async def test_a_caller_that_is_not_on_the_list_is_denied(mesh: MemoryTransport, script: ScriptedSandbox) -> None:
    """Default deny, for agents and for workflows; the tool exists, and another may call it."""
    desk = Desk(mesh, catalog(agents={"boss": ["add"], "clerk": ["echo"]}), script)

    denied = await desk.handle(call("add", {"a": 1}))
    foreign = await desk.handle(planned("add", {"a": 1}, workflow="other@1.0.0", index=1))

    assert ("tool.denied", "input", False) == failure_of(denied)
    assert ("tool.denied", "input", False) == failure_of(foreign)
    assert [] == script.jobs


async def test_a_call_behind_its_deadline_is_not_run(desk: Desk, script: ScriptedSandbox) -> None:
    """It says so, and that it may be tried again."""
    answer = await desk.handle(call("append_line", {"text": "late"}, seconds=-1))

    assert ("tool.deadline_passed", "mesh", True) == failure_of(answer)
    assert [] == script.jobs


async def test_a_tool_without_its_grant_is_refused(mesh: MemoryTransport, script: ScriptedSandbox) -> None:
    """The project file grants nothing: the tool is known, but does not run."""
    bare = Project(
        tools=[ToolSpec("tests.services.executor.sample_tools:append_line")], allow=Allow({"clerk": ["append_line"]})
    )
    desk = Desk(mesh, load_catalog(bare, Policies()), script)

    assert ("permission.missing", "input", False) == failure_of(await desk.handle(call("append_line", {"text": "x"})))


# --- failures ------------------------------------------------------------------------------------------------------


async def test_a_tools_own_failure_is_passed_on(desk: Desk, script: ScriptedSandbox) -> None:
    """Code, blame and whether to try again."""
    script.script = [
        seen(
            Reply(
                "error",
                code="card.blocked",
                type="StepError",
                message="no",
                blame="input",
                retryable=False,
                certain=True,
            )
        )
    ]

    assert ("card.blocked", "input", False) == failure_of(await desk.handle(call("refuse")))


async def test_an_output_off_its_schema_is_a_failure(desk: Desk, script: ScriptedSandbox) -> None:
    """The tool promised something else."""
    script.script = [ran({"question": 42})]

    assert ("tool.output_invalid", "tool", False) == failure_of(await desk.handle(call("off_schema")))


async def test_a_crash_of_a_pure_tool_is_a_failure_that_may_be_retried(desk: Desk, script: ScriptedSandbox) -> None:
    """Nothing to ask anybody."""
    script.script = [crashed()]
    asked = call("add", {"a": 1})

    assert ("tool.crashed", "tool", True) == failure_of(await desk.handle(asked))
    [entry] = await desk.audit(asked)
    assert -9 == payload_as(entry, AuditOutcome).exit_code


@pytest.mark.parametrize(
    ("finding", "status", "code"),
    [
        (checked(True, {"call": "x"}), "completed", None),
        (checked(False), "failed", "tool.crashed"),
        (checked(None, detail="the line is torn"), "unknown", "effect.outcome_unknown"),
        (checked(True, "not what was promised"), "failed", "tool.output_invalid"),
    ],
)
async def test_a_crash_of_an_irreversible_tool_is_checked_at_once(
    desk: Desk, script: ScriptedSandbox, finding: Execution, status: str, code: str | None
) -> None:
    """What the check says becomes the outcome; nothing runs twice."""
    script.script = [crashed(), finding]
    asked = call("append_line", {"text": "hi"})
    answer = await desk.handle(asked)

    assert ["tool.intent/1", "tool.reconciled/1", "tool.outcome/1"] == await desk.entries(asked)
    assert status == payload_as((await desk.audit(asked))[-1], AuditOutcome).status
    assert ["call", "check"] == [job.mode for job in script.jobs]
    if code is None:
        assert ToolCompleted({"call": "x"}) == payload_as(answer, ToolCompleted)
    else:
        assert code == failure_of(answer)[0]


async def test_a_check_that_does_not_answer_is_asked_again(
    desk: Desk, script: ScriptedSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times; then a person has to decide."""
    monkeypatch.setattr("agentflow_executor.handling.CHECK_PAUSE", 0.01)
    script.script = [crashed(), crashed(), crashed(), checked(True, {"call": "x"})]
    found = await desk.handle(call("append_line", {"text": "hi"}, index=1))
    script.script = [crashed(), crashed(), crashed(), crashed()]
    lost = await desk.handle(call("append_line", {"text": "hi"}, index=2))

    assert ToolCompleted({"call": "x"}) == payload_as(found, ToolCompleted)
    assert ("effect.outcome_unknown", "tool", False) == failure_of(lost)


async def test_a_deliberate_failure_of_an_irreversible_tool_is_believed(desk: Desk, script: ScriptedSandbox) -> None:
    """It says that nothing happened; its check is not asked."""
    script.script = [seen(Reply("error", code="card.blocked", type="StepError", message="no", certain=True))]
    asked = call("append_line", {"text": "hi"})

    assert "card.blocked" == failure_of(await desk.handle(asked))[0]
    assert ["tool.intent/1", "tool.outcome/1"] == await desk.entries(asked)


# --- large payloads ------------------------------------------------------------------------------------------------


async def test_a_large_output_is_answered_by_reference(desk: Desk, script: ScriptedSandbox) -> None:
    """It is kept once; the audit holds the same reference, and the hash is that of the payload."""
    text = "x" * 400_000
    script.script = [ran({"text": text})]
    asked = call("big", {"size": len(text)})
    answer = await desk.handle(asked)

    assert len(answer.envelope.payload) < 1000
    assert ToolCompleted({"text": text}) == await desk.payload(answer)
    outcome = payload_as((await desk.audit(asked))[0], AuditOutcome)
    assert outcome.result["sha256"] == outcome.output_sha256
    assert sha256_hex(encode_payload(ToolCompleted({"text": text}))) == outcome.output_sha256


async def test_a_large_input_is_fetched(desk: Desk, script: ScriptedSandbox) -> None:
    """A call that is a claim check is handled like any other."""
    payload = request("echo", {"value": "y" * 200_000})
    script.script = [lambda job: ran(job.input["value"])]
    answer = await desk.handle(envelope(payload, "clerk", raw=await large(desk.mesh, payload)))

    assert ToolCompleted("y" * 200_000) == await desk.payload(answer)


async def test_an_input_beyond_the_limit_is_refused(desk: Desk) -> None:
    """Eight mebibytes are enough for a tool."""
    payload = request("echo", {"value": "z" * 9_000_000})
    answer = await desk.handle(envelope(payload, "clerk", raw=await large(desk.mesh, payload)))

    assert "tool.input_too_large" == failure_of(answer)[0]


# --- delivered again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "input"), [("add", {"a": 1}), ("append_line", {"text": "hi"})])
async def test_a_duplicate_delivery_does_nothing_twice(
    desk: Desk, script: ScriptedSandbox, tool: str, input: dict[str, object]
) -> None:
    """Delivered again after it was answered: one execution, one answer, the same audit."""
    script.script = [ran({"sum": 1} if tool == "add" else {"call": "x"})]
    delivery = await desk.send(call(tool, input))
    await (await desk.handler()).handle(delivery)
    before = await desk.stored("AF_AUDIT", "tools.>")

    await desk.again(delivery)

    assert before == await desk.stored("AF_AUDIT", "tools.>")
    assert 1 == len(script.jobs)


async def test_a_forgotten_delivery_of_an_effect_does_nothing_twice(desk: Desk, script: ScriptedSandbox) -> None:
    """Delivered as if for the first time, as after a server lost its consumer: the audit chain knows better."""
    script.script = [ran({"call": "x"})]
    delivery = await desk.send(call("append_line", {"text": "hi"}))
    handler = await desk.handler()
    await handler.handle(delivery)
    before = await desk.stored("AF_AUDIT", "tools.>")

    await handler.handle(delivery)

    assert before == await desk.stored("AF_AUDIT", "tools.>")
    assert 1 == len(script.jobs)


async def test_a_forgotten_delivery_of_a_pure_call_keeps_its_first_answer(desk: Desk, script: ScriptedSandbox) -> None:
    """It may run again, but the outcome that is recorded stands, and so does the answer."""
    script.script = [ran({"sum": 1}), ran({"sum": 2})]
    asked = call("add", {"a": 1})
    delivery = await desk.send(asked)
    handler = await desk.handler()
    await handler.handle(delivery)
    await handler.handle(delivery)

    assert ["tool.outcome/1"] == await desk.entries(asked)
    assert ToolCompleted({"sum": 1}) == payload_as(await desk.answer(asked), ToolCompleted)


# --- messages that are no calls ------------------------------------------------------------------------------------


async def test_an_answer_is_never_sent_where_the_caller_points(desk: Desk, mesh: MemoryTransport) -> None:
    """A call that wants its answer on another's subject is refused before anything is done."""
    stolen = envelope(request("add", {"a": 1}), "clerk", reply_to=subjects.workflow_result("run-9", "x"))
    delivery = await desk.send(stolen)

    with pytest.raises(InputError) as caught:
        await (await desk.handler()).handle(delivery)

    assert "call.reply_to" == caught.value.error_code
    assert [] == await desk.stored("AF_MESSAGES", ">")


async def test_no_answer_without_an_outcome(desk: Desk) -> None:
    """Nothing is stored for a call that is still to be handled."""
    asked = call("add", {"a": 1})
    await desk.send(asked)

    assert None is await desk.find_answer(asked)
    assert [] == await desk.audit(asked)
