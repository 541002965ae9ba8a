"""JSON Schema of a tool's input and output: compiled once, checked on every call.

Offline by construction: a `$ref` to another document is refused, never fetched. Values never appear in a message, for a
message travels further than the value it is about.
"""

from typing import Any

import jsonschema_rs

from agentflow.errors import ConfigError

SHOWN = 3
"""Problems a message names at most."""


class CompiledSchema:
    """One schema, ready to check values (draft 2020-12)."""

    def __init__(self, schema: dict[str, Any], what: str) -> None:
        """Compile `schema`; raises `ConfigError` that names `what` it is the schema of."""
        try:
            self._validator = jsonschema_rs.Draft202012Validator(schema, mask="the value", offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"{what} is not a usable JSON Schema: {reason}", code="tool.schema") from error

    def problem(self, value: Any) -> str:
        """What is wrong with a value, each problem with its place, or an empty string."""
        if self._validator.is_valid(value):
            return ""
        found = [f"{_place(error)}: {error.message}" for error in self._validator.iter_errors(value)]
        more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
        return "; ".join(found[:SHOWN])[:1000] + more


def _place(error: jsonschema_rs.ValidationError) -> str:
    return "/" + "/".join(str(step) for step in error.instance_path)
