"""JSON Schemas of tools: compiled once, offline, and quiet about values."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigError
from agentflow_executor.schemas import CompiledSchema
from tests.services.executor.sample_tools import add

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_fitting_value_has_no_problem() -> None:
    """What `@tool` makes of a signature takes what the function takes."""
    inputs = CompiledSchema(add.declaration.input_schema, "input_schema")

    assert "" == inputs.problem({"a": 1})
    assert "" == inputs.problem({"a": 1, "b": 2})


def test_problems_name_their_place() -> None:
    """Each with the path to it."""
    inputs = CompiledSchema(add.declaration.input_schema, "input_schema")

    assert "/a:" in inputs.problem({"a": "one"})
    assert '/: "a" is a required property' == inputs.problem({})
    assert "'c'" in inputs.problem({"a": 1, "c": 1})


def test_a_message_is_short_and_says_nothing_about_the_value() -> None:
    """Neither a secret nor a megabyte travels further by being wrong."""
    schema = CompiledSchema({"items": {"type": "integer", "maximum": 5}}, "input_schema")
    problem = schema.problem(["secret-4242"] * 50)

    assert "secret" not in problem
    assert "(and 47 more)" in problem
    assert len(problem) < 1100
    assert "the value" in problem


@given(value=JSON)
def test_any_json_can_be_checked(value: Any) -> None:
    """Checking ends, and an empty schema takes everything."""
    assert "" == CompiledSchema({}, "output_schema").problem(value)
    assert isinstance(CompiledSchema({"type": "object", "required": ["x"]}, "output_schema").problem(value), str)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"pattern": "("},
        {"properties": {"a": {"minimum": "one"}}},
        {"$ref": "#/$defs/nowhere"},
    ],
)
def test_a_schema_nobody_understands_is_refused(schema: dict[str, Any]) -> None:
    """In one line that says whose schema it is."""
    with pytest.raises(ConfigError, match="input_schema is not a usable JSON Schema") as caught:
        CompiledSchema(schema, "input_schema")

    assert "\n" not in str(caught.value)


def test_nothing_is_fetched() -> None:
    """A reference to another document is refused without a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        with pytest.raises(ConfigError):
            CompiledSchema({"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"}, "input_schema")
        with pytest.raises(TimeoutError):
            server.accept()
