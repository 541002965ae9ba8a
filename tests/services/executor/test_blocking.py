"""A call whose tool or caller is blocked is not executed, from the very next call on, until the block ends."""

from typing import Any

import msgspec
import pytest

from agentflow.breakers import Breaker
from agentflow.clock import format_time, parse_time
from agentflow.envelope import Sealed
from agentflow.errors import MeshError, Unreachable
from agentflow.mesh.memory import MemoryTransport
from agentflow.payloads import AuditOutcome, ToolFailed, ToolRequested
from agentflow.registry import BREAKERS
from agentflow.schemas import payload_as
from agentflow.testing import START, FixedClock
from agentflow_executor.execution import Execution
from agentflow_executor.sandbox import Job
from tests.services.executor.harness import Desk, HandDelivery, ScriptedSandbox, call, catalog, planned, ran

UNTIL = "2026-01-01T00:00:30.000000Z"


@pytest.fixture
def clock() -> FixedClock:
    """The executor's clock."""
    return FixedClock()


@pytest.fixture
def sandbox() -> ScriptedSandbox:
    """A sandbox in which nothing is expected to run."""
    return ScriptedSandbox()


@pytest.fixture
def desk(mesh: MemoryTransport, sandbox: ScriptedSandbox, clock: FixedClock) -> Desk:
    """An executor on that clock."""
    return Desk(mesh, catalog(), sandbox, clock)


async def block(mesh: MemoryTransport, key: str, until: str = UNTIL, **more: Any) -> None:
    """Trip a breaker."""
    breaker = Breaker(until, format_time(START), "rapid-fire", "A1", "too many calls", **more)
    await (await mesh.bucket(BREAKERS)).put(key, msgspec.json.encode(breaker))


@pytest.mark.parametrize("key", ["tool.append_line", "agent.clerk"])
async def test_a_blocked_call_is_refused_with_when_to_come_back(mesh: MemoryTransport, desk: Desk, key: str) -> None:
    """No intent, nothing run; the audit says refused, and the caller may try again by its retry policy."""
    await block(mesh, key)
    asked = call("append_line", {"text": "hi"})

    failed = payload_as(await desk.handle(asked), ToolFailed).error

    assert ("breaker.open", True, 30.0) == (failed.code, failed.retryable, failed.retry_after)
    assert key in failed.message
    [said] = await desk.audit(asked)
    outcome = payload_as(said, AuditOutcome)
    assert ("refused", "breaker.open", "clerk") == (
        outcome.status,
        outcome.error.code if outcome.error else "",
        outcome.principal,
    )


async def test_a_block_of_a_workflow_is_not_one_of_an_agent(
    mesh: MemoryTransport, desk: Desk, sandbox: ScriptedSandbox
) -> None:
    """The states of a run are stopped, an agent goes on."""
    await block(mesh, "workflow.support")
    sandbox.script = [ran({"sum": 3})]

    stopped = await desk.handle(planned("add", {"a": 1}))
    fine = await desk.handle(call("add", {"a": 2}, index=1))

    assert ["tool.failed/1", "tool.completed/1"] == [stopped.envelope.schema, fine.envelope.schema]


async def test_the_next_call_after_the_block_is_stored_obeys_it(
    mesh: MemoryTransport, desk: Desk, sandbox: ScriptedSandbox
) -> None:
    """One handler, no restart: each call reads the breakers anew."""
    handler = await desk.handler()
    sandbox.script = [ran({"sum": 2})]
    before, after = call("add", {"a": 1}), call("add", {"a": 1}, index=1)

    await handler.handle(await desk.send(before))
    await block(mesh, "tool.add")
    await handler.handle(await desk.send(after))

    assert "tool.completed/1" == (await desk.answer(before)).envelope.schema
    assert "breaker.open" == payload_as(await desk.answer(after), ToolFailed).error.code
    assert 1 == len(sandbox.jobs)


async def test_a_block_ends_at_its_time_and_where_it_was_reset(
    mesh: MemoryTransport, desk: Desk, sandbox: ScriptedSandbox, clock: FixedClock
) -> None:
    """By itself, or by an operator."""
    sandbox.script = [ran({"sum": 2}), ran({"sum": 2})]
    await block(mesh, "tool.add")
    await block(mesh, "agent.clerk", reset=True)
    clock.advance(29.9)
    assert "tool.failed/1" == (await desk.handle(call("add", {"a": 1}))).envelope.schema
    clock.advance(0.1)
    assert "tool.completed/1" == (await desk.handle(call("add", {"a": 1}, index=1))).envelope.schema


async def test_the_longest_block_is_the_one_that_is_told(mesh: MemoryTransport, desk: Desk) -> None:
    """Of a tool and of a caller that are both blocked."""
    await block(mesh, "tool.add")
    await block(mesh, "agent.clerk", "2026-01-01T00:01:00.000000Z")

    failed = payload_as(await desk.handle(call("add", {"a": 1})), ToolFailed).error

    assert 60.0 == failed.retry_after


