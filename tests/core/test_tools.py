"""Tools: a function becomes a declaration, its schemas come from the signature, and a bad signature is told at once."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import jsonschema_rs
import msgspec
import pytest

from agentflow.errors import InputError
from agentflow.registry import Effect, ToolDeclaration
from agentflow.tools import DEFAULT_TIMEOUT, CheckResult, FunctionTool, Tool, ToolContext, ToolSchema, tool


class Address(msgspec.Struct):
    """A type of a tool's author."""

    street: str
    number: int = 1


class Node(msgspec.Struct):
    """A type that contains itself."""

    value: int
    next: "Node | None" = None


@tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=5, cost=0.01, version="2.1.0", memory_mib=64)
def send_response(ctx: ToolContext, ticket: str, text: str, copies: int = 1) -> dict[str, Any]:
    """Append the answer to the outbox.

    Once.
    """
    return {"call": ctx.call_id, "ticket": ticket, "text": text, "copies": copies}


def declared(function: Callable[..., Any], **more: Any) -> ToolDeclaration:
    """What the registry would be told of a function."""
    return tool(effect="pure", **more)(function).declaration


def function(source: str) -> Callable[..., Any]:
    """The function `f` of some source: a signature no checker would let stand in this file."""
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102  # our own text
    made: Callable[..., Any] = names["f"]
    return made


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """What an independent validator says."""
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


# --- the declaration -------------------------------------------------------------------------------------------------


def test_the_declaration_says_all_there_is_to_know() -> None:
    """What callers, planners and the executor need, taken from the function and the decorator."""
    assert (
        ToolDeclaration(
            id="send_response",
            name="send response",
            version="2.1.0",
            description="Append the answer to the outbox.\n\nOnce.",
            input_schema={
                "title": "Input",
                "type": "object",
                "properties": {
                    "ticket": {"type": "string"},
                    "text": {"type": "string"},
                    "copies": {"type": "integer", "default": 1},
                },
                "required": ["ticket", "text"],
                "additionalProperties": False,
            },
            output_schema={"type": "object"},
            permissions=("fs.append:outbox",),
            effect="irreversible",
            timeout=5,
            cost=0.01,
        )
        == send_response.declaration
    )


def test_defaults_are_modest() -> None:
    """No permission but `none`, half a minute, no cost."""

    def look(ctx: ToolContext) -> None: ...

    made = tool(effect="pure")(look)

    assert (("none",), DEFAULT_TIMEOUT, 0.0, "1.0.0", "") == (
        made.declaration.permissions,
        made.declaration.timeout,
        made.declaration.cost,
        made.declaration.version,
        made.declaration.description,
    )
    assert 512 == made.memory_mib


def test_id_and_name_may_be_given() -> None:
    """The function may be called as its module likes."""

    def _look(ctx: ToolContext) -> None: ...

    found = declared(_look, id="knowledge_search", name="Search")

    assert ("knowledge_search", "Search") == (found.id, found.name)


@pytest.mark.parametrize("id", ["a b", "a.b", "*", "ä", "x" * 65, "<lambda>"])
def test_an_id_that_cannot_stand_in_a_subject_is_refused(id: str) -> None:
    """Tools are found by their id on the wire."""

    def look(ctx: ToolContext) -> None: ...

    with pytest.raises(InputError):
        declared(look, id=id)


def test_a_lambda_needs_an_id() -> None:
    """Its own name is none."""
    with pytest.raises(InputError):
        declared(lambda ctx: None)

    assert "look" == declared(lambda ctx: None, id="look").id


def test_an_effect_class_there_is_not_is_refused() -> None:
    """Recovery depends on it: a slip of the pen must not pass as anything."""
    with pytest.raises(InputError) as refused:
        tool(effect=cast(Effect, "irreversable"))

    assert "tool.effect" == refused.value.error_code
    assert "pure, idempotent, compensable, irreversible" in str(refused.value)


def test_a_declaration_survives_the_registry() -> None:
    """It is stored as JSON."""
    stored = msgspec.json.encode(send_response.declaration)

    assert send_response.declaration == msgspec.json.decode(stored, type=ToolDeclaration)


# --- schemas ---------------------------------------------------------------------------------------------------------


def everything(
    ctx: ToolContext,
    amount: Annotated[float, msgspec.Meta(ge=0, le=100)],
    kind: Literal["in", "out"],
    to: Address,
    tags: list[str] = [],  # noqa: B006  # as authors write it; the schema copies it
    *,
    note: str | None = None,
    where: dict[str, int] | None = None,
) -> list[Address]:
    """Takes all sorts of things."""
    return [to]


GOOD = {"amount": 5, "kind": "in", "to": {"street": "Long Lane"}}


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"note": None, "tags": ["a"], "where": {"x": 1}}, True),
        ({"amount": 100}, True),
        ({"amount": 101}, False),
        ({"amount": -0.5}, False),
        ({"amount": "5"}, False),
        ({"kind": "sideways"}, False),
        ({"to": {}}, False),
        ({"to": {"street": "x", "number": "y"}}, False),
        ({"tags": [1]}, False),
        ({"ctx": {}}, False),
        ({"unknown": 1}, False),
    ],
)
def test_the_input_schema_says_what_the_signature_says(change: dict[str, Any], fine: bool) -> None:
    """Types, limits, choices, defaults and nothing else, as an independent validator reads it; the context is no input."""
    assert fine == accepts(declared(everything).input_schema, {**GOOD, **change})


