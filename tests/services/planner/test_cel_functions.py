"""CEL's functions and operators, one by one, with the same result from every engine."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.conditions import Choice
from agentflow_planner.conditions.celpy_conversions import double_text
from agentflow_planner.errors import ConditionError
from tests.services.planner.engines import CHOICES, each_engine, engine_or_skip
from tests.services.planner.expressions import DOUBLES, INTS, TEXTS, quoted

FAILS = object()
"""Stands for an evaluation that fails."""


def evaluated(choice: Choice, expression: str, x: Any = None) -> Any:
    """The value of an expression over `x`, or `FAILS`; one that does not compile fails the test."""
    program = engine_or_skip(choice).compile(expression)
    try:
        return program.evaluate({"x": x})
    except ConditionError:
        return FAILS


def check(choice: Choice, expression: str, expected: Any, x: Any = None) -> None:
    """An expression has this value of this type, or fails."""
    value = evaluated(choice, expression, x)
    assert (value, type(value)) == (expected, type(expected)), expression


@each_engine
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (-5, "-5"),
        (2**63 - 1, "9223372036854775807"),
        (2**64 - 1, "18446744073709551615"),
        (True, "true"),
        (False, "false"),
        ("as it is", "as it is"),
        (1.0, "1"),
        (-0.0, "-0"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1 / 3, "0.3333333333333333"),
        (100000.0, "100000"),
        (123456.5, "123456.5"),
        (1234567.0, "1.234567e+06"),
        (1e15, "1e+15"),
        (1e21, "1e+21"),
        (1e100, "1e+100"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.5e-7, "1.5e-07"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (None, FAILS),
        ([1], FAILS),
        ({"a": 1}, FAILS),
    ],
)
def test_string_of_a_value(choice: Choice, value: Any, text: Any) -> None:
    """Whole numbers without a point, doubles with the digits that read back, in C++'s notation."""
    check(choice, "string(x)", text, value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_double_reads_back(value: float) -> None:
    """No digit is lost, whatever the notation."""
    assert float(double_text(value)) == value


@each_engine
@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("42", 42),
        ("-42", -42),
        ("+42", 42),
        (" 42 ", 42),
        ("042", 42),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", FAILS),
        ("", FAILS),
        ("4 2", FAILS),
        ("42.0", FAILS),
        ("0x2a", FAILS),
        ("4_2", FAILS),
        ("٤٢", FAILS),
        (42, 42),
        (42.9, 42),
        (-42.9, -42),
        (9.3e18, FAILS),
        (-9.3e18, FAILS),
        (2**63, FAILS),
        (True, 1),
        (False, 0),
        (None, FAILS),
        ([], FAILS),
    ],
)
def test_int_of_a_value(choice: Choice, value: Any, number: Any) -> None:
    """Digits of ASCII, and doubles cut at the point, within 64 bits."""
    check(choice, "int(x)", number, value)


@each_engine
@pytest.mark.parametrize(
    ("value", "number"),
    [("7", 7), ("-7", FAILS), (7, 7), (-7, FAILS), (7.9, 7), (-7.9, FAILS), (2**64 - 1, 2**64 - 1), (2.0e19, FAILS),
     (True, FAILS), (None, FAILS)],
)  # fmt: skip
def test_uint_of_a_value(choice: Choice, value: Any, number: Any) -> None:
    """The same, from zero on."""
    check(choice, "uint(x)", number, value)


@each_engine
@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1.5", 1.5),
        ("-1e3", -1000.0),
        ("1", 1.0),
        (".5", 0.5),
        ("5.", 5.0),
        (" 1.5 ", 1.5),
        ("1_0", FAILS),
        ("1,5", FAILS),
        ("", FAILS),
        ("x", FAILS),
        ("inf", FAILS),
        ("nan", FAILS),
        (3, 3.0),
        (2**63 - 1, float(2**63)),
        (1.25, 1.25),
        (True, FAILS),
        (None, FAILS),
    ],
)
def test_double_of_a_value(choice: Choice, value: Any, number: Any) -> None:
    """Decimal texts and whole numbers; what is not finite has no JSON."""
    check(choice, "double(x)", number, value)


@each_engine
@pytest.mark.parametrize(
    ("value", "truth"),
    [("true", True), ("True", True), ("TRUE", True), ("t", True), ("1", True), ("false", False), ("f", False), ("0", False),
     ("yes", FAILS), ("tRUE", FAILS), ("", FAILS), (True, True), (1, FAILS), (None, FAILS)],
)  # fmt: skip
def test_bool_of_a_value(choice: Choice, value: Any, truth: Any) -> None:
    """A handful of words, and nothing that merely looks like yes."""
    check(choice, "bool(x)", truth, value)


