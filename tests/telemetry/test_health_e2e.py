"""Health of real services tells the truth: not ready while nothing can be stored, alive all the same, ready again after."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.client import Client
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow_streams.provision import provision
from tests.e2e.desks import running_desk
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually
from tests.telemetry.test_tracing_e2e import SERVICES, pages

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def look(url: str) -> tuple[int, dict[str, Any], float]:
    """Status and body of a page, and the seconds it took."""
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  # a service of ours
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        status, body = refused.code, refused.read()
    return status, json.loads(body), time.perf_counter() - began


async def says(url: str, status: int, because: str = "", within: float = 60) -> dict[str, Any]:
    """What `/readyz` says as soon as it has this status, and this check fails."""

    async def look_once() -> dict[str, Any] | None:
        found, body, _ = await asyncio.to_thread(look, f"{url}/readyz")
        return body if found == status and (not because or because in failing(body)) else None

    return await eventually(look_once, f"{status} from {url}/readyz", within=within)


def failing(body: dict[str, Any]) -> set[str]:
    """The checks that fail."""
    return {name for name, check in body["checks"].items() if not check["ok"]}


@contextlib.contextmanager
def detector(server: NatsServer, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service that needs nothing but the broker, with its log in a file."""
    given = {"AF_NATS_URL": server.url, "AF_MONITOR_URL": server.monitor_url, "AF_HEARTBEAT": "0.5", **environment}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_detector"], env={**os.environ, **given}, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def address(log: Path) -> str:
    """Where a service's pages are, as its log says."""

    def find() -> str:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return next((line["http"] for line in lines if line["event"] == "service.started"), "")

    return await eventually(find, "the service starts", within=60)


@contextlib.asynccontextmanager
async def provisioned(directory: Path) -> Any:
    """A server with the mesh's streams."""
    with NatsServer(directory) as server:
        transport = await JetStreamTransport.connect(server.url)
        await provision(transport)
        await transport.close()
        yield server


async def test_a_killed_and_a_frozen_broker_make_a_service_unready_until_it_is_back(tmp_path: Path) -> None:
    """503 with the code of the reason within seconds, `/healthz` 200 all the while, and 200 again when it answers."""
    log = tmp_path / "detector.log"
    async with provisioned(tmp_path) as server:
        with detector(server, log, AF_MONITOR_URL="", AF_ALLOW_VOLATILE="true"):
            url = await address(log)
            await says(url, 200)

            server.kill()
            await says(url, 503, "broker")
            assert 200 == look(f"{url}/healthz")[0]
            server.start()
            await says(url, 200)

            server.freeze()
            try:
                body = await says(url, 503, "broker")
                assert {"ok", "code", "why", "since"} == set(body["checks"]["broker"])
                took = min(look(f"{url}/readyz")[2] for _ in range(20))
                assert took < 0.01
                assert 200 == look(f"{url}/healthz")[0]
            finally:
                server.thaw()
            await says(url, 200)


async def test_a_service_with_pages_ends_well_on_sigterm(tmp_path: Path) -> None:
    """Its server, its probe and its thread hold nothing up; that it is unready meanwhile is the core's test to show."""
    log = tmp_path / "detector.log"
    async with provisioned(tmp_path) as server:
        with detector(server, log) as process:
            await says(await address(log), 200)
            process.terminate()
            assert 0 == await asyncio.to_thread(process.wait, 30)


async def test_a_service_without_pages_has_none(tmp_path: Path) -> None:
    """`off` means off."""
    log = tmp_path / "detector.log"
    async with provisioned(tmp_path) as server:
        with detector(server, log, AF_HTTP_ADDRESS="off"):
            started = await eventually(
                lambda: [line for line in log.read_text().splitlines() if "service.started" in line], within=60
            )
    assert "" == json.loads(started[0])["http"]


async def test_an_address_that_is_taken_ends_a_service_with_a_settings_error(tmp_path: Path) -> None:
    """At once, with exit code 2 and a line that names the setting."""
    log = tmp_path / "detector.log"
    async with provisioned(tmp_path) as server:
        taken = server.url.removeprefix("nats://")
        with detector(server, log, AF_HTTP_ADDRESS=taken) as process:
            assert 2 == await asyncio.to_thread(process.wait, 60)
    assert "AF_HTTP_ADDRESS" in log.read_text()


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A disk of so many MiB, in memory; skips where it cannot be mounted."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small disk needs root")
    folder.parent.chmod(0o755)  # the tools run as another user
    folder.mkdir()
    made = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", str(folder)], check=False)
    if made.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to the last byte."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 1024 * 1024):
            pass
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0"):
            pass
    return path


@pytest.mark.slow
async def test_a_full_disk_makes_every_service_unready_and_none_dead(tmp_path: Path) -> None:
    """Nothing can be acknowledged: all are unready and alive. With room again and the server restarted they are ready."""
    with small_disk(tmp_path / "disk", 192) as disk:
        async with running_desk(disk) as running:
            found = await pages(running.client.transport)
            assert set(SERVICES) == set(found)
            for url in found.values():
                await says(url, 200)

            filler = fill(disk)
            for kind, url in found.items():
                body = await says(url, 503, within=90)
                assert failing(body) & {"registry", "server"}, kind
                assert 200 == look(f"{url}/healthz")[0]

            filler.unlink()
            await running.mesh.restart_server()
            for url in found.values():
                await says(url, 200, within=90)
            async with Client.connect(running.mesh.url) as client:
                run = await client.submit("booking", {"amount": 20}, id="after")
                assert {"booked": 20, "receipt": 21} == await run.result(timeout=90)
