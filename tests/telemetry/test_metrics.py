"""Metrics: the names the requirements give, labels that stay few, whatever others create beside them."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agentflow.telemetry.labels import MAX_SERIES
from agentflow.telemetry.meters import Meters
from agentflow.telemetry.tally import Tally

Samples = dict[str, dict[str, dict[str, str]]]

NAMES = {
    "agent_messages_total",
    "dead_letters_total",
    "message_route_seconds_bucket",
    "messages_in_flight",
    "messages_redelivered_total",
    "planner_plan_seconds_bucket",
    "planner_replans_total",
    "tool_call_seconds_bucket",
    "tool_calls_total",
}

PROGRAM = """
import sys
from opentelemetry import metrics
from agentflow.telemetry import meters, metrics as ours
made = meters.installed()
ours.message_sent("workflows.{id}.in", "stored")
ours.message_taken("AF_MESSAGES", again=True, waited=0.02, tenant="acme", workflow="support")
ours.message_handled("AF_MESSAGES", "workflows.{id}.in", "done")
ours.message_taken("AF_MESSAGES", again=False, waited=-5.0, tenant="acme", workflow="support")
ours.message_given_up("AF_MESSAGES", "delivery.exhausted")
ours.tool_called("book", "completed", "irreversible")
ours.tool_executed("book", "completed", 0.5)
ours.planned("support", 0.001)
ours.replanned("support", "retry")
for n in range(500):
    ours.message_taken("AF_MESSAGES", again=False, waited=0.1, tenant=f"tenant-{n}", workflow=f"flow-{n}")
theirs = metrics.get_meter("agentflow.detector")
theirs.create_counter("tool_anomalies_total", unit="1").add(2, {"rule": "rapid", "workflow_id": "run-1"})
theirs.create_counter("tools_auto_blocked_total", unit="{tool}").add(1, {"tool": "book"})
theirs.create_histogram("their_seconds", unit="s").record(0.5)
sys.stdout.buffer.write(made.text())
"""


def families(text: str) -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by its name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


@pytest.fixture(scope="module")
def scraped() -> str:
    """What a scrape of a process of its own shows; metrics are a process' own, and so are their providers."""
    return subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout


def test_the_names_are_those_of_the_requirements(scraped: str) -> None:
    """Counters, histograms and the process' own, readable by Prometheus' own parser."""
    found = families(scraped)

    assert set(found) >= NAMES
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= set(found)


def test_what_others_create_is_called_as_they_call_it(scraped: str) -> None:
    """No unit behind the name, no second `_total`, no labels of the scope; and only labels that are allowed."""
    found = families(scraped)

    assert [{"rule": "rapid"}] == found["tool_anomalies_total"]
    assert [{"tool": "book"}] == found["tools_auto_blocked_total"]
    assert "their_seconds_count" in found
    assert "_total_total" not in scraped
    assert "otel_scope" not in scraped


def test_labels_of_strangers_do_not_grow_without_end(scraped: str) -> None:
    """Five hundred tenants and workflows make a hundred of each, and the rest is `other`."""
    counts = families(scraped)["message_route_seconds_count"]

    assert {"tenant": "acme", "workflow": "support"} in counts
    assert {"tenant": "other", "workflow": "other"} in counts
    assert 101 == len({labels["tenant"] for labels in counts})


def test_a_clock_that_is_behind_the_servers_counts_as_no_time(scraped: str) -> None:
    """A negative duration would make the sum fall, which nobody expects of one."""
    [line] = [line for line in scraped.splitlines() if line.startswith('message_route_seconds_sum{tenant="acme"')]

    assert 0.02 == pytest.approx(float(line.split()[-1]))


def test_in_flight_goes_up_and_down(scraped: str) -> None:
    """It is a gauge: what was taken and not settled."""
    assert 'messages_in_flight{stream="AF_MESSAGES"} 501.0' in scraped
    assert "# TYPE messages_in_flight gauge" in scraped


def test_an_instrument_has_a_bounded_number_of_series() -> None:
    """Even one of somebody who bounds nothing."""
    made = Meters(CollectorRegistry())
    counter = made.provider.get_meter("careless").create_counter("careless_total")
    for number in range(MAX_SERIES + 500):
        counter.add(1, {"tool": f"tool-{number}"})

    lines = [line for line in made.text().decode().splitlines() if line.startswith("careless_total{")]

    assert len(lines) <= MAX_SERIES + 1
    assert any('otel_metric_overflow="true"' in line for line in lines)


def test_a_tally_adds_up() -> None:
    """By its labels, for whoever asks."""
    tally = Tally("stream", "outcome")
    for outcome in ("a", "b", "a"):
        tally.add(1, "S", outcome)

    found = {str(each.attributes): each.value for each in tally.observe(None)}  # type: ignore[arg-type]  # not looked at

    assert {"{'stream': 'S', 'outcome': 'a'}": 2, "{'stream': 'S', 'outcome': 'b'}": 1} == found


def test_meters_of_a_test_do_not_become_the_process_own() -> None:
    """Only `install` does that."""
    assert isinstance(Meters(CollectorRegistry()).provider, MeterProvider)
