"""Conversions between kinds of values, with the C++ engine's results. Part of the Python engine."""

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from celpy import celtypes

from agentflow_planner.conditions.celpy_values import INT, UINT, Function, boolean, failure, kind, made, no_overload

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
        case "bool" if target == "int":
            return made("int", int(value))
        case "string":
            text = str(value).strip(_SPACE)
            low, high = INT if target == "int" else UINT
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


CONVERSIONS: dict[str, Function] = {
    "bool": _to_bool,
    "bytes": _to_bytes,
    "double": _to_double,
    "duration": _to_duration,
    "int": _to_int,
    "string": _to_string,
    "timestamp": _to_timestamp,
    "uint": _to_uint,
}
"""By the names of the kinds they make."""
