"""Operators and functions for cel-python with the meaning the language definition, and the C++ engine, give them.

cel-python's own raise on `1 == 1.0`, keep errors as values inside lists, count a missing field of a missing map as
`has(…) == false`, and more; the evaluator in `python.py` looks functions up here only. A function takes and returns
cel-python's values (`celpy.celtypes`), and returns errors as `CELEvalError`, as the evaluator expects.
"""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import re2
from celpy import celtypes
from celpy.evaluation import CELEvalError

from agentflow_planner.conditions.celpy_conversions import CONVERSIONS
from agentflow_planner.conditions.celpy_values import (
    ABSENT,
    INT,
    NUMBERS,
    Function,
    TypeName,
    boolean,
    failure,
    kind,
    lookup,
    made,
    no_overload,
    number,
    pair,
    same,
)

# --- comparing -------------------------------------------------------------------------------------------------------


def _compared(operator: str, decide: Callable[[Any, Any], bool]) -> Function:
    def compare(left: Any, right: Any) -> Any:
        kinds = kind(left), kind(right)
        if kinds[0] in NUMBERS and kinds[1] in NUMBERS:
            return boolean(decide(*pair(left, right)))
        if kinds[0] != kinds[1]:
            return no_overload(operator, left, right)
        match kinds[0]:
            case "string":
                return boolean(decide(str(left), str(right)))
            case "bool":
                return boolean(decide(int(left), int(right)))
            case "bytes":
                return boolean(decide(bytes(left), bytes(right)))
            case "timestamp" | "duration":
                return boolean(decide(left, right))
        return no_overload(operator, left, right)

    return compare


def _contained(item: Any, container: Any) -> Any:
    match kind(container):
        case "list":
            return boolean(any(same(each, item) for each in container))
        case "map" if kind(item) in NUMBERS | {"bool", "string"}:
            return boolean(lookup(container, item) is not ABSENT)
    return no_overload("_in_")


def _indexed(container: Any, index: Any) -> Any:
    match kind(container), kind(index):
        case "list", ("int" | "uint" | "double"):
            at = number(index)
            if at != int(at):
                return no_overload("_[_]", container, index)
            inside = 0 <= at < len(container)
            return container[int(at)] if inside else failure(f"index out of range: {int(at)} of {len(container)}")
        case "map", ("int" | "uint" | "double" | "bool" | "string"):
            found = lookup(container, index)
            return failure(f"no such key: {_shown_key(index)}") if found is ABSENT else found
        case other, _ if other not in {"list", "map"}:
            return no_overload(f"_[_] of {other}")
    return no_overload("_[_]", container, index)


def _shown_key(key: Any) -> str:
    if kind(key) == "string":
        return repr(str(key))
    return ("true" if key else "false") if kind(key) == "bool" else str(number(key))


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _plus(left: Any, right: Any) -> Any:
    match kind(left), kind(right):
        case ("int" | "uint" | "double") as a, b if a == b:
            return made(a, number(left) + number(right))
        case "string", "string":
            return str.__new__(celtypes.StringType, str.__add__(left, right))
        case "bytes", "bytes":
            return celtypes.BytesType(bytes(left) + bytes(right))
        case "list", "list":
            return celtypes.ListType([*left, *right])
        case ("timestamp", "duration") | ("duration", "timestamp") | ("duration", "duration"):
            return left + right
    return no_overload("_+_", left, right)


def _minus(left: Any, right: Any) -> Any:
    match kind(left), kind(right):
        case ("int" | "uint" | "double") as a, b if a == b:
            return made(a, number(left) - number(right))
        case ("timestamp", "duration") | ("timestamp", "timestamp"):
            return left - right
        case "duration", "duration":
            return left + -right
    return no_overload("_-_", left, right)


def _times(left: Any, right: Any) -> Any:
    kinds = kind(left), kind(right)
    if kinds[0] == kinds[1] and kinds[0] in NUMBERS:
        return made(kinds[0], number(left) * number(right))
    return no_overload("_*_", left, right)


def _divided(left: Any, right: Any) -> Any:
    match kind(left), kind(right):
        case "double", "double":
            return made("double", _quotient(float(left), float(right)))
        case ("int" | "uint") as a, b if a == b:
            if right == 0:
                return failure("division by zero")
            quotient = abs(int(left)) // abs(int(right))
            return made(a, quotient if (left < 0) == (right < 0) else -quotient)
    return no_overload("_/_", left, right)


