"""What a tool may change without a new version, and what it may not."""

from typing import Any

import msgspec
import pytest

from agentflow.registry import ToolDeclaration
from agentflow_executor.compat import bare, incompatibilities

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def declared(**changes: Any) -> ToolDeclaration:
    """A tool, with some things changed."""
    first = ToolDeclaration(
        id="send",
        name="send",
        version="1.2.0",
        description="Send it.",
        input_schema=schema({"text": TEXT, "copies": NUMBER}, ["text"], additionalProperties=False),
        output_schema=schema({"id": TEXT}, ["id"]),
        permissions=("fs.append:outbox", "fs.tmp"),
        effect="irreversible",
        timeout=5.0,
    )
    return msgspec.structs.replace(first, **changes)


def schema(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    """An object's schema."""
    return {"type": "object", "properties": properties, "required": required, **more}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": "Send it now.", "name": "Send", "cost": 0.5, "timeout": 9.0},
        {"permissions": ("fs.tmp", "fs.append:outbox")},
        {
            "input_schema": schema(
                {"text": TEXT, "copies": NUMBER, "urgent": TEXT}, ["text"], additionalProperties=False
            )
        },
        {
            "input_schema": schema(
                {"text": {**TEXT, "title": "Text", "examples": ["x"]}, "copies": NUMBER},
                ["text"],
                additionalProperties=False,
            )
        },
        {"input_schema": schema({"text": TEXT, "copies": NUMBER}, [], additionalProperties=False)},
        {"output_schema": schema({"id": TEXT, "at": TEXT}, ["id", "at"])},
        {"version": "2.0.0", "effect": "pure", "input_schema": {}, "output_schema": {}, "permissions": ()},
    ],
)
def test_callers_of_this_version_notice_nothing(changes: dict[str, Any]) -> None:
    """Words, numbers for people, what may be left out, what is given in addition; and anything in a new version."""
    assert [] == incompatibilities(declared(), declared(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"effect": "idempotent"}, "effect was irreversible, is idempotent"),
        ({"permissions": ("fs.append:outbox", "fs.tmp", "network.http")}, "permissions were"),
        ({"permissions": ("fs.tmp",)}, "permissions were"),
        (
            {"input_schema": schema({"text": TEXT, "copies": NUMBER}, ["text", "copies"], additionalProperties=False)},
            "'copies' is required now",
        ),
        (
            {"input_schema": schema({"text": TEXT}, ["text"], additionalProperties=False)},
            "'copies' is not taken any more",
        ),
        (
            {"input_schema": schema({"text": NUMBER, "copies": NUMBER}, ["text"], additionalProperties=False)},
            "input 'text' has another schema",
        ),
        ({"input_schema": schema({"text": TEXT, "copies": NUMBER}, ["text"])}, "the input as a whole"),
        ({"output_schema": schema({"id": TEXT}, [])}, "output 'id' is not promised any more"),
        ({"output_schema": schema({}, [])}, "output 'id' is not promised any more"),
        ({"output_schema": schema({"id": NUMBER}, ["id"])}, "output 'id' has another schema"),
        ({"output_schema": {"type": "array"}}, "the output as a whole"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, Any], said: str) -> None:
    """What is refused without a new version."""
    assert any(said in each for each in incompatibilities(declared(), declared(**changes)))


def test_a_member_called_like_an_annotation_is_a_member() -> None:
    """`title` among the properties is data, `title` beside them is prose."""
    first = {"title": "Card", "properties": {"title": {"type": "string", "description": "x"}}}

    assert {"properties": {"title": {"type": "string"}}} == bare(first)


def test_prose_is_dropped_at_every_depth() -> None:
    """In lists of alternatives, in definitions, in items."""
    first = {"anyOf": [{"type": "null", "title": "x"}], "$defs": {"A": {"default": 1}}, "items": {"description": "x"}}

    assert {"anyOf": [{"type": "null"}], "$defs": {"A": {}}, "items": {}} == bare(first)
