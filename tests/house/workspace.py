"""The workspace as the house tests see it: its distributions and its files, read from what is there."""

import ast
import functools
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the checkout."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Distribution:
    """One folder with a `pyproject.toml`."""

    folder: Path
    package: str
    """What is imported."""
    project: Mapping[str, Any]
    """The table `[project]`."""

    @property
    def name(self) -> str:
        """What is installed."""
        return str(self.project["name"])

    @property
    def code(self) -> Path:
        """The folder of the package."""
        return self.folder / self.package

    @property
    def extras(self) -> Mapping[str, list[str]]:
        """Optional dependencies by extra."""
        extras: Mapping[str, list[str]] = self.project.get("optional-dependencies", {})
        return extras

    @property
    def requirements(self) -> list[Requirement]:
        """What it declares to need, the extras included."""
        listed = [*self.project.get("dependencies", []), *(text for extra in self.extras.values() for text in extra)]
        return [Requirement(text) for text in listed]

    @property
    def entry_points(self) -> Mapping[str, Mapping[str, str]]:
        """Targets by name by group; scripts are the group `console_scripts`."""
        return {"console_scripts": self.project.get("scripts", {}), **self.project.get("entry-points", {})}

    def files(self) -> list[Path]:
        """Every file of the package."""
        return [path for path in files() if path.is_relative_to(self.code)]

    @property
    def is_service(self) -> bool:
        """Whether it is deployed by itself, from pins of its own."""
        return self.folder.parent == ROOT / "services"

    @property
    def pins(self) -> Path:
        """The pins that it is installed from: a service's own, else those of development."""
        return ROOT / "requirements" / f"{self.folder.name if self.is_service else 'dev'}.txt"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Module:
    """One Python file, parsed."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Length of the file in lines."""
        return len(self.text.splitlines())

    @property
    def is_init(self) -> bool:
        """Whether it is a package's `__init__.py`."""
        return self.path.name == "__init__.py"

    def functions(self) -> Iterator[Definition]:
        """Every function and method, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Definition))

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


def _read(folder: Path) -> Distribution:
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    return Distribution(folder, content["tool"]["uv"]["build-backend"]["module-name"], content["project"])


@functools.cache
def distributions() -> tuple[Distribution, ...]:
    """Every distribution of the workspace, the library first."""
    members = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    folders = [folder for member in members for folder in sorted(ROOT.glob(member)) if folder.is_dir()]
    return tuple(_read(folder) for folder in [ROOT, *folders])


def ours() -> dict[str, Distribution]:
    """The distributions of the workspace by name."""
    return {distribution.name: distribution for distribution in distributions()}


def with_dependencies(distribution: Distribution) -> list[Distribution]:
    """A distribution and all others of the workspace that it needs."""
    found = [distribution]
    for each in found:
        needed = (ours().get(canonicalize_name(requirement.name)) for requirement in each.requirements)
        found.extend(other for other in needed if other is not None and other not in found)
    return found


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git is on the PATH
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in sorted(set(listing.split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every Python file, source and tests."""
    texts = ((path, path.read_text()) for path in files() if path.suffix == ".py")
    return tuple(Module(path, text, ast.parse(text)) for path, text in texts)


def sources() -> list[Module]:
    """The Python files of the distributions."""
    code = [distribution.code for distribution in distributions()]
    return [module for module in modules() if any(module.path.is_relative_to(folder) for folder in code)]


def modules_of_tests() -> list[Module]:
    """The Python files of the tests."""
    return [module for module in modules() if module.path.is_relative_to(ROOT / "tests")]


def docstring_lines(node: Definition) -> int:
    """Lines of a function's docstring."""
    if ast.get_docstring(node) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
