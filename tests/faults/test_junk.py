"""Junk at the door: whatever is published, wherever, ends in a record with a code, and a live run does not mind."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentflow.clock import SystemClock
from agentflow.definitions import apply_definition
from agentflow.envelope import unseal
from agentflow.errors import InputError
from agentflow.mesh.transport import Transport
from agentflow.payloads import DeadLetter, Decision, GoalRejected, InputRejected, Payload
from agentflow.run import Run
from agentflow.schemas import decode_payload
from agentflow_streams.verification import verify
from tests.faults.invariants import ALWAYS
from tests.faults.junk import ODD_SUBJECTS, bodies_for, doors
from tests.faults.world import World, fault_world
from tests.plain.rawnats import RawNats
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
LOG = logging.getLogger("faults")

WAITER = """
name: waiter
version: 1.0.0
planner: fsm
timeout: 10m
initial_state: clerk
final_states: [done]
states:
  clerk: {agent: clerk, input: {amount: "${input.amount}"}, timeout: 5m, on_success: hold}
  hold: {signal: go, timeout: 5m, on_success: again}
  again: {agent: clerk, input: {amount: "${input.amount + 1}"}, timeout: 5m, on_success: done}
output: {booked: "${outputs.again.booked}"}
"""

Place = tuple[str, int]
"""A stream and a sequence."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the mesh said about a message."""

    schema: str
    code: str
    time: datetime


@asynccontextmanager
async def junk_world(tmp_path: Path) -> AsyncIterator[tuple[World, Run]]:
    """A mesh with a run that waits for a signal, and lives as long as the test likes."""
    (tmp_path / "waiter.yaml").write_text(WAITER)
    async with fault_world(tmp_path) as world:
        await apply_definition(world.client.transport, tmp_path / "waiter.yaml", SystemClock().now())
        run = await world.client.submit("waiter", {"amount": 5000}, id="live")
        await eventually(lambda: _holds(run), "the run waits for its signal", within=60)
        yield world, run


async def _holds(run: Run) -> bool:
    return (await run.state()).state == "hold"


async def records(transport: Transport) -> dict[Place, Record]:
    """Every record there is about a message, by the message's place."""
    found: dict[Place, Record] = {}
    async for message in transport.read("AF_DEAD", "dead.>"):
        if isinstance(letter := _payload(message.subject, message.body), DeadLetter):
            found.setdefault((letter.stream, letter.seq), Record("message.dead/1", letter.code, message.time))
    async for message in transport.read("AF_MESSAGES", "workflows.*.out"):
        payload = _payload(message.subject, message.body)
        for consumed in payload.consumed if isinstance(payload, Decision | GoalRejected | InputRejected) else ():
            stream = "AF_TIMERS" if consumed.subject.startswith("timers.") else "AF_MESSAGES"
            code = payload.code if isinstance(payload, GoalRejected | InputRejected) else "taken"
            found.setdefault((stream, consumed.seq), Record(type(payload).__name__, code, message.time))
    return found


def _payload(subject: str, body: bytes) -> Payload | None:
    try:
        envelope = unseal(body, subject).envelope
        return decode_payload(envelope.schema, envelope.payload)
    except InputError:
        return None


