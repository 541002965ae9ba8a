"""Operators and functions for cel-python with the meaning the language definition, and the C++ engine, give them.

cel-python's own raise on `1 == 1.0`, keep errors as values inside lists, count a missing field of a missing map as
`has(…) == false`, and more; the evaluator in `python.py` looks functions up here only. A function takes and returns
cel-python's values (`celpy.celtypes`), and returns errors as `CELEvalError`, as the evaluator expects.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import re2
from celpy import celtypes
from celpy.evaluation import CELEvalError

from agentflow_planner.conditions.kinds import Kind
from agentflow_planner.errors import EvaluationFailed

Function: TypeAlias = Callable[..., Any]

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
_NUMBERS = frozenset({"int", "uint", "double"})
_INT = (-(2**63), 2**63 - 1)
_UINT = (0, 2**64 - 1)


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
        case int() if _INT[0] <= value <= _UINT[1]:
            kind_of = celtypes.IntType if value <= _INT[1] else celtypes.UintType
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
    low, high = _INT if kind_of == "int" else _UINT
    if not low <= value <= high:
        return failure("out of range")
    return int.__new__(celtypes.IntType if kind_of == "int" else celtypes.UintType, value)


# --- comparing -------------------------------------------------------------------------------------------------------


def _pair(left: Any, right: Any) -> tuple[int | float, int | float]:
    """Two numbers to compare: an int beside a double is compared as a double, like the C++ engine does it."""
    a, b = number(left), number(right)
    return (float(a), float(b)) if isinstance(a, float) or isinstance(b, float) else (a, b)


def same(left: Any, right: Any) -> bool:
    """CEL equality: numbers by value, anything else by kind and value; never an error."""
    kinds = kind(left), kind(right)
    if kinds[0] in _NUMBERS and kinds[1] in _NUMBERS:
        a, b = _pair(left, right)
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


def _compared(operator: str, decide: Callable[[Any, Any], bool]) -> Function:
    def compare(left: Any, right: Any) -> Any:
        kinds = kind(left), kind(right)
        if kinds[0] in _NUMBERS and kinds[1] in _NUMBERS:
            return boolean(decide(*_pair(left, right)))
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


ABSENT: Any = object()


def lookup(mapping: Any, key: Any) -> Any:
    """The value of a key, found by CEL equality, or `ABSENT`."""
    if kind(key) == "string":
        return dict.get(mapping, key, ABSENT)
    return next((value for each, value in dict.items(mapping) if same(each, key)), ABSENT)


def _contained(item: Any, container: Any) -> Any:
    match kind(container):
        case "list":
            return boolean(any(same(each, item) for each in container))
        case "map" if kind(item) in _NUMBERS | {"bool", "string"}:
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
    if kinds[0] == kinds[1] and kinds[0] in _NUMBERS:
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
    if (int(left), int(right)) == (_INT[0], -1):
        return failure("out of range")
    rest = abs(int(left)) % abs(int(right))
    return made(kinds[0], -rest if left < 0 else rest)


def _negated(value: Any) -> Any:
    return made(kind(value), -number(value)) if kind(value) in {"int", "double"} else no_overload("-_", value)


def _inverted(value: Any) -> Any:
    return boolean(not value) if kind(value) == "bool" else no_overload("!_")


# --- conversions -----------------------------------------------------------------------------------------------------

_WHOLE = re.compile(r"[+-]?[0-9]+\Z")
_DECIMAL = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)\Z", re.I
)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z", re.I
)
_DURATION = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|us|ns|m|s))+\Z")
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}
_SPACE = " \t\n\v\f\r"


def _to_bool(value: Any) -> Any:
    match kind(value):
        case "bool":
            return value
        case "string":
            found = _BOOLS.get(str(value))
            return failure("cannot convert string to bool") if found is None else boolean(found)
    return no_overload("bool", value)


def _to_int(value: Any, target: str = "int") -> Any:
    match kind(value):
        case "int" | "uint":
            return made(target, int(value))
        case "double":
            whole = math.isfinite(value) and abs(value) < 2.0**64
            in_range = whole and (target == "uint" or abs(value) < 2.0**63)
            return made(target, int(value)) if in_range else failure("out of range")
        case "timestamp" if target == "int":
            return made("int", math.floor(value.timestamp()))
        case "string":
            text = str(value).strip(_SPACE)
            low, high = _INT if target == "int" else _UINT
            fits = _WHOLE.match(text) and len(text) < 40 and low <= int(text) <= high
            return made(target, int(text)) if fits else failure(f"cannot convert string to {target}")
    return no_overload(target, value)


def _to_uint(value: Any) -> Any:
    return _to_int(value, "uint")


def _to_double(value: Any) -> Any:
    match kind(value):
        case "double":
            return value
        case "int" | "uint":
            return made("double", float(int(value)))
        case "string":
            text = str(value).strip(_SPACE)
            return made("double", float(text)) if _DECIMAL.match(text) else failure("cannot convert string to double")
    return no_overload("double", value)


def _to_string(value: Any) -> Any:
    match kind(value):
        case "string":
            return value
        case "bool":
            text = "true" if value else "false"
        case "int" | "uint":
            text = str(int(value))
        case "double":
            text = double_text(float(value))
        case "bytes":
            try:
                text = bytes(value).decode()
            except UnicodeDecodeError:
                return failure("malformed UTF-8 bytes")
        case "timestamp" | "duration":
            text = timestamp_text(value) if kind(value) == "timestamp" else duration_text(value)
        case _:
            return no_overload("string", value)
    return str.__new__(celtypes.StringType, text)


def double_text(value: float) -> str:
    """The shortest digits that read back, in the notation of C++: an exponent below 1e-4 and from 1e6."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    sign, numerals, shift = Decimal(repr(value)).as_tuple()
    assert isinstance(shift, int)
    digits = "".join(map(str, numerals)).rstrip("0") or "0"
    exponent = len(numerals) + shift - 1 if any(numerals) else 0
    if -4 <= exponent < 6:
        text = f"{Decimal(repr(abs(value))):f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        text = f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return f"-{text}" if sign else text


