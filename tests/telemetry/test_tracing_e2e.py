"""Spans and metrics of a real mesh: planner, runtime and executor as processes, a collector that keeps what they send."""

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentflow.mesh.transport import Transport
from agentflow.registry import REGISTRY
from tests.e2e.desks import RunningDesk, running_desk
from tests.support.collector import Collector, SpanSeen, orphans
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SERVICES = ("planner", "runtime", "executor", "detector")
CANARIES = ("CANARYPASSWORD1", "CANARYINPUT2", "sk-CANARYKEY345678")


async def submit(url: str, run_id: str, input: dict[str, Any], **environment: str) -> None:
    """A goal from a process of its own, as a person does it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentflow", "submit", "booking", "--id", run_id, "--nats-url", url),
        *("--input", json.dumps(input)),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert 0 == await process.wait()


async def pages(transport: Transport) -> dict[str, str]:
    """Where the pages of each service are, from the registry."""
    entries = await (await transport.bucket(REGISTRY)).entries()
    alive = [json.loads(entry.value) for entry in entries]
    return {each["kind"]: each["detail"]["http"] for each in alive if each["kind"] in SERVICES}


async def scrape(url: str) -> str:
    """A service's `/metrics`."""

    def read() -> str:
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310  # a service of ours
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def names_of(spans: Iterable[SpanSeen]) -> list[tuple[str, str]]:
    """Service and name of each span, sorted."""
    return sorted((span.service.removeprefix("agentflow-"), span.name) for span in spans)


async def whole_trace(collector: Collector, run_id: str) -> list[SpanSeen]:
    """The run's trace, as soon as its end and every parent is there."""

    def look() -> list[SpanSeen]:
        ended = [span for span in collector.spans if span.name == "invoke_workflow booking"]
        for span in ended:
            if span.attributes["gen_ai.conversation.id"] == run_id:
                found = collector.of(span.trace_id)
                return [] if orphans(found) else found
        return []

    return await eventually(look, f"the trace of {run_id}", within=60)


def log_text(running: RunningDesk) -> str:
    """Everything the services wrote."""
    return "".join(path.read_text() for path in running.mesh.logs.glob("*.log") if path.stem in SERVICES)


async def scrape_all(running: RunningDesk) -> dict[str, str]:
    """The metrics of every service by its name; nothing until those that work have looked at their consumers."""
    found = {kind: await scrape(url) for kind, url in (await pages(running.client.transport)).items()}
    return found if all("consumer_pending_messages" in found.get(kind, "") for kind in SERVICES[:3]) else {}


async def test_a_run_is_one_trace_through_all_processes_and_metrics_count_it(tmp_path: Path) -> None:
    """From the client's submit to the end of the run: one root, every parent exported, every step there.

    The same run is then looked for in the metrics of each service, and planted secrets in everything that was written.
    """
    with Collector() as collector:
        environment = {name: dict(collector.environment) for name in SERVICES}
        async with running_desk(tmp_path, **environment) as running:
            await submit(running.mesh.url, "run-1", {"amount": 20, "note": CANARIES[1]}, **collector.environment)
            assert {"booked": 20, "receipt": 21} == await running.client.run("run-1").result(timeout=60)
            found = await whole_trace(collector, "run-1")
            metrics = await eventually(
                lambda: scrape_all(running), "every service has looked at its consumers", within=30
            )
            logged = log_text(running)

    [root] = [span for span in found if not span.parent_id]
    assert ("agentflow-cli", "send workflows.{id}.in") == (root.service, root.name)
    assert len(found) == len({span.span_id for span in found})
    names = names_of(found)
    assert {
        ("planner", "process workflows.{id}.in"),
        ("planner", "plan booking"),
        ("planner", "send agents.{agent}.in.{id}"),
        ("runtime", "process agents.{agent}.in.{id}"),
        ("runtime", "invoke_agent clerk"),
        ("runtime", "send tools.calls.{id}"),
        ("executor", "process tools.calls.{id}"),
        ("executor", "execute_tool book"),
        ("executor", "send tools.results.{agent}.{id}"),
        ("planner", "invoke_workflow booking"),
    } <= set(names)
    assert 2 == names.count(("executor", "execute_tool book"))
    assert not [span for span in found if span.failed]

    assert set(SERVICES) == set(metrics)
    families = {kind: samples(text) for kind, text in metrics.items()}
    common = {"service_ready", "event_loop_lag_seconds", "process_cpu_seconds_total"}
    assert all(common <= set(each) for each in families.values())
    routed = ("message_route_seconds_count", {"tenant": "default", "workflow": "booking"})
    for kind in ("planner", "runtime", "executor"):
        assert routed[1] in families[kind][routed[0]]
        assert "agent_messages_total" in families[kind]
        assert "consumer_pending_messages" in families[kind]
    assert "planner_plan_seconds_count" in families["planner"]
    assert {"tool": "book", "status": "completed", "effect": "irreversible"} in families["executor"]["tool_calls_total"]
    assert "tool_call_seconds_count" in families["executor"]

    lines = [json.loads(line) for line in logged.splitlines() if '"run-1"' in line]
    assert lines
    wanted = {"timestamp", "component", "trace_id", "span_id", "correlation_id"}
    assert [] == [line for line in lines if not wanted <= line.keys()]
    assert {root.trace_id} == {line["trace_id"] for line in lines}
    exported = b"".join(collector.raw).decode("latin-1")
    for place in (exported, logged, *metrics.values()):
        assert [] == [canary for canary in CANARIES if canary in place]


