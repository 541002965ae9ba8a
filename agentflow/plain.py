"""Plain values: what comes from users, tools and models and has to survive JSON unchanged. Light: sandboxes import it."""

import math
from typing import Any

from agentflow.errors import SchemaError

MAX_DEPTH = 64
"""Levels of nesting allowed in values that come from users, tools and models."""

_INT_MAX, _INT_MIN = 2**64 - 1, -(2**63)


def check_plain(value: Any, where: str = "value", depth: int = 0) -> None:
    """Refuse a value that JSON would change or drop: NaN, infinities, huge integers, non-text keys, deep nesting."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"{where} is nested deeper than {MAX_DEPTH}", code="value.too_deep", where=where)
    match value:
        case None | bool():
            return
        case str() if _is_unicode(value):
            return
        case str():
            raise SchemaError(f"{where} holds text that is not Unicode", code="value.not_json", where=where)
        case int() if _INT_MIN <= value <= _INT_MAX:
            return
        case float() if math.isfinite(value):
            return
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not _is_unicode(key):
                    raise SchemaError(
                        f"{where} has the key {_shown(key)}; keys are text", code="value.key", where=where
                    )
                check_plain(item, f"{where}.{key[:80]}", depth + 1)
        case list() | tuple():
            for index, item in enumerate(value):
                check_plain(item, f"{where}[{index}]", depth + 1)
        case _:
            raise SchemaError(
                f"{where} is {type(value).__name__} {_shown(value)}; allowed are JSON values with finite numbers",
                code="value.not_json",
                where=where,
            )


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: a lone surrogate is no text."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    """A stranger's value, cut, for a message: an integer may have too many digits to be written at all."""
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  # the value's own __repr__ may raise anything
        return "(not printable)"
