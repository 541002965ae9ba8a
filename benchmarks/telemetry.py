"""What watching costs: nanoseconds for each message stored and handled, with spans off and on, and for each log line.

    python -m benchmarks.telemetry [--messages N] [--json]

Nothing is sent anywhere: the spans end in an exporter that drops them, the log lines in a sink. Beside it stands what
sealing an envelope costs, which every message pays anyway.
"""

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agentflow import logs
from agentflow.envelope import seal
from agentflow.mesh.transport import Message, Stored
from agentflow.telemetry import meters, tracing
from agentflow.telemetry.watching import Sending, handling
from agentflow.testing import START, goal


class Dropped(SpanExporter):
    """An exporter of nothing."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Drop them."""
        return SpanExportResult.SUCCESS


class Taken:
    """A delivery that nobody settles."""

    deliveries = 1

    def __init__(self, message: Message) -> None:
        self.message = message


def nanoseconds(work: Callable[[], Any], times: int) -> float:
    """Nanoseconds of processor time a call of `work` takes: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.thread_time_ns()
        for _ in range(times):
            work()
        best = min(best, (time.thread_time_ns() - began) / times)
    return round(best)


def measure(times: int) -> dict[str, float]:
    """All figures, in nanoseconds."""
    sealed = goal("support", {"text": "my card never came " * 20}, workflow_id="run-1")
    message = Message("AF_MESSAGES", 1, sealed.envelope.subject, sealed.body, START)
    stored = Stored("AF_MESSAGES", 1)

    def store() -> None:
        Sending(sealed).stored(stored)

    def handle() -> None:
        with handling(Taken(message)):  # type: ignore[arg-type]  # it is never settled here
            pass

    found = {"seal": nanoseconds(lambda: seal(sealed.envelope), times)}
    meters.installed()
    found |= {"store_traces_off": nanoseconds(store, times), "handle_traces_off": nanoseconds(handle, times)}
    trace.set_tracer_provider(tracing.provider("bench", "0", "0", Dropped()))
    found |= {"store_traces_on": nanoseconds(store, times), "handle_traces_on": nanoseconds(handle, times)}
    with contextlib.redirect_stderr(io.StringIO()):
        logs.configure("agentflow-bench", "life-1")
        log = logs.get("bench")
        with logs.bound(sealed):
            found["log_line"] = nanoseconds(lambda: log.info("run.decided", schema="x/1", state="a", seq=1), times)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.messages)
    if given.json:
        sys.stdout.write(json.dumps({"unit": "ns", "figures": found}) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:20} {value:9,.0f} ns\n")


if __name__ == "__main__":
    main()
