"""Strategies for CEL expressions and the JSON values they are evaluated with."""

from typing import Any

from hypothesis import strategies as st

INTS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**53 - 1, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), -(2**53) - 1]),
    st.integers(-(2**63), 2**63 - 1),
)
DOUBLES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1.5, 2.0, 0.1, 1e6, 123456.5, 1e-5, 1e21, 2.0**53, 2.0**63, 1e300]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "b", "ab", "A", "1", "true", "é", "😀", "a.b", "it's", 'a"b', "\\", "\n", "2026-01-01T00:00:00Z"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
SCALARS = st.one_of(st.none(), st.booleans(), INTS, DOUBLES, TEXTS)
KEYS = st.sampled_from(["a", "b", "c", "items", "n", "package", "a b"])
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)

VARIABLES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "input": JSON,
        "output": st.dictionaries(KEYS, JSON, max_size=5),
        "context": st.fixed_dictionaries({"a": SCALARS, "n": INTS, "items": st.lists(SCALARS, max_size=4)}),
    }
)


def quoted(text: str) -> str:
    """A CEL string literal."""
    return "'" + "".join(c if " " <= c <= "~" and c not in "'\\" else f"\\U{ord(c):08x}" for c in text) + "'"


LITERALS = st.one_of(
    st.sampled_from(["null", "true", "false", "1u", "0", "1", "-1", "1.0", "'a'", "[]", "{}", "b'a'"]),
    INTS.map(str),
    DOUBLES.map(repr),
    TEXTS.map(quoted),
)
PATHS = st.sampled_from(
    [
        "input",
        "input.a",
        "input.items",
        "output",
        "output.a",
        "output.b",
        "output.items",
        "output.n",
        "output.a.b",
        "output['a b']",
        "output.package",
        "context.a",
        "context.n",
        "context.items",
        "context.items[0]",
        "output[context.a]",
    ]
)
VARIABLE = "x"


def _anything(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Operators over operands that may not suit them."""
    operators = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%", "&&", "||"])
    functions = st.sampled_from(["size", "string", "int", "double", "uint", "bool", "type", "len", "dyn", "bytes"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(" ".join).map("({})".format),
        st.tuples(functions, inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]})[{t[1]}]"),
        inner.map("!({})".format),
        inner.map("-({})".format),
    )


_bools: st.SearchStrategy[str] = st.deferred(lambda: BOOLS)
_numbers: st.SearchStrategy[str] = st.deferred(lambda: NUMBERS)
_texts: st.SearchStrategy[str] = st.deferred(lambda: STRINGS)
_lists: st.SearchStrategy[str] = st.deferred(lambda: LISTS)
_values = st.one_of(PATHS, LITERALS, _numbers, _texts, _lists)
_bodies = st.one_of(
    st.sampled_from(
        ["x == 1", "x > 0", "x.a == 1", "x in output", "size(x) > 1", "has(x.a)", "x == input", "x != 'a'"]
    ),
    _bools,
)


def _joined(
    left: st.SearchStrategy[str], operators: list[str], right: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    return st.tuples(left, st.sampled_from(operators), right).map(" ".join).map("({})".format)


def _macro(names: list[str], body: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    targets = st.one_of(_lists, PATHS)
    return st.tuples(targets, st.sampled_from(names), body).map(lambda t: f"{t[0]}.{t[1]}(x, {t[2]})")


NUMBERS: st.SearchStrategy[str] = st.one_of(
    PATHS,
    INTS.map(str),
    DOUBLES.map(repr),
    st.one_of(_lists, _texts, PATHS).map("size({})".format),
    _joined(_numbers, ["+", "-", "*", "/", "%"], _numbers),
    _texts.map("int({})".format),
    st.one_of(_numbers, _bools).map("double({})".format),
    st.one_of(_numbers, _bools).map("int({})".format),
    st.one_of(_numbers, _bools).map("uint({})".format),
)
STRINGS: st.SearchStrategy[str] = st.one_of(
    PATHS,
    TEXTS.map(quoted),
    _joined(_texts, ["+"], _texts),
    st.one_of(_numbers, _bools, _texts).map("string({})".format),
)
LISTS: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(["output.items", "context.items", "input.items", "[]"]),
    st.lists(_values, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    _joined(_lists, ["+"], _lists),
    _macro(["filter"], _bodies),
    _macro(["map"], st.one_of(_bodies, st.sampled_from(["x", "[x]", "x + x", "string(x)", "{'a': x}"]))),
)
BOOLS: st.SearchStrategy[str] = st.one_of(
    PATHS,
    st.sampled_from(["true", "false"]),
    _joined(_numbers, ["==", "!=", "<", "<=", ">", ">="], _numbers),
    _joined(_texts, ["==", "!=", "<", "<=", ">", ">="], _texts),
    _joined(_values, ["==", "!="], _values),
    _joined(_values, ["in"], st.one_of(_lists, PATHS)),
    _joined(_bools, ["&&", "||"], _bools),
    st.tuples(_bools, _bools, _bools).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    _bools.map("!({})".format),
    st.sampled_from(["has(output.a)", "has(input.items)", "has(output.a.b)", "has(context.a)"]),
    st.tuples(_texts, st.sampled_from(["contains", "startsWith", "endsWith"]), _texts).map(
        lambda t: f"({t[0]}).{t[1]}({t[2]})"
    ),
    _macro(["all", "exists", "exists_one"], _bodies),
)

EXPRESSIONS: st.SearchStrategy[str] = st.one_of(
    BOOLS,
    NUMBERS,
    STRINGS,
    LISTS,
    st.recursive(st.one_of(PATHS, LITERALS), _anything, max_leaves=8),
)
"""Expressions over `VARIABLES`; most could be meant, some are wrong in one way or another."""
