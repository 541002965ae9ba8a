"""What an expression reads: for the trace of a decision, and to hand an engine no more than that."""

from typing import Any

import pytest
from hypothesis import given

from agentflow.payloads import Evaluated
from agentflow_planner.conditions import Choice, Program, read_values
from agentflow_planner.conditions.parser import parse
from agentflow_planner.conditions.reads import MAX_SHOWN, MAX_VALUES, MISSING, Read, look_up, pruned, reads_of, shown
from agentflow_planner.errors import ConditionError, ExpressionError
from tests.services.planner.engines import each_engine, engine_or_skip, outcome
from tests.services.planner.expressions import EXPRESSIONS, JSON, PATHS, VARIABLES


def paths(source: str) -> list[str]:
    """The paths an expression reads."""
    return [read.path for read in reads_of(parse(source))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("output.confidence >= context.threshold", ["output.confidence", "context.threshold"]),
        ("output", ["output"]),
        ("output.items[0].title", ["output.items[0].title"]),
        ("output['a b']['c'].d", ["output['a b'].c.d"]),
        ("output.items[output.n].x", ["output.items", "output.n"]),
        ("output['x' + input.y].z", ["output", "input.y"]),
        ("output.items.all(i, i.ok && i.score > input.least)", ["output.items", "input.least"]),
        ("output.items.map(output, output.x)", ["output.items"]),
        ("has(output.a.b) && size(output.list) > 0", ["output.a.b", "output.list"]),
        ("output.text.startsWith(input.prefix)", ["output.text", "input.prefix"]),
        ("type(output.x) == string", ["output.x"]),
        ("[output.a, {'k': input.b}]", ["output.a", "input.b"]),
        ("1 + 2", []),
        ("[1].map(x, x + 1)", []),
    ],
)
def test_reads_are_paths_as_far_as_they_are_written_down(source: str, expected: list[str]) -> None:
    """Fields and literal indexes count; what is computed ends the path before it."""
    assert paths(source) == expected


def test_a_question_with_has_is_marked() -> None:
    """What it asks for may be missing."""
    (read,) = reads_of(parse("has(output.a.b)"))
    assert read == Read("output", ("a", "b"), 4, guarded=True)


@each_engine
def test_a_program_lists_each_path_once(choice: Choice) -> None:
    """In the order they are written, for people to read."""
    program = engine_or_skip(choice).compile("output.n > 1 && context.a > output.n && has(output.z)")
    assert program.reads == ("output.n", "context.a", "output.z")
    assert program.roots == ("output", "context")


@each_engine
def test_a_trace_holds_the_values_that_were_read(choice: Choice) -> None:
    """As `Evaluated.values` records them; what was missing is left out."""
    program = engine_or_skip(choice).compile("output.score >= context.least && !has(output.nope)")
    variables = {"output": {"score": 0.7, "text": "not read"}, "context": {"least": 0.5}}
    values = read_values(program, variables)
    assert values == {"output.score": 0.7, "context.least": 0.5}
    Evaluated(expression=program.expression, result=program.holds(variables), to="next", values=values)


def test_long_values_are_cut() -> None:
    """A decision records what it looked at, not the whole mail."""
    assert shown("x" * MAX_SHOWN) == "x" * MAX_SHOWN
    assert shown("x" * 5000) == "x" * (MAX_SHOWN - 1) + "…"
    assert shown([1, 2]) == [1, 2]
    cut = shown(list(range(1000)))
    assert isinstance(cut, str)
    assert cut.startswith("[0,1,2,")
    assert len(cut) == MAX_SHOWN


@each_engine
def test_a_trace_holds_a_bounded_number_of_values(choice: Choice) -> None:
    """However much an expression reads."""
    program = engine_or_skip(choice).compile(" || ".join(f"output.a{n} == 1" for n in range(100)))
    values = read_values(program, {"output": {f"a{n}": n for n in range(100)}})
    assert len(values) == MAX_VALUES


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(("a", "b"), 1), (("list", 1), 20), (("a", "z"), MISSING), (("list", 9), MISSING), (("list", -1), MISSING),
     (("list", "a"), MISSING), (("a", 0), MISSING), (("text", 0), MISSING), ((), None)],
)  # fmt: skip
def test_values_are_looked_up_step_by_step(steps: tuple[str | int, ...], expected: Any) -> None:
    """A step that leads nowhere is missing, never an error and never a guess."""
    value = {"a": {"b": 1}, "list": [10, 20], "text": "abc"}
    found = look_up(value, steps)
    assert found is MISSING if expected is MISSING else found == (value if expected is None else expected)


def test_engines_are_given_only_what_is_read() -> None:
    """The rest of a large output is never converted."""
    reads = reads_of(parse("output.a.b > 1 && has(output.c.d) && size(input.list) > 0"))
    variables = {"output": {"a": {"b": 1, "x": 2}, "c": {"e": 1}, "z": 3}, "input": {"list": [1], "y": 2}, "error": {}}
    assert pruned(variables, reads) == {"output": {"a": {"b": 1}, "c": {}}, "input": {"list": [1]}}


def test_a_whole_value_wins_over_its_parts() -> None:
    """`size(output)` counts every key, also beside `output.a`."""
    reads = reads_of(parse("size(output) > 1 && output.a > 1"))
    variables = {"output": {"a": 1, "b": 2}}
    assert pruned(variables, reads) == variables


def test_a_variable_that_is_missing_stays_missing() -> None:
    """Pruning makes up nothing."""
    assert pruned({"input": {}}, reads_of(parse("output.a + input.b"))) == {"input": {}}


@each_engine
@given(source=EXPRESSIONS, variables=VARIABLES)
def test_an_expression_cannot_tell_what_was_left_out(choice: Choice, source: str, variables: dict[str, Any]) -> None:
    """The result with everything and the result with only what is read are the same, failures too."""
    engine = engine_or_skip(choice)
    try:
        program = engine.compile(source)
    except ExpressionError:
        return
    whole = Program(
        program.expression, program.kind, tuple(Read(read.root) for read in program.found), program.run, program.is_path
    )
    results = []
    for each in (program, whole):
        try:
            results.append(repr(each.evaluate(variables)))
        except ConditionError as error:
            results.append(error.error_code)
    assert results[0] == results[1]


@each_engine
@given(source=PATHS, variables=VARIABLES)
def test_paths_mean_the_same_with_and_without_an_engine(choice: Choice, source: str, variables: dict[str, Any]) -> None:
    """A path is looked up without an engine; `dyn()` sends the same path through it."""
    engine = engine_or_skip(choice)
    direct, through = outcome(engine, source, variables), outcome(engine, f"dyn({source})", variables)
    assert direct[0] == through[0]
    if direct[0] == "value":
        assert engine.compile(source).evaluate(variables) == engine.compile(f"dyn({source})").evaluate(variables)


@given(JSON)
def test_shown_values_are_json_and_bounded(value: Any) -> None:
    """Whatever was read."""
    result = shown(value)
    assert result == value or (isinstance(result, str) and len(result) == MAX_SHOWN)
