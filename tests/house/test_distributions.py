"""What the distributions declare is complete, alike where it should be, and true."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.workspace import ROOT, Distribution, distributions, ours, sources


def imports(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """Each top-level name that a distribution imports, wherever in its code, and the place."""
    for module in sources():
        if not module.path.is_relative_to(distribution.code):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], f"{module}:{node.lineno}") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], f"{module}:{node.lineno}"


def providers() -> dict[str, set[str]]:
    """The distributions that provide each importable name."""
    installed = {
        name: {str(canonicalize_name(each)) for each in found} for name, found in packages_distributions().items()
    }
    return installed | {distribution.package: {distribution.name} for distribution in distributions()}


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_every_import_is_declared(distribution: Distribution) -> None:
    """A shared environment cannot hide a missing dependency: what is imported, if only in a function, is asked for."""
    declared = {canonicalize_name(requirement.name) for requirement in distribution.requirements}
    known = {*sys.stdlib_module_names, distribution.package}
    provided = providers()
    undeclared = [
        f"{place} imports {name}"
        for name, place in imports(distribution)
        if name not in known and declared.isdisjoint(provided.get(name, set()))
    ]

    assert [] == undeclared


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_every_requirement_has_a_floor(distribution: Distribution) -> None:
    """Without one a resolver may go back years to make things fit."""

    def has_floor(requirement: Requirement) -> bool:
        return any(each.operator in {">=", "==", "~="} for each in requirement.specifier)

    loose = [str(each) for each in distribution.requirements if each.name != distribution.name and not has_floor(each)]

    assert [] == loose


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_distributions_share_what_they_should(distribution: Distribution) -> None:
    """One version, one licence with its text, one Python; each has a page for its index and tells that it is typed."""
    library = ours()["agentflow-mesh"].project

    for key in ("version", "requires-python", "license", "license-files"):
        assert library[key] == distribution.project[key]
    assert (ROOT / "LICENSE").read_text() == (distribution.folder / "LICENSE").read_text()
    assert (distribution.folder / "README.md").read_text().startswith("# ")
    assert (distribution.code / "py.typed").is_file()


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_distribution_is_named_as_it_is_imported(distribution: Distribution) -> None:
    """Only the library differs: its import name is taken as a distribution's."""
    expected = "agentflow" if distribution.folder == ROOT else distribution.name.replace("-", "_")

    assert expected == distribution.package


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_every_entry_point_leads_somewhere(distribution: Distribution) -> None:
    """Scripts and plug-ins name objects that are there and can be called."""
    for group, targets in distribution.entry_points.items():
        for name, target in targets.items():
            assert callable(EntryPoint(name, target, group).load()), target
