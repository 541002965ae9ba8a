"""`import agentflow`: everything a user needs by name, and little that is slow."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import agentflow

HEAVY = ("asyncpg", "msgspec", "nats", "openai", "pydantic", "rich", "structlog", "typer", "yaml")


@pytest.mark.parametrize("name", agentflow.__all__)
def test_every_export_is_there(name: str) -> None:
    """Also those that are imported when they are asked for; a second time the same object comes back."""
    assert getattr(agentflow, name) is getattr(agentflow, name)


def test_the_checker_and_the_interpreter_import_the_same() -> None:
    """What stands under `TYPE_CHECKING` is what is imported lazily, from the same modules."""
    tree = ast.parse(inspect.getsource(agentflow))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    declared.pop("blocking")

    assert {name: home for home, names in agentflow._HOMES.items() for name in names} == declared
    for name, home in declared.items():
        assert getattr(importlib.import_module(str(home)), name) is getattr(agentflow, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="'agentflow' has no attribute 'Clint'"):
        agentflow.__getattr__("Clint")


def test_agent_is_the_decorator_whatever_was_imported_before() -> None:
    """The module of the same name does not take its place."""
    importlib.import_module("agentflow.agent")

    assert callable(agentflow.agent)
    assert inspect.isfunction(agentflow.agent)


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(shown.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither codec nor client nor settings."""
    assert set() == loaded_by("import agentflow") & set(HEAVY)


def test_the_client_does_not_load_the_broker_before_it_connects() -> None:
    """Nor what only services and the command line need."""
    assert set() == loaded_by("from agentflow import Client, Run, blocking, tool") & {
        "nats",
        "openai",
        "pydantic",
        "rich",
        "structlog",
        "typer",
    }
