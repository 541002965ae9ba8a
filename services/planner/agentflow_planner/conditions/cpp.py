"""The C++ engine (cel-expr-python, Google's CEL team) as a backend.

What it needs care for, found by trying: it returns evaluation errors as values of type ERROR instead of raising them;
its type checker refuses comparisons the runtime allows (`1 < 1.5`), so it is switched off and `kinds` takes its place;
it goes through maps in an order that changes from process to process, hence `Dialect.guard_maps`; it cuts text at NUL
(`Program` refuses that before); it stops by itself after 10,000 elements in macros and at 32 levels.
"""

import functools
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from cel_expr_python import cel

from agentflow_planner.conditions.backend import Runner
from agentflow_planner.conditions.emit import UNORDERED, Dialect
from agentflow_planner.conditions.results import Plain
from agentflow_planner.errors import EvaluationFailed

DISTRIBUTION = "cel-expr-python"

_TYPES = {"int64": "int", "uint64": "uint", "null_type": "null", "null_": "null"}
_REASONS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"No matching overloads found : {UNORDERED}\("), lambda _: "map() and filter() go through lists only"),
    (re.compile(r"Key not found in map : (.*)"), lambda m: f"no such key: {_key(m[1])}"),
    (re.compile(r"No matching overloads found : <iter_range>"), lambda _: "macros go through lists and maps only"),
    (re.compile(r"No matching overloads found : <jump_condition>"), lambda _: "no such overload: _?_:_"),
    (re.compile(r"No matching overloads found : @in"), lambda _: "no such overload: _in_"),
    (
        re.compile(r"No matching overloads found : \((\w+)\)\.(\w+)\((.*)\)"),
        lambda m: f"no such overload: {_named(f'{m[2]}({m[1]}, {m[3]})')}",
    ),
    (re.compile(r"Invalid container type: '(\w+)"), lambda m: f"no such overload: _[_] of {_TYPES.get(m[1], m[1])}"),
    (re.compile(r"No matching overloads found : (.*)"), lambda m: f"no such overload: {_named(m[1])}"),
    (re.compile(r"Applying SELECT to non-message"), lambda _: "no such overload: a field of what is no map"),
    (re.compile(r"Index error: index=(-?\d+) size=(\d+)"), lambda m: f"index out of range: {m[1]} of {m[2]}"),
    (re.compile(r"Index error: .*got (\w+)"), lambda m: f"no such overload: _[_](list, {_TYPES.get(m[1], m[1])})"),
    (re.compile(r"Invalid map key type"), lambda _: "no such overload: a key of a map"),
    (re.compile(r"divide by zero"), lambda _: "division by zero"),
    (re.compile(r"modulus by zero"), lambda _: "division by zero"),
    (re.compile(r"overflow|out of range|out of u?int64 range|range error"), lambda _: "out of range"),
    (re.compile(r"Iteration budget exceeded"), lambda _: "too many steps"),
    (re.compile(r"duplicate key in map"), lambda _: "duplicate key in map"),
    (re.compile(r"Type conversion error from 'string' to '(\w+)'"), lambda m: f"cannot convert string to {m[1]}"),
    (re.compile(r"String to (\w+) conversion failed"), lambda m: f"cannot convert string to {m[1].lower()}"),
    (re.compile(r"invalid regular expression"), lambda _: "invalid regular expression"),
)


class CppBackend:
    """Runs expressions in C++: some microseconds each."""

    name = DISTRIBUTION
    dialect = Dialect(guard_maps=True)

    def __init__(self) -> None:
        self.version = version(DISTRIBUTION)
        self._environment = functools.lru_cache(maxsize=64)(_environment)

    def compile(self, text: str, roots: tuple[str, ...]) -> Runner:
        """Compile emitted text; raises `EvaluationFailed`."""
        try:
            expression = self._environment(roots).compile(text, disable_check=True)
        except RuntimeError as error:
            raise EvaluationFailed(reason(str(error)), code="condition.syntax") from error
        return functools.partial(_run, expression)


def _environment(roots: tuple[str, ...]) -> Any:
    return cel.NewEnv(variables=dict.fromkeys(roots, cel.Type.DYN))


def _run(expression: Any, view: Mapping[str, Any]) -> Any:
    try:
        value = expression.eval(data=dict(view))
        if value.type() == cel.Type.ERROR:
            raise EvaluationFailed(reason(value.value()))
        return Plain(lambda each: each.value()).convert(value)
    except EvaluationFailed:
        raise
    except Exception as error:  # whatever else the binding raises, it is no result
        raise EvaluationFailed(reason(str(error))) from error


def _key(shown: str) -> str:
    """A key as Python writes it, from the engine's double quotes."""
    return repr(shown[1:-1]) if shown.startswith('"') else shown


def _named(overload: str) -> str:
    """An overload with the names CEL has for types."""
    return re.sub(r"[a-z_0-9]+(?=[,)])", lambda match: _TYPES.get(match[0], match[0]), overload)


def reason(message: str) -> str:
    """The engine's words in those the planner uses for every engine, else the engine's own, bounded."""
    for pattern, words in _REASONS:
        if match := pattern.search(message):
            return words(match)[:200]
    status = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]\s*$", "", message.strip())
    return status.splitlines()[0][:200] if status else "the evaluation failed"
