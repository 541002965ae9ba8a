"""The shell of every service: it starts, presents itself, drains on a signal, and ends with the right exit code."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import agentflow
from agentflow import service
from agentflow.clock import format_time
from agentflow.errors import AgentflowError, Conflict, EvidenceError, MeshError, NotStored, ServerUnfit, Unreachable
from agentflow.ids import is_ulid
from agentflow.mesh import jetstream
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.memory_buckets import MemoryBucket
from agentflow.mesh.transport import ServiceSpec, Transport
from agentflow.registry import Heartbeat, alive_key
from agentflow.service import Body, Host, Incarnation, run
from agentflow.settings import ServiceSettings
from agentflow.testing import START, FixedClock
from tests.contract.meshes import bucket
from tests.core.conftest import Lines
from tests.support.waiting import eventually, stays

ROOT = Path(agentflow.__file__).parents[1]
SPEC = ServiceSpec("agentflow-tester", "1.2.3", "Tests")
NAME = "tests-core-service"


@pytest.fixture
def broker() -> Iterator[MemoryTransport]:
    """A connection to the broker the services of a test connect to."""
    yield MemoryTransport.named(NAME)
    MemoryTransport.forget(NAME)


def settings(**more: Any) -> ServiceSettings:
    """Settings of a service on that broker."""
    return ServiceSettings(nats_url=f"memory:{NAME}", drain_timeout=5, **more)


def events(lines: list[dict[str, Any]]) -> list[str]:
    """What was logged, in order."""
    return [line["event"] for line in lines]


def tell(signum: int) -> None:
    """Signal this very process, as a supervisor does."""
    os.kill(os.getpid(), signum)


# --- a good end ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_zero(signum: int, log_lines: Lines) -> None:
    """The body is told to stop and finishes what it has in hand; nothing is cut off."""
    done: list[str] = []

    async def body(host: Host) -> None:
        tell(signum)
        await host.stop.wait()
        await asyncio.sleep(0.05)
        done.append("what was in hand")

    assert 0 == run(SPEC, settings(), body)
    assert ["what was in hand"] == done
    assert ["service.started", "service.stopped"] == events(log_lines())


@pytest.mark.usefixtures("broker")
def test_a_body_that_ends_by_itself_ends_the_process_well(log_lines: Lines) -> None:
    """It had nothing more to do."""

    async def body(host: Host) -> None:
        """Nothing to do."""

    assert 0 == run(SPEC, settings(), body)
    assert ["service.started", "service.stopped"] == events(log_lines())


@pytest.mark.usefixtures("broker")
def test_draining_has_an_end(log_lines: Lines) -> None:
    """A body that does not finish in time is cancelled, and its messages come again; the process ends all the same."""
    cancelled: list[bool] = []

    async def body(host: Host) -> None:
        tell(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    patient = settings().model_copy(update={"drain_timeout": 0.05})
    assert 0 == run(SPEC, patient, body)
    assert [True] == cancelled
    assert ["service.started", "service.drain_timeout", "service.stopped"] == events(log_lines())


def test_signal_handlers_are_gone_afterwards(broker: MemoryTransport, log_lines: Lines) -> None:
    """A process that goes on, as a test does, can be interrupted again."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]

    async def body(host: Host) -> None:
        assert host.transport is not broker

    run(SPEC, settings(), body)

    assert before == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    assert log_lines()


# --- what a body gets ------------------------------------------------------------------------------------------------


def test_a_service_presents_itself_and_knows_who_it_is(broker: MemoryTransport, log_lines: Lines) -> None:
    """It answers the `$SRV` verbs while it runs; every life has an id of its own, and logs under it."""
    lives: list[Incarnation] = []
    answers: list[dict[str, Any]] = []

    async def body(host: Host) -> None:
        lives.append(host.incarnation)
        answers.append(msgspec.json.decode(await broker.request("$SRV.INFO.agentflow-tester", b"")))

    for _ in range(2):
        assert 0 == run(SPEC, settings(), body)

    assert {"1.2.3"} == {answer["version"] for answer in answers}
    assert 2 == len({life.id for life in lives})
    assert all(is_ulid(life.id) and life.service == "agentflow-tester" for life in lives)
    assert {life.id for life in lives} == {line["incarnation"] for line in log_lines()}
    with pytest.raises(NotStored):
        asyncio.run(broker.request("$SRV.INFO.agentflow-tester", b""))


@pytest.mark.usefixtures("broker")
def test_the_connection_is_closed_at_the_end(log_lines: Lines) -> None:
    """Whatever came of the body."""
    used: list[Transport] = []

    async def good(host: Host) -> None:
        used.append(host.transport)

    async def bad(host: Host) -> None:
        used.append(host.transport)
        raise MeshError("x")

    assert [0, 4] == [run(SPEC, settings(), body) for body in (good, bad)]
    assert [False, False] == [transport.connected for transport in used]
    assert log_lines()