def put(nats: RawNats, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> Place:
    """Publish and return where the server stored it; fails when it did not."""
    answer = nats.request(subject, body, headers=headers).json()
    assert "error" not in answer, answer
    return answer["stream"], answer["seq"]


async def delays(transport: Transport, put_at: Mapping[Place, str], within: float = 60) -> dict[str, float]:
    """Seconds from each message to the record about it, by the server's own times; fails for one without a record."""

    async def all_recorded() -> bool:
        return put_at.keys() <= (await records(transport)).keys()

    try:
        await eventually(all_recorded, "every message has its record", within=within)
    except AssertionError:
        missing = put_at.keys() - (await records(transport)).keys()
        raise AssertionError(f"no record of {[(place, put_at[place]) for place in sorted(missing)]}") from None
    found, seconds = await records(transport), {}
    for place, name in put_at.items():
        stored = await transport.get(*place)
        moment = stored.time if stored is not None else found[place].time
        seconds[name] = (found[place].time - moment).total_seconds()
        assert found[place].code not in ("", "taken"), (name, found[place])
    return seconds


def spent(pids: Mapping[str, int]) -> dict[str, tuple[float, int]]:
    """CPU seconds and resident bytes of each service so far."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        times = process.cpu_times()
        found[name] = (times.user + times.system, process.memory_info().rss)
    return found


async def cli(world: World, *arguments: str) -> tuple[int, Any]:
    """A command of `agentflow`, with what it printed as JSON."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "agentflow"),
        *arguments,
        "--json",
        env={**os.environ, "AF_NATS_URL": world.mesh.url, "AF_MONITOR_URL": world.mesh.server.monitor_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode, json.loads(out) if process.returncode == 0 else err.decode()


async def lives_on(world: World, run: Run, pids: Mapping[str, int]) -> None:
    """The live run completes, other runs do, and the services are the ones they were."""
    await run.signal("go")
    assert await run.result(timeout=90) == {"booked": 5001}
    assert world.pids() == pids
    await world.submit(2)
    await world.finish()


async def test_junk_of_every_kind_at_every_door_ends_in_a_record_and_a_live_run_completes(tmp_path: Path) -> None:
    """Within a second, as a rule; services stay up; commands and verification can read what is left."""
    async with junk_world(tmp_path) as (world, run):
        pids, transport = world.pids(), world.client.transport
        before, put_at, junk = spent(pids), dict[Place, str](), 0
        with RawNats.to(world.mesh.url) as nats:
            for door, subject in doors("live", "01KE0000000000000000000001").items():
                for number, (name, body) in enumerate(bodies_for(subject).items()):
                    if door == "a due timer":  # one message a subject: the next would take the place of the last
                        subject = f"timers.due.planner.live.{700 + number}"  # noqa: PLW2901  # the door in question
                        body = bodies_for(subject)[name]  # noqa: PLW2901  # made for it
                    put_at[await asyncio.to_thread(put, nats, subject, body)] = f"{name} at {door}"
            for subject in ODD_SUBJECTS:
                put_at[await asyncio.to_thread(put, nats, subject, b"junk")] = f"junk on {subject[:60]}"
            many = {f"X-{number}": "y" * 40 for number in range(1000)}
            put_at[await asyncio.to_thread(put, nats, "workflows.live.in", b"junk", many)] = "1,000 headers"
        junk = len(put_at)
        seconds = await delays(transport, put_at)
        slow = sorted(seconds.items(), key=lambda each: -each[1])[:5]
        ordered = sorted(seconds.values())
        LOG.info("%d junk messages; median %.3f s, slowest %s", junk, ordered[junk // 2], slow)
        assert ordered[junk // 2] < 1.0
        assert ordered[-1] < 10.0, slow
        await lives_on(world, run, pids)
        _bounded(before, spent(pids), junk)
        found = await verify(transport, now=SystemClock().now())
        assert found.ok, found.damages[:5]
        for arguments in (
            ["runs"],
            ["show", "live"],
            ["show", "junk-1"],
            ["why", "live"],
            ["why", "junk-1"],
            ["verify"],
        ):
            code, told = await cli(world, *arguments)
            assert code == 0, (arguments, told)
        ends = {state.id: state.status for state in await world.client.runs()}
        assert (ends["live"], ends["junk-1"]) == ("completed", "rejected")


def _bounded(before: Mapping[str, tuple[float, int]], after: Mapping[str, tuple[float, int]], junk: int) -> None:
    """CPU and memory per junk message stay small."""
    for name, (cpu, rss) in after.items():
        seconds, grown = (cpu - before[name][0]) / junk, (rss - before[name][1]) / junk
        LOG.info("%s: %.1f ms CPU and %.1f KiB per junk message", name, seconds * 1000, grown / 1024)
        assert seconds < 1.0
        assert rss - before[name][1] < 200 * 2**20


@pytest.mark.slow
async def test_a_flood_of_junk_is_recorded_message_by_message(tmp_path: Path) -> None:
    """A thousand messages at a live run, a new one, an agent and the tools; then the run completes."""
    async with junk_world(tmp_path) as (world, run):
        pids, transport = world.pids(), world.client.transport
        before, put_at = spent(pids), dict[Place, str]()
        subjects = ["workflows.live.in", "workflows.junk-1.in", "agents.clerk.in", f"tools.calls.{'x' * 20}"]
        with RawNats.to(world.mesh.url) as nats:
            for number in range(1000):
                place = await asyncio.to_thread(put, nats, subjects[number % 4], b'{"junk":%d}' % number)
                put_at[place] = f"flood {number}"
        seconds = sorted((await delays(transport, put_at, within=120)).values())
        LOG.info("flood: median %.3f s, last %.3f s", seconds[500], seconds[-1])
        await lives_on(world, run, pids)
        _bounded(before, spent(pids), 1000)
        report = await world.aftermath()
        assert timedelta(seconds=seconds[-1]) < timedelta(seconds=60)
    report.require(*ALWAYS)
