"""Spans: the ids of the envelopes, parents that are exported, links for what comes again, and never a payload."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentflow import logs
from agentflow.envelope import seal
from agentflow.errors import ConfigError, Conflict, InputError, MeshError, OutcomeUnknown, Unreachable
from agentflow.mesh.publishing import store, store_once
from agentflow.mesh.transport import Message
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.payloads import StepCompleted
from agentflow.telemetry import conventions as names
from agentflow.telemetry import spans, tracing
from agentflow.telemetry.outcomes import STORES
from agentflow.telemetry.watching import handling, scheduling
from agentflow.testing import START, FixedClock, envelope, goal, memory_mesh
from tests.core.conftest import Lines
from tests.core.test_work import FakeConsumer, FakeDelivery, GaveUp, Log
from tests.support.waiting import eventually
from tests.telemetry.conftest import Kept

SECRET = "the customer's secret"


class Delivered(FakeDelivery):
    """A delivery of a message of ours."""

    def __init__(self, message: Message, deliveries: int = 1) -> None:
        super().__init__(deliveries=deliveries)
        self.message = message


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Trace and span id, in hex."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


async def test_a_store_has_exactly_the_envelopes_ids(kept: Kept) -> None:
    """They stand in the sealed bytes, so that whoever reads the stream finds the span; the header says it is recorded."""
    sealed = goal("support", {"text": SECRET}, workflow_id="run-1")
    async with memory_mesh() as mesh:
        await store(mesh, sealed)
        there = await mesh.last("AF_MESSAGES", sealed.envelope.subject)

    [span] = kept()
    assert (sealed.envelope.trace_id, sealed.envelope.span_id) == ids(span)
    assert ("send workflows.{id}.in", SpanKind.PRODUCER, None) == (span.name, span.kind, span.parent)
    assert there is not None
    assert there.headers["traceparent"].endswith(f"{sealed.envelope.span_id}-01")
    assert {"nats", "send", "run-1", "stored"} <= set(attributes(span).values())


async def test_handling_is_a_child_of_storing_and_what_it_stores_is_its_child(kept: Kept) -> None:
    """One tree, through as many processes as there are."""
    asked = goal("support", {"text": SECRET}, workflow_id="run-1")
    made = envelope(StepCompleted({}), "workflows.run-1.results.c1").envelope
    answer = seal(msgspec.structs.replace(made, trace_id=asked.envelope.trace_id))
    async with memory_mesh() as mesh:
        await store(mesh, asked)
        there = await mesh.last("AF_MESSAGES", asked.envelope.subject)
        assert there is not None
        with handling(Delivered(there)):
            await store(mesh, answer)

    asking, answering, process = kept()
    assert ("process workflows.{id}.in", SpanKind.CONSUMER) == (process.name, process.kind)
    assert process.parent is not None
    assert ids(asking) == (ids(process)[0], f"{process.parent.span_id:016x}")
    assert answering.parent is not None
    assert ids(process)[1] == f"{answering.parent.span_id:016x}"
    assert () == tuple(process.links)


async def test_what_is_stored_in_another_trace_is_linked_to_its_cause(kept: Kept) -> None:
    """A dead letter is a trace of its own, found from the message it is about."""
    cause, other = goal("support", {}, workflow_id="run-1"), goal("support", {}, workflow_id="run-2", index=1)
    assert cause.envelope.trace_id != other.envelope.trace_id
    async with memory_mesh() as mesh:
        message = Message("AF_MESSAGES", 1, cause.envelope.subject, cause.body, START)
        with handling(Delivered(message)):
            await store(mesh, other)

    stored, process = kept()
    assert (other.envelope.trace_id, None) == (ids(stored)[0], stored.parent)
    [link] = stored.links
    assert ids(process)[1] == f"{link.context.span_id:016x}"


def test_nothing_has_a_parent_that_nobody_exports(kept: Kept) -> None:
    """A client without a tracer says so; handling then begins at the top of the run's trace."""
    sealed = goal("support", {}, workflow_id="run-1")
    header = {"traceparent": f"00-{sealed.envelope.trace_id}-{sealed.envelope.span_id}-00"}

    with handling(Delivered(Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START, header))):
        pass

    [span] = kept()
    assert (sealed.envelope.trace_id, None) == (ids(span)[0], span.parent)


