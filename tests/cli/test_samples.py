"""The input that `agentflow dev` proposes is one the workflow takes."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cli.samples import sample, sample_input

ROOT = Path(__file__).parents[2]
SHIPPED = [
    ROOT / "examples" / "three_steps" / "workflow.yaml",
    ROOT / "examples" / "support_desk" / "agentflow_support_desk" / "definitions" / "support.yaml",
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_workflows_take_what_is_proposed(path: Path) -> None:
    """Every key they require is there."""
    schema = yaml.safe_load(path.read_text())["input_schema"]
    found = sample_input(path)

    assert set(schema["required"]) == set(found)
    assert jsonschema_rs.is_valid(schema, found)
    assert {"…"} == set(found.values())


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "…"),
        ({"type": "string", "minLength": 3}, "………"),
        ({"type": "integer"}, 1),
        ({"type": "number", "minimum": 5}, 5),
        ({"type": "number", "minimum": -5}, 1),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"type": "null"}, None),
        ({"type": ["integer", "null"]}, 1),
        ({"type": []}, "…"),
        ({"enum": ["low", "high"]}, "low"),
        ({"const": 7}, 7),
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "examples": ["y"]}, "y"),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
        ({"type": "object", "required": ["a"]}, {"a": "…"}),
        (True, "…"),
        ({}, "…"),
    ],
)
def test_a_value_is_one_of_what_the_schema_asks_for(schema: Any, expected: Any) -> None:
    """What it names itself comes first, then its type."""
    assert expected == sample(schema)


def test_a_schema_that_never_ends_is_filled_to_a_depth() -> None:
    """One that holds itself, as YAML can say it."""
    schema: dict[str, Any] = {"type": "object", "required": ["again"]}
    schema["properties"] = {"again": schema}

    assert json.dumps(sample(schema)).endswith('"\\u2026"' + "}" * 9)


@pytest.mark.parametrize("text", ["", "name: x", "input_schema: [1]", "a: [", "input_schema: {type: string}", "- 1"])
def test_where_nothing_is_required_the_input_is_empty(text: str, tmp_path: Path) -> None:
    """Nor is a file that cannot be read any reason to fail: it was applied before."""
    (tmp_path / "w.yaml").write_text(text)

    assert {} == sample_input(tmp_path / "w.yaml")
    assert {} == sample_input(tmp_path / "none.yaml")


_leaves = st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "array", "null")])
_schemas = st.recursive(
    _leaves,
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=4).map(
        lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
    ),
    max_leaves=8,
)


@given(_schemas)
def test_a_sample_is_valid_under_its_schema(schema: dict[str, Any]) -> None:
    """For objects in objects of the plain types."""
    assert jsonschema_rs.is_valid(schema, sample(schema))
