"""Each distribution is built, and works in an environment of its own, outside the workspace."""

import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.house.uv import UV, run
from tests.house.workspace import Distribution, distributions, with_dependencies

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_LOAD = """
import importlib, importlib.metadata, sys
name, package = sys.argv[1:]
assert importlib.import_module(package).__file__.startswith(sys.prefix)
for point in importlib.metadata.distribution(name).entry_points:
    assert callable(point.load()), point
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every distribution as archive and as wheel; each wheel is built from its archive."""
    folder = tmp_path_factory.mktemp("built")
    run(UV, "build", "--quiet", "--all-packages", "--out-dir", folder)
    return folder


def file_of(distribution: Distribution, built: Path, suffix: str) -> Path:
    """The built file of a distribution that ends in `suffix`."""
    stem = distribution.name.replace("-", "_")
    (found,) = built.glob(f"{stem}-{distribution.project['version']}*{suffix}")
    return found


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_wheel_holds_the_package_and_nothing_else(distribution: Distribution, built: Path) -> None:
    """Every file of the package, so also `py.typed`, definitions and material, and the licence."""
    names = zipfile.ZipFile(file_of(distribution, built, ".whl")).namelist()
    expected = {path.relative_to(distribution.folder).as_posix() for path in distribution.files()}

    assert f"{distribution.package}/py.typed" in expected
    assert expected == {name for name in names if ".dist-info/" not in name and not name.endswith("/")}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_an_archive_holds_no_other_project(distribution: Distribution, built: Path) -> None:
    """The library's folder is also the workspace's: none of the other projects is swept in."""
    with tarfile.open(file_of(distribution, built, ".tar.gz")) as archive:
        names = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}

    assert {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "pyproject.toml.orig", distribution.package} == names


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_distribution_works_by_itself(distribution: Distribution, built: Path, tmp_path: Path) -> None:
    """Installed from its wheel and its pins into an empty environment, it can be imported and all it offers loads.

    A service is installed from pins of its own; the others take what they declare, in the versions that were tested.
    """
    python = tmp_path / "venv/bin/python"
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", python]
    wheels = [file_of(each, built, ".whl") for each in with_dependencies(distribution)]

    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    if distribution.is_service:
        run(*install, "--require-hashes", "--requirement", distribution.pins)
        run(*install, "--no-deps", *wheels)
    else:
        run(*install, "--constraint", distribution.pins, *wheels)

    run(UV, "pip", "check", "--quiet", "--python", python)
    run(python, "-I", "-c", _LOAD, distribution.name, distribution.package, cwd=tmp_path)
