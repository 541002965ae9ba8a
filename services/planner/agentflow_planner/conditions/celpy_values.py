"""cel-python's values: made from JSON, told apart, compared by CEL's equality. Part of the Python engine.

Errors are values here, `CELEvalError`, as cel-python's evaluator passes them around.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from celpy import celtypes
from celpy.evaluation import CELEvalError

from agentflow_planner.conditions.kinds import Kind
from agentflow_planner.errors import EvaluationFailed

Function: TypeAlias = Callable[..., Any]
"""An operator or function over cel-python's values."""

_KINDS: dict[type, Kind] = {
    celtypes.BoolType: "bool",
    celtypes.BytesType: "bytes",
    celtypes.DoubleType: "double",
    celtypes.DurationType: "duration",
    celtypes.IntType: "int",
    celtypes.ListType: "list",
    celtypes.MapType: "map",
    celtypes.StringType: "string",
    celtypes.TimestampType: "timestamp",
    celtypes.UintType: "uint",
    type(None): "null",
}
NUMBERS = frozenset({"int", "uint", "double"})
"""Kinds that compare with each other by value."""

INT = (-(2**63), 2**63 - 1)
"""Bounds of `int`."""

UINT = (0, 2**64 - 1)
"""Bounds of `uint`."""


class TypeName(str):
    """The value of `type(x)`, and of a name such as `int`."""


def kind(value: Any) -> str:
    """What CEL calls a value."""
    return "type" if isinstance(value, TypeName) else _KINDS.get(type(value), "unknown")


def failure(reason: str) -> CELEvalError:
    """An error as a value."""
    return CELEvalError(reason)


def no_overload(operator: str, *values: Any) -> CELEvalError:
    """The error of an operator that does not take these values."""
    return failure(f"no such overload: {operator}" + (f"({', '.join(map(kind, values))})" if values else ""))


def cel_value(value: Any) -> Any:
    """A JSON value as cel-python's; its constructors are passed by, because they look for conversions first."""
    match value:
        case None:
            return None
        case bool():
            return TRUE if value else FALSE
        case str():
            return str.__new__(celtypes.StringType, value)
        case int() if INT[0] <= value <= UINT[1]:
            kind_of = celtypes.IntType if value <= INT[1] else celtypes.UintType
            return int.__new__(kind_of, value)
        case float():
            return float.__new__(celtypes.DoubleType, value)
        case dict():
            made = celtypes.MapType()
            dict.update(made, {str.__new__(celtypes.StringType, key): cel_value(item) for key, item in value.items()})
            return made
        case list() | tuple():
            return celtypes.ListType(map(cel_value, value))
        case _:
            raise EvaluationFailed(f"{type(value).__name__} is no JSON value", code="condition.not_json")


TRUE, FALSE = celtypes.BoolType(True), celtypes.BoolType(False)


def boolean(value: bool) -> celtypes.BoolType:
    """A Python bool as cel-python's."""
    return TRUE if value else FALSE


def number(value: Any) -> int | float:
    """A number of cel-python's as Python's."""
    return float(value) if isinstance(value, float) else int(value)


def made(kind_of: str, value: Any) -> Any:
    """A number of a kind, or the error that it is out of its range."""
    if kind_of == "double":
        return float.__new__(celtypes.DoubleType, value)
    low, high = INT if kind_of == "int" else UINT
    if not low <= value <= high:
        return failure("out of range")
    return int.__new__(celtypes.IntType if kind_of == "int" else celtypes.UintType, value)


def pair(left: Any, right: Any) -> tuple[int | float, int | float]:
    """Two numbers to compare: an int beside a double is compared as a double, like the C++ engine does it."""
    a, b = number(left), number(right)
    return (float(a), float(b)) if isinstance(a, float) or isinstance(b, float) else (a, b)


def same(left: Any, right: Any) -> bool:
    """CEL equality: numbers by value, anything else by kind and value; never an error."""
    kinds = kind(left), kind(right)
    if kinds[0] in NUMBERS and kinds[1] in NUMBERS:
        a, b = pair(left, right)
        return a == b
    if kinds[0] != kinds[1]:
        return False
    match kinds[0]:
        case "list":
            return len(left) == len(right) and all(map(same, left, right))
        case "map":
            return len(left) == len(right) and all(
                (found := lookup(right, key)) is not ABSENT and same(value, found) for key, value in dict.items(left)
            )
        case "bool":
            return bool(left) == bool(right)
        case "string" | "type":
            return str.__eq__(left, right)
        case "null":
            return True
        case _:
            return bool(left == right)


ABSENT: Any = object()
"""Stands for a key that is not there."""


def lookup(mapping: Any, key: Any) -> Any:
    """The value of a key, found by CEL equality, or `ABSENT`."""
    if kind(key) == "string":
        return dict.get(mapping, key, ABSENT)
    return next((value for each, value in dict.items(mapping) if same(each, key)), ABSENT)