def samples(text: str) -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by name, as Prometheus reads them."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


async def test_a_message_delivered_again_is_in_the_same_trace_with_a_link(tmp_path: Path) -> None:
    """The executor dies between intent and effect; the one that takes over says that the call had been delivered before.

    The client has no tracer here: the run's trace then begins where it is first handled, with no parent missing.
    """
    with Collector() as collector:
        environment = {name: dict(collector.environment) for name in SERVICES}
        environment["executor"]["AF_CRASH_AT"] = "executor.after_intent"
        async with running_desk(tmp_path, **environment) as running:
            [executor] = running.mesh.services["executor"]
            run = await running.client.submit("booking", {"amount": 20}, id="run-1")
            await eventually(lambda: not executor.running, "the executor dies", within=60)
            executor.forget("AF_CRASH_AT")
            executor.start()
            assert {"booked": 20, "receipt": 21} == await run.result(timeout=60)
            seen = await eventually(lambda: [span for span in collector.spans if again(span)], "a link", within=60)
            found = collector.of(seen[0].trace_id)
            redelivered = samples(await scrape((await pages(running.client.transport))["executor"]))

    [first] = [span for span in seen if span.name == "process tools.calls.{id}"][:1]
    [(trace_id, span_id, said)] = first.links
    assert (first.trace_id, first.parent_id) == (trace_id, span_id)
    assert said["agentflow.deliveries"] >= 2
    [root] = [span for span in found if span.name == "process workflows.{id}.in"]
    assert "" == root.parent_id
    assert {"stream": "AF_AUDIT"} in redelivered["messages_redelivered_total"]


def again(span: SpanSeen) -> bool:
    """Whether a span is of a redelivery of a tool call."""
    return any(said.get("agentflow.link") == "redelivery" for _, _, said in span.links)


async def test_a_failing_tool_is_an_error_by_its_code(tmp_path: Path) -> None:
    """On the span of the agent, without a word of what it was given; a run that fails for it was not planned anew."""
    with Collector() as collector:
        environment = {name: dict(collector.environment) for name in SERVICES}
        async with running_desk(tmp_path, **environment) as running:
            run = await running.client.submit("booking", {"amount": f"password={CANARIES[0]}"}, id="run-1")
            with pytest.raises(Exception, match="run-1"):
                await run.result(timeout=90)
            failed = await eventually(
                lambda: [span for span in collector.spans if span.failed and span.name == "invoke_agent clerk"],
                "a failed span",
                within=60,
            )
            metrics = {kind: await scrape(url) for kind, url in (await pages(running.client.transport)).items()}
            logged = log_text(running)

    assert {failed[0].attributes["error.type"]} == {failed[0].failed}
    assert "." in failed[0].failed
    refused = {"tool": "book", "status": "refused", "effect": "irreversible"}
    assert refused in samples(metrics["executor"])["tool_calls_total"]
    assert "planner_replans_total" not in samples(metrics["planner"])
    exported = b"".join(collector.raw).decode("latin-1")
    for place in (exported, logged, *metrics.values()):
        assert CANARIES[0] not in place
