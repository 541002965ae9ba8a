"""What can be said about an expression before it runs, and that it is true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.conditions import Choice
from agentflow_planner.conditions.cpp import CppBackend
from agentflow_planner.conditions.emit import emit
from agentflow_planner.conditions.kinds import FUNCTIONS, METHODS, check, unbound
from agentflow_planner.conditions.parser import parse
from agentflow_planner.conditions.python import PythonBackend
from agentflow_planner.errors import ConditionError, EvaluationFailed, ExpressionError
from tests.services.planner.engines import each_engine, engine_or_skip
from tests.services.planner.expressions import EXPRESSIONS, VARIABLES

BACKENDS = (CppBackend(), PythonBackend())


def kind(source: str) -> str:
    """The kind of an expression nothing is wrong with."""
    found, problems = check(parse(source))
    assert problems == ()
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("true", "bool"),
        ("output.n > 1", "bool"),
        ("output.n", "dyn"),
        ("output.a + output.b", "dyn"),
        ("output.a + 1", "int"),
        ("output.a + 1.5", "double"),
        ("1.5 * output.a", "double"),
        ("output.a + 'x'", "string"),
        ("size(output)", "int"),
        ("len(output) > 0", "bool"),
        ("string(output.n)", "string"),
        ("output.items.map(x, x.a)", "list"),
        ("output.items.all(x, x.a)", "bool"),
        ("has(output.a)", "bool"),
        ("!output.a", "bool"),
        ("-output.a", "dyn"),
        ("output.a ? 1 : 2", "int"),
        ("output.a ? 1 : 'x'", "dyn"),
        ("[1] + output.items", "list"),
        ("{'a': 1}", "map"),
        ("{'a': 1}.a", "dyn"),
        ("null", "null"),
        ("output.a in [1]", "bool"),
        ("timestamp(output.at) - timestamp(output.since)", "duration"),
        ("timestamp(output.at) + duration('1h')", "timestamp"),
        ("timestamp(output.at) - output.x", "dyn"),
        ("timestamp(output.at).getHours()", "int"),
        ("type(output) == map", "bool"),
        ("[1].map(int, int + 1)", "list"),
        ("output.a && output.b || !output.c", "bool"),
    ],
)
def test_the_kind_of_a_value_is_known_as_far_as_it_can_be(source: str, expected: str) -> None:
    """What comes from variables is dynamic; what operators make of it often is not."""
    assert kind(source) == expected


@pytest.mark.parametrize(
    ("source", "code", "place", "part"),
    [
        ("1 + 'a'", "type", 2, "int + string has no meaning"),
        ("1 + 1.5", "type", 2, "convert one side with double() or int()"),
        ("true + true", "type", 5, "bool + bool"),
        ("5.0 % 2.0", "type", 4, "double % double"),
        ("'a' < 1", "type", 4, "the sides of '<'"),
        ("[1] < [2]", "type", 4, "the sides of '<'"),
        ("null >= 1", "type", 5, "the sides of '>='"),
        ("1 in 'abc'", "type", 2, "behind 'in'"),
        ("!1", "type", 0, "behind '!'"),
        ("-'a'", "type", 0, "behind '-'"),
        ("output.a && 'x'", "type", 12, "a side of '&&'"),
        ("1 || output.a", "type", 0, "a side of '||'"),
        ("'a' ? 1 : 2", "type", 0, "before '?'"),
        ("'abc'.length", "type", 6, "the field 'length'"),
        ("has('abc'.x)", "type", 10, "the field 'x'"),
        ("'abc'[0]", "type", 5, "what is indexed"),
        ("[1]['a']", "type", 3, "the index of a list"),
        ("output[null]", "type", 6, "the index"),
        ("size(1)", "type", 0, "size() does not take (int)"),
        ("size()", "type", 0, "size() does not take ()"),
        ("size('a', 'b')", "type", 0, "size() does not take"),
        ("'a'.startsWith(1)", "type", 4, ".startsWith() does not take (int) of string"),
        ("(1).contains('a')", "type", 4, ".contains() does not take (string) of int"),
        ("'a'.all(x, true)", "type", 4, "what .all() goes through"),
        ("[1].all(x, 'a')", "type", 11, "the condition of .all()"),
        ("[1].map(x, 1, x)", "type", 11, "the condition of .map()"),
        ("lower(output)", "unknown_function", 0, "there is no function lower()"),
        ("output.lower()", "unknown_function", 7, "there is no function .lower()"),
        ("startsWith(output, 'a')", "unknown_function", 0, "called as x.startsWith()"),
        ("output.string()", "unknown_function", 7, "called as string(x)"),
        ("[1].reduce(a, b, 0, a + b)", "unknown_function", 4, "there is no function .reduce()"),
    ],
)
def test_what_can_never_work_is_found_before_it_runs(source: str, code: str, place: int, part: str) -> None:
    """With its place, in the words of the language."""
    _, problems = check(parse(source))
    offset, found, message, _, _ = problems[0]
    assert (offset, found) == (place, f"condition.{code}")
    assert part in message


def test_all_problems_are_found_in_order() -> None:
    """One does not hide the other."""
    _, problems = check(parse("(1 + 'a' == 2) && foo(output) && !'x'"))
    assert [problem[0] for problem in problems] == [3, 18, 33]


def test_every_function_is_known_to_both_engines() -> None:
    """No function is promised that an engine lacks: with arguments of a kind it takes, it finds an overload."""
    samples = {
        "bool": "true", "bytes": "b'a'", "double": "1.5", "duration": "duration('1s')", "dyn": "1", "int": "1",
        "list": "[1]", "map": "{'a': 1}", "string": "'1'", "timestamp": "timestamp('2026-01-01T00:00:00Z')",
        "uint": "1u",
    }  # fmt: skip
    special = {("duration", "string"): "'1s'", ("timestamp", "string"): "'2026-01-01T00:00:00Z'"}
    calls = [
        f"{name}({', '.join(special.get((name, arg), samples[arg]) for arg in overload.args)})"
        for name, overloads in FUNCTIONS.items()
        for overload in overloads
    ]
    for name, overloads in METHODS.items():
        for overload in overloads:
            target, *args = (samples[arg] for arg in overload.args)
            shown = ["'UTC'" if name.startswith("get") else arg for arg in args]
            calls.append(f"({target}).{name}({', '.join(shown)})")
    for backend in BACKENDS:
        for call in calls:
            assert backend.compile(emit(parse(f"type({call}) != null"), backend.dialect), ())({}) is True, call


LEAVES = st.sampled_from(
    [
        "1",
        "-1",
        "1u",
        "1.5",
        "'a'",
        "b'a'",
        "true",
        "null",
        "[1]",
        "{'a': 1}",
        "timestamp(0)",
        "duration('1s')",
        "type(1)",
    ]
)
OPERATIONS = st.one_of(
    st.tuples(LEAVES, st.sampled_from(["<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"]), LEAVES).map(" ".join),
    st.tuples(st.sampled_from(sorted(FUNCTIONS)), LEAVES).map(lambda t: f"{t[0]}({t[1]})"),
    st.tuples(LEAVES, st.sampled_from(sorted(METHODS)), LEAVES).map(lambda t: f"({t[0]}).{t[1]}({t[2]})"),
    st.tuples(LEAVES, LEAVES).map(lambda t: f"({t[0]})[{t[1]}]"),
    st.tuples(st.sampled_from("!-"), LEAVES).map(lambda t: f"{t[0]}({t[1]})"),
    st.tuples(LEAVES, st.sampled_from(["all", "map", "exists"])).map(lambda t: f"({t[0]}).{t[1]}(x, true)"),
    LEAVES.map(lambda leaf: f"({leaf}) ? 1 : 2"),
    LEAVES.map(lambda leaf: f"({leaf}).a"),
)


@given(OPERATIONS)
def test_what_is_refused_fails_in_both_engines(source: str) -> None:
    """An operation is refused only if no engine can evaluate it: the check forbids nothing that works."""
    tree = parse(source)
    _, problems = check(tree)
    if problems:
        for backend in BACKENDS:
            with pytest.raises(EvaluationFailed):
                backend.compile(emit(tree, backend.dialect), ())({})


def json_kind(value: Any) -> set[str]:
    """The kinds a JSON value can be the result of."""
    match value:
        case None:
            return {"null"}
        case bool():
            return {"bool"}
        case int():
            return {"int", "uint"}
        case float():
            return {"double"}
        case str():
            return {"string"}
        case dict():
            return {"map"}
        case _:
            return {"list"}


@each_engine
@given(source=EXPRESSIONS, variables=VARIABLES)
def test_a_kind_that_is_known_is_the_kind_of_the_result(choice: Choice, source: str, variables: dict[str, Any]) -> None:
    """What `check` promises about a value holds for whatever the evaluation yields."""
    try:
        program = engine_or_skip(choice).compile(source)
        value = program.evaluate(variables)
    except ExpressionError:
        return
    except ConditionError:
        return
    assert program.kind == "dyn" or program.kind in json_kind(value)


def test_variables_from_outside_are_told_from_those_of_macros() -> None:
    """A macro's variable is its own, inside of the macro only."""
    tree = parse("output.all(x, x > y) && x && [1].map(int, int) == [2].map(a, a)")
    assert [ident.name for ident in unbound(tree)] == ["output", "y", "x"]
