"""`input_schema:` — the JSON Schema a goal's input has to satisfy. Pure.

jsonschema-rs does the work; its import is put off. A schema cannot refer to anything outside itself, and its patterns
run in time linear in the text.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agentflow.errors import SchemaError

MAX_SHOWN = 5
"""Violations that are named in one refusal."""

MAX_TEXT = 200
"""Characters of one violation."""


def schema_problem(schema: Mapping[str, Any]) -> str:
    """What is wrong with a JSON Schema; empty for a sound one."""
    try:
        _validator(msgspec.json.encode(schema, order="sorted"))
    except ValueError as error:
        return str(error)
    return ""


def violations(schema: Mapping[str, Any], value: Any) -> tuple[str, ...]:
    """Where a value breaks a schema, one line each, at most `MAX_SHOWN`; raises `ValueError` for what is no schema."""
    found: list[str] = []
    for error in _validator(msgspec.json.encode(schema, order="sorted")).iter_errors(value):
        found.append(_line(f"input{_place(error.instance_path)}: {error.message}"))
        if len(found) == MAX_SHOWN:
            break
    return tuple(found)


def check_input(schema: Mapping[str, Any] | None, value: Any) -> None:
    """Refuse an input that breaks its definition's schema; raises `SchemaError` (`input.schema`).

    A schema that is none, which `check_definition` would have refused, is `definition.input_schema`.
    """
    try:
        found = violations(schema, value) if schema is not None else ()
    except ValueError as error:
        raise SchemaError(str(error), code="definition.input_schema", found=str(error)) from error
    if found:
        raise SchemaError("; ".join(found), code="input.schema", found=found[0], violations=found)


def _line(text: str) -> str:
    first = text.splitlines()[0]
    return first if len(first) <= MAX_TEXT else first[: MAX_TEXT - 1] + "…"


def _place(path: Iterable[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


@functools.lru_cache(maxsize=64)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs

    options = jsonschema_rs.RegexOptions()
    try:
        return jsonschema_rs.validator_for(msgspec.json.decode(schema), offline=True, pattern_options=options)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(_line(f"input_schema{_place(error.instance_path)}: {error.message}")) from error
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(_line(f"input_schema: {error}")) from error
