"""D5, D8, D12: the server dies again and again, hands out all of history again, and is meddled with."""

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from agentflow.mesh.transport import Transport
from tests.faults.history import read_evidence
from tests.faults.invariants import ALWAYS
from tests.faults.load import steady_load
from tests.faults.world import LOG, World, fault_world
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

DURABLES = {
    "AF_MESSAGES": "planner",
    "AF_TIMERS": "planner",
    "AF_AGENTS": "agent-clerk",
    "AF_AUDIT": "executor",
}
"""The durable consumers of the desk's mesh, by stream."""

RECONNECT = 10.0
"""Seconds from the server's return until work is done again; on an idle machine below 2."""


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_a_server_that_is_killed_eight_times_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """SIGKILL, a moment of darkness, start; services reconnect by themselves and leave nothing open behind them."""
    async with fault_world(tmp_path) as world:
        tasks = len(asyncio.all_tasks())
        async with steady_load(world, submitters=4) as load:
            for number in range(8):
                done = len(world.desk.ledger)
                await world.ended(done + 5)
                await world.mesh.server.kill()
                dark = len(world.desk.ledger)
                await asyncio.sleep(0.3 * (number % 3))
                await world.restart_server()
                back = time.monotonic()
                await world.ended(dark + 3)
                LOG.info("kill %d: three effects %.1f s after the return", number + 1, time.monotonic() - back)
                assert time.monotonic() - back < RECONNECT * 2
                await world.saw_heads()
        LOG.info("%d runs, %d calls without an answer", len(load.stored), load.unanswered)
        assert len(asyncio.all_tasks()) <= tasks + 2
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


async def api(transport: Transport, verb: str, **body: Any) -> dict[str, Any]:
    """One call of the server's API, as an administrator makes it."""
    answer: dict[str, Any] = json.loads(await transport.request(f"$JS.API.{verb}", json.dumps(body).encode()))
    assert "error" not in answer, answer
    return answer


async def consumer(world: World, stream: str) -> dict[str, Any]:
    """A durable consumer as it is; empty while there is none."""
    subject = f"$JS.API.CONSUMER.INFO.{stream}.{DURABLES[stream]}"
    answer: dict[str, Any] = json.loads(await world.client.transport.request(subject, b""))
    return {} if "error" in answer else answer


async def digest(world: World) -> str:
    """Of all evidence there is."""
    messages = await read_evidence(world.client.transport)
    return hashlib.sha256(b"".join(f"{m.stream}:{m.seq}".encode() + m.body for m in messages)).hexdigest()


async def caught_up(world: World, within: float = 60.0) -> None:
    """Wait until every consumer exists, has nothing before it and nothing in hand."""

    async def look() -> bool:
        found = [await consumer(world, stream) for stream in DURABLES]
        return all(c and not c["num_pending"] and not c["num_ack_pending"] for c in found)

    await eventually(look, "every consumer has caught up", within=within)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["deleted", "reset"])
async def test_all_of_history_delivered_again_changes_nothing(tmp_path: Path, how: str) -> None:
    """Consumers deleted while services run, or their state lost with the server: everything comes once more.

    Not one message more is stored and not one effect happens; the time is linear in the history.
    """
    async with fault_world(tmp_path) as world:
        await world.submit(30)
        await world.finish()
        await caught_up(world)
        before, effects = await digest(world), world.desk.ledger
        runs, notes = world.desk.handler_runs, world.notes
        begun = time.monotonic()
        if how == "deleted":
            for stream, name in DURABLES.items():
                await api(world.client.transport, f"CONSUMER.DELETE.{stream}.{name}")
        else:
            await world.mesh.server.kill()
            for state in world.mesh.directory.glob("jetstream/**/obs/*/o.dat"):
                state.unlink()
            await world.restart_server()
        await caught_up(world)
        took = time.monotonic() - begun
        delivered = [(await consumer(world, stream))["delivered"]["consumer_seq"] for stream in DURABLES]
        LOG.info("%s: %s deliveries again in %.1f s", how, delivered, took)
        assert delivered[0] >= 30 * 4, "everything was delivered again"
        assert (effects, runs, notes) == (world.desk.ledger, world.desk.handler_runs, world.notes)
        assert before == await digest(world)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.submit(5)
        await world.finish()
        await world.expect_exact_effects()


@pytest.mark.timeout(240)
async def test_a_consumer_whose_settings_drifted_is_corrected_and_that_is_said(tmp_path: Path) -> None:
    """Another ack wait, other limits, set by somebody else: the next start of the service puts them right."""
    async with fault_world(tmp_path) as world:
        transport = world.client.transport
        await world.submit(3)
        await world.finish()
        found = (await consumer(world, "AF_AUDIT"))["config"]
        drifted = {**found, "ack_wait": 77_000_000_000, "max_ack_pending": 1, "max_deliver": 2}
        await api(transport, "CONSUMER.DURABLE.CREATE.AF_AUDIT.executor", stream_name="AF_AUDIT", config=drifted)
        executor = world.one("executor")
        assert await executor.stop() == 0
        await world.revive(executor)
        await world.ready()
        corrected = (await consumer(world, "AF_AUDIT"))["config"]
        assert {key: found.get(key) for key in drifted} == {key: corrected.get(key) for key in drifted}
        said = [json.loads(line) for line in executor.log.read_text().splitlines() if "consumer.drift" in line]
        assert said, "the drift was reported"
        assert {"ack_wait", "max_ack_pending", "max_deliver"} == set(said[-1]["corrected"])
        await world.submit(3)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


@pytest.mark.timeout(240)
async def test_a_consumer_that_takes_other_subjects_is_refused(tmp_path: Path) -> None:
    """What it took is not known: the service ends with the reason, and starts when a person has put it right."""
    async with fault_world(tmp_path) as world:
        transport = world.client.transport
        await world.submit(3)
        await world.finish()
        executor = world.one("executor")
        assert await executor.stop() == 0
        found = (await consumer(world, "AF_AUDIT"))["config"]
        await api(transport, "CONSUMER.DELETE.AF_AUDIT.executor")
        other = {**found, "filter_subjects": ["tools.anomaly"]}
        other.pop("filter_subject", None)
        await api(transport, "CONSUMER.DURABLE.CREATE.AF_AUDIT.executor", stream_name="AF_AUDIT", config=other)
        await world.revive(executor)
        assert await executor.wait(60) not in (None, 0)
        assert any("mesh.consumer_drift" in line for line in executor.last_lines())
        await api(transport, "CONSUMER.DELETE.AF_AUDIT.executor")
        await world.revive(executor)
        await world.submit(3)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()
