"""What sealing and opening an envelope costs, beside the floor: encoding and hashing the same bytes.

python -m benchmarks.wire [--json] [--rounds N]
"""

import argparse
import hashlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from agentflow.envelope import ChainPlace, Sealed, seal, unseal
from agentflow.payloads import StepRequested
from agentflow.schemas import compose

SIZES = (100, 2_000, 50_000)
"""Bytes of text in the step's input."""


def main() -> int:
    """Measure, print a table or JSON, return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=2000, help="calls a figure is the median of")
    given = parser.parse_args()
    figures = measure(given.rounds)
    conditions = {"python": platform.python_version(), "machine": platform.machine(), "rounds": given.rounds}
    if given.json:
        print(json.dumps({"figures": figures, "conditions": conditions}))
    else:
        _table(figures, conditions)
    return 0


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """The figures, each the median of so many calls."""
    figures: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        figures.update(_measure(size, rounds))
    return figures


def _measure(size: int, rounds: int) -> dict[str, dict[str, Any]]:
    sealed = _sample(size)
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder()
    rest = b"{" + sealed.body[84:]

    def floor_seal() -> object:
        return hashlib.sha256(encoder.encode(sealed.envelope)).hexdigest()

    def floor_unseal() -> object:
        return hashlib.sha256(rest).hexdigest(), decoder.decode(rest)

    return {
        f"seal_{size}_bytes": _figure(lambda: seal(sealed.envelope), floor_seal, rounds),
        f"unseal_{size}_bytes": _figure(lambda: unseal(sealed.body), floor_unseal, rounds),
    }


def _sample(size: int) -> Sealed:
    payload = StepRequested(
        workflow="bench@1.0.0", state="s", attempt=1, input={"text": "x" * size}, deadline="2026-01-01T00:00:00.000000Z"
    )
    return compose(
        payload,
        id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        subject="agents.bench.in.01ARZ3NDEKTSV4RRFFQ69G5FAV",
        sender="planner",
        to="bench",
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "1",
        ts=datetime(2026, 1, 1, tzinfo=UTC),
        place=ChainPlace("decision:01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        metadata={"workflow_id": "bench"},
    )


def _figure(work: Callable[[], object], floor: Callable[[], object], rounds: int) -> dict[str, Any]:
    ours, theirs = _median(work, rounds), _median(floor, rounds)
    return {"value": round(ours, 2), "unit": "us", "floor": round(theirs, 2), "ratio": round(ours / theirs, 2)}


def _median(work: Callable[[], object], rounds: int) -> float:
    """Median microseconds of one call."""
    times = []
    for _ in range(rounds):
        before = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - before) / 1000)
    return statistics.median(times)


def _table(figures: dict[str, dict[str, Any]], conditions: dict[str, Any]) -> None:
    print(f"{'figure':<22}{'median':>10}{'floor':>10}{'ratio':>8}")
    for name, figure in figures.items():
        print(f"{name:<22}{figure['value']:>8} us{figure['floor']:>8} us{figure['ratio']:>7}x")
    print(f"floor: the same JSON work and SHA-256 without checks; {conditions}")


if __name__ == "__main__":
    sys.exit(main())
