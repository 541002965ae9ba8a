"""D9: the disk the server writes to is full, then has room again. The disk is a small file system in memory."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.errors import OutcomeUnknown, PublishFailed, Unreachable
from tests.faults.invariants import ALWAYS
from tests.faults.world import LOG, World, fault_world
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(420)]

SIZE = 192
"""MiB of the disk: what a server asks to be free at its start, and a little."""

TOLD = 60.0
"""Seconds within which a caller is told; a submit tries for 30."""


def can_mount() -> bool:
    """Whether we may mount: being root is not enough everywhere."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and Path("/proc/mounts").exists()


async def _run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


@contextlib.asynccontextmanager
async def small_disk(where: Path) -> AsyncIterator[Path]:
    """A disk of its own for the time of a block; skips the test where mounting is not allowed."""
    await asyncio.to_thread(where.mkdir)
    if await _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}m,mode=755", "tmpfs", str(where)):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield where
    finally:
        assert await _run("umount", str(where)) == 0


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return ballast


async def refused_or_unknown(world: World) -> list[str]:
    """Runs submitted to a full disk, until one is not taken; every caller is told in time."""
    taken = []
    for _ in range(200):
        begun = time.monotonic()
        try:
            taken.append(await world.submit_one())
        except (OutcomeUnknown, Unreachable, PublishFailed) as error:
            LOG.info("told after %.1f s: %s %s", time.monotonic() - begun, type(error).__name__, error)
            assert time.monotonic() - begun < TOLD
            return taken
    pytest.fail("the disk is full, and everything was taken")


@pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs root")
async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """Callers are told, nothing acknowledged is lost, nobody crashes, and with room and a restart all goes on."""
    async with small_disk(tmp_path / "disk") as disk, fault_world(tmp_path, store=disk) as world:
        await world.submit(4)
        await world.finish()
        pids = world.pids()
        ballast = fill(disk)
        await refused_or_unknown(world)
        await eventually(
            lambda: world.witness.health.says(False, pids),
            "no service says that it is ready",
            within=60,
        )
        if world.witness.health.addresses:
            await world.witness.health.observe("full disk", False, pids)
        ballast.unlink()
        await world.restart_server()
        for child in world.mesh.processes():
            assert child.running, child.last_lines()
        assert pids == world.pids(), "no service had to be started again"
        await resubmit_what_is_unknown(world)
        await world.submit(2)
        report = await world.aftermath()
        report.require(*ALWAYS)
        await world.expect_exact_effects()


async def resubmit_what_is_unknown(world: World) -> None:
    """What a caller does who was told that it is not known: ask again, under the same id."""
    for run_id, amount in list(world.submitted.items()):
        await world.submit_as(run_id, amount)
