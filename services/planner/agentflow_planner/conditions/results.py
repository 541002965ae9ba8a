"""Results of engines as plain JSON values, bounded; shared by the backends. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentflow_planner.errors import EvaluationFailed

MAX_PARTS = 100_000
"""Values in one result, counted at every place they stand."""

MAX_LEVELS = 64
"""Levels of nesting in one result, as `agentflow.schemas` allows them."""


class Plain:
    """Makes one result plain: counts what it makes and refuses what is no JSON.

    `unwrap` gives the Python value of an engine's value, one level of it.
    """

    def __init__(self, unwrap: Callable[[Any], Any]) -> None:
        self.unwrap = unwrap
        self.parts = 0

    def convert(self, value: Any, level: int = 0) -> Any:
        """The JSON value; raises `EvaluationFailed`."""
        self.parts += 1
        if self.parts > MAX_PARTS or level > MAX_LEVELS:
            limit = f"{MAX_PARTS} values" if self.parts > MAX_PARTS else f"{MAX_LEVELS} levels"
            raise EvaluationFailed(f"the result has more than {limit}", code="condition.too_large")
        match self.unwrap(value):
            case None | bool() | int() | str() as plain:
                return plain
            case float() as number:
                return finite(number)
            case Mapping() as mapping:
                return {key: self.convert(mapping[key], level + 1) for key in sorted(map(text_key, mapping))}
            case list() as items:
                return [self.convert(item, level + 1) for item in items]
            case other:
                raise EvaluationFailed(f"{kind_name(other)} is no JSON value: use string(…)", code="condition.not_json")


def finite(number: float) -> float:
    """A number JSON can carry."""
    if not math.isfinite(number):
        raise EvaluationFailed(f"the number {number} is no JSON value", code="condition.not_json")
    return number


def text_key(key: Any) -> str:
    """A key JSON can carry."""
    if not isinstance(key, str):
        raise EvaluationFailed(f"the key {key!r} is no text, which JSON asks of keys", code="condition.not_json")
    return key


def kind_name(value: object) -> str:
    """What CEL calls a Python value that is no JSON."""
    names: Iterable[tuple[str, str]] = (("bytes", "bytes"), ("bytearray", "bytes"), ("timedelta", "a duration"))
    for python, cel in (*names, ("datetime", "a timestamp")):
        if any(base.__name__ == python for base in type(value).__mro__):
            return cel
    return "a type"
