"""The measurements: each takes a bed, does the same work on ours and on the floor in turns, and returns figures."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agentflow.envelope import unseal
from agentflow.errors import EnvelopeError
from agentflow.local.processes import ChildProcess
from benchmarks.bed import Bed, Runs, bed
from benchmarks.figures import Figure, figure, percentile
from benchmarks.floor import FloorClient
from benchmarks.loads import One, Sample, all_at_once, closed_loop
from benchmarks.script import Script

STEP_WAIT = 50
"""Milliseconds each step of the overhead measurement takes."""

MANY = 100
"""Runs at once."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often."""

    seconds: float
    repetitions: int


FULL = Effort(4.0, 3)
QUICK = Effort(1.5, 1)

Measure = Callable[[bool, Effort], Coroutine[Any, Any, dict[str, Figure]]]
"""`durable`, effort → figures by name."""


async def requests(durable: bool, effort: Effort) -> dict[str, Figure]:
    """One durable request → handler in another process → reply."""
    async with bed(durable=durable, processes={"planner": 0}) as on, on.requests() as ours:
        await ours.request()
        async with on.floor(ours.script()) as floor:
            pair = _Pair(ours.request, floor.client.run)
            single = await pair.loops(effort, 1)
            many = await pair.loops(effort, 256)
    return {
        "request_p50": single.milliseconds(0.5),
        "request_p95": single.milliseconds(0.95),
        "request_rate_256_in_flight": many.rates("messages/s"),
    }


async def workflows(durable: bool, effort: Effort) -> dict[str, Figure]:
    """A workflow of three steps: one at a time, and a hundred at once."""
    async with _both(durable) as both:
        single = await both.pair.loops(effort, 1)
        alone = await both.routing()
        many = await both.pair.loops(effort, MANY)
        loaded = await both.routing()
        stored = await _messages_per_run(both, effort)
    return {
        "workflow_p50": single.milliseconds(0.5),
        "workflow_p95": single.milliseconds(0.95),
        "workflow_rate_100_in_flight": many.rates("runs/s"),
        "workflow_p50_100_in_flight": many.milliseconds(0.5),
        "workflow_messages_stored": stored,
        "routing_p95": _routing(alone, 0.95),
        "routing_p95_100_in_flight": _routing(loaded, 0.95),
    }


async def overhead(durable: bool, effort: Effort) -> dict[str, Figure]:
    """A hundred workflows of three steps of 50 ms, begun together: the time above the 150 ms they need."""
    ideal = 3 * STEP_WAIT
    async with _both(durable) as both:

        async def ours() -> None:
            await both.runs.run(wait=STEP_WAIT / 1000)

        async def floor() -> None:
            await both.floor.run(f"wait{STEP_WAIT}")

        pair = _Pair(ours, floor)
        await pair.once()
        taken = [await pair.together(MANY) for _ in range(effort.repetitions)]
    above = [(mine * 1000 - ideal, theirs * 1000 - ideal) for mine, theirs in taken]
    return {
        "overhead_100x3x50ms": figure([mine for mine, _ in above], [theirs for _, theirs in above], "ms"),
        "overhead_100x3x50ms_a_step": figure(
            [mine / 3 / MANY for mine, _ in above], [theirs / 3 / MANY for _, theirs in above], "ms"
        ),
    }


async def recovery(durable: bool, effort: Effort) -> dict[str, Figure]:
    """A process is killed in step 2: until the run's end, with the process started again, and with another beside it."""
    return {
        "recovery_restart": await _kills(durable, effort.repetitions, workers=1),
        "recovery_takeover": await _kills(durable, effort.repetitions, workers=1 + effort.repetitions),
    }


MEASURES: dict[str, Measure] = {
    "requests": requests,
    "workflows": workflows,
    "overhead": overhead,
    "recovery": recovery,
}


