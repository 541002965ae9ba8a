"""Why the engines are wrapped: what they do by themselves, and what is made of it.

Each test shows a habit of a library that a workflow must not depend on. When one of them fails because the library has
changed for the better, the care taken for it can go, and so can the test.
"""

import subprocess
import sys
from typing import Any

import pytest
from cel_expr_python import cel
from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.celparser import CELParser
from celpy.evaluation import Activation, CELEvalError, Evaluator

from agentflow_planner.conditions import Choice
from agentflow_planner.errors import ConditionError
from tests.services.planner.engines import each_engine, engine_or_skip


def raw_python(expression: str, **variables: Any) -> Any:
    """What cel-python says without us."""
    tree = CELParser().parse(expression)
    return Evaluator(tree, Activation()).evaluate({name: json_to_cel(value) for name, value in variables.items()})


def raw_cpp(expression: str, *, checked: bool = False, **variables: Any) -> Any:
    """What cel-expr-python says without us: a value with a type."""
    env = cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN))
    return env.compile(expression, disable_check=not checked).eval(data=variables)


def ours(choice: Choice, expression: str, **variables: Any) -> Any:
    """What the planner makes of it."""
    return engine_or_skip(choice).compile(expression).evaluate(variables)


# --- the C++ engine ------------------------------------------------------------------------------------------------------


def test_the_c_engine_returns_errors_as_values() -> None:
    """A failed evaluation is a value of type ERROR; whoever takes its Python value gets a text, which is true."""
    value = raw_cpp("x.missing == 1", x={})
    assert value.type() == cel.Type.ERROR
    assert isinstance(value.value(), str)
    assert value.value()
    with pytest.raises(ConditionError):
        ours("cpp", "x.missing == 1", x={})


def test_the_c_engine_raises_some_errors_all_the_same() -> None:
    """Among them the end of its budget and a key that stands twice."""
    for expression in ("x.all(a, true)", "{'a': 1, 'a': 2}"):
        with pytest.raises(RuntimeError):
            raw_cpp(expression, x=list(range(20_000)))
        with pytest.raises(ConditionError):
            ours("cpp", expression, x=list(range(20_000)))


def test_the_c_engine_cuts_text_at_nul() -> None:
    """What stands before it is compared, and found equal."""
    assert raw_cpp("x == 'a'", x="a\0b").value() is True
    with pytest.raises(ConditionError, match="NUL"):
        ours("cpp", "x == 'a'", x="a\0b")


def test_the_c_engine_goes_through_maps_in_an_order_of_the_day() -> None:
    """It differs between processes, so that two planners would decide differently."""
    code = (
        "from cel_expr_python import cel\n"
        "env = cel.NewEnv(variables={'x': cel.Type.DYN})\n"
        "x = {k: i for i, k in enumerate('abcdefghijklmnopqrst')}\n"
        "print(env.compile('x.map(k, k)', disable_check=True).eval(data={'x': x}).plain_value())"
    )
    seen = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(6)}
    assert len(seen) > 1
    with pytest.raises(ConditionError, match="go through lists only"):
        ours("cpp", "x.map(k, k)", x={"a": 1})


def test_the_checker_of_the_c_engine_refuses_comparisons_its_runtime_takes() -> None:
    """So it is switched off, and `kinds` says beforehand what can be said."""
    with pytest.raises(RuntimeError, match="no matching overload"):
        raw_cpp("1 < 1.5", checked=True)
    assert raw_cpp("1 < 1.5").value() is True
    assert ours("cpp", "1 < 1.5") is True


def test_the_c_engine_takes_unknown_functions_until_they_are_called() -> None:
    """Without its checker nothing is said about them when an expression is compiled; `kinds` does."""
    assert raw_cpp("true || nope(1)").value() is True
    with pytest.raises(ConditionError, match="no function nope"):
        ours("cpp", "true || nope(1)")


def test_the_c_engine_is_deaf_to_numbers_of_more_than_64_bits() -> None:
    """It says so in an error value."""
    assert raw_cpp("x", x=2**64).type() == cel.Type.ERROR
    with pytest.raises(ConditionError):
        ours("cpp", "x == 1", x=2**64)


# --- the Python engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", ["1 == 1.0", "1 < 1.5", "'a' == 1", "1 in [1.0, 'a']", "[1, 'a'] == [1, 2]"])
def test_cel_python_fails_where_kinds_differ(expression: str) -> None:
    """Numbers of JSON come as either kind, so comparing must not depend on it."""
    with pytest.raises((CELEvalError, TypeError)):
        raw_python(expression)
    assert isinstance(ours("python", expression), bool)


def test_cel_python_takes_true_for_one() -> None:
    """Python's bool is an int; CEL's is not."""
    with pytest.raises((CELEvalError, TypeError, AssertionError)):
        assert raw_python("true == 1") is False
    assert ours("python", "true == 1") is False


def test_cel_python_ends_an_evaluation_at_an_error_in_a_macro() -> None:
    """Even where the other side of `||` has decided."""
    with pytest.raises(CELEvalError):
        raw_python("true || [0].map(i, 1 / i) == []")
    assert ours("python", "true || [0].map(i, 1 / i) == []") is True


def test_cel_python_keeps_errors_in_maps() -> None:
    """A value that is an error travels on inside of the result."""
    value = raw_python("{'a': 1 / 0}")
    assert isinstance(value[celtypes.StringType("a")], CELEvalError)
    with pytest.raises(ConditionError, match="division by zero"):
        ours("python", "{'a': 1 / 0}")


def test_cel_python_answers_no_where_it_cannot_know() -> None:
    """`has(x.a.b)` without `x.a` is an error; it says false."""
    assert bool(raw_python("has(x.a.b)", x={})) is False
    with pytest.raises(ConditionError, match="no such key"):
        ours("python", "has(x.a.b)", x={})


def test_cel_python_has_macros_of_its_own() -> None:
    """`min` and `reduce` are no CEL; the front end refuses them for every engine."""
    assert raw_python("[3, 1].min()") == 1
    with pytest.raises(ConditionError, match="no function"):
        ours("python", "[3, 1].min()")


def test_cel_python_has_no_map_with_a_condition() -> None:
    """Three arguments are part of the language; they are emitted as `filter` and `map`."""
    with pytest.raises(ValueError, match="too many values"):
        raw_python("[1, 2].map(i, i > 1, i)")
    assert ours("python", "[1, 2].map(i, i > 1, i)") == [2]


def test_cel_python_shows_all_variables_in_an_error() -> None:
    """An unknown name brings the whole activation into the message."""
    with pytest.raises(CELEvalError) as caught:
        raw_python("nope", secret="hunter2")
    assert "hunter2" in str(caught.value)
    with pytest.raises(ConditionError) as ours_caught:
        engine_or_skip("python").compile("nope == secret").evaluate({"secret": "hunter2"})
    assert "hunter2" not in str(ours_caught.value)


def test_cel_python_reads_text_in_seconds_without_a_unit_of_days() -> None:
    """`1d` is a duration to cel-python and none to CEL."""
    assert raw_python("duration('1d') == duration('24h')")
    with pytest.raises(ConditionError):
        ours("python", "duration('1d') == duration('24h')")


@each_engine
def test_both_find_the_same_in_the_end(choice: Choice) -> None:
    """One sentence with most of the above in it."""
    variables = {"x": {"n": 1, "items": [{"a": 1.0}, {"a": 2}], "name": "a"}}
    assert ours(choice, "x.n == 1.0 && x.items.exists(i, i.a == 1) && !has(x.z) && x.name != 1", **variables) is True
