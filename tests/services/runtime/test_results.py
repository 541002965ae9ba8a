"""Waiting for tool results: woken by hints, right without them, and taken from the stream's leader only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from agentflow import artifacts
from agentflow.chain import handling_chain
from agentflow.clock import SystemClock
from agentflow.envelope import Sealed
from agentflow.errors import StepError
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store, store_result
from agentflow.mesh.transport import Transport
from agentflow.payloads import Failure, Payload, RunSignalled, ToolCompleted, ToolFailed, ToolRequested
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose
from agentflow.subjects import tool_result as result_subject
from agentflow.testing import envelope
from agentflow_runtime import results
from agentflow_runtime.results import ResultFeed, ToolResult
from agentflow_runtime.steps import seal_call
from tests.services.runtime.harness import step, tool_result, until

CALL = seal_call(
    cause := step("worker"),
    "worker",
    ToolRequested("search", {}, "2026-01-01T00:00:30.000000Z"),
    handling_chain(cause),
    SystemClock().now(),
)


async def feed(mesh: MemoryTransport) -> ResultFeed:
    """The results of agent `worker`."""
    return ResultFeed(cast(Transport, mesh), await mesh.objects(ARTIFACTS), "worker")


@contextlib.asynccontextmanager
async def waiting(found: ResultFeed, *, look_first: bool = False) -> AsyncIterator[asyncio.Task[ToolResult]]:
    """A task that waits for the result of the call."""

    async def wait() -> ToolResult:
        with found.expecting(CALL.envelope.id):
            return await found.result_of(CALL, look_first=look_first)

    task = asyncio.create_task(wait())
    try:
        await asyncio.sleep(0)
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def answer(mesh: MemoryTransport, payload: Payload, call: Sealed = CALL) -> Sealed:
    """Store a result as an executor does."""
    sealed = tool_result(call, payload)
    await store(cast(Transport, mesh), sealed, expect=0)
    return sealed


async def test_a_hint_wakes_who_waits(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the looks of its own an hour apart, the result is still there at once."""
    monkeypatch.setattr(results, "FIRST_LOOK", 3600.0)
    found = await feed(mesh)
    async with found.following(), waiting(found) as task:
        sealed = await answer(mesh, ToolCompleted({"n": 1}))
        result = await asyncio.wait_for(task, 5.0)
    assert (result.payload, result.sealed.hash) == (ToolCompleted({"n": 1}), sealed.hash)


