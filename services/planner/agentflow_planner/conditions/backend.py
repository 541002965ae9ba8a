"""What a CEL implementation has to offer behind the front end. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from agentflow_planner.conditions.emit import Dialect

Runner: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Evaluates one expression to plain JSON; raises `EvaluationFailed` and nothing else."""


class EvaluationFailed(Exception):
    """What a backend raises; `Program` adds the expression and makes it a `ConditionError`."""

    def __init__(self, reason: str, code: str = "condition.failed") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Backend(Protocol):
    """A CEL implementation."""

    name: str
    """The distribution it comes from."""
    version: str
    dialect: Dialect

    def compile(self, text: str, roots: tuple[str, ...]) -> Runner:
        """Make emitted text ready to run with variables of these names; raises `EvaluationFailed`."""
        ...
