"""Conditions as the planner uses them: compile an expression once, evaluate it with the variables of a run. Pure.

One front end (`parser`, `kinds`, `reads`, `emit`) reads every expression; a `Backend` runs what it emits:

    cpp      cel-expr-python, Google's C++ engine; the default where it is installed
    python   cel-python, in pure Python; the fallback, and the oracle of the differential tests

What both do alike, by the front end or by the backends' own care:

- An evaluation that fails raises `ConditionError`. It is never false, nor null, nor a value.
- Numbers compare by value whatever their kind (`1 == 1.0`, `output.confidence >= 1`); arithmetic converts nothing:
  `input.n * 2` fails where `n` is 1.5; write `double(input.n) * 2.0`.
- A result is a JSON value. Bytes, timestamps, durations, types and numbers that are not finite have none, so they are
  an error (`condition.not_json`) that says how to convert them: `string(…)`.
- The keys of a resulting map are sorted: engines keep no order of their own.
- `map` and `filter` go through lists only, because the order of a map's keys is nobody's. `all`, `exists` and
  `exists_one` go through both.
- `len(x)` is `size(x)`. Messages and optional syntax (`a.?b`) are refused when an expression is compiled.
- Text with NUL characters or halves of surrogate pairs is refused: the C++ engine would cut it short.
- An expression that is only a path (`output.items[0]`) is looked up without an engine: nothing is converted.

What stays different, and is listed by the tests: the Python engine also stops after 40,000 steps of any kind (both stop
after 10,000 elements in macros), keeps microseconds where C++ keeps nanoseconds, and has no map with both of the keys 1
and true; each brings time zones of its own. The words of a reason are not part of the interface, and which of several
errors inside of `all` or `exists` over a map is reported is nobody's either. A run keeps the name and version of its
engine.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from agentflow.errors import ConfigError
from agentflow_planner.conditions.backend import Backend, Runner
from agentflow_planner.conditions.emit import emit
from agentflow_planner.conditions.kinds import Kind, check
from agentflow_planner.conditions.parser import parse
from agentflow_planner.conditions.reads import MISSING, Read, look_up, path_of, pruned, reads_of, shown_values
from agentflow_planner.conditions.syntax import Node
from agentflow_planner.errors import ConditionError, EvaluationFailed, ExpressionError

Choice: TypeAlias = Literal["auto", "cpp", "python"]
"""What `AF_CEL_ENGINE` may say."""

CACHED = 1024
"""Compiled programs an engine keeps."""


class Conditions(Protocol):
    """What evaluates conditions."""

    name: str
    version: str

    def compile(self, expression: str) -> "Program":
        """Compile an expression; raises `ExpressionError` with the place."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression."""

    expression: str
    kind: Kind
    """The kind of its value, `dyn` where that depends on the variables."""
    found: tuple[Read, ...]
    """What it reads, with places."""
    run: Runner
    is_path: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The paths of variables it mentions, such as `output.confidence`, in order, each once."""
        return tuple(dict.fromkeys(read.path for read in self.found))

    @property
    def roots(self) -> tuple[str, ...]:
        """The variables it mentions, each once."""
        return tuple(dict.fromkeys(read.root for read in self.found))

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value as plain JSON; raises `ConditionError`, for whatever reason it has none."""
        for root in self.roots:
            if root not in variables:
                raise ConditionError(self.expression, f"there is no variable {root!r}")
        try:
            if self.is_path:
                return self.run(variables)
            view = pruned(variables, self.found)
            _refuse_what_engines_mangle(view)
            return self.run(view)
        except EvaluationFailed as error:
            raise ConditionError(self.expression, error.message, code=error.error_code) from error

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """The value of a condition; raises `ConditionError`, `condition.not_bool` for anything that is no bool."""
        value = self.evaluate(variables)
        if not isinstance(value, bool):
            reason = f"a condition yields true or false, this one {_described(value)}"
            raise ConditionError(self.expression, reason, code="condition.not_bool", found=_described(value))
        return value