@pytest.mark.parametrize("name", GOOD)
def test_a_parameter_without_a_default_is_required(name: str) -> None:
    """Each of them."""
    assert not accepts(declared(everything).input_schema, {key: value for key, value in GOOD.items() if key != name})


def test_the_output_schema_is_the_annotation_of_the_result() -> None:
    """A list of a type of one's own, nothing, or anything where nothing is said."""

    def silent(ctx: ToolContext) -> None: ...

    assert accepts(declared(everything).output_schema, [{"street": "x"}])
    assert not accepts(declared(everything).output_schema, [{"number": 1}])
    assert {"type": "null"} == declared(silent).output_schema
    assert {} == declared(function("def f(ctx): return 1")).output_schema


def test_a_type_of_ones_own_stands_where_readers_look() -> None:
    """Not behind a reference at the top."""

    def find(ctx: ToolContext) -> Address:
        return Address("Long Lane")

    schema = declared(find).output_schema

    assert "object" == schema["type"]
    assert "$ref" not in json.dumps(schema)


def test_a_type_that_contains_itself_can_be_followed() -> None:
    """Every reference in the schema leads somewhere, in and out."""

    def walk(ctx: ToolContext, node: Node) -> Node:
        return node

    found = declared(walk)

    for schema, wrap in ((found.input_schema, lambda node: {"node": node}), (found.output_schema, lambda node: node)):
        assert accepts(schema, wrap({"value": 1, "next": {"value": 2, "next": None}}))
        assert not accepts(schema, wrap({"value": 1, "next": {"next": None}}))


def test_schemas_may_be_given() -> None:
    """Then the annotations need not be any a schema can be made of; an empty schema is one too."""
    strange = function("def f(ctx, value: complex, other=1) -> object: ...")

    found = declared(strange, input_schema={}, output_schema={"type": "string"})

    assert ({}, {"type": "string"}) == (found.input_schema, found.output_schema)


# --- signatures no schema can be made of -----------------------------------------------------------------------------

SIGNATURES = {
    "no context": "def f() -> None: ...",
    "the context as *args": "def f(*args: int) -> None: ...",
    "the context by keyword": "def f(*, ctx: int) -> None: ...",
    "the context in **more": "def f(**more: int) -> None: ...",
    "any number of values": "def f(ctx, *values: int) -> None: ...",
    "any keywords": "def f(ctx, **values: int) -> None: ...",
    "by position only": "def f(ctx, value: int, /) -> None: ...",
    "no annotation": "def f(ctx, value) -> None: ...",
    "an unknown name": "def f(ctx, value: 'Nowhere') -> None: ...",
    "no expression": "def f(ctx, value: 'not a type') -> None: ...",
    "no such attribute": "import json\ndef f(ctx, value: 'json.Nowhere') -> None: ...",
    "a type JSON lacks": "def f(ctx, value: complex) -> None: ...",
    "a class of its own": "class K: ...\ndef f(ctx, value: K) -> None: ...",
    "a result JSON lacks": "def f(ctx) -> complex: ...",
    "a default that is shared": "def f(ctx, value: list[int] = [1]) -> None: ...",
    "a default JSON lacks": "def f(ctx, value: int = object()) -> None: ...",
}


@pytest.mark.parametrize("source", SIGNATURES.values(), ids=SIGNATURES)
def test_a_bad_signature_is_told_where_the_tool_is_made(source: str) -> None:
    """With the function's name and what is wrong, and never as another error."""
    bad = function(source)

    with pytest.raises(InputError) as refused:
        declared(bad)

    assert "tool.signature" == refused.value.error_code
    assert str(refused.value).startswith("tool f: ")


# --- running ---------------------------------------------------------------------------------------------------------


def test_a_tool_is_called_with_context_and_input() -> None:
    """As the executor calls it, through the protocol."""
    called: Tool = send_response

    output = called.call(ToolContext("call-1"), {"ticket": "t-7", "text": "Hello"})

    assert {"call": "call-1", "ticket": "t-7", "text": "Hello", "copies": 1} == output
    assert ("send_response", ["fs.append:outbox"]) == (called.id(), called.required_permissions())
    assert ToolSchema(send_response.declaration) == called.schema()


def test_a_context_has_nothing_but_what_was_granted() -> None:
    """No settings and no files unless the project file gives them."""
    context = ToolContext("call-1")

    assert ({}, {}) == (context.settings, context.files)


def test_a_check_is_registered_and_stays_a_function() -> None:
    """The executor asks it after a crash; tests of its author call it as it is."""

    def write(ctx: ToolContext, ticket: str) -> None: ...

    made: FunctionTool = tool(effect="irreversible")(write)

    @made.check
    def was_written(ctx: ToolContext, ticket: str) -> CheckResult:
        return CheckResult(happened=ticket == "t-7", output={"ticket": ticket})

    assert made.checker is was_written
    assert CheckResult(happened=True, output={"ticket": "t-7"}) == was_written(ToolContext("call-1"), "t-7")
    assert send_response.checker is None
