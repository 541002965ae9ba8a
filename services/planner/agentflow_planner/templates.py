"""Values with `${…}` in them: a step's `input:` and a run's `output:`. Pure.

    text: "${input.text}"                     exactly one expression: the value, of whatever kind
    title: "Ticket ${input.id}: ${output}"    text around it: text, each value written into it
    price: "$${5}"                            `$${` stands for `${`

In text, a string stands for itself and anything else for its JSON, keys sorted: `true`, `null`, `1.5`, `["a","b"]`.
Mappings and lists are rendered through; their keys are never templates. An expression ends at the `}` that closes it,
so it may contain maps and texts with braces. Rendering the same template with the same variables gives the same value.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentflow_planner.conditions import Conditions, Program
from agentflow_planner.conditions.parser import parse_part
from agentflow_planner.errors import ConditionError, ExpressionError

MAX_TEXT = 1 << 20
"""Characters that expressions may write into the texts of one template."""

MAX_LEVELS = 32
"""Levels of mappings and lists in a template."""

Piece: TypeAlias = str | Program
"""Text to write as it is, or an expression."""


@dataclass(frozen=True, slots=True)
class Part:
    """An expression in a text, and where it starts."""

    source: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with expressions in it."""

    path: str
    pieces: tuple[Piece, ...]

    def render(self, variables: Mapping[str, Any], room: list[int]) -> Any:
        """The value of the one expression, or the text with all values written in."""
        try:
            if len(self.pieces) == 1 and isinstance(self.pieces[0], Program):
                return self.pieces[0].evaluate(variables)
            return "".join(self._written(piece, variables, room) for piece in self.pieces)
        except ConditionError as error:
            raise at_path(error, self.path) from error

    def _written(self, piece: Piece, variables: Mapping[str, Any], room: list[int]) -> str:
        if isinstance(piece, str):
            return piece
        text = as_text(piece.evaluate(variables))
        room[0] -= len(text)
        if room[0] < 0:
            reason = f"values write more than {MAX_TEXT} characters into the texts of one template"
            raise ConditionError(piece.expression, reason, code="condition.too_large")
        return text


@dataclass(frozen=True, slots=True)
class _Constant:
    """A value without expressions."""

    value: Any


_Compiled: TypeAlias = "_Text | _Constant | dict[str, _Compiled] | list[_Compiled]"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template."""

    compiled: _Compiled
    programs: tuple[Program, ...]
    """Every expression in it, in order."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The paths of variables its expressions mention, each once, in order."""
        return tuple(dict.fromkeys(path for program in self.programs for path in program.reads))

    def render(self, variables: Mapping[str, Any]) -> Any:
        """The value; raises `ConditionError` with the `path` of the field whose expression failed."""
        return _render(self.compiled, variables, [MAX_TEXT])


def compile_template(value: Any, engine: Conditions, path: str = "") -> Template:
    """Compile a JSON value with `${…}` in its texts; `path` is where it stands. Raises `ExpressionError`."""
    programs: list[Program] = []
    compiled = _compile(value, engine, path, programs, 0)
    return Template(compiled, tuple(programs))


def split_text(text: str) -> Iterator[str | Part]:
    """The stretches of a text and the expressions in it; raises `ExpressionError` with the offset in the text."""
    at, plain = 0, ""
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            plain += text[at : start - 1] + "${"
            at = start + 2
            continue
        plain += text[at:start]
        if plain:
            yield plain
        _, end = parse_part(text, start + 2)
        yield Part(text[start + 2 : end], start + 2)
        at, plain = end + 1, ""
    if plain or at < len(text):
        yield plain + text[at:]


def as_text(value: Any) -> str:
    """A value as it is written into a text: strings as they are, anything else as JSON with sorted keys."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def at_path(error: ConditionError, path: str) -> ConditionError:
    """The same error, with the path of the field it was raised for."""
    fields = {name: value for name, value in error.fields.items() if name not in {"expression", "reason", "path"}}
    return ConditionError(error.expression, error.reason, code=error.error_code, **fields, path=path)


def below(path: str, step: str | int) -> str:
    """The path of a field or an item: `input.rows[0].text`."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _compile(value: Any, engine: Conditions, path: str, programs: list[Program], level: int) -> _Compiled:
    if level > MAX_LEVELS:
        raise ExpressionError("", f"{path}: more than {MAX_LEVELS} levels", code="condition.too_large")
    match value:
        case str() if "${" in value:
            return _compile_text(value, engine, path, programs)
        case dict():
            return {key: _compile(item, engine, below(path, key), programs, level + 1) for key, item in value.items()}
        case list() | tuple():
            return [_compile(v, engine, below(path, i), programs, level + 1) for i, v in enumerate(value)]
        case _:
            return _Constant(value)


def _compile_text(text: str, engine: Conditions, path: str, programs: list[Program]) -> _Compiled:
    pieces: list[Piece] = []
    for piece in split_text(text):
        if isinstance(piece, str):
            pieces.append(piece)
        else:
            programs.append(engine.compile(piece.source))
            pieces.append(programs[-1])
    if all(isinstance(piece, str) for piece in pieces):
        return _Constant("".join(map(str, pieces)))
    return _Text(path, tuple(pieces))


def _render(compiled: _Compiled, variables: Mapping[str, Any], room: list[int]) -> Any:
    match compiled:
        case _Constant():
            return compiled.value
        case _Text():
            return compiled.render(variables, room)
        case dict():
            return {key: _render(item, variables, room) for key, item in compiled.items()}
        case _:
            return [_render(item, variables, room) for item in compiled]