@each_engine
@pytest.mark.parametrize(
    ("value", "size"),
    [("", 0), ("abc", 3), ("äöü", 3), ("😀😀", 2), ("e\u0301", 2), ([], 0), ([1, [2, 3]], 2), ({}, 0), ({"a": 1, "b": 2}, 2),
     (1, FAILS), (None, FAILS), (True, FAILS)],
)  # fmt: skip
def test_size_counts_characters_elements_and_keys(choice: Choice, value: Any, size: Any) -> None:
    """As a function and as a method, and by its other name."""
    for expression in ("size(x)", "x.size()", "len(x)", "x.len()"):
        check(choice, expression, size, value)


@each_engine
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'card lost'.contains('card')", True),
        ("'card lost'.contains('')", True),
        ("'card lost'.contains('Card')", False),
        ("'card'.startsWith('card lost')", False),
        ("''.startsWith('')", True),
        ("'😀b'.endsWith('b')", True),
        ("'card'.endsWith('ard')", True),
        ("'a+b'.matches('a\\\\+b')", True),
        ("'ab'.matches('^b')", False),
        ("'ab'.matches('b$')", True),
        ("'äb'.matches('^.b$')", True),
        ("'AB'.matches('(?i)ab')", True),
        ("'a\\nb'.matches('a.b')", False),
        ("matches('ab', 'b')", True),
        ("'x'.matches('(')", FAILS),
        ("'x'.matches('(?=x)')", FAILS),
        ("'x'.matches('(a)\\\\1')", FAILS),
        ("'a' + 'b' + 'c' == 'abc'", True),
        ("'b' > 'a' && 'a' > 'A' && 'é' > 'z'", True),
        ("'' < 'a'", True),
        ("bytes('é').size()", 2),
        ("string(bytes('é'))", "é"),
        ("string(b'\\xff')", FAILS),
        ("b'ab' < b'b' && b'a' + b'b' == b'ab'", True),
    ],
)
def test_texts(choice: Choice, expression: str, expected: Any) -> None:
    """Searching, RE2 patterns without look-around and back-references, order by code points."""
    check(choice, expression, expected)


@each_engine
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 / -2", -3),
        ("7 % 2", 1),
        ("-7 % 2", -1),
        ("7 % -2", 1),
        ("7u / 2u == 3u && 7u % 2u == 1u", True),
        ("7.0 / 2.0", 3.5),
        ("0 / 5", 0),
        ("5 / 0", FAILS),
        ("5 % 0", FAILS),
        ("5u / 0u == 1u", FAILS),
        ("1.0 / 0.0 > 1e308", True),
        ("9223372036854775807 + 1", FAILS),
        ("-9223372036854775808 - 1", FAILS),
        ("9223372036854775807 * 2", FAILS),
        ("-9223372036854775808 / -1", FAILS),
        ("-9223372036854775808 % -1", FAILS),
        ("-(-9223372036854775808)", FAILS),
        ("0u - 1u", FAILS),
        ("18446744073709551615u + 1u", FAILS),
        ("4294967296 * 4294967296", FAILS),
        ("0.1 + 0.2 == 0.3", False),
        ("1e308 * 10.0 > 1e308", True),
        ("2 * 3 + 4 * 5 - 6", 20),
        ("2 - 3 - 4", -5),
        ("100 / 10 / 5", 2),
        ("-(1 + 2)", -3),
        ("- 1.5", -1.5),
        ("[1] + [2, 3] + []", [1, 2, 3]),
    ],
)
def test_arithmetic(choice: Choice, expression: str, expected: Any) -> None:
    """Whole numbers stay whole and within 64 bits; division cuts towards zero; doubles follow IEEE 754."""
    check(choice, expression, expected)


@each_engine
@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1, 1.5, False),
        (0.0, -0.0, True),
        (2**53, float(2**53), True),
        (2**63 - 1, float(2**63), True),
        (2**64 - 1, 1.8446744073709552e19, True),
        ("1", 1, False),
        ("", None, False),
        (True, 1, False),
        (False, 0, False),
        (None, None, True),
        (None, False, False),
        ([], [], True),
        ([], {}, False),
        ([1, 2], [1.0, 2.0], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([None], [None], True),
        ({}, {}, True),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}, True),
        ({"a": 1}, {"a": None}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]}, True),
        ("é", "e\u0301", False),
    ],
)
def test_equality_is_by_value_and_never_fails(choice: Choice, left: Any, right: Any, same: bool) -> None:
    """Numbers across kinds, everything else within its kind, in lists and maps all the way down; both ways round."""
    engine = engine_or_skip(choice)
    for a, b in ((left, right), (right, left)):
        variables = {"x": {"a": a, "b": b}}
        assert engine.compile("x.a == x.b").holds(variables) is same
        assert engine.compile("x.a != x.b").holds(variables) is not same
        assert engine.compile("x.a in [x.b]").holds(variables) is same