def timestamp_text(value: datetime) -> str:
    """A moment in RFC 3339, in UTC, with as many digits as it needs: `2020-01-01T00:00:00.120Z`."""
    moment = value.astimezone(UTC)
    seconds = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}T{moment:%H:%M:%S}"
    return f"{seconds}{_fraction(moment.microsecond)}Z"


def duration_text(value: timedelta) -> str:
    """A duration in seconds, as JSON's mapping of protocol buffers writes it: `5400s`, `1.500s`."""
    micros = value // timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}{seconds}{_fraction(rest)}s"


def _fraction(micros: int) -> str:
    return "" if not micros else f".{micros // 1000:03d}" if not micros % 1000 else f".{micros:06d}"


def _to_bytes(value: Any) -> Any:
    match kind(value):
        case "bytes":
            return value
        case "string":
            return celtypes.BytesType(str(value).encode())
    return no_overload("bytes", value)


def _to_timestamp(value: Any) -> Any:
    match kind(value):
        case "timestamp":
            return value
        case "int":
            return celtypes.TimestampType(datetime.fromtimestamp(int(value), UTC))
        case "string":
            return _parsed_timestamp(str(value))
    return no_overload("timestamp", value)


def _parsed_timestamp(text: str) -> Any:
    if not _TIMESTAMP.match(text):
        return failure("cannot convert string to timestamp")
    try:
        return celtypes.TimestampType(datetime.fromisoformat(text.upper()))
    except ValueError:
        return failure("cannot convert string to timestamp")


def _to_duration(value: Any) -> Any:
    match kind(value):
        case "duration":
            return value
        case "string":
            fits = _DURATION.match(str(value))
            return celtypes.DurationType(str(value)) if fits else failure("cannot convert string to duration")
    return no_overload("duration", value)


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
        "bool": _to_bool,
        "bytes": _to_bytes,
        "double": _to_double,
        "duration": _to_duration,
        "int": _to_int,
        "string": _to_string,
        "timestamp": _to_timestamp,
        "uint": _to_uint,
        **{name: _date_part(name) for name in _DATE},
        **{name: _duration_part(name, unit) for name, unit in _TIME.items()},
    }.items()
}
"""By the names cel-python's evaluator asks for."""