def read_values(program: Program, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The values a program read, by path and bounded, as `agentflow.payloads.Evaluated.values` records them."""
    return shown_values(variables, program.found)


class Engine:
    """A backend with the front end before it and a cache of programs."""

    def __init__(self, backend: Backend, cached: int = CACHED) -> None:
        self.name = backend.name
        self.version = backend.version
        self._backend = backend
        self._programs = functools.lru_cache(maxsize=cached)(self._compile)

    def __repr__(self) -> str:
        return f"Engine({self.name}/{self.version})"

    def compile(self, expression: str) -> Program:
        """Compile an expression, or find it compiled; raises `ExpressionError` with the place."""
        return self._programs(expression)

    def _compile(self, expression: str) -> Program:
        node = parse(expression)
        kind, problems = check(node)
        if problems:
            offset, code, message, found, allowed = problems[0]
            raise ExpressionError(expression, message, offset=offset, code=code, found=found, allowed=allowed)
        reads = reads_of(node)
        path = path_of(node)
        if path is not None and reads:
            return Program(expression, kind, reads, functools.partial(_follow, path), is_path=True)
        return Program(expression, kind, reads, self._runner(expression, node, reads))

    def _runner(self, expression: str, node: Node, reads: tuple[Read, ...]) -> Runner:
        roots = tuple(sorted({read.root for read in reads}))
        try:
            return self._backend.compile(emit(node, self._backend.dialect), roots)
        except EvaluationFailed as error:
            raise ExpressionError(expression, error.message, code=error.error_code) from error


def _follow(path: Read, variables: Mapping[str, Any]) -> Any:
    """The value a path leads to."""
    value = variables[path.root]
    for step in path.steps:
        if isinstance(value, dict):
            if not isinstance(step, str) or step not in value:
                raise EvaluationFailed(f"no such key: {step!r}")
        elif isinstance(value, (list, tuple)) and isinstance(step, int):
            if not 0 <= step < len(value):
                raise EvaluationFailed(f"index out of range: {step} of {len(value)}")
        else:
            raise EvaluationFailed(f"no such overload: {step!r} of {_described(value)}")
        value = look_up(value, (step,))
    assert value is not MISSING
    return value


def _described(value: Any) -> str:
    """What a value is, for a message: the kind, and the value when it is short."""
    match value:
        case None:
            return "null"
        case bool():
            return f"bool {str(value).lower()}"
        case int() | float():
            return f"{'int' if isinstance(value, int) else 'double'} {value}"
        case str():
            return f"string {value[:40]!r}"
        case dict():
            return f"map of {len(value)}"
        case _:
            return f"list of {len(value)}"


def _refuse_what_engines_mangle(view: Mapping[str, Any]) -> None:
    """Refuse text an engine cannot carry. The encoder looks at every character far faster than a loop here would."""
    try:
        encoded = msgspec.json.encode(view)
    except (UnicodeEncodeError, msgspec.EncodeError, OverflowError, TypeError, RecursionError) as error:
        raise EvaluationFailed(f"a value is not JSON: {error}", code="condition.not_json") from error
    if b"\\u0000" in encoded and _has_nul(view):
        raise EvaluationFailed("text with NUL characters is not supported", code="condition.not_json")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any("\0" in str(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(map(_has_nul, value))


def engine_for(choice: Choice = "auto") -> Engine:
    """The engine a setting asks for; `auto` takes the C++ one where it is installed.

    Raises `ConfigError` for one that is not installed. Importing an engine takes time, so it happens here.
    """
    wanted = choice if choice != "auto" else ("cpp" if _installed("cel_expr_python") else "python")
    if wanted == "cpp":
        _require("cel_expr_python", "agentflow-planner[cel]", choice)
        from agentflow_planner.conditions.cpp import CppBackend

        return Engine(CppBackend())
    _require("celpy", "cel-python", choice)
    from agentflow_planner.conditions.python import PythonBackend

    return Engine(PythonBackend())


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _require(module: str, distribution: str, choice: Choice) -> None:
    if not _installed(module):
        raise ConfigError(
            f"the condition engine {choice!r} needs {distribution}, which is not installed",
            code="condition.engine_missing",
            found=choice,
            allowed="auto, cpp, python",
        )