# --- a bad end -------------------------------------------------------------------------------------------------------


def raising(error: Exception) -> Body:
    """A body that fails."""

    async def body(host: Host) -> None:
        raise error

    return body


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (MeshError("m"), 4),
        (Conflict("c", code="mesh.consumer_drift"), 7),
        (NotStored("n"), 3),
        (EvidenceError("e"), 1),
        (ExceptionGroup("tasks", [NotStored("n"), MeshError("m")]), 3),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [Unreachable("u")])]), 4),
    ],
)
def test_an_error_of_ours_ends_with_its_exit_code(error: Exception, exit_code: int, log_lines: Lines) -> None:
    """And with one line that says which and why, also where it comes out of a task group; no traceback."""
    assert exit_code == run(SPEC, settings(), raising(error))

    lines = log_lines()
    failed = [line for line in lines if line["event"] == "service.failed"]
    assert failed
    assert "service.stopped" not in events(lines)
    assert all("exception" not in line for line in lines)
    assert ("error", str(failed[0]["reason"])) == (failed[0]["level"], failed[0]["reason"])
    assert failed[0]["code"]


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    "error",
    [ValueError("bug"), ExceptionGroup("tasks", [MeshError("m"), ValueError("bug")])],
    ids=["alone", "in a group"],
)
def test_a_mistake_in_the_code_ends_with_one_and_its_traceback(error: Exception, log_lines: Lines) -> None:
    """As a line of the log, so that whoever collects logs has it; it does not hide behind another error."""
    assert 1 == run(SPEC, settings(), raising(error))

    (crashed,) = [line for line in log_lines() if line["event"] == "service.crashed"]
    assert "bug" in str(crashed["exception"])


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the connection often."""
    monkeypatch.setattr(service, "LOOK_EVERY", 0.01)


@pytest.mark.usefixtures("broker", "quick_looks")
def test_a_connection_that_closed_for_good_ends_the_process(log_lines: Lines) -> None:
    """A supervisor starts it again; hanging on would be silence."""
    cancelled: list[bool] = []

    async def body(host: Host) -> None:
        assert isinstance(host.transport, MemoryTransport)
        host.transport.lose("thrown out: maximum payload")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert 4 == run(SPEC, settings(), body)
    assert [True] == cancelled
    (failed,) = [line for line in log_lines() if line["event"] == "service.failed"]
    assert "mesh.closed" == failed["code"]
    assert "thrown out: maximum payload" in failed["reason"]


class Mute(MemoryTransport):
    """A connection that says it is up while answers do not come back."""

    answers: ClassVar[list[bool]] = []

    async def rtt(self, timeout: float = 2.0) -> float:
        if self.answers and self.answers.pop(0):
            return 0.001
        raise Unreachable("no answer")


def mute(monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
    """Let services connect so; the first looks are answered as given."""
    monkeypatch.setattr(Mute, "answers", list(answers))

    async def connect(url: str, **_: Any) -> Transport:
        return Mute()

    monkeypatch.setattr(service, "connect", connect)


@pytest.mark.usefixtures("quick_looks")
def test_a_connection_that_is_up_and_silent_ends_the_process(monkeypatch: pytest.MonkeyPatch, log_lines: Lines) -> None:
    """Being connected by one's own account is not being alive."""
    mute(monkeypatch)

    async def body(host: Host) -> None:
        await asyncio.Event().wait()

    assert 4 == run(SPEC, settings(), body)
    assert ["mesh.stuck"] == [line["code"] for line in log_lines() if line["event"] == "service.failed"]


@pytest.mark.usefixtures("quick_looks")
def test_an_answer_now_and_then_is_enough(monkeypatch: pytest.MonkeyPatch, log_lines: Lines) -> None:
    """Only looks in a row count: a slow moment ends nothing."""
    missed = [*[False] * (service.SILENT_LOOKS - 1), True]
    mute(monkeypatch, *missed * 3)

    async def body(host: Host) -> None:
        await eventually(lambda: len(Mute.answers) <= 1, "nearly all looks")

    assert 0 == run(SPEC, settings(), body)
    assert ["service.started", "service.stopped"] == events(log_lines())


@pytest.mark.usefixtures("quick_looks")
def test_a_connection_that_is_down_is_waited_for(broker: MemoryTransport, log_lines: Lines) -> None:
    """A server that is started again finds its services there."""

    async def body(host: Host) -> None:
        broker.broker.stop()
        await stays(lambda: not host.transport.connected, "down", during=0.1)
        broker.broker.start()

    assert 0 == run(SPEC, settings(), body)
    assert ["service.started", "service.stopped"] == events(log_lines())


