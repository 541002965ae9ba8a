"""The floor: a plain nats-py program that stores and consumes the same messages, and nothing else.

Processes as ours: the client in the benchmark's own, a decider, and workers (`python -m benchmarks.floor ROLE …`). They
follow a script (`benchmarks.script`): as many messages, of the same sizes, each written when the one it rests on was
consumed, each acknowledged by the server before the next, and what was consumed acknowledged last. There is no check, no
hash, no expectation and nothing to recover from: what is left is what the broker and the client library cost.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RePublish, StorageType, StreamConfig

from agentflow.clock import SystemClock
from benchmarks.agents import first_time
from benchmarks.loads import Arrivals
from benchmarks.script import Script, Write

STREAMS = {"FLOOR_M": "floor.m.>", "FLOOR_A": "floor.a.>", "FLOOR_T": "floor.t.>"}
_PLACES = {
    "input": ("FLOOR_M", "floor.m.{run}.input"),
    "decision": ("FLOOR_M", "floor.m.{run}.decision.{round}"),
    "result": ("FLOOR_M", "floor.m.{run}.result.{round}"),
    "command": ("FLOOR_A", "floor.a.{run}.command.{round}"),
    "timer": ("FLOOR_T", "floor.t.{run}.{round}.{index}"),
}
_clock = SystemClock()


class Floor:
    """One process of the floor."""

    def __init__(self, client: NatsClient, script: Script, ack_wait: float = 30.0) -> None:
        self.client, self.script, self._ack_wait = client, script, ack_wait
        self.js: JetStreamContext = client.jetstream()
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, write: Write, run: str, round: int, index: int = 0) -> None:
        """Store one message and wait for the acknowledgement."""
        stream, subject = _PLACES[write.kind]
        body = b'{"pad":"' + b"x" * (write.size - 10) + b'"}'
        await self.js.publish(subject.format(run=run, round=round, index=index), body, timeout=30, stream=stream)

    async def consume(self, stream: str, name: str, subjects: Sequence[str], handle: Any) -> None:
        """Take messages as they come, each in a task of its own; several processes share a name."""
        config = ConsumerConfig(
            ack_wait=self._ack_wait,
            max_ack_pending=1024,
            filter_subjects=list(subjects),
            durable_name=name,
            deliver_group=name,
            deliver_subject=f"_INBOX.{name}",
        )

        async def take(msg: Msg) -> None:
            task = asyncio.create_task(handle(msg))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        with contextlib.suppress(nats.js.errors.BadRequestError):  # another process was first
            await self.js.add_consumer(stream, config)
        await self.js.subscribe_bind(stream=stream, consumer=name, config=config, cb=take, manual_ack=True)

    # --- roles ------------------------------------------------------------------------------------------------------

    async def decide(self, msg: Msg) -> None:
        """Write what the script says about an input or a result."""
        _, _, run, *place = msg.subject.split(".")
        round = 0 if place[0] == "input" else int(place[1]) + 1
        for index, write in enumerate(self.script.rounds[round]):
            await self.write(write, run, round, index)
        await msg.ack()

    async def work(self, msg: Msg, took: list[float], markers: Path) -> None:
        """Answer a command, after the wait that the run's name asks for."""
        took.append(_clock.now().timestamp() - msg.metadata.timestamp.timestamp())
        _, _, run, _, round = msg.subject.split(".")
        if run.startswith("wait"):
            await asyncio.sleep(int(run[4:].partition("-")[0]) / 1000)
        if run.startswith("hang") and round == "1" and first_time(markers / run):
            await asyncio.sleep(120)
        await self.write(self.script.answers[int(round)], run, int(round))
        await msg.ack()


class FloorClient:
    """The benchmark's own end of the floor."""

    def __init__(self, floor: Floor) -> None:
        self._floor, self._arrivals = floor, Arrivals()
        self._number = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str, script: Script) -> AsyncIterator[Self]:
        """A client for the time of a block; makes the streams, and takes the ends of runs and the answers."""
        client = await nats.connect(url)
        try:
            found = cls(Floor(client, script))
            await found._prepare()
            yield found
        finally:
            await client.close()

    async def _prepare(self) -> None:
        last = len(self._floor.script.rounds) - 1
        republish = RePublish("floor.m.*.decision.*", "floor.stored.{{wildcard(1)}}.{{wildcard(2)}}")
        for name, subject in STREAMS.items():
            config = StreamConfig(name=name, subjects=[subject], storage=StorageType.FILE, max_bytes=512 * 2**20)
            if name == "FLOOR_M":
                config.republish = republish
            await self._floor.js.add_stream(config)

        async def ended(msg: Msg) -> None:
            self._arrivals.arrived(msg.subject.split(".")[2])

        async def answered(msg: Msg) -> None:
            self._arrivals.arrived(msg.subject.split(".")[2])
            await msg.ack()

        if last >= 0:
            await self._floor.client.subscribe(f"floor.stored.*.{last}", cb=ended)
        else:
            await self._floor.consume("FLOOR_M", "client", ["floor.m.*.result.*"], answered)

    async def ready(self, role: str, within: float = 30.0) -> None:
        """Wait until a process of a role answers."""
        async with asyncio.timeout(within):
            while True:
                try:
                    await self._floor.client.request(f"floor.{role}.ready", b"", timeout=0.5)
                except nats.errors.Error:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def run(self, prefix: str = "run") -> None:
        """One run, or one request, from its start to its end."""
        self._number += 1
        run = f"{prefix}-{self._number}"
        ended = self._arrivals.expect(run)
        await self._floor.write(self._floor.script.start, run, 0)
        await self._arrivals.wait(ended)

    def next_run(self, prefix: str) -> str:
        """What the next run with this prefix will be called."""
        return f"{prefix}-{self._number + 1}"

    async def routing(self) -> list[float]:
        """Seconds from stored to taken of every command since the last question."""
        answer = await self._floor.client.request("floor.worker.took", b"", timeout=10)
        found: list[float] = json.loads(answer.data)
        return found


async def serve(url: str, role: str, script: Script, markers: Path, ack_wait: float) -> None:
    """A process of the floor until SIGTERM."""
    client = await nats.connect(url)
    floor, took = Floor(client, script, ack_wait), list[float]()

    async def ready(msg: Msg) -> None:
        await msg.respond(b"ready")

    async def told(msg: Msg) -> None:
        await msg.respond(json.dumps([round(value, 6) for value in took[-20_000:]]).encode())
        took.clear()

    async def work(msg: Msg) -> None:
        await floor.work(msg, took, markers)

    if role == "decider":
        await floor.consume("FLOOR_M", role, ["floor.m.*.input", "floor.m.*.result.*"], floor.decide)
    else:
        await floor.consume("FLOOR_A", role, ["floor.a.>"], work)
    await client.subscribe(f"floor.{role}.ready", cb=ready)
    await client.subscribe(f"floor.{role}.took", cb=told)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await client.close()


def main() -> int:
    """Run one process of the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("decider", "worker"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--markers", type=Path, required=True)
    parser.add_argument("--ack-wait", type=float, default=30.0)
    given = parser.parse_args()
    script = Script.from_plain(json.loads(given.script.read_text("utf-8")))
    asyncio.run(serve(given.url, given.role, script, given.markers, given.ack_wait))
    return 0


if __name__ == "__main__":
    sys.exit(main())
