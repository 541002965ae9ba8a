"""A goal's input to start from: what a definition's `input_schema` requires, with sample values. Pure but for one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 8
"""Levels of required objects that are filled; a schema may refer to itself."""

_BY_TYPE: Mapping[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "null": None}


def sample_input(path: Path) -> dict[str, Any]:
    """An input for the workflow in a definition file: its required keys; empty where the file requires nothing."""
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, ValueError):
        return {}  # applying it said what is wrong
    schema = content.get("input_schema") if isinstance(content, dict) else None
    found = sample({"type": "object", **schema}) if isinstance(schema, dict) else {}
    return found if isinstance(found, dict) else {}


def sample(schema: object, depth: int = 0) -> Any:
    """A value for a schema: one it names itself, or one of its type; `"…"` where it does not say."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return "…"
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    kind = _kind(schema)
    if kind == "object":
        properties, required = schema.get("properties"), schema.get("required")
        known = properties if isinstance(properties, dict) else {}
        return {str(name): sample(known.get(name), depth + 1) for name in required or ()}
    if kind in ("integer", "number"):
        return max(1, schema.get("minimum", 1))
    return _BY_TYPE.get(kind, "…" * max(1, schema.get("minLength", 1)))


def _kind(schema: Mapping[str, Any]) -> str:
    """The type a schema asks for, the first of several; an object where only properties are given."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    return str(kind or ("object" if "properties" in schema else "string"))