def test_a_broker_that_is_not_there_is_told(log_lines: Lines) -> None:
    """After the time allowed for the first connection; the body never runs."""
    absent = ServiceSettings(nats_url="nats://127.0.0.1:1", connect_timeout=0.1)

    assert 4 == run(SPEC, absent, raising(AssertionError("ran")))
    (failed,) = log_lines()
    assert ("service.failed", "mesh.unreachable") == (failed["event"], failed["code"])


class Unfit(MemoryTransport):
    """A broker that acknowledges before it has synced."""

    async def require_durable(self, monitor_url: str = "") -> None:
        raise ServerUnfit("not durable", code="server.not_durable", monitor_url=monitor_url)


def unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services connect to such a broker."""

    async def connect(url: str, **_: Any) -> Transport:
        return Unfit()

    monkeypatch.setattr(service, "connect", connect)


def test_a_server_that_is_not_durable_is_refused(monkeypatch: pytest.MonkeyPatch, log_lines: Lines) -> None:
    """Before anything runs on it."""
    unfit(monkeypatch)

    assert 4 == run(SPEC, settings(), raising(AssertionError("ran")))
    (failed,) = log_lines()
    assert ("service.failed", "server.not_durable") == (failed["event"], failed["code"])


def test_such_a_server_may_be_accepted(monkeypatch: pytest.MonkeyPatch, log_lines: Lines) -> None:
    """By a setting, on purpose."""
    unfit(monkeypatch)

    async def body(host: Host) -> None:
        """Nothing to do."""

    assert 0 == run(SPEC, settings(allow_volatile=True), body)
    assert "service.started" in events(log_lines())


# --- the registry ----------------------------------------------------------------------------------------------------


class Log:
    """A logger that remembers its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, event: str, **_: object) -> None:
        self.warnings.append(event)


@pytest.fixture
async def host(broker: MemoryTransport) -> Host:
    """A host on a broker with a registry, beating quickly."""
    await broker.create_stream(bucket("AF_REGISTRY"))
    quick = settings(heartbeat=0.02)
    return Host(MemoryTransport.named(NAME), Incarnation("tester", "life-1", START), quick, FixedClock(), Log())


async def test_what_is_hosted_is_registered_while_it_is_hosted(host: Host, broker: MemoryTransport) -> None:
    """With who, where and since when; and removed at the end, not left to time out."""
    entries = [host.heartbeat_for("agent", "greeter", slots=2), host.heartbeat_for("runtime", "main")]
    registry = await broker.bucket("AF_REGISTRY")

    async with host.registered(*entries):
        found = {entry.key: msgspec.json.decode(entry.value, type=Heartbeat) for entry in await registry.entries()}

    now = format_time(host.clock.now())
    expected = [msgspec.structs.replace(each, beat=now) for each in entries]
    assert {alive_key(each.kind, each.id, "life-1"): each for each in expected} == found
    assert (os.getpid(), "life-1", "2026-01-01T00:00:00.000000Z", {"slots": 2}) == (
        entries[0].pid,
        entries[0].incarnation,
        entries[0].started,
        entries[0].detail,
    )
    assert [] == await registry.entries()


async def test_entries_are_refreshed(host: Host, broker: MemoryTransport) -> None:
    """They live three heartbeats, so each beat writes them again."""
    registry = await broker.bucket("AF_REGISTRY")
    key = alive_key("agent", "greeter", "life-1")

    async def revision() -> int:
        entry = await registry.get(key)
        return entry.revision if entry else 0

    async def beaten() -> bool:
        return await revision() >= 4

    async with host.registered(host.heartbeat_for("agent", "greeter")):
        await eventually(beaten, "refreshed three times")


async def test_heartbeats_survive_a_broker_that_is_away(host: Host, broker: MemoryTransport) -> None:
    """They go on when it is back, and the end does not fail while it is away; each outage is logged once."""
    registry = await broker.bucket("AF_REGISTRY")

    async def present() -> bool:
        return bool(await registry.entries())

    async with host.registered(host.heartbeat_for("agent", "greeter")):
        broker.broker.stop()
        await eventually(lambda: host.log.warnings, "noticed")
        await stays(lambda: host.log.warnings == ["registry.unheard"], "one line", during=0.1)
        broker.broker.start()
        await registry.delete(alive_key("agent", "greeter", "life-1"))
        await eventually(present, "registered again")
        broker.broker.stop()

    broker.broker.start()
    assert await present()


