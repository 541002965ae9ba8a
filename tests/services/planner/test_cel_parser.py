"""Reading CEL: the tree, the places of errors, and the limits that keep everything behind it safe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.conditions.emit import Dialect, emit
from agentflow_planner.conditions.lexer import MAX_EXPRESSION, tokens
from agentflow_planner.conditions.parser import MAX_DEPTH, MAX_PARENS, parse, parse_part
from agentflow_planner.conditions.syntax import (
    Binary,
    Call,
    Chain,
    Has,
    Ident,
    Index,
    Literal,
    Macro,
    Node,
    Select,
    Ternary,
    Unary,
    walk,
)
from agentflow_planner.errors import ExpressionError
from tests.services.planner.expressions import EXPRESSIONS


def refused(source: str) -> ExpressionError:
    """Why an expression is refused."""
    with pytest.raises(ExpressionError) as caught:
        parse(source)
    return caught.value


def grouped(node: Node) -> str:
    """A node with every grouping made explicit."""
    match node:
        case Unary():
            return f"{node.op}{_operand(node.operand)}"
        case Binary():
            return f"{_operand(node.left)} {node.op} {_operand(node.right)}"
        case Chain():
            return f" {node.op} ".join(map(_operand, node.operands))
        case Ternary():
            return f"{_operand(node.condition)} ? {_operand(node.then)} : {_operand(node.other)}"
        case _:
            return emit(node, Dialect())


def _operand(node: Node) -> str:
    negative = isinstance(node, Literal) and grouped_literal(node).startswith("-")
    return f"({grouped(node)})" if negative or isinstance(node, Unary | Binary | Chain | Ternary) else grouped(node)


def grouped_literal(node: Literal) -> str:
    """The text of a literal."""
    return emit(node, Dialect())


def text(source: str) -> str:
    """An expression with every grouping made explicit."""
    return grouped(parse(source))


@pytest.mark.parametrize(
    ("source", "grouped"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a * b + c", "(a * b) + c"),
        ("a - b - c", "(a - b) - c"),
        ("a / b % c", "(a / b) % c"),
        ("a < b == c", "(a < b) == c"),
        ("a + 1 > b && c || d", "(((a + 1) > b) && c) || d"),
        ("a || b || c", "a || b || c"),
        ("a || (b || c)", "a || (b || c)"),
        ("!a && b", "(!a) && b"),
        ("!a.b", "!a.b"),
        ("-a.b", "-a.b"),
        ("- 1", "-1"),
        ("--1", "-(-1)"),
        ("---a", "-a"),
        ("!!!a", "!a"),
        ("!!a", "!(!a)"),
        ("a -1", "a - 1"),
        ("a - -1", "a - (-1)"),
        ("a ? b : c ? d : e", "a ? b : (c ? d : e)"),
        ("(a ? b : c) ? d : e", "(a ? b : c) ? d : e"),
        ("a in b && c", "(a in b) && c"),
        ("a[0].b['c']", "a[0].b['c']"),
        ("(a + b).c", "(a + b).c"),
        ("a.f(b, c).g()", "a.f(b, c).g()"),
        (".a.b", "a.b"),
        ("[1, 2,]", "[1, 2]"),
        ("{'a': 1, b: 2,}", "{'a': 1, b: 2}"),
        ("len(a) > 0", "size(a) > 0"),
        ("a.len() > 0", "a.size() > 0"),
        ("a.len", "a.len"),
        ("a.map(x, x > 1, x * 2)", "a.filter(x, x > 1).map(x, x * 2)"),
        ("has(a.b)", "has(a.b)"),
        ("a // the rest is a remark", "a"),
        ("a &&\n  b // why\n && c", "a && b && c"),
        ("0x1F + 0u", "31 + 0u"),
        ("1e3", "1000.0"),
        (".5", "0.5"),
        ("a.package.for", "a.package.for"),
    ],
)
def test_operators_bind_as_the_language_says(source: str, grouped: str) -> None:
    """Precedence, associativity, and what is written in more than one way."""
    assert text(source) == grouped


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("'a'", "a"),
        ('"a"', "a"),
        ("'it\\'s'", "it's"),
        ("'\\n\\t\\\\\\''", "\n\t\\'"),
        ("'\\x41\\u00e9\\U0001F600\\101'", "Aé😀A"),
        ("r'\\n'", "\\n"),
        ('R"a\'b"', "a'b"),
        ("'''a\n'b'''", "a\n'b"),
        ('"""a"b"""', 'a"b'),
        ("b'a\\xff\\101'", b"a\xffA"),
        ("b'é'", "é".encode()),
        ("rb'\\n'", b"\\n"),
        ("'😀'", "😀"),
        ("''", ""),
        ("null", None),
        ("true", True),
        ("42", 42),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615u", 2**64 - 1),
        ("1.5e-3", 0.0015),
    ],
)
def test_literals_stand_for_their_values(source: str, value: object) -> None:
    """All quotes, escapes and number formats."""
    node = parse(source)
    assert isinstance(node, Literal)
    assert (node.value, type(node.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("source", "offset", "part"),
    [
        ("", 0, "the expression ends"),
        ("   ", 3, "the expression ends"),
        ("a +", 3, "a value is missing, the expression ends"),
        ("a b", 2, "the expression should end here, found 'b'"),
        ("(a", 2, "')' is missing"),
        ("a)", 1, "the expression should end here"),
        ("[1, 2", 5, "',' is missing"),
        ("a[", 2, "a value is missing"),
        ("{'a' 1}", 5, "':' is missing"),
        ("f(a,)", 4, "an argument is missing"),
        ("a ? b", 5, "':' is missing"),
        ("a.", 2, "a field name is missing"),
        ("a.in", 2, "a field name is missing"),
        ("a.1", 1, "the expression should end here"),
        ("a = b", 2, "compare with =="),
        ("a & b", 2, "both is written &&"),
        ("a | b", 2, "either is written ||"),
        ("a.`b-c`", 2, "['field']"),
        ("a # b", 2, "'#' has no meaning here"),
        ("'abc", 0, "no closing '"),
        ("'a\nb'", 0, "no closing '"),
        ("'\\q'", 1, "'\\\\q' is no escape"),
        ("'\\ud800'", 1, "is no character"),
        ("b'\\u0041'", 2, "has no place in bytes"),
        ("'a\\u0000'", 0, "NUL"),
        ("1x", 0, "is no number"),
        ("0X1F", 0, "is no number"),
        ("9223372036854775808", 0, "too large for int"),
        ("18446744073709551616u", 0, "too large for uint"),
        ("1e400", 0, "too large for double"),
        ("while", 0, "is reserved"),
        ("as.b", 0, "is reserved"),
        ("has(a)", 0, "has() takes one field"),
        ("has(a[0])", 0, "has() takes one field"),
        ("a.all(x)", 2, "all() takes 2 arguments, found 1"),
        ("a.map(x)", 2, "map() takes 2 or 3 arguments"),
        ("a.all(x.y, true)", 8, "the name of a variable"),
        ("Foo{a: 1}", 3, "messages cannot be made here"),
        ("a.?b", 2, "a field name is missing"),
        ("-!a", 1, "a value is missing"),
        (". 5", 2, "a name is missing"),
    ],
)
def test_errors_say_where_and_why(source: str, offset: int, part: str) -> None:
    """The offset is that of the character the eye should go to."""
    error = refused(source)
    assert (error.offset, error.error_code) == (offset, "condition.syntax")
    assert part in error.reason


def test_every_node_knows_its_place() -> None:
    """The place is where an operator, a field or a function's name stands."""
    source = "len(output.items) > 1 && input['a'] ? x.all(i, !i) : has(a.b)"
    places = {type(node): source[node.offset :][:4] for node in walk(parse(source))}
    assert places[Ternary] == "? x."
    assert places[Chain] == "&& i"
    assert places[Binary] == "> 1 "
    assert places[Call] == "len("
    assert places[Index] == "['a'"
    assert places[Macro] == "all("
    assert places[Unary] == "!i) "
    assert places[Has] == "has("
    assert {source[n.offset :][: len(n.field)] for n in walk(parse(source)) if isinstance(n, Select)} == {"items", "b"}
    assert {source[n.offset :][: len(n.name)] for n in walk(parse(source)) if isinstance(n, Ident)} == {
        "output", "input", "x", "i", "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "(" * (MAX_PARENS + 1) + "a" + ")" * (MAX_PARENS + 1),
        "[" * 3000,
        "f(" * (MAX_PARENS + 1) + "a" + ")" * (MAX_PARENS + 1),
        "a ? b : " * (MAX_PARENS + 1) + "c",
        " + ".join(["a"] * (MAX_DEPTH + 1)),
        "a" + ".b" * MAX_DEPTH,
        "a" + "[0]" * MAX_DEPTH,
        "a" + ".filter(x, x)" * MAX_DEPTH,
        "x.all(y, " * MAX_DEPTH + "true" + ")" * MAX_DEPTH,
        "a" * (MAX_EXPRESSION + 1) + " + 1",
        "1 + " * 2000 + "1",
        "{'a': " * 100,
    ],
)
def test_what_is_too_large_is_refused_before_any_engine_sees_it(source: str) -> None:
    """Deep nesting is what brings parsers down; it is refused by count, with a code of its own."""
    assert refused(source).error_code == "condition.too_large"


