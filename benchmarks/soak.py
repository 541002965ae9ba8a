"""The mesh under half of its greatest load for a time: does anything grow?

    python -m benchmarks.soak [--minutes N] [--json]

First the greatest load is measured, a hundred runs in flight; then runs are begun at half of that rate, whether or not
earlier ones have ended. Every few seconds each process's memory, open files and threads are read from /proc, and the
consumers from the server. Exit code 1 when something grew or a run was lost.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentflow.ending import end
from benchmarks.bed import Bed, Runs, bed
from benchmarks.conditions import conditions
from benchmarks.loads import closed_loop
from benchmarks.steady import series_of, verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the verdict, return 0 where everything stayed flat and 1 elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the load is kept up")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    found = asyncio.run(soak(seconds=given.minutes * 60, every=given.every))
    print(json.dumps(found) if given.json else _text(found))
    return 0 if found["ok"] else 1


async def soak(*, seconds: float, every: float, measure: float = 5.0) -> dict[str, Any]:
    """Measure the greatest load for `measure` seconds, keep half of it up for `seconds`, and judge."""
    async with bed(durable=True) as on, on.runs() as runs:
        there = conditions(on.folder)
        await runs.run()
        most = (await closed_loop(runs.run, in_flight=100, seconds=measure)).rate
        samples: list[tuple[float, dict[str, float]]] = []
        sampling = asyncio.create_task(_sample(on, every, samples))
        begun, ended = await _steadily(runs, most / 2, seconds)
        await end(sampling)
    found = verdict(series_of(samples))
    load = {"most_runs_per_second": round(most, 1), "runs_begun": begun, "runs_ended": ended, "seconds": seconds}
    return {**found, "ok": found["ok"] and begun == ended, "load": load, "conditions": there}


async def _steadily(runs: Runs, rate: float, seconds: float) -> tuple[int, int]:
    """Begin runs at a rate, and wait for all of them; how many were begun, and how many ended."""
    loop = asyncio.get_running_loop()
    start, tasks, begun, ended = loop.time(), set[asyncio.Task[None]](), 0, 0

    def count(task: "asyncio.Task[None]") -> None:
        nonlocal ended
        tasks.discard(task)
        ended += not task.cancelled() and task.exception() is None

    while loop.time() - start < seconds:
        task = asyncio.create_task(runs.run())
        task.add_done_callback(count)
        tasks.add(task)
        begun += 1
        await asyncio.sleep(max(0.0, start + begun / rate - loop.time()))
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.sleep(0)
    return begun, ended


async def _sample(on: Bed, every: float, samples: list[tuple[float, dict[str, float]]]) -> None:
    """Look again and again, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        samples.append((loop.time(), await look(on)))
        await asyncio.sleep(every)


async def look(on: Bed) -> dict[str, float]:
    """What every process uses now."""
    processes = {child.name: child.pid for child in on.mesh.processes() if child.running}
    found: dict[str, float] = {}
    for name, pid in {**processes, "nats-server": on.mesh.server.pid}.items():
        for what, value in process_use(pid).items():
            found[f"{name}.{what}"] = value
    transport = on.client.transport
    infos = [await transport.stream_info(name) for name in await transport.stream_names()]
    found["consumers"] = sum(info.consumers for info in infos if info is not None)
    return found


def process_use(pid: int) -> dict[str, float]:
    """Memory, open files and threads of a process, from /proc."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'':<28}{'first':>10}{'last':>10}{'growth':>10}{'limit':>8}"]
    for name, each in found["series"].items():
        limit = "-" if each["limit"] is None else f"{each['limit']:g}"
        lines.append(f"{name:<28}{each['first']:>10.4g}{each['last']:>10.4g}{each['growth']:>10.3g}{limit:>8}")
    lines.append("; ".join(f"{name} {value}" for name, value in {**found["load"], **found["conditions"]}.items()))
    lines.append("flat" if found["ok"] else f"not flat: {', '.join(found['grew']) or 'runs were lost'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