@pytest.mark.parametrize("broken", ["unreachable", "unreadable"])
async def test_nothing_runs_while_the_breakers_cannot_be_read(
    mesh: MemoryTransport, desk: Desk, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The call is given back by a mesh error, and nothing is recorded about it."""
    asked = call("add", {"a": 1})
    delivery = await desk.send(asked)
    handler = await desk.handler()
    if broken == "unreadable":
        await (await mesh.bucket(BREAKERS)).put("tool.add", b"junk")
    else:

        async def no_bucket(name: str) -> Any:
            raise Unreachable(f"no {name}")

        monkeypatch.setattr(handler._breakers._transport, "bucket", no_bucket)

    with pytest.raises(MeshError):
        await handler.handle(delivery)

    assert [] == await desk.audit(asked)


async def test_a_tool_nobody_has_is_still_refused_as_that(desk: Desk) -> None:
    """A name that cannot be a key has no breaker."""
    failed = payload_as(await desk.handle(call("no such.tool*")), ToolFailed).error

    assert "tool.unknown" == failed.code


async def test_what_is_audited_says_who_asked_for_how_much(desk: Desk, sandbox: ScriptedSandbox) -> None:
    """With the outcome, since a pure tool has no intent: principal, version, permissions, bytes in and out."""
    sandbox.script = [ran({"sum": 2})]
    asked = call("add", {"a": 1})
    await desk.handle(asked)

    outcome = payload_as((await desk.audit(asked))[-1], AuditOutcome)

    assert ("clerk", "add", ("none",)) == (outcome.principal, outcome.tool, outcome.permissions)
    assert outcome.tool_version
    assert (len(b'{"a":1}'), len(b'{"output":{"sum":2}}')) == (outcome.input_bytes, outcome.output_bytes)


class Killed(BaseException):
    """The executor ends in the middle of an execution."""


def dies(job: Job) -> Execution:
    """An execution whose executor does not live to see its end."""
    raise Killed


async def half_done(desk: Desk, sandbox: ScriptedSandbox, asked: Sealed) -> HandDelivery:
    """A delivery of a call whose executor died behind its intent."""
    sandbox.script = [dies]
    delivery = await desk.send(asked)
    with pytest.raises(Killed):
        await (await desk.handler()).handle(delivery)
    return delivery


async def test_a_block_does_not_turn_an_effect_that_may_have_happened_into_a_failure(
    mesh: MemoryTransport, desk: Desk, sandbox: ScriptedSandbox, clock: FixedClock
) -> None:
    """The call is given back until the block ends, with nothing recorded; then it runs again."""
    asked = call("put", {"text": "hi"})
    delivery = await half_done(desk, sandbox, asked)
    await block(mesh, "agent.clerk")

    later = await desk.again(delivery)

    assert (["nak"], 30.0) == (later.said, later.delay)
    assert ["tool.intent/1"] == await desk.entries(asked)
    assert await desk.find_answer(asked) is None

    clock.advance(30)
    sandbox.script = [ran({"call": "x"})]
    await desk.again(later)
    assert "tool.completed/1" == (await desk.answer(asked)).envelope.schema


@pytest.mark.parametrize("how", ["blocked", "free", "denied"])
async def test_a_call_that_may_have_happened_is_unknown_at_its_deadline(
    mesh: MemoryTransport, desk: Desk, sandbox: ScriptedSandbox, clock: FixedClock, how: str
) -> None:
    """Blocked or not, and when it is allowed no more: neither failed nor refused, and not to be tried again."""
    asked = call("put", {"text": "hi"})
    deadline = parse_time(payload_as(asked, ToolRequested).deadline)
    delivery = await half_done(desk, sandbox, asked)
    if how == "blocked":
        await block(mesh, "agent.clerk", "2027-01-01T00:00:00.000000Z")
        delivery = await desk.again(delivery)
        assert (deadline - clock.now()).total_seconds() == delivery.delay
    if how == "denied":
        desk.catalog = catalog(agents={"clerk": ["add"]})
    clock.advance((deadline - clock.now()).total_seconds())

    await desk.again(delivery)

    failed = payload_as(await desk.answer(asked), ToolFailed).error
    assert ("effect.outcome_unknown", False) == (failed.code, failed.retryable)
    assert "unknown" == payload_as((await desk.audit(asked))[-1], AuditOutcome).status


async def test_a_call_that_may_have_happened_is_not_refused_when_it_is_allowed_no_more(
    desk: Desk, sandbox: ScriptedSandbox, clock: FixedClock
) -> None:
    """It waits until nobody can act any more, and is unknown then."""
    asked = call("put", {"text": "hi"})
    delivery = await half_done(desk, sandbox, asked)
    desk.catalog = catalog(agents={"clerk": ["add"]})

    later = await desk.again(delivery)

    assert ["nak"] == later.said
    clock.advance(later.delay)
    await desk.again(later)
    failed = payload_as(await desk.answer(asked), ToolFailed).error
    assert "effect.outcome_unknown" == failed.code
    assert "tool.denied" in failed.message