@pytest.mark.parametrize(
    "source",
    [
        "(" * MAX_PARENS + "a" + ")" * MAX_PARENS,
        " + ".join(["a"] * MAX_DEPTH),
        "a" + ".b" * (MAX_DEPTH - 1),
        "a ? b : " * (MAX_PARENS - 1) + "c",
        " && ".join(["a"] * 500),
        " || ".join(["a == 1"] * 400),
        "!" * 1000 + "a",
        "-" * 1001 + "a",
        "[" + ", ".join(["1"] * 1000) + "]",
    ],
)
def test_what_is_within_the_limits_is_taken(source: str) -> None:
    """Long is no problem, deep is; and signs that cancel out are not counted."""
    parse(source)


def test_an_expression_in_a_template_ends_at_its_brace() -> None:
    """Braces inside of texts and maps are its own."""
    source = "${ {'}': '}'}['}'] } and more }"
    node, end = parse_part(source, 2)
    assert source[end:] == "} and more }"
    assert emit(node, Dialect()) == "{'}': '}'}['}']"


@pytest.mark.parametrize("source", ["${a", "${", "${a b}", "${'}", "${a]}", "${a//}"])
def test_an_expression_in_a_template_that_does_not_end_is_refused(source: str) -> None:
    """With the place in the whole text."""
    with pytest.raises(ExpressionError):
        parse_part(source, 2)


