"""Finding the local meshes that are up by the files they leave."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentflow.local import running
from agentflow.local.running import RunningMesh, announce, meshes_alive, process_start, state_directory, withdraw


def mesh(tmp_path: Path, **more: Any) -> RunningMesh:
    """A mesh that this process would run."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(exist_ok=True)
    ours = RunningMesh(
        kind="dev",
        pid=os.getpid(),
        process_started=process_start(os.getpid()) or "",
        since="2026-01-01T00:00:00.000000Z",
        url="nats://127.0.0.1:4222",
        monitor_url="http://127.0.0.1:8222",
        data_dir=str(data_dir),
    )
    return replace(ours, **more)


def test_an_announced_mesh_is_found_until_it_is_withdrawn(tmp_path: Path) -> None:
    """By whoever looks, with all that is known of it; its data directory says the same."""
    announce(mesh(tmp_path))
    assert [mesh(tmp_path)] == meshes_alive()
    assert mesh(tmp_path).url == json.loads((tmp_path / "data" / "mesh.json").read_text())["url"]

    withdraw(mesh(tmp_path))
    withdraw(mesh(tmp_path))
    assert [] == meshes_alive()
    assert not (tmp_path / "data" / "mesh.json").exists()


def test_the_latest_comes_first(tmp_path: Path) -> None:
    """Commands take that one."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        later = mesh(
            tmp_path, pid=child.pid, process_started=process_start(child.pid), since="2026-01-02T00:00:00.000000Z"
        )
        announce(mesh(tmp_path))
        announce(later)
        assert [later, mesh(tmp_path)] == meshes_alive()
    finally:
        child.kill()
        child.wait()

    assert [mesh(tmp_path)] == meshes_alive()


def test_a_process_that_took_a_dead_ones_id_is_not_a_mesh(tmp_path: Path) -> None:
    """Ids are used again; the time a process started tells."""
    announce(mesh(tmp_path, process_started="1"))

    assert [] == meshes_alive()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"kind": "dev", "pid": 1, "more": 2}', "\xff"])
def test_a_file_that_is_no_announcement_is_passed_over(tmp_path: Path, text: str) -> None:
    """From another version, or cut off; the others are found."""
    announce(mesh(tmp_path))
    (state_directory() / "1.json").write_text(text, "latin-1")

    assert [mesh(tmp_path)] == meshes_alive()


def test_where_nothing_can_be_written_a_mesh_is_not_found_and_that_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still runs."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(running, "state_directory", lambda: tmp_path / "file" / "meshes")
    announce(mesh(tmp_path, data_dir=str(tmp_path / "file")))
    withdraw(mesh(tmp_path, data_dir=str(tmp_path / "file")))

    assert [] == meshes_alive()


def test_a_process_that_is_gone_has_no_start() -> None:
    """And one that lives has always the same."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert process_start(child.pid) is None
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
