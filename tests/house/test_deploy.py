"""The Dockerfile, followed without Docker: what it copies is enough, and what it installs works."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.house.uv import UV, run
from tests.house.workspace import ROOT, Distribution, distributions, with_dependencies

_SERVICES = [distribution for distribution in distributions() if distribution.is_service]


def lines_of(service: Distribution) -> list[str]:
    """The instructions of the Dockerfile for a service, continued lines joined."""
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line) for line in text.replace("${SERVICE}", service.folder.name).splitlines()]


def copied(service: Distribution) -> list[str]:
    """The paths that the build copies from the repository."""
    copies = [line.split()[1:-1] for line in lines_of(service) if line.startswith("COPY ") and "--from" not in line]
    return [name for names in copies for name in names]


@pytest.mark.parametrize("service", _SERVICES, ids=str)
def test_everything_copied_is_there_and_not_ignored(service: Distribution) -> None:
    """Docker is shown all that it copies, and no more: `.git` and `.venv` stay out."""
    ignore = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    shown = {line.removeprefix("!") for line in ignore if line.startswith("!")}

    assert [] == [name for name in copied(service) if not (ROOT / name).exists()]
    assert shown == {Path(name).parts[0] for name in copied(service)}
    assert "*" in ignore


@pytest.mark.parametrize("service", _SERVICES, ids=str)
def test_every_project_that_a_service_needs_is_copied(service: Distribution) -> None:
    """The service, the library and whatever else of ours it asks for."""
    needed = {each.folder.relative_to(ROOT).as_posix() for each in with_dependencies(service)}

    assert needed - {"."} <= set(copied(service))
    assert "agentflow" in copied(service)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", _SERVICES, ids=str)
def test_the_steps_of_the_build_work(service: Distribution, tmp_path: Path) -> None:
    """Copy what is copied into an empty folder, install what is installed: the service's command is there."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in copied(service):
        destination = source / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, destination, symlinks=True)
        else:
            shutil.copy(ROOT / name, destination)
    installs = [
        step.replace("/opt/agentflow", str(target)).replace('"', "").split()[1:]
        for line in lines_of(service)
        for step in line.removeprefix("RUN ").split(" && ")
        if step.startswith("uv pip install")
    ]

    for arguments in [["venv", "--python", sys.executable, str(target)], *installs]:
        run(UV, *arguments, cwd=source)
    run(UV, "pip", "check", "--python", target / "bin/python")

    assert 2 == len(installs)
    assert (target / f"bin/{service.name}").is_file()
