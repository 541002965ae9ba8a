"""Which mesh a command means."""

import asyncio
import os
from pathlib import Path

import pytest

from agentflow.cli import app
from agentflow.cli.session import locate, open_client, open_transport
from agentflow.errors import Unreachable
from agentflow.local.running import RunningMesh, announce, process_start
from agentflow.mesh.embedded import EmbeddedServer


@pytest.fixture
def local(tmp_path: Path) -> RunningMesh:
    """A local mesh that is up: this process runs it."""
    found = RunningMesh(
        kind="dev",
        pid=os.getpid(),
        process_started=process_start(os.getpid()) or "",
        since="2026-01-01T00:00:00.000000Z",
        url="nats://127.0.0.1:14222",
        monitor_url="http://127.0.0.1:18222",
        data_dir=str(tmp_path),
    )
    announce(found)
    return found


def test_what_is_given_comes_first(local: RunningMesh) -> None:
    """Then our variable, then everybody's, then a local mesh, then the usual port."""
    environment = {"AF_NATS_URL": "nats://af:1", "NATS_URL": "nats://nats:1"}

    assert ("nats://given:1", "--nats-url") == origin(locate("nats://given:1", environment))
    assert ("nats://af:1", "AF_NATS_URL") == origin(locate(None, environment))
    assert ("nats://nats:1", "NATS_URL") == origin(locate(None, {"NATS_URL": "nats://nats:1", "AF_NATS_URL": ""}))
    assert (local.url, "local mesh") == origin(locate(None, {}))


def test_without_anything_it_is_the_usual_port() -> None:
    """On this machine."""
    assert ("nats://127.0.0.1:4222", "default") == origin(locate(None, {}))


def origin(located: object) -> tuple[str, str]:
    """Where it is and how it was found."""
    return getattr(located, "url"), getattr(located, "origin")  # noqa: B009 - of whatever locate returns


def test_a_local_mesh_is_known_by_its_address(local: RunningMesh) -> None:
    """However the address was given, its data and its monitoring port are known."""
    for located in (locate(None, {}), locate(local.url, {}), locate(None, {"AF_NATS_URL": local.url})):
        assert (local.monitor_url, local.data_dir) == (located.monitor_url, located.data_dir)


def test_of_another_mesh_the_monitoring_address_may_be_given(local: RunningMesh) -> None:
    """By the variable that services read too."""
    located = locate("nats://far:4222", {"AF_MONITOR_URL": "http://far:8222"})

    assert ("http://far:8222", "") == (located.monitor_url, located.data_dir)


async def test_a_mesh_that_does_not_answer_is_named_with_how_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with what to do."""
    monkeypatch.setattr("agentflow.cli.session.CONNECT_TIMEOUT", 0.05)

    async def connect() -> None:
        async with open_transport("nats://127.0.0.1:1"):
            pytest.fail("connected")

    with pytest.raises(Unreachable, match=r"nats://127\.0\.0\.1:1 \(--nats-url\)") as caught:
        await connect()
    assert "agentflow dev" in str(caught.value.fields["hint"])


async def test_a_connection_is_closed_behind_the_command() -> None:
    """Whatever became of it."""
    async with open_client("memory://session") as client:
        assert client.transport.connected
    assert not client.transport.connected


@pytest.mark.parametrize(
    "arguments", [("runs",), ("show", "x"), ("watch", "x"), ("cancel", "x"), ("signal", "x", "go")]
)
async def test_a_server_without_streams_is_answered_with_how_to_make_them(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real server's answer to a read where no stream is."""
    async with EmbeddedServer.running(tmp_path) as server:
        code = await asyncio.to_thread(app.run, [*arguments, "--nats-url", server.url])

    assert 3 == code
    said = capsys.readouterr().err
    assert "error[mesh.not_stored]: no stream AF_MESSAGES on this server\nhint: agentflow streams apply\n" == said
