"""Payload structs out of nowhere: a strategy for any struct, read from its annotations."""

import functools
import typing
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from hypothesis import strategies as st

from tests.core.strategies import json_values, texts

P = TypeVar("P", bound=msgspec.Struct)

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Any: json_values,
}


@functools.cache
def instances(struct: type[P]) -> st.SearchStrategy[P]:
    """Instances of a struct; members with a default are often left out."""
    hints = typing.get_type_hints(struct)
    fields = msgspec.structs.fields(struct)
    required = {field.name: _values(hints[field.name]) for field in fields if field.required}
    optional = {field.name: _values(hints[field.name]) for field in fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda members: struct(**members))


def _values(annotation: Any) -> st.SearchStrategy[Any]:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return instances(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=2)
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=2).map(tuple)
    return st.one_of([_values(argument) for argument in arguments])
