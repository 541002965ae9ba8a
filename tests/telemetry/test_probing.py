"""The probe: what it sees of broker, streams and consumers, and that it stores nothing in order to see it."""

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from agentflow.ending import end
from agentflow.errors import Unreachable
from agentflow.mesh.memory import MemoryBroker, MemoryTransport
from agentflow.mesh.transport import ConsumerState
from agentflow.telemetry.health import LIFE, Health
from agentflow.telemetry.outcomes import Stores
from agentflow.telemetry.probing import Probe, server_problem
from tests.contract.meshes import fill, stream
from tests.support.waiting import eventually


class Watched(MemoryTransport):
    """A broker whose answers a test can change."""

    name = "first"
    there = True

    @property
    def server_id(self) -> str:
        return self.name

    async def attached(self) -> Sequence[ConsumerState]:
        return [ConsumerState("EVENTS", "worker", exists=self.there)]


@pytest.fixture
async def transport() -> AsyncIterator[Watched]:
    """A broker with one stream."""
    made = Watched(MemoryBroker(None))
    await made.create_stream(stream())
    yield made
    await made.close()


def failing(health: Health) -> dict[str, str]:
    """The checks that fail, with their codes."""
    return {name: check.code for name, check in health.report().checks.items() if not check.ok}


def started() -> Health:
    """The health of a process that has registered."""
    health = Health()
    health.says(LIFE, ok=True)
    return health


async def test_a_broker_that_is_away_is_told_and_comes_back(transport: Watched) -> None:
    """By its code, at the next look."""
    health = started()
    probe = Probe(transport, health, stores=Stores())
    await probe.look()
    assert {} == failing(health)

    transport.broker.stop()
    await probe.look()
    assert {"broker": "mesh.unreachable"} == failing(health)

    transport.broker.start()
    await probe.look()
    assert {} == failing(health)


async def test_a_stream_in_doubt_is_unready_until_something_is_acknowledged(transport: Watched) -> None:
    """An idle process does not forget that its last word may not have been heard."""
    health, stores = started(), Stores()
    probe = Probe(transport, health, stores=stores)
    stores.failed("EVENTS", "mesh.outcome_unknown")
    for _ in range(3):
        await probe.look()
        assert {"store:EVENTS": "mesh.outcome_unknown"} == failing(health)

    stores.acknowledged("EVENTS")
    await probe.look()
    assert {} == failing(health)


async def test_a_stream_that_grows_is_not_in_doubt_any_more(transport: Watched) -> None:
    """Another process' message was stored there: so could ours."""
    health, stores = started(), Stores()
    probe = Probe(transport, health, stores=stores)
    stores.failed("EVENTS", "mesh.outcome_unknown")
    await probe.look()
    await fill(transport, 1)

    await probe.look()

    assert {} == failing(health)
    assert {} == stores.doubts()


async def test_a_stream_that_is_gone_stays_in_doubt(transport: Watched) -> None:
    """There is nothing that could have grown."""
    health, stores = started(), Stores()
    probe = Probe(transport, health, stores=stores)
    stores.failed("NOWHERE", "mesh.unreachable")
    for _ in range(2):
        await probe.look()

    assert {"store:NOWHERE": "mesh.unreachable"} == failing(health)


async def test_another_server_process_has_a_clean_slate(transport: Watched) -> None:
    """It has opened its files anew; what the one before failed at says nothing of it."""
    health, stores = started(), Stores()
    probe = Probe(transport, health, stores=stores)
    stores.failed("EVENTS", "mesh.outcome_unknown")
    await probe.look()
    transport.name = "second"

    await probe.look()

    assert {} == failing(health)


async def test_looking_stores_nothing(transport: Watched) -> None:
    """A probe must not fill the disk it watches."""
    before = await transport.stream_info("EVENTS")
    await Probe(transport, started(), stores=Stores()).look()

    assert before == await transport.stream_info("EVENTS")


async def test_a_running_probe_sees_consumers_loop_and_the_word_to_stop(transport: Watched) -> None:
    """All of them, until it is ended."""
    health, stop = started(), asyncio.Event()
    transport.there = False
    probe = Probe(transport, health, stores=Stores())
    running = asyncio.create_task(probe.run(stop))
    try:
        await eventually(lambda: failing(health) == {"consumers": "consumer.missing"})
        assert ["worker"] == [each.name for each in probe.consumers]
        stop.set()
        await eventually(lambda: failing(health).get(LIFE) == "service.draining")
    finally:
        await end(running)


async def test_consumers_of_a_broker_that_is_away_are_not_missing(transport: Watched) -> None:
    """It is the broker that is away; they may be as they were."""
    health = started()

    async def unreachable() -> Sequence[ConsumerState]:
        raise Unreachable("away")

    transport.attached = unreachable  # type: ignore[method-assign]  # one fault for one test
    running = asyncio.create_task(Probe(transport, health, stores=Stores()).run(asyncio.Event()))
    try:
        await eventually(lambda: "broker" in health.report().checks)
        assert "consumers" not in health.report().checks
    finally:
        await end(running)


@pytest.fixture
def monitor() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """A server's monitoring address, and the answers it gives, the last one for ever."""
    answers: list[tuple[int, bytes]] = [(200, b'{"status":"ok"}')]

    class Request(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[-1]
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", answers
    server.shutdown()
    server.server_close()
    thread.join()


async def test_the_servers_own_health_counts(transport: Watched, monitor: tuple[str, list[tuple[int, bytes]]]) -> None:
    """With a full disk it is the only one to know before something is stored."""
    url, answers = monitor
    health = started()
    probe = Probe(transport, health, monitor_url=url, stores=Stores())
    await probe.look()
    assert {} == failing(health)

    answers.append((503, b'{"status":"unavailable","error":"stream is not healthy"}'))
    await probe.look()
    assert {"server": "server.unhealthy"} == failing(health)
    assert "stream is not healthy" in health.report().checks["server"].why


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b'{"error": 7}'])
def test_an_unhealthy_server_may_say_anything(monitor: tuple[str, list[tuple[int, bytes]]], body: bytes) -> None:
    """It is unhealthy all the same."""
    url, answers = monitor
    answers.append((503, body))

    assert "503" in str(server_problem(url))


def test_a_server_that_does_not_answer_is_unhealthy() -> None:
    """Whoever set its address wants it looked at."""
    assert "does not answer" in str(server_problem("http://127.0.0.1:1"))