def test_a_redelivery_is_linked_with_its_count(kept: Kept) -> None:
    """The same trace and parent; the link says how often the message had been delivered."""
    sealed = goal("support", {}, workflow_id="run-1")
    message = Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START)

    with handling(Delivered(message, deliveries=3)):
        pass

    [span] = kept()
    [link] = span.links
    assert (sealed.envelope.trace_id, sealed.envelope.span_id) == (
        f"{link.context.trace_id:032x}",
        f"{link.context.span_id:016x}",
    )
    assert {names.LINK: "redelivery", names.DELIVERIES: 3} == dict(link.attributes or {})


def test_a_replay_is_a_new_trace_linked_to_the_runs(kept: Kept) -> None:
    """What is decided again must not stand among what was decided."""
    with spans.replaying("a" * 32, "b" * 16, "run-1"), spans.operation(names.PLAN, "support"):
        pass

    plan, replay = kept()
    [link] = replay.links
    assert ("a" * 32, "b" * 16) == (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}")
    assert ids(plan)[0] == ids(replay)[0] != "a" * 32


async def test_a_store_that_lost_has_no_span_and_an_adopted_one_has(kept: Kept) -> None:
    """Two spans of one id would stand for one message; that of an earlier attempt may never have been exported."""
    first = goal("a")
    later = seal(msgspec.structs.replace(first.envelope, ts="2026-01-01T00:00:01.000000Z"))
    async with memory_mesh() as mesh:
        await store(mesh, first, expect=0)
        landings = [await store_once(mesh, each) for each in (first, later)]
        with pytest.raises(Conflict):
            await store(mesh, goal("b"), expect=0)

    assert [True, True] == [landing.adopted for landing in landings]
    assert ["stored", "duplicate", "adopted"] == [attributes(span)[names.OUTCOME] for span in kept()]
    assert 1 == len({ids(span) for span in kept()})


async def test_errors_are_told_by_their_code_and_never_by_their_text(kept: Kept) -> None:
    """An error's text may quote what a stranger sent."""
    with pytest.raises(InputError), spans.operation(names.EXECUTE_TOOL, "book"):
        raise InputError(SECRET, code="input.junk")
    with pytest.raises(ValueError, match="secret"), spans.operation(names.EXECUTE_TOOL, "book"):
        raise ValueError(SECRET)

    first, second = kept()
    assert (StatusCode.ERROR, "input.junk") == (first.status.status_code, first.status.description)
    assert "ValueError" == second.status.description
    assert () == tuple(first.events)
    assert SECRET not in first.to_json() + second.to_json()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (MeshError("x", code="mesh.stuck"), "retry"),
        (InputError("x", code="input.junk"), "refused"),
        (KeyError("x"), "failed"),
    ],
)
async def test_a_delivery_ends_with_its_outcome(kept: Kept, error: Exception | None, outcome: str) -> None:
    """The worker's own words, on the span of each delivery; what did not go well is an error."""

    async def handle(_: Any) -> None:
        if error is not None:
            raise error

    delivery = FakeDelivery()
    worker = Worker(FakeConsumer(delivery), handle, GaveUp(), WorkPolicy(1, 30, 3), Log())
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await eventually(lambda: delivery.settled, within=30)
    stop.set()
    await running

    [span] = kept()
    assert outcome == attributes(span)[names.OUTCOME]
    assert (error is not None) is (span.status.status_code is StatusCode.ERROR)


def test_no_payload_is_in_a_span(kept: Kept) -> None:
    """Neither of what is stored nor of what is handled."""
    sealed = goal("support", {"text": SECRET}, workflow_id="run-1")
    message = Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START)
    with handling(Delivered(message)), scheduling(sealed):
        pass

    assert 2 == len(kept())
    assert SECRET not in "".join(span.to_json() for span in kept())


def test_a_timer_that_is_not_set_is_an_error(kept: Kept) -> None:
    """Its span says so, and the stream of the timers is in doubt until one is."""
    sealed = goal("support", {}, workflow_id="run-1")
    with pytest.raises(OutcomeUnknown), scheduling(sealed):
        raise OutcomeUnknown("no answer")
    assert {"AF_MESSAGES": "mesh.outcome_unknown"} == STORES.doubts()
    with scheduling(sealed):
        pass

    assert {} == STORES.doubts()
    assert [StatusCode.ERROR, StatusCode.UNSET] == [span.status.status_code for span in kept()]


