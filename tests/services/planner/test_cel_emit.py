"""The text engines are given: one notation, no more brackets than needed, and what each engine needs besides."""

import pytest
from hypothesis import given

from agentflow_planner.conditions.cpp import CppBackend, reason
from agentflow_planner.conditions.emit import Dialect, emit, levels
from agentflow_planner.conditions.parser import MAX_DEPTH, parse
from agentflow_planner.conditions.python import PythonBackend
from agentflow_planner.errors import EvaluationFailed, ExpressionError
from tests.services.planner.expressions import EXPRESSIONS

PLAIN = Dialect()


def emitted(source: str, dialect: Dialect = PLAIN) -> str:
    """What an engine of a dialect is given for an expression."""
    return emit(parse(source), dialect)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("((a))+((b))", "a + b"),
        ("(a+b)*c", "(a + b) * c"),
        ("a+(b*c)", "a + b * c"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("(a&&b)||c", "a && b || c"),
        ("a&&(b||c)", "a && (b || c)"),
        ("(a?b:c)?d:e", "(a ? b : c) ? d : e"),
        ("a?b:(c?d:e)", "a ? b : c ? d : e"),
        ("a?(b?c:d):e", "a ? (b ? c : d) : e"),
        ("!(a)", "!a"),
        ("!(a&&b)", "!(a && b)"),
        ("!!a", "!(!a)"),
        ("(-1).size()", "(-1).size()"),
        ("a - -1", "a - -1"),
        ("-1 - a", "-1 - a"),
        ("(a+b)[c+d]", "(a + b)[c + d]"),
        ("'a\"b\\n'", "'a\\u0022b\\u000a'"),
        ('"it\'s"', "'it\\u0027s'"),
        ("'😀é'", "'\\U0001f600\\u00e9'"),
        ("b'\\xff'", "b'\\xff'"),
        ("1e3", "1000.0"),
        ("1e21", "1e+21"),
        ("0x10", "16"),
        ("7U", "7u"),
        ("{ 'a' : 1 , }", "{'a': 1}"),
        ("len(a)", "size(a)"),
        ("a.exists(x,x>1)", "a.exists(x, x > 1)"),
        ("a.map(x,x>1,x)", "a.filter(x, x > 1).map(x, x)"),
        ("a // why", "a"),
    ],
)
def test_one_notation(source: str, text: str) -> None:
    """Whatever way it was written, engines see it one way."""
    assert emitted(source) == text


def test_going_through_a_map_is_guarded_where_its_order_would_show() -> None:
    """Only `map` and `filter`, only over what may be a map, and once each."""
    guard = Dialect(guard_maps=True)
    item = "af_item__"
    checked = f"[a].map({item}, type({item}) == map ? map_has_no_order({item}) : {item})[0]"
    assert emitted("a.map(x, x)", guard) == f"{checked}.map(x, x)"
    assert emitted("a.filter(x, x)", guard) == f"{checked}.filter(x, x)"
    assert emitted("a.map(x, y, x)", guard) == f"{checked}.filter(x, y).map(x, x)"
    assert emitted("a.filter(x, x).map(y, y)", guard) == f"{checked}.filter(x, x).map(y, y)"
    assert emitted("[1].map(x, x)", guard) == "[1].map(x, x)"
    assert emitted("a.all(x, x)", guard) == "a.all(x, x)"
    assert emitted("a.map(x, x)", PLAIN) == "a.map(x, x)"


def test_long_chains_are_halved_for_an_engine_that_descends_into_them() -> None:
    """The order of the operands stays, the depth is that of a tree."""
    halves = Dialect(balance=True)
    assert emitted("a && b", halves) == "a && b"
    assert emitted("a && b && c", halves) == "(a && b) && c"
    assert emitted("a || b || c || d || e", halves) == "((a || b) || c) || (d || e)"
    long = emitted(" && ".join(f"a{n}" for n in range(500)), halves)
    depth = deepest = 0
    for char in long:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    assert deepest <= 10
    assert [word.strip("()") for word in long.split(" && ")] == [f"a{n}" for n in range(500)]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("a", 1),
        ("a.b.c", 3),
        ("a + b", 2),
        ("a + b + c", 3),
        ("a + (b + c)", 4),
        ("(a)", 1),
        ("((a + b))", 2),
        ("a && b && c && d", 2),
        ("[a]", 2),
        ("f(g(a))", 3),
        ("!a", 2),
        ("!(a && b)", 4),
        ("a ? b : c ? d : e", 3),
        ("a.all(x, x)", 2),
        ("a.map(x, x)", 5),
        ("[a].map(x, x)", 3),
    ],
)
def test_levels_are_counted_as_engines_nest(source: str, count: int) -> None:
    """Brackets count where they are needed, guards where they will be put."""
    assert levels(parse(source)) == count


@given(EXPRESSIONS)
def test_no_more_brackets_than_needed(source: str) -> None:
    """What is emitted is read as the same tree, and is at its shortest."""
    try:
        tree = parse(source)
    except ExpressionError:
        return
    once = emit(tree, PLAIN)
    text = emitted(once)  # `-(1)` is emitted as `-1`, which is read as one number
    assert emitted(text) == text
    assert levels(parse(text)) <= levels(tree) <= MAX_DEPTH


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('NOT_FOUND: Key not found in map : "a"', "no such key: 'a'"),
        ("NOT_FOUND: Key not found in map : 1.5", "no such key: 1.5"),
        ("UNKNOWN: No matching overloads found : _+_(int64, string)", "no such overload: _+_(int, string)"),
        (
            "UNKNOWN: No matching overloads found : (uint64).contains(null_type)",
            "no such overload: contains(uint, null)",
        ),
        ("INVALID_ARGUMENT: divide by zero", "division by zero"),
        ("INVALID_ARGUMENT: modulus by zero", "division by zero"),
        ("OUT_OF_RANGE: integer overflow", "out of range"),
        ("INTERNAL: Iteration budget exceeded [INTERNAL]", "too many steps"),
        ("UNKNOWN: Index error: index=5 size=1", "index out of range: 5 of 1"),
        ("INVALID_ARGUMENT: something new [INVALID_ARGUMENT]", "something new"),
        ("INVALID_ARGUMENT: something new\nover lines", "something new"),
        ("", "the evaluation failed"),
        ("x" * 5000, "x" * 200),
    ],
)
def test_the_words_of_the_c_engine_become_ours(message: str, words: str) -> None:
    """Known reasons in the words of every engine; others in its own, one bounded line."""
    assert reason(message) == words


@pytest.mark.parametrize("text", ["1 +", "(", "'", "a b"])
def test_backends_refuse_what_they_cannot_read(text: str) -> None:
    """The front end never sends such text; should it, the error is the one it expects."""
    for backend in (CppBackend(), PythonBackend()):
        with pytest.raises(EvaluationFailed) as caught:
            backend.compile(text, ())
        assert caught.value.error_code == "condition.syntax"
        assert len(caught.value.message) <= 200
