"""D18 to D20, D24, D26: deliveries that come twice, late or out of order, handlers that take long or kill, and sizes."""

import asyncio
import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from agentflow import subjects
from agentflow.client import Client
from agentflow.envelope import unseal
from agentflow.errors import AgentflowError, InputError, PublishFailed, RunFailed
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.mesh.connect import connect
from agentflow.mesh.transport import Message
from agentflow.payloads import DeadLetter
from agentflow.schemas import payload_as
from tests.e2e.desks import LedgerDesk
from tests.faults.invariants import ALWAYS
from tests.faults.poison import POISON
from tests.faults.world import ROOT, fault_world
from tests.plain.rawnats import RawNats
from tests.services.planner.meshes import Delivered, PlannerMesh, planner_mesh
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

# --- D18: the same again -------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_every_stored_message_published_once_more_has_no_second_effect(tmp_path: Path) -> None:
    """The same bytes on the same subject, without their id, and the goals as plain bodies too: visible, and no more."""
    async with fault_world(tmp_path) as world:
        await world.submit(3)
        await world.finish()
        transport = world.client.transport
        stored: list[Message] = []
        for stream, pattern in (("AF_MESSAGES", "workflows.*.in"), ("AF_AGENTS", "agents.clerk.in.*"),
                                ("AF_AUDIT", "tools.calls.*"), ("AF_MESSAGES", "workflows.*.results.*")):  # fmt: skip
            stored += [message async for message in transport.read(stream, pattern)]
        with RawNats.to(world.mesh.url) as nats:
            for message in stored:
                await asyncio.to_thread(nats.request, message.subject, message.body)
            for number, run_id in enumerate(world.submitted, start=1):
                body = b'{"goal":"booking","input":{"memo":"%s","amount":%d}}' % (
                    world.memo.value.encode(),
                    number * 10,
                )
                await asyncio.to_thread(nats.request, subjects.workflow_in(run_id), body)
        await world.submit(1)
        report = await world.aftermath()
        await world.expect_exact_effects()
    assert report.violated == ("I4",), report  # the copies are told, and nothing else is wrong
    [chains] = [verdict for verdict in report.verdicts if verdict.id == "I4"]
    told = {detail.split(" ")[0] for detail in chains.details}
    assert (told, len(stored) > 20) == ({"duplicated"}, True), chains


# --- D19: out of order -----------------------------------------------------------------------------------------------


async def inputs_of(mesh: PlannerMesh) -> list[Message]:
    """A goal, junk and a cancel, stored in this order."""
    return [await mesh.submit(n=1), await mesh.plain(b"junk"), await mesh.cancel()]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("twice", [False, True])
async def test_deliveries_in_any_order_are_each_decided_once_behind_their_goal(
    order: tuple[int, ...], twice: bool
) -> None:  # a parameter of the test
    """Whoever is delivered first, and however often; what is refused waits for what was stored before it."""
    async with planner_mesh() as mesh:
        planner, stored = mesh.planner(), await inputs_of(mesh)
        for index in order * (2 if twice else 1):
            delivered = Delivered(stored[index], deliveries=2)
            await planner.handle(delivered)
        schemas = await mesh.decisions()
        assert "goal.accepted/1" == schemas[0]
        assert ["goal.accepted/1", "input.rejected/1", "run.cancelled/1"] == sorted(schemas)
        state = await mesh.state()
        assert (state.status, len(state.consumed)) == ("cancelled", 3)


# --- D20: handlers that take long ------------------------------------------------------------------------------------


def telling_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the clerk of every desk write down in which process it works."""
    lay_out = LedgerDesk.lay_out

    def telling(desk: LedgerDesk) -> None:
        lay_out(desk)
        project = yaml.safe_load(desk.project.read_text())
        project["agents"][0]["use"] = "tests.faults.poison:TellingClerk"
        desk.project.write_text(yaml.safe_dump(project))

    monkeypatch.setattr(LedgerDesk, "lay_out", telling)


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_a_handler_that_takes_thirty_times_the_ack_wait_runs_once(tmp_path: Path) -> None:
    """Signs of life keep its message with it for 32 s, though two processes wait for work."""
    async with fault_world(tmp_path, processes={"runtime": 2}, pause=32.0) as world:
        await world.submit(2)
        report = await world.aftermath()
        await world.expect_exact_effects()
        assert len(set(world.desk.handler_runs)) == len(world.desk.handler_runs) == 2
    report.require(*ALWAYS)


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_when_the_signs_of_life_stop_the_work_moves_on_and_has_one_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that handles is frozen; the other takes over within seconds; the first comes back and does no harm."""
    telling_desk(monkeypatch)
    async with fault_world(tmp_path, processes={"runtime": 2}, pause=4.0) as world:
        [run_id] = await world.submit(1)
        await eventually(lambda: world.desk.handler_runs or None, "the handler runs", within=30)
        frozen = psutil.Process(int((world.desk.directory / "runs.pid").read_text()))
        frozen.suspend()
        try:
            await eventually(lambda: len(world.desk.handler_runs) > 1 or None, "the work moves on", within=30)
            await world.finish([run_id])
        finally:
            frozen.resume()
        report = await world.aftermath()
        await world.expect_exact_effects()
    report.require(*ALWAYS)