@each_engine
@pytest.mark.parametrize(
    ("left", "right"), [(1, "a"), (1, None), (None, None), ([1], [2]), ({}, {}), ("a", True), (1, True), (None, False)]
)
def test_order_is_for_what_has_one(choice: Choice, left: Any, right: Any) -> None:
    """Numbers with numbers, and two texts, bools, times: anything else fails."""
    for operator in ("<", "<=", ">", ">="):
        with pytest.raises(ConditionError, match="no such overload"):
            engine_or_skip(choice).compile(f"x.a {operator} x.b").evaluate({"x": {"a": left, "b": right}})


@given(left=st.one_of(INTS, DOUBLES), right=st.one_of(INTS, DOUBLES))
def test_numbers_have_one_order(left: float, right: float) -> None:
    """Exactly one of less, equal and greater holds, the same one in both engines."""
    for choice in CHOICES:
        engine = engine_or_skip(choice)
        variables = {"x": {"a": left, "b": right}}
        held = [engine.compile(f"x.a {operator} x.b").holds(variables) for operator in ("<", "==", ">")]
        assert sum(held) == 1
        mixed = isinstance(left, float) or isinstance(right, float)
        expected = (float(left), float(right)) if mixed else (left, right)
        assert held == [expected[0] < expected[1], expected[0] == expected[1], expected[0] > expected[1]]


@given(left=TEXTS, right=TEXTS)
def test_texts_have_one_order(left: str, right: str) -> None:
    """That of their code points, which is that of their UTF-8."""
    for choice in CHOICES:
        held = engine_or_skip(choice).compile(f"{quoted(left)} < x").holds({"x": right})
        assert held is (left.encode() < right.encode())


@each_engine
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("timestamp('2026-11-20T18:00:00Z').getFullYear()", 2026),
        ("timestamp('2026-11-20T18:00:00Z').getMonth()", 10),
        ("timestamp('2026-11-20T18:00:00Z').getDate()", 20),
        ("timestamp('2026-11-20T18:00:00Z').getDayOfMonth()", 19),
        ("timestamp('2026-11-20T18:00:00Z').getDayOfWeek()", 5),
        ("timestamp('2026-11-22T18:00:00Z').getDayOfWeek()", 0),
        ("timestamp('2026-11-20T18:00:00Z').getDayOfYear()", 323),
        ("timestamp('2026-11-20T18:30:15.250Z').getMinutes()", 30),
        ("timestamp('2026-11-20T18:30:15.250Z').getSeconds()", 15),
        ("timestamp('2026-11-20T18:30:15.250Z').getMilliseconds()", 250),
        ("timestamp('2026-11-20T23:30:00Z').getHours('+02:00')", 1),
        ("timestamp('2026-11-20T23:30:00Z').getDate('+02:00')", 21),
        ("timestamp('2026-07-01T12:00:00Z').getHours('Europe/Berlin')", 14),
        ("timestamp('2026-11-20T18:00:00+01:00') == timestamp('2026-11-20T17:00:00Z')", True),
        ("timestamp('2026-11-20T18:00:00Z') < timestamp('2026-11-20T18:00:01Z')", True),
        ("timestamp('2026-11-20T18:00:00Z') + duration('90m') == timestamp('2026-11-20T19:30:00Z')", True),
        ("duration('90m') + timestamp('2026-11-20T18:00:00Z') == timestamp('2026-11-20T19:30:00Z')", True),
        ("timestamp('2026-11-20T18:00:00Z') - duration('1h') == timestamp('2026-11-20T17:00:00Z')", True),
        ("timestamp('2026-11-21T00:00:00Z') - timestamp('2026-11-20T00:00:00Z') == duration('24h')", True),
        ("duration('1h') - duration('90m') == duration('-30m')", True),
        ("duration('1h30m') == duration('5400s') && duration('1h') > duration('59m59s')", True),
        ("duration('1h30m').getMinutes()", 90),
        ("duration('1h30m').getHours()", 1),
        ("duration('1.5s').getMilliseconds()", 500),
        ("duration('-90s').getMinutes()", -1),
        ("string(duration('1h30m'))", "5400s"),
        ("string(duration('1.5s'))", "1.500s"),
        ("string(duration('-1ms'))", "-0.001s"),
        ("string(timestamp('2026-11-20T18:00:00.5+01:00'))", "2026-11-20T17:00:00.500Z"),
        ("string(timestamp(0))", "1970-01-01T00:00:00Z"),
        ("int(timestamp('1970-01-01T00:01:00.9Z'))", 60),
        ("timestamp(timestamp(0)) == timestamp(0) && duration(duration('1s')) == duration('1s')", True),
        ("timestamp('2026-11-20') == timestamp(0)", FAILS),
        ("timestamp('2026-11-20 18:00:00Z') == timestamp(0)", FAILS),
        ("timestamp('2026-11-20T18:00:00') == timestamp(0)", FAILS),
        ("timestamp('2026-13-20T18:00:00Z') == timestamp(0)", FAILS),
        ("timestamp('2026-02-30T18:00:00Z') == timestamp(0)", FAILS),
        ("duration('1d') == duration('24h')", FAILS),
        ("duration('10') == duration('10s')", FAILS),
        ("duration('') == duration('0s')", FAILS),
        ("timestamp('2026-11-20T18:00:00Z').getHours('Nowhere/Land')", FAILS),
    ],
)
def test_times(choice: Choice, expression: str, expected: Any) -> None:
    """Moments and durations are made of texts, compared, and made texts again; they are no results by themselves."""
    check(choice, expression, expected)