async def test_without_hints_the_waiter_looks_by_itself(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint is delivered at most once: nobody may depend on it."""
    monkeypatch.setattr(results, "FIRST_LOOK", 0.02)
    found = await feed(mesh)
    async with waiting(found) as task:
        await answer(mesh, ToolCompleted(1))
        assert (await asyncio.wait_for(task, 5.0)).payload == ToolCompleted(1)


async def test_a_recorded_result_is_found_at_once(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was adopted may have been answered long ago: the first look comes first."""
    monkeypatch.setattr(results, "FIRST_LOOK", 3600.0)
    await answer(mesh, ToolCompleted(1))
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        assert (await asyncio.wait_for(task, 5.0)).payload == ToolCompleted(1)


async def test_the_hint_of_another_call_wakes_nobody_wrongly(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints go to the call they name."""
    monkeypatch.setattr(results, "FIRST_LOOK", 3600.0)
    other = seal_call(
        step("worker", index=1), "worker", ToolRequested("x", {}, ""), handling_chain(CALL), SystemClock().now()
    )
    found = await feed(mesh)
    async with found.following(), waiting(found) as task:
        await answer(mesh, ToolCompleted(2), other)
        await answer(mesh, ToolCompleted(1))
        assert (await asyncio.wait_for(task, 5.0)).payload == ToolCompleted(1)


async def test_trouble_with_the_mesh_is_waited_out(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker is away nothing is known; when it is back, the result is found."""
    monkeypatch.setattr(results, "FIRST_LOOK", 0.01)
    found = await feed(mesh)
    async with waiting(found) as task:
        await answer(mesh, ToolCompleted(1))
        mesh.broker.stop()
        done, _ = await asyncio.wait({task}, timeout=0.1)
        assert not done
        mesh.broker.start()
        assert (await asyncio.wait_for(task, 5.0)).payload == ToolCompleted(1)


async def test_a_failed_call_is_a_result_like_any_other(mesh: MemoryTransport) -> None:
    """What it means is the context's matter."""
    failed = ToolFailed(Failure("x.y", "E", "m", "tool"))
    await answer(mesh, failed)
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        assert (await asyncio.wait_for(task, 5.0)).payload == failed


async def test_a_large_output_is_fetched(mesh: MemoryTransport) -> None:
    """The envelope carries a claim check, the payload comes from the object store."""
    payload = ToolCompleted("x" * 200_000)
    sealed = await answer(mesh, payload)
    await artifacts.keep(await mesh.objects(ARTIFACTS), sealed, payload)
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        assert (await asyncio.wait_for(task, 5.0)).payload == payload


def foreign(payload: Payload, **more: Any) -> Sealed:
    """An envelope on the call's result subject that an executor would not have made, but for what `more` says."""
    return envelope(payload, result_subject("worker", CALL.envelope.id), **more)


def forged(sender: str = "executor", call: Sealed = CALL, caused: Sealed = CALL) -> bytes:
    """A sound envelope that looks like a result of the call."""
    return foreign(ToolCompleted("forged"), sender=sender, place=handling_chain(call), causes=(caused.ref,)).body


def without_artifact() -> Sealed:
    """A result whose artifact was never stored."""
    return tool_result(CALL, ToolCompleted("x" * 200_000))


def moved() -> Sealed:
    """A result that was sealed for another subject."""
    sealed = tool_result(CALL, ToolCompleted(1))
    return compose(
        ToolCompleted(1),
        id=sealed.envelope.id,
        subject=result_subject("other", CALL.envelope.id),
        sender="executor",
        to="worker",
        trace_id=sealed.envelope.trace_id,
        span_id=sealed.envelope.span_id,
        ts=sealed.envelope.ts,
        place=handling_chain(CALL),
        causes=(CALL.ref,),
    )


STRANGERS: dict[str, Any] = {
    "not an envelope": lambda: b"junk",
    "moved": lambda: moved().body,
    "no cause": lambda: foreign(ToolCompleted("forged"), sender="executor", place=handling_chain(CALL)).body,
    "another cause": lambda: forged(caused=cause),
    "another chain": lambda: forged(call=cause),
    "another sender": lambda: forged(sender="mallory"),
}


@pytest.mark.parametrize("make", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_before_or_behind_the_result_does_not_hide_it(
    make: Any, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there yet until the executor's own answer is, and that one stays the answer."""
    monkeypatch.setattr(results, "FIRST_LOOK", 0.01)
    subject = result_subject("worker", CALL.envelope.id)
    await mesh.publish(subject, make(), stream="AF_AUDIT")
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        assert not (await asyncio.wait({task}, timeout=0.1))[0]
        await store_result(cast(Transport, mesh), tool_result(CALL, ToolCompleted("real")))
        assert (await asyncio.wait_for(task, 30.0)).payload == ToolCompleted("real")
    await mesh.publish(subject, make(), stream="AF_AUDIT")
    async with waiting(found, look_first=True) as task:
        assert (await asyncio.wait_for(task, 30.0)).payload == ToolCompleted("real")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (
            lambda: foreign(RunSignalled("go"), sender="executor", place=handling_chain(CALL), causes=(CALL.ref,)),
            "schema.unexpected",
        ),
        (without_artifact, "mesh.not_stored"),
    ],
    ids=["another schema", "artifact gone"],
)
async def test_an_answer_that_cannot_be_used_is_not_believed(make: Any, cause: str, mesh: MemoryTransport) -> None:
    """There is one answer for ever, so waiting longer is of no use: the call fails, and the mesh is blamed."""
    subject = result_subject("worker", CALL.envelope.id)
    await mesh.publish(subject, make().body, stream="AF_AUDIT")
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        with pytest.raises(StepError) as refused:
            await asyncio.wait_for(task, 5.0)
    error = refused.value
    assert (error.error_code, error.blame, error.fields["cause"]) == ("tool.result_invalid", "mesh", cause)


async def test_an_altered_artifact_is_not_believed(mesh: MemoryTransport) -> None:
    """Its bytes are compared with the hash that was sealed."""
    sealed = await answer(mesh, ToolCompleted("x" * 200_000))
    name = bytes(sealed.envelope.payload).split(b'"')[3].decode()
    await (await mesh.objects(ARTIFACTS)).put(name, b'{"output":"y"}')
    found = await feed(mesh)
    async with waiting(found, look_first=True) as task:
        with pytest.raises(StepError) as refused:
            await asyncio.wait_for(task, 5.0)
    assert refused.value.fields["cause"] == "artifact.altered"


async def test_losing_the_subscription_costs_time_only(mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener's end is told in the log; waiters go on looking."""
    monkeypatch.setattr(results, "FIRST_LOOK", 0.02)

    class Deaf:
        async def ready(self) -> None:
            """At once."""

        async def next(self, timeout: float | None = None) -> tuple[str, bytes] | None:
            """Fail."""
            raise ConnectionError("gone")

        async def close(self) -> None:
            """Nothing to do."""

    monkeypatch.setattr(mesh, "follow", lambda subject: Deaf())
    found = await feed(mesh)
    async with found.following(), waiting(found) as task:
        await answer(mesh, ToolCompleted(1))
        assert (await asyncio.wait_for(task, 5.0)).payload == ToolCompleted(1)


async def test_nothing_is_left_behind(mesh: MemoryTransport) -> None:
    """After the block there is no listener, no subscription and no waiter."""
    before = len(asyncio.all_tasks())
    found = await feed(mesh)
    async with found.following(), waiting(found):
        assert len(asyncio.all_tasks()) > before
    await until(lambda: len(asyncio.all_tasks()) == before)
