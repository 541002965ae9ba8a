"""The instruments every service has, and how they are moved. Made with the OpenTelemetry API alone.

Names, labels and units are documented in `docs/observability.md`. Without an SDK (in a client, in the command line)
every call here does nothing. Another module adds its own with `opentelemetry.metrics.get_meter("agentflow.…")`: they
appear on `/metrics` under exactly the names they are given.
"""

from opentelemetry import metrics

from agentflow.telemetry.labels import Values
from agentflow.telemetry.tally import Tally

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_meter = metrics.get_meter("agentflow")
_values = Values()

_messages = Tally("operation", "destination", "outcome")
_in_flight = Tally("stream")
_meter.create_observable_counter(
    "agent_messages_total",
    [_messages.observe],
    description="Messages stored (operation send) and handled (operation process).",
)
_meter.create_observable_up_down_counter(
    "messages_in_flight", [_in_flight.observe], description="Messages being handled just now."
)
_redelivered = _meter.create_counter(
    "messages_redelivered_total", description="Deliveries of a message that had been delivered before."
)
_dead = _meter.create_counter("dead_letters_total", description="Messages given up, by the code that says why.")
_route = _meter.create_histogram(
    "message_route_seconds",
    unit="s",
    description="From a message being stored, by the server's clock, to the start of its handling.",
    explicit_bucket_boundaries_advisory=_FAST,
)
_tool_calls = _meter.create_counter("tool_calls_total", description="Tool calls with an outcome on record.")
_tool_seconds = _meter.create_histogram(
    "tool_call_seconds",
    unit="s",
    description="One execution of a tool in its sandbox.",
    explicit_bucket_boundaries_advisory=_SLOW,
)
_plan_seconds = _meter.create_histogram(
    "planner_plan_seconds",
    unit="s",
    description="One decision about a run, its definition being looked up included.",
    explicit_bucket_boundaries_advisory=(0.0001, 0.00025, 0.0005, *_FAST),
)
_replans = _meter.create_counter(
    "planner_replans_total",
    description="Decisions that leave the straight way: a step tried again (retry), or another state for an error.",
)


def message_sent(destination: str, outcome: str) -> None:
    """A message was stored, or was not: `stored`, `duplicate`, `conflict`, `refused` or `unknown`."""
    _messages.add(1, "send", destination, outcome)


def message_taken(stream: str, *, again: bool, waited: float, tenant: str, workflow: str) -> None:
    """A delivery begins to be handled, `waited` seconds after the server had stored it."""
    _in_flight.add(1, stream)
    if again:
        _redelivered.add(1, {"stream": stream})
    labels = {"tenant": _values.bounded("tenant", tenant), "workflow": _values.bounded("workflow", workflow)}
    _route.record(max(0.0, waited), labels)


def message_handled(stream: str, destination: str, outcome: str) -> None:
    """A delivery was handled: `done`, `retry`, `failed`, `refused`, `exhausted` or `cancelled`."""
    _in_flight.add(-1, stream)
    _messages.add(1, "process", destination, outcome)


def message_given_up(stream: str, code: str) -> None:
    """A message became a dead letter."""
    _dead.add(1, {"stream": stream, "code": _values.bounded("code", code)})


def tool_called(tool: str, status: str, effect: str) -> None:
    """A tool call has an outcome."""
    _tool_calls.add(1, {"tool": _values.bounded("tool", tool), "status": status, "effect": effect})


def tool_executed(tool: str, status: str, seconds: float) -> None:
    """A tool ran in its sandbox."""
    _tool_seconds.record(seconds, {"tool": _values.bounded("tool", tool), "status": status})


def planned(workflow: str, seconds: float) -> None:
    """A decision was made."""
    _plan_seconds.record(seconds, {"workflow": _values.bounded("workflow", workflow)})


def replanned(workflow: str, reason: str) -> None:
    """A decision that was recorded leaves the straight way: `retry` or `error`."""
    _replans.add(1, {"workflow": _values.bounded("workflow", workflow), "reason": reason})
