"""`input_schema`: what a goal's input has to be."""

import socket
import time
from typing import Any

import pytest

from agentflow.errors import SchemaError
from agentflow_planner.inputs import MAX_SHOWN, check_input, schema_problem, violations

TICKET = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "maxLength": 5}, "tags": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}


def test_an_input_that_satisfies_its_schema_passes() -> None:
    """And so does any input where no schema is given."""
    check_input(TICKET, {"text": "hello"})
    check_input(None, {"anything": ["goes"]})


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({}, 'input: "text" is a required property'),
        ({"text": 5}, "input.text: 5 is not of type"),
        ({"text": "hello!"}, "input.text: "),
        ({"text": "a", "tags": ["x", 1]}, "input.tags[1]: "),
        ({"text": "a", "other": 1}, "input: "),
        ([], "input: "),
    ],
)
def test_an_input_that_breaks_its_schema_is_refused_with_the_place(value: Any, part: str) -> None:
    """The code is stable, the fields say where."""
    with pytest.raises(SchemaError) as caught:
        check_input(TICKET, value)
    assert caught.value.error_code == "input.schema"
    assert part in str(caught.value.fields["found"])


def test_violations_are_bounded() -> None:
    """An input that breaks its schema a thousand times does not become a thousand lines."""
    schema = {"items": {"type": "string"}}
    assert len(violations(schema, list(range(1000)))) == MAX_SHOWN
    (long,) = violations({"type": "integer"}, "x" * 10_000)
    assert len(long) <= 200


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"type": "objct"}, "input_schema.type"),
        ({"properties": {"a": {"minimum": "1"}}}, "input_schema.properties.a.minimum"),
        ({"pattern": "("}, "input_schema.pattern"),
        ({"pattern": r"(a)\1"}, "input_schema.pattern"),
        ({"$ref": "#/$defs/missing"}, "/$defs/missing"),
        ({"$schema": "http://example.com/own"}, "input_schema"),
    ],
)
def test_what_is_no_schema_is_named(schema: dict[str, Any], part: str) -> None:
    """When the definition is applied, not when the first goal arrives."""
    assert part in schema_problem(schema)
    assert schema_problem(TICKET) == ""


def test_an_input_never_passes_a_schema_that_is_none() -> None:
    """Should a definition have come past `apply`, its goals are refused, in the words the definition would have been."""
    with pytest.raises(SchemaError) as caught:
        check_input({"type": "objct"}, {})
    assert caught.value.error_code == "definition.input_schema"


def test_a_schema_fetches_nothing() -> None:
    """A reference to the network or to a file is an error, and nobody is called."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        assert "disabled" in schema_problem({"$ref": f"http://127.0.0.1:{port}/schema.json"})
        with pytest.raises(TimeoutError):
            server.accept()
    assert "disabled" in schema_problem({"$ref": "file:///etc/hostname"})


def test_patterns_run_in_linear_time() -> None:
    """A pattern that takes other engines for ever to fail is no way to stop a planner."""
    start = time.perf_counter()
    assert violations({"pattern": "^(a+)+$"}, "a" * 50_000 + "b")
    assert time.perf_counter() - start < 1
