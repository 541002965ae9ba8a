"""How much room the streams of a local mesh reserve."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from agentflow.cli.checks import check_mesh
from agentflow.cli.session import locate
from agentflow.local.mesh import LocalMesh
from agentflow.local.room import NEEDED, SMALLEST, capacity_for, remembered
from agentflow.local.services import Program


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory."""
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("max_storage", "expected"),
    [(10 * NEEDED, 1.0), (NEEDED, 1.0), (NEEDED - 1, 0.5), (NEEDED // 4, 0.25), (1024, SMALLEST), (0, SMALLEST)],
)
def test_streams_get_what_fits(max_storage: int, expected: float, directory: Path) -> None:
    """All of it where there is room, else a half, a quarter, and so on."""
    assert expected == capacity_for(directory, max_storage)


def test_what_was_chosen_for_a_directory_stays(directory: Path) -> None:
    """Its streams exist: another choice would only look like drift."""
    assert 0.5 == capacity_for(directory, NEEDED // 2)
    assert 0.5 == capacity_for(directory, 10 * NEEDED) == remembered(directory)


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "2", "nan", "0.001"])
def test_a_choice_that_makes_no_sense_is_made_anew(text: str, directory: Path) -> None:
    """Whoever wrote it."""
    (directory / "run" / "capacity").write_text(text)

    assert remembered(directory) is None
    assert 1.0 == capacity_for(directory, NEEDED)


def test_where_the_choice_cannot_be_kept_it_is_made_all_the_same(tmp_path: Path) -> None:
    """The mesh starts."""
    assert 1.0 == capacity_for(tmp_path / "absent", NEEDED)


async def mount(*command: str) -> bool:
    """Mount or unmount; whether it worked."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk takes root")
async def test_a_mesh_starts_on_a_small_disk(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """With small streams, as it says; and they are as they should be."""
    disk = tmp_path / "disk"
    os.mkdir(disk)
    if not await mount("mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)):
        pytest.skip("this machine does not let root mount")
    notes = list[str]()
    try:
        async with LocalMesh.running(disk / "data", project=project, note=notes.append) as mesh:
            findings = await check_mesh(locate(mesh.url, {}))
    finally:
        await mount("umount", str(disk))

    assert [note for note in notes if "little room" in note]
    assert ["ok"] == [finding.level for finding in findings if finding.check == "streams"]
