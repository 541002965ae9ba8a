"""Both condition engines for tests; one that is not installed is skipped with that reason."""

import functools
from typing import Any

import pytest

from agentflow.errors import ConfigError
from agentflow_planner.conditions import Choice, Engine, engine_for
from agentflow_planner.errors import ConditionError, ExpressionError

CHOICES: tuple[Choice, ...] = ("cpp", "python")


@functools.cache
def made(choice: Choice) -> Engine:
    """An engine, made once for all tests."""
    return engine_for(choice)


def engine_or_skip(choice: Choice) -> Engine:
    """An engine; skips the test where it is not installed."""
    try:
        return made(choice)
    except ConfigError as error:
        pytest.skip(error.message)


each_engine = pytest.mark.parametrize("choice", CHOICES)
"""Runs a test once for each engine; the test gets it with `engine_or_skip(choice)`."""


def outcome(engine: Engine, expression: str, variables: dict[str, Any]) -> tuple[str, ...]:
    """What came of an evaluation, in a form that tells 1 from 1.0 and from true."""
    try:
        return ("value", repr(engine.compile(expression).evaluate(variables)))
    except ExpressionError as error:
        return ("refused", error.error_code)
    except ConditionError as error:
        return ("failed", error.error_code)