def test_log_lines_have_the_ids_of_what_is_in_hand(kept: Kept, log_lines: Lines) -> None:
    """Without anybody binding them: those of the span, and the run's as correlation id."""
    logs.configure("agentflow-planner", "life-1")
    sealed = goal("support", {}, workflow_id="run-1")
    with handling(Delivered(Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START))):
        logs.get("shell").info("inside")
    logs.get("shell").info("outside")

    inside, outside = log_lines()
    assert ids(kept()[0]) == (inside["trace_id"], inside["span_id"])
    assert ("run-1", sealed.envelope.id) == (inside["correlation_id"], inside["message_id"])
    assert not {"trace_id", "span_id", "correlation_id", "message_id"} & outside.keys()


def test_without_a_tracer_there_are_no_spans_and_lines_have_ids_all_the_same(log_lines: Lines) -> None:
    """Those of the message."""
    logs.configure("agentflow-planner", "life-1")
    sealed = goal("support", {}, workflow_id="run-1")
    assert not spans.tracing()
    with handling(Delivered(Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START))):
        logs.get("shell").info("inside")

    [line] = log_lines()
    assert (sealed.envelope.trace_id, sealed.envelope.span_id) == (line["trace_id"], line["span_id"])


def test_time_that_runs_backwards_is_no_error() -> None:
    """A server ahead of our clock."""
    sealed = goal("support", {}, workflow_id="run-1")
    with handling(
        Delivered(Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START)), FixedClock(START)
    ) as work:
        assert "done" == work.outcome


@pytest.mark.parametrize(
    ("traces", "environment", "expected"),
    [
        (None, {}, "off"),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        (None, {"OTEL_TRACES_EXPORTER": "none"}, "off"),
        ("off", {"OTEL_TRACES_EXPORTER": "otlp"}, "off"),
        ("console", {}, "console"),
    ],
)
def test_where_spans_go(traces: str | None, environment: dict[str, str], expected: str) -> None:
    """`AF_TRACES` first, then the standard variable, else nowhere."""
    assert expected == tracing.destination(traces, environment)


@pytest.mark.parametrize(
    ("traces", "environment", "named"),
    [("zipkin", {}, "AF_TRACES"), (None, {"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER")],
)
def test_an_exporter_nobody_knows_is_refused(traces: str | None, environment: dict[str, str], named: str) -> None:
    """By the name of the variable that says it, and with what is allowed."""
    with pytest.raises(ConfigError, match=f"{named}.*off, console, otlp"):
        tracing.destination(traces, environment)


def test_a_console_span_is_one_line() -> None:
    """For whoever reads it with `jq`."""
    exporter = InMemorySpanExporter()
    provider = tracing.provider("t", "1", "i", exporter)
    provider.get_tracer("t").start_span("x").end()
    provider.shutdown()

    line = tracing.one_line(exporter.get_finished_spans()[0])

    assert "x" == json.loads(line)["name"]
    assert 1 == line.count("\n")


def test_a_tracer_of_the_applications_own_is_left_alone(kept: Kept) -> None:
    """It was there first; whoever set it up ends it."""
    mine = trace.get_tracer_provider()
    with tracing.traced("x", traces="console"):
        assert mine is trace.get_tracer_provider()
    assert [] == kept()


def test_a_span_of_a_foreign_tracer_is_not_ours() -> None:
    """Its ids are its own, so the header must not vouch for them."""
    from opentelemetry.sdk.trace import TracerProvider

    span = TracerProvider(shutdown_on_exit=False).get_tracer("theirs").start_span("x")
    from agentflow.telemetry.glimpse import glimpse_of

    assert not spans.is_sampled(span, glimpse_of(goal("support", {})))
    assert not spans.is_sampled(None, glimpse_of(goal("support", {})))


def test_an_unreachable_broker_puts_the_stream_in_doubt() -> None:
    """Until something is acknowledged there."""
    STORES.failed("AF_AUDIT", Unreachable("x").error_code)
    assert "AF_AUDIT" in STORES.doubts()
    STORES.acknowledged("AF_AUDIT")
    STORES.acknowledged("AF_NEVER")
    STORES.failed("AF_DEAD", "mesh.no_room")
    STORES.clear()
    assert {} == STORES.doubts()