def _quotient(left: float, right: float) -> float:
    """Division after IEEE 754, which knows infinities and no error."""
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1.0, right)


def _remainder(left: Any, right: Any) -> Any:
    kinds = kind(left), kind(right)
    if kinds[0] != kinds[1] or kinds[0] not in {"int", "uint"}:
        return no_overload("_%_", left, right)
    if int(right) == 0:
        return failure("division by zero")
    if (int(left), int(right)) == (INT[0], -1):
        return failure("out of range")
    rest = abs(int(left)) % abs(int(right))
    return made(kinds[0], -rest if left < 0 else rest)


def _negated(value: Any) -> Any:
    return made(kind(value), -number(value)) if kind(value) in {"int", "double"} else no_overload("-_", value)


def _inverted(value: Any) -> Any:
    return boolean(not value) if kind(value) == "bool" else no_overload("!_")


# --- texts, sizes, types, dates --------------------------------------------------------------------------------------


def _size(value: Any) -> Any:
    return made("int", len(value)) if kind(value) in {"string", "bytes", "list", "map"} else no_overload("size", value)


def _about_text(name: str, decide: Callable[[str, str], bool]) -> Function:
    def ask(text: Any, other: Any) -> Any:
        if kind(text) != "string" or kind(other) != "string":
            return no_overload(name, text, other)
        return boolean(decide(str(text), str(other)))

    return ask


def _matches(text: str, pattern: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    return re2.search(pattern, text, options=options) is not None


_TYPE_NAMES = {"null": "null_type", "timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}


def _type(value: Any) -> TypeName:
    return TypeName(_TYPE_NAMES.get(kind(value), kind(value)))


def _date_part(name: str) -> Function:
    def part(value: Any, *zone: Any) -> Any:
        if kind(value) not in {"timestamp", "duration"} or any(kind(each) != "string" for each in zone):
            return no_overload(name, value, *zone)
        return made("int", int(getattr(value, name)(*zone)))

    return part


def _duration_part(name: str, unit: int) -> Function:
    of_timestamp = _date_part(name)

    def part(value: Any, *zone: Any) -> Any:
        if kind(value) != "duration" or zone:
            return of_timestamp(value, *zone)
        micros = value // timedelta(microseconds=1)
        whole = abs(micros) % 1_000_000 // 1000 if name == "getMilliseconds" else abs(micros) // unit
        return made("int", whole if micros >= 0 else -whole)

    return part


def _guarded(function: Any) -> Function:
    """Pass errors on as they are, and make an error of whatever a function of cel-python's raises."""

    def call(*args: Any) -> Any:
        for arg in args:
            if isinstance(arg, CELEvalError):
                return arg
        try:
            return function(*args)
        except re2.error:
            return failure("invalid regular expression")
        except (ValueError, OverflowError, OSError) as error:
            return failure(f"invalid argument: {error}"[:200])
        except (TypeError, AttributeError, KeyError):
            return failure("no such overload")

    return call


_DATE = ("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getMonth")
_TIME = {"getHours": 3_600_000_000, "getMinutes": 60_000_000, "getSeconds": 1_000_000, "getMilliseconds": 1000}

FUNCTIONS: dict[str, Function] = {
    name: _guarded(function)
    for name, function in {
        "_==_": lambda left, right: boolean(same(left, right)),
        "_!=_": lambda left, right: boolean(not same(left, right)),
        "_<_": _compared("_<_", lambda a, b: bool(a < b)),
        "_<=_": _compared("_<=_", lambda a, b: bool(a <= b)),
        "_>_": _compared("_>_", lambda a, b: bool(a > b)),
        "_>=_": _compared("_>=_", lambda a, b: bool(a >= b)),
        "_in_": _contained,
        "_[_]": _indexed,
        "_+_": _plus,
        "_-_": _minus,
        "_*_": _times,
        "_/_": _divided,
        "_%_": _remainder,
        "-_": _negated,
        "!_": _inverted,
        "size": _size,
        "contains": _about_text("contains", lambda text, part: part in text),
        "startsWith": _about_text("startsWith", str.startswith),
        "endsWith": _about_text("endsWith", str.endswith),
        "matches": _about_text("matches", _matches),
        "type": _type,
        **CONVERSIONS,
        **{name: _date_part(name) for name in _DATE},
        **{name: _duration_part(name, unit) for name, unit in _TIME.items()},
    }.items()
}
"""By the names cel-python's evaluator asks for."""
