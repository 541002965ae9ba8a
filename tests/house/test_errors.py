"""One tree of errors, drawn where a reader looks first."""

import importlib
import inspect
import pkgutil
import re

import pytest

from agentflow import errors
from agentflow.errors import AgentflowError
from tests.house.workspace import Distribution, distributions

_DRAWN = re.compile(r"^([\s│├└─]*)(\w+)")


def public_exceptions(distribution: Distribution) -> set[type[BaseException]]:
    """Every exception class that a distribution defines for others; private ones steer its own code."""
    package = importlib.import_module(distribution.package)
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{distribution.package}.")]
    loaded = [package, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]
    return {
        item
        for module in loaded
        for name, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, BaseException) and item.__module__ == module.__name__ and not name.startswith("_")
    }


def drawn(docstring: str, root: str) -> dict[str, str]:
    """Parent by name, read from the drawing in a docstring."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    lines = docstring.splitlines()
    start = next(index for index, line in enumerate(lines) if line.strip() == root)
    for line in lines[start:]:
        match = _DRAWN.match(line)
        if match is None:
            break
        depth, name = len(match[1]), match[2]
        above = [(column, parent) for column, parent in above if column < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_every_error_is_an_agentflow_error(distribution: Distribution) -> None:
    """Whoever catches the root catches all that our code raises for others."""
    strangers = [each.__qualname__ for each in public_exceptions(distribution) if not issubclass(each, AgentflowError)]

    assert [] == strangers


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_distribution_has_one_root_of_errors(distribution: Distribution) -> None:
    """Of the errors that a distribution adds, one at most has no parent among them; the library's is the root of all."""
    found = public_exceptions(distribution)
    roots = [each for each in found if not any(base in found for base in each.__mro__[1:])]

    assert len(roots) <= 1, roots
    if distribution.package == "agentflow":
        assert [AgentflowError] == roots


def test_the_drawn_tree_is_the_real_one() -> None:
    """The docstring of `agentflow/errors.py` draws each class of the module under its parent."""
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, AgentflowError)]
    real = {each.__name__: each.__bases__[0].__name__ for each in classes if each is not AgentflowError}

    assert errors.__doc__ is not None
    assert real == drawn(errors.__doc__, AgentflowError.__name__)


def test_a_drawing_is_read_by_its_columns() -> None:
    """A name belongs to the nearest one above that stands further left; what follows it is its description."""
    drawing = "Why.\n\n    A\n    ├── B      one\n    │   └── C  two\n    └── D\n\nMore."

    assert {"B": "A", "C": "B", "D": "A"} == drawn(drawing, "A")