# --- how --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Loops:
    """The same loop on ours and on the floor, so many times."""

    ours: list[Sample]
    floor: list[Sample]

    def milliseconds(self, share: float) -> Figure:
        ours, floor = (
            [percentile(each.latencies, share) * 1000 for each in sides] for sides in (self.ours, self.floor)
        )
        return figure(ours, floor, "ms")

    def rates(self, unit: str) -> Figure:
        ours, floor = ([each.rate for each in sides] for sides in (self.ours, self.floor))
        return figure(ours, floor, unit)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One piece of work on ours, and on the floor."""

    ours: One
    floor: One

    async def once(self) -> None:
        """A first time, which is not counted."""
        await self.ours()
        await self.floor()

    async def loops(self, effort: Effort, in_flight: int) -> _Loops:
        """In turns, so that whatever else the machine does falls on both."""
        found = _Loops([], [])
        for _ in range(effort.repetitions):
            for one, samples in ((self.ours, found.ours), (self.floor, found.floor)):
                samples.append(await closed_loop(one, in_flight=in_flight, seconds=effort.seconds))
        return found

    async def together(self, count: int) -> tuple[float, float]:
        return await all_at_once(self.ours, count), await all_at_once(self.floor, count)


@dataclass(slots=True)
class _Both:
    """A mesh and the floor beside it, ready for runs."""

    on: Bed
    runs: Runs
    floor: FloorClient
    floor_children: list[ChildProcess]
    script: Script
    read_from: int = 1

    @property
    def pair(self) -> _Pair:
        return _Pair(self.runs.run, self.floor.run)

    async def routing(self) -> tuple[list[float], list[float]]:
        """Seconds from stored to begun of every command since the last question: ours, the floor's."""
        transport = self.on.client.transport
        stored: dict[str, float] = {}
        async for message in transport.read("AF_AGENTS", "agents.*.in.>", start=self.read_from):
            stored[message.subject.rpartition(".")[2]] = message.time.timestamp()
            self.read_from = message.seq + 1
        took: list[float] = []
        async for message in transport.read("AF_MESSAGES", "workflows.*.results.*"):
            command = message.subject.rpartition(".")[2]
            if command in stored:
                took.append(_began(message.body) - stored[command])
        return took, await self.floor.routing()


@contextlib.asynccontextmanager
async def _both(durable: bool, *, workers: int = 1, ack_wait: float = 30.0) -> AsyncIterator[_Both]:
    async with bed(durable=durable, processes={"runtime": workers}) as on, on.runs() as runs:
        await runs.run()
        script = await on.recorded()
        async with on.floor(script, workers=workers, ack_wait=ack_wait) as floor:
            both = _Both(on, runs, floor.client, floor.children, script)
            await both.pair.once()
            await both.routing()
            yield both


def _began(body: bytes) -> float:
    try:
        return float(msgspec.json.decode(bytes(unseal(body).envelope.payload))["output"]["began"])
    except (EnvelopeError, KeyError, TypeError):
        return 0.0


def _routing(took: tuple[list[float], list[float]], share: float) -> Figure:
    ours, floor = ([percentile(side, share) * 1000] for side in took)
    return figure(ours, floor, "ms")


async def _messages_per_run(both: _Both, effort: Effort) -> Figure:
    """Counted by the streams, not taken from the script: what runs add to them, a run."""
    count = 20
    before = await _stored(both.on)
    for _ in range(count):
        await both.runs.run()
    ours = (await _stored(both.on) - before) / count
    return figure([ours], [both.script.messages], "messages")


async def _stored(on: Bed) -> int:
    """How many messages the streams have taken, once they are at rest: a run's timer is taken back after its end."""
    before, now = -1, await _taken(on)
    while now != before:
        await asyncio.sleep(0.5)
        before, now = now, await _taken(on)
    return now


async def _taken(on: Bed) -> int:
    found = [await on.client.transport.stream_info(name) for name in ("AF_MESSAGES", "AF_AGENTS", "AF_TIMERS")]
    return sum(each.last_seq for each in found if each is not None)


async def _kills(durable: bool, count: int, *, workers: int) -> Figure:
    """Seconds from a kill in step 2 to the run's end; a single process is started again, of several one takes over."""
    ours: list[float] = []
    floor: list[float] = []
    async with _both(durable, workers=workers, ack_wait=1.0) as both:
        for number in range(count):
            marker = both.on.folder / f"ours-{number}"
            running = asyncio.create_task(both.runs.run("hanging", marker=str(marker)))
            ours.append(await _kill_the_one_in(marker, both.on.mesh.services["runtime"], running, again=workers == 1))
            marker = both.on.folder / both.floor.next_run("hang")
            running = asyncio.create_task(both.floor.run("hang"))
            floor.append(await _kill_the_one_in(marker, both.floor_children, running, again=workers == 1))
    return figure(ours, floor, "s")


async def _kill_the_one_in(
    marker: Path, children: list[ChildProcess], running: "asyncio.Task[None]", *, again: bool
) -> float:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while (pid := _left_by(marker)) is None:  # noqa: ASYNC110  # no event: it is another process
            await asyncio.sleep(0.005)
    child = next(child for child in children if child.pid == pid)
    killed = loop.time()
    await child.kill()
    if again:
        child.start()
    await running
    return loop.time() - killed


def _left_by(marker: Path) -> int | None:
    return int(marker.read_text("utf-8")) if marker.exists() else None