async def test_heartbeats_end_although_their_cancellation_is_lost(
    host: Host, broker: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when the broker answers in that very moment: the process must end, and its entries with it."""
    put, begun = MemoryBucket.put, asyncio.Event()

    async def deaf_once(self: MemoryBucket, key: str, value: bytes, *, ttl: float | None = None) -> int:
        if not begun.is_set():
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return await put(self, key, value, ttl=ttl)

    async with asyncio.timeout(5):
        async with host.registered(host.heartbeat_for("agent", "greeter")):
            monkeypatch.setattr(MemoryBucket, "put", deaf_once)
            await begun.wait()

    assert [] == await (await broker.bucket("AF_REGISTRY")).entries()


async def test_an_error_inside_still_removes_the_entries(host: Host, broker: MemoryTransport) -> None:
    """And is not swallowed."""
    with pytest.raises(AgentflowError, match="inside"):
        async with host.registered(host.heartbeat_for("agent", "greeter")):
            raise AgentflowError("inside")

    assert [] == await (await broker.bucket("AF_REGISTRY")).entries()


async def test_without_a_registry_nothing_is_hosted(broker: MemoryTransport) -> None:
    """A mesh that was not provisioned is told at once."""
    host = Host(broker, Incarnation("tester", "life-1", START), settings(), FixedClock(), None)

    with pytest.raises(NotStored):
        async with host.registered(host.heartbeat_for("agent", "greeter")):
            raise AssertionError("entered")


# --- as a process ----------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from agentflow.mesh.transport import ServiceSpec
from agentflow.service import run
from agentflow.settings import ServiceSettings, load

async def body(host):
    print("ready", flush=True)
    await host.stop.wait()
    print("drained", flush=True)

sys.exit(run(ServiceSpec("tester", "1.0.0", "Tests"), load(ServiceSettings), body))
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_process_drains_on_a_signal_and_exits_with_zero(signum: int) -> None:
    """From outside, as a supervisor sees it: results on stdout, JSON lines on stderr, no traceback."""
    environment = {**os.environ, "AF_NATS_URL": "memory:process", "AF_LOG_LEVEL": "info"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            process.send_signal(signum)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert (0, "drained\n") == (process.returncode, out)
    assert ["service.started", "service.stopped"] == events([msgspec.json.decode(line) for line in err.splitlines()])


def test_a_silent_connection_is_made_anew_before_the_process_would_end() -> None:
    """The client needs a ping more than it forgives; the process ends itself only when that did not help."""
    given_up = jetstream.PING_EVERY * (jetstream.UNANSWERED_PINGS + 2)

    assert given_up < service.SILENT_LOOKS * service.LOOK_EVERY * 3
    assert given_up <= 20


# --- what it shows of itself -----------------------------------------------------------------------------------------


def test_a_service_has_pages_and_is_ready_only_while_it_is_registered(
    broker: MemoryTransport, log_lines: Lines
) -> None:
    """Starting it is not, registered it is, and its heartbeat names the address; alive it is throughout."""
    asyncio.run(broker.create_stream(bucket("AF_REGISTRY")))
    seen: list[tuple[int, int]] = []
    entries: list[dict[str, Any]] = []

    async def look(host: Host) -> tuple[int, int]:
        return await asyncio.to_thread(lambda: (page(f"{host.http}/healthz"), page(f"{host.http}/readyz")))

    async def body(host: Host) -> None:
        seen.append(await look(host))
        async with host.registered(host.heartbeat_for("detector", "x", rules=0)):
            await eventually(lambda: page(f"{host.http}/readyz") == 200)
            entries.extend(msgspec.json.decode(e.value) for e in await (await broker.bucket("AF_REGISTRY")).entries())
            seen.append(await look(host))
            host.stop.set()
            await eventually(lambda: page(f"{host.http}/readyz") == 503)
            seen.append(await look(host))

    assert 0 == run(SPEC, settings(), body)
    assert [(200, 503), (200, 200), (200, 503)] == seen
    assert entries[0]["detail"]["http"] == log_lines()[0]["http"]


def page(url: str) -> int:
    """The status of a page."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  # a service of ours
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.usefixtures("broker")
def test_a_password_in_the_brokers_url_is_not_logged(log_lines: Lines) -> None:
    """Nobody answers there, and the line that says so names the address without it."""
    there = ServiceSettings(nats_url="nats://app:CANARY1234@127.0.0.1:1", connect_timeout=0.1)

    assert 0 != run(SPEC, there, nothing)

    text = str(log_lines())
    assert "127.0.0.1:1" in text
    assert "CANARY1234" not in text


async def nothing(host: Host) -> None:
    """A body with nothing to do."""


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("wrong", [{"http_address": "256.0.0.1:0"}, {"http_address": "127.0.0.1:1:1"}])
def test_an_address_it_cannot_listen_on_is_a_settings_error(wrong: dict[str, Any], log_lines: Lines) -> None:
    """Before anything else is begun."""
    assert 2 == run(SPEC, settings(**wrong), nothing)
    assert "http.address" == log_lines()[0]["code"]