@each_engine
@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "int"), (2**63, "uint"), (1.0, "double"), ("a", "string"), (True, "bool"), (None, "null_type"), ([], "list"),
     ({}, "map")],
)  # fmt: skip
def test_the_type_of_a_value_from_json(choice: Choice, value: Any, name: str) -> None:
    """Numbers without a point are ints, or uints where they are too large for one."""
    assert evaluated(choice, f"type(x) == {name}", value) is True
    assert evaluated(choice, "type(type(x)) == type", value) is True


@each_engine
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("[1, 2, 3].all(i, i > 0)", True),
        ("[1, 2, 3].all(i, i > 1)", False),
        ("[1, 2, 3].exists(i, i == 2)", True),
        ("[1, 2, 3].exists_one(i, i > 2)", True),
        ("[1, 2, 3].exists_one(i, i > 1)", False),
        ("[1, 2, 3].filter(i, i % 2 == 1)", [1, 3]),
        ("[1, 2, 3].map(i, i * i)", [1, 4, 9]),
        ("[1, 2, 3].map(i, i > 1, i * i)", [4, 9]),
        ("[].map(i, i.nope)", []),
        ("[[1, 2], [3]].map(l, l.map(i, i + 1))", [[2, 3], [4]]),
        ("[1, 2].map(i, [10, 20].map(j, i + j))", [[11, 21], [12, 22]]),
        ("[1, 2].map(i, [i].exists(i, i == 2))", [False, True]),
        ("[1, 0].exists(i, 1 / i == 1)", True),
        ("[0, 1].exists(i, 1 / i == 1)", True),
        ("[0].exists(i, 1 / i == 1)", FAILS),
        ("[1, 0].all(i, 1 / i == 2)", False),
        ("[0, 1].all(i, 1 / i == 1)", FAILS),
        ("[true, 1].exists(i, i)", True),
        ("[false, 1].exists(i, i)", FAILS),
        ("[1].all(i, 'a' == i || i)", FAILS),
        ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", True),
        ("{'a': 1, 'b': 2}.exists(k, k == 'b')", True),
        ("{'a': 1, 'b': 2}.exists_one(k, k > 'a')", True),
        ("{'a': 1}.map(k, k)", FAILS),
        ("[{'a': 1}, {'a': 2}].filter(m, m.a > 1)[0].a", 2),
        ("[3, 1, 2].filter(i, i < 3).map(i, string(i))", ["1", "2"]),
        ("has({'a': null}.a) && !has({'a': 1}.b)", True),
        ("has({'a': {'b': 1}}.a.b)", True),
        ("{'a': 1}['a'] + {'b': 2}.b", 3),
        ("{1: 'x'}[1] + {1u: 'y'}[1] + {true: 'z'}[true]", "xyz"),
        ("1.0 in {1: 'x'} && !(2 in {1: 'x'})", True),
        ("{'a': 1, 'a': 2}.a", FAILS),
        ("{1.5: 'x'}[1.5]", FAILS),
        ("[1, 2, 3][2]", 3),
        ("[1, 2, 3][3]", FAILS),
        ("[1, 2, 3][1.0]", 2),
        ("'abc'.size() in [3]", True),
        ("true ? 1 : 1 / 0", 1),
        ("false ? 1 / 0 : 2", 2),
        ("1 / 0 == 1 ? 1 : 2", FAILS),
    ],
)
def test_lists_maps_and_macros(choice: Choice, expression: str, expected: Any) -> None:
    """Going through, choosing, looking up; what decides an outcome decides it whatever else fails."""
    check(choice, expression, expected)
