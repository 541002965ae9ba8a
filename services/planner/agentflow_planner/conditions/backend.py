"""What a CEL implementation has to offer behind the front end. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from agentflow_planner.conditions.emit import Dialect

Runner: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Evaluates one expression to plain JSON; raises `agentflow_planner.errors.EvaluationFailed` and nothing else."""


class Backend(Protocol):
    """A CEL implementation."""

    name: str
    """The distribution it comes from."""
    version: str
    dialect: Dialect

    def compile(self, text: str, roots: tuple[str, ...]) -> Runner:
        """Make emitted text ready to run with variables of these names; raises `EvaluationFailed`."""
        ...
