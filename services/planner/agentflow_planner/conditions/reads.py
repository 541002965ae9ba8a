"""What an expression reads of its variables: for the trace, for checks, and to hand engines no more than that. Pure.

A read is a variable and the fields and literal indexes that follow it, as far as they are written down:
`outputs.search.items[0].title` in full, `output.items` of `output.items[output.n].x`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from agentflow_planner.conditions.kinds import TYPE_NAMES
from agentflow_planner.conditions.lexer import KEYWORDS
from agentflow_planner.conditions.syntax import Has, Ident, Index, Literal, Macro, Node, Select, children

Step: TypeAlias = str | int

MAX_SHOWN = 200
"""Characters of one value in a trace."""

MAX_VALUES = 32
"""Values in one trace."""


@dataclass(frozen=True, slots=True, order=True)
class Read:
    """One thing an expression reads."""

    root: str
    steps: tuple[Step, ...] = ()
    offset: int = 0
    """Where the variable stands in the expression."""
    guarded: bool = False
    """Asked for with `has()`: the last step may be missing."""

    @property
    def path(self) -> str:
        """As it would be written: `output.items[0].title`."""
        return self.root + "".join(map(_written, self.steps))


def _written(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    plain = step.isidentifier() and step.isascii() and step not in KEYWORDS
    return f".{step}" if plain else f"[{step!r}]"


def reads_of(root: Node) -> tuple[Read, ...]:
    """Everything an expression reads, in the order it is written."""
    return tuple(_reads(root, frozenset()))


def _reads(node: Node, bound: frozenset[str]) -> Iterator[Read]:
    path = path_of(node.operand if isinstance(node, Has) else node)
    if path is not None:
        if path.root not in bound and path.root not in TYPE_NAMES:
            yield Read(path.root, path.steps, path.offset, isinstance(node, Has))
        return
    if isinstance(node, Macro):
        yield from _reads(node.target, bound)
        for arg in node.args:
            yield from _reads(arg, bound | {node.variable})
        return
    for child in children(node):
        yield from _reads(child, bound)


def path_of(node: Node) -> Read | None:
    """The read an expression is, if it is nothing else: a variable, its fields and literal indexes."""
    steps: list[Step] = []
    while True:
        match node:
            case Ident():
                return Read(node.name, tuple(reversed(steps)), node.offset)
            case Select():
                steps.append(node.field)
                node = node.operand
            case Index(index=Literal(kind="int" | "string", value=str() | int() as step)):
                steps.append(step)
                node = node.operand
            case _:
                return None


MISSING: Any = object()
"""Stands for a value that is not there."""


def look_up(value: Any, steps: tuple[Step, ...]) -> Any:
    """What the steps lead to from a value, or `MISSING`."""
    for step in steps:
        keyed = isinstance(value, dict) and isinstance(step, str) and step in value
        listed = isinstance(value, (list, tuple)) and isinstance(step, int) and 0 <= step < len(value)
        if not keyed and not listed:
            return MISSING
        value = value[step]
    return value


def pruned(variables: Mapping[str, Any], reads: tuple[Read, ...]) -> dict[str, Any]:
    """The variables, with only those parts of them an expression reads.

    An expression cannot tell the difference: whatever a read goes through keeps its type, whatever it ends at is
    whole, and what is missing stays missing. Engines convert every value they are given, so this bounds their work.
    """
    result: dict[str, Any] = {}
    for root in dict.fromkeys(read.root for read in reads):
        if root in variables:
            result[root] = _pruned(variables[root], [read.steps for read in reads if read.root == root])
    return result


def _pruned(value: Any, paths: list[tuple[Step, ...]]) -> Any:
    if not isinstance(value, dict) or () in paths or any(not isinstance(path[0], str) for path in paths):
        return value
    below: dict[str, list[tuple[Step, ...]]] = {}
    for path in paths:
        below.setdefault(str(path[0]), []).append(path[1:])
    return {key: _pruned(value[key], rest) for key, rest in below.items() if key in value}


def shown_values(variables: Mapping[str, Any], reads: tuple[Read, ...]) -> dict[str, Any]:
    """The values that were read, by path, each bounded; what was missing is left out."""
    values: dict[str, Any] = {}
    for read in reads:
        value = look_up(variables.get(read.root, MISSING), read.steps) if read.root in variables else MISSING
        if value is not MISSING and len(values) < MAX_VALUES:
            values[read.path] = shown(value)
    return values


def shown(value: Any) -> Any:
    """A value for a trace: itself when it is short, else the beginning of its text."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return value if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