def refusal(source: str) -> ExpressionError | None:
    """Why an expression is refused, if it is; anything else raised fails the test."""
    try:
        parse(source)
    except ExpressionError as error:
        return error
    return None


@given(EXPRESSIONS)
def test_what_is_emitted_means_the_same(source: str) -> None:
    """The emitted text is read as the same tree, whatever the dialect's grouping."""
    if (error := refusal(source)) is not None:
        assert error.error_code == "condition.too_large"
        return
    tree = parse(source)
    text = emit(parse(emit(tree, Dialect())), Dialect())  # once to make `-(1)` a number
    assert emit(parse(text), Dialect()) == text
    parse(emit(tree, Dialect(balance=True)))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(source: str) -> None:
    """Nothing but `ExpressionError` comes out, with a place in the text."""
    error = refusal(source)
    assert error is None or 0 <= error.offset <= len(source)


WORDS = [
    "a",
    "1",
    "1.5",
    "'x'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "?",
    ":",
    "!",
    "-",
    "+",
    "&&",
    "||",
    "==",
    "in",
    "has(",
    "all(",
    "f(",
    "null",
]


@given(st.lists(st.sampled_from([*WORDS, " "]), max_size=30).map("".join))
def test_any_tokens_are_read_or_refused(source: str) -> None:
    """The same for texts made of CEL's own words."""
    error = refusal(source)
    assert error is None or 0 <= error.offset <= len(source)


def test_tokens_are_read_on_demand() -> None:
    """What stands behind the end of an expression is never looked at."""
    stream = tokens("a } § not CEL")
    assert [next(stream).text, next(stream).text] == ["a", "}"]