# --- D24: poison -----------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_a_message_that_kills_its_process_is_given_up_with_its_bytes_and_others_go_on(tmp_path: Path) -> None:
    """Delivered three times, then a dead letter with the reason and the original bytes; the run fails with a code."""
    (tmp_path / "poison.yaml").write_text(POISON)
    project = {"agents": [{"use": "tests.faults.poison:Taster"}], "workflows": ["poison.yaml"]}
    (tmp_path / "agentflow.yaml").write_text(yaml.safe_dump(project))
    environment = {"*": {"PYTHONPATH": str(ROOT), "AF_MAX_DELIVERIES": "3"}}
    options = MeshOptions(watched=True, environment=environment)
    async with (
        LocalMesh.running(tmp_path / "mesh", project=tmp_path / "agentflow.yaml", options=options) as mesh,
        Client.connect(mesh.url) as client,
    ):
        poisoned = await client.submit("poison", {"kills": True}, id="poisoned")
        with pytest.raises(RunFailed) as caught:
            await poisoned.result(timeout=120)
        fine = [await client.submit("poison", {"kills": False}, id=f"fine-{number}") for number in range(3)]
        assert [await run.result(timeout=120) for run in fine] == [{"tasted": True}] * 3
        letters = [
            payload_as(unseal(message.body, message.subject), DeadLetter)
            async for message in client.transport.read("AF_DEAD", "dead.AF_AGENTS.agent-taster")
        ]
        stored = [message async for message in client.transport.read("AF_AGENTS", "agents.taster.in.*")]
    assert (caught.value.error_code, len(letters)) == ("delivery.exhausted", 1)
    [letter] = letters
    original = next(message for message in stored if message.seq == letter.seq)
    assert (letter.code, base64.b64decode(letter.body_base64)) == ("delivery.exhausted", original.body)
    assert letter.deliveries == 4


# --- D26: sizes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server for one test."""
    with NatsServer(tmp_path) as running:
        yield running


async def test_what_is_too_large_is_refused_before_it_is_sent_and_the_connection_stays_up(server: NatsServer) -> None:
    """One byte over the server's limit, headers counted, would end the connection for good."""
    transport = await connect(server.url, name="sizes")
    try:
        await transport.create_stream({"name": "AF_MESSAGES", "subjects": ["workflows.>"]})
        limit = 1024 * 1024
        for size, headers in ((limit + 1, {}), (limit, {"X": "y" * 100}), (64 * limit, {})):
            with pytest.raises((PublishFailed, InputError)) as caught:
                await transport.publish("workflows.a.in", b"x" * size, stream="AF_MESSAGES", headers=headers)
            assert isinstance(caught.value, AgentflowError)
            assert transport.connected
            await transport.rtt()
        stored = await transport.publish("workflows.a.in", b"x" * (limit - 2000), stream="AF_MESSAGES")
        assert (stored.seq, transport.closed_reason) == (1, None)
    finally:
        await transport.close()


async def test_a_raw_client_that_is_too_loud_loses_its_own_connection_alone(server: NatsServer) -> None:
    """The server hangs up on it; what others have open stays open."""
    transport = await connect(server.url, name="bystander")
    try:

        def shout() -> bool:
            with RawNats.to(server.url) as nats:
                nats.publish("workflows.a.in", b"x" * (1024 * 1024 + 1))
                try:
                    nats.ping()
                except OSError:
                    return True
            return False

        assert await asyncio.to_thread(shout)
        assert transport.connected
        await transport.rtt()
    finally:
        await transport.close()
