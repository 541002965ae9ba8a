"""Values that leave a handler: made plain JSON, once, or refused with the place that is wrong.

Keys of a tool's input are sorted: an object has no order in JSON, and a handler that collects keys in a set would
otherwise ask for different bytes in every process and look nondeterministic. Pure.
"""

from typing import Any

from agentflow.envelope import encode_payload
from agentflow.errors import SchemaError
from agentflow.plain import check_plain

MAX_VALUE = 64 * 1024 * 1024
"""Bytes of JSON one value may have: what an artifact holds."""


def plain(value: Any, where: str, *, sort: bool = False) -> Any:
    """The same value in JSON's own types; raises `SchemaError` for one that JSON would change, drop or not hold."""
    check_plain(value, where)
    simple = _simple(value, sort)
    _check_encodable(simple, where)
    return simple


def _simple(value: Any, sort: bool) -> Any:
    """Exact built-in types in place of subclasses (numbers of numpy, text enums), which the codec refuses."""
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case dict():
            items = [(str.__str__(key), _simple(item, sort)) for key, item in value.items()]
            return dict(sorted(items) if sort else items)
        case _:
            return [_simple(item, sort) for item in value]


def _check_encodable(value: Any, where: str) -> None:
    try:
        size = len(encode_payload(value))
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}", code=error.error_code, where=where) from error
    if size > MAX_VALUE:
        raise SchemaError(
            f"{where} has {size} bytes as JSON; allowed are {MAX_VALUE}",
            code="value.too_large",
            where=where,
            found=size,
            allowed=MAX_VALUE,
        )
