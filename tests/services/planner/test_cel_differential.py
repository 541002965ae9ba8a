"""The two engines against each other, on generated expressions and values; and against CEL's conformance cases."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from agentflow_planner.conditions import Choice
from agentflow_planner.errors import ConditionError
from tests.services.planner.engines import each_engine, engine_or_skip, outcome
from tests.services.planner.expressions import EXPRESSIONS, VARIABLES
from tests.services.planner.textproto import Case, read_cases
from tests.support.profiles import PROFILE

EXAMPLES = 3000 if PROFILE == "ci" else 300

CASES = (
    Path(os.environ.get("AF_CONFORMANCE_DIR") or Path(__file__).resolve().parents[4] / "shared" / "conformance") / "cel"
)
"""Read when tests are collected: each test hides the environment."""

KNOWN_BETWEEN_ENGINES = {
    "string(0.0 / 0.0)": "the text of a number that is none: '-nan' from C++, 'nan' from Python",
    "string(timestamp('2026-01-01T00:00:00.123456789Z'))": "Python keeps microseconds, C++ nanoseconds",
    "{1: 'x', true: 'y'}[1]": "a map of the Python engine cannot have both of the keys 1 and true",
    "output.all(x, x + 0 + 0 + 0 + 0 + 0 + 0 >= 0)": "the Python engine counts every step, C++ only elements",
}
"""Expressions the engines disagree about (`output` is a list of 8000 numbers), and why; there is no other kind known."""


@settings(max_examples=EXAMPLES)
@given(source=EXPRESSIONS, variables=VARIABLES)
@example(source="1 == 1.0 && 1u in [1.0]", variables={"input": None, "output": {}, "context": {}})
@example(source="output.map(k, k)", variables={"input": None, "output": {"b": 1, "a": 2}, "context": {}})
@example(source="string(input)", variables={"input": 1234567.0, "output": {}, "context": {}})
@example(source="input == 9007199254740993", variables={"input": 2.0**53, "output": {}, "context": {}})
def test_the_engines_agree(source: str, variables: dict[str, Any]) -> None:
    """The same value of the same type, or a failure with the same code."""
    cpp, python = (outcome(engine_or_skip(choice), source, variables) for choice in ("cpp", "python"))
    assert cpp == python


@pytest.mark.parametrize("source", KNOWN_BETWEEN_ENGINES)
def test_the_known_differences_are_real(source: str) -> None:
    """One that has gone is taken off the list, and out of the documentation."""
    variables = {"output": list(range(8000))}
    cpp, python = (outcome(engine_or_skip(choice), source, variables) for choice in ("cpp", "python"))
    assert cpp != python


# --- conformance -------------------------------------------------------------------------------------------------------

REFUSED = {
    "messages": "messages cannot be made here",
    "quoted fields": "['field']",
    "not JSON": "is no JSON value",
    "order of maps": "go through lists only",
    "unknown variable": "there is no variable",
    "unknown function": "there is no function",
    "no bool": "a side of",
}
"""What the planner refuses on purpose, by the words of the refusal; `engine.py` and `kinds.py` say why."""

DEVIATIONS: dict[Choice, dict[str, str]] = {
    "cpp": {"fields/qualified_identifier_resolution/map_value_repeat_key_heterogeneous": "keeps the keys 0 and 0u"},
    "python": {"timestamps/timestamp_conversions/toString_timestamp_nanos": "microseconds, not nanoseconds"},
}
"""Cases an engine gets wrong, and how."""

LEAST_SHARE = 0.99
"""Share of cases that pass, of those the planner means to support; refused on purpose is not counted."""


def cases() -> list[Case]:
    """Every conformance case with JSON-like variables and results."""
    if not CASES.is_dir():
        pytest.skip(f"no conformance cases in {CASES}")
    return [case for path in sorted(CASES.glob("*.textproto")) for case in read_cases(path) if isinstance(case, Case)]


def passes(choice: Choice, case: Case) -> tuple[bool, str]:
    """Whether a case passes, and what came instead."""
    try:
        value = engine_or_skip(choice).compile(case.expr).evaluate(case.variables)
    except ConditionError as error:
        return case.fails, error.reason
    return not case.fails and _same(value, case.value), repr(value)


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float) and math.isnan(expected):
        return math.isnan(value)
    return repr(value) == repr(expected)


@each_engine
def test_conformance_cases_pass_or_are_refused_on_purpose(choice: Choice) -> None:
    """Every case is accounted for: it passes, or is refused for a listed reason, or is a listed deviation."""
    found = cases()
    refused: dict[str, int] = dict.fromkeys(REFUSED, 0)
    wrong: dict[str, str] = {}
    for case in found:
        good, instead = passes(choice, case)
        reason = next((name for name, words in REFUSED.items() if words in instead), "")
        if not good and reason:
            refused[reason] += 1
        elif not good:
            wrong[str(case)] = f"{case.expr} gave {instead}, expected {case.value!r}"
    assert set(wrong) == set(DEVIATIONS[choice]), wrong
    meant = len(found) - sum(refused.values())
    assert meant >= 500
    assert (meant - len(wrong)) / meant >= LEAST_SHARE
    assert all(refused.values()), refused


def test_the_conformance_cases_are_read_in_full() -> None:
    """The reader loses none: with those that need what is no JSON, there are as many as the files hold."""
    if not CASES.is_dir():
        pytest.skip(f"no conformance cases in {CASES}")
    for path in CASES.glob("*.textproto"):
        written = sum(line.strip() in {"test {", "test: {"} for line in path.read_text("utf-8").splitlines())
        assert len(list(read_cases(path))) == written
