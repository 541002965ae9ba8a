"""The syntax tree of a CEL expression, the same for every engine. Pure.

Engines differ in what their parsers accept, in where they say an error is, and in what they can tell about an
expression before it runs. So the planner reads expressions itself (`lexer`, `parser`), checks them (`kinds`), knows
what they read (`reads`), and hands each engine a text it is known to take (`emit`). The grammar is that of the
language definition (github.com/google/cel-spec, doc/langdef.md) without messages: a workflow's values are JSON.

Every node carries `offset`, the place in the expression it is about, in characters from 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str | bytes | None
ScalarKind: TypeAlias = OneOf["null", "bool", "int", "uint", "double", "string", "bytes"]


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant written in the expression."""

    offset: int
    value: Scalar
    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable, or the name of a type."""

    offset: int
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`; the offset is the field's."""

    offset: int
    operand: "Node"
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    """`operand[index]`; the offset is the bracket's."""

    offset: int
    operand: "Node"
    index: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """`function(args)` or `target.function(args)`; the offset is the function name's."""

    offset: int
    function: str
    target: "Node | None"
    args: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Has:
    """`has(operand.field)`: whether the field is there."""

    offset: int
    operand: "Select"


@dataclass(frozen=True, slots=True)
class Macro:
    """`target.name(variable, args…)`: one of `all`, `exists`, `exists_one`, `filter`, `map`."""

    offset: int
    name: str
    target: "Node"
    variable: str
    args: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Unary:
    """`!operand` or `-operand`."""

    offset: int
    op: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands; the offset is the operator's."""

    offset: int
    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Chain:
    """Two or more operands joined by `&&` or by `||`; grouping makes no difference to what they mean."""

    offset: int
    op: str
    operands: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Ternary:
    """`condition ? then : other`; the offset is the question mark's."""

    offset: int
    condition: "Node"
    then: "Node"
    other: "Node"


@dataclass(frozen=True, slots=True)
class ListExpr:
    """`[items]`."""

    offset: int
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class MapExpr:
    """`{key: value}`."""

    offset: int
    entries: "tuple[tuple[Node, Node], ...]"


Node: TypeAlias = (
    Literal | Ident | Select | Index | Call | Has | Macro | Unary | Binary | Chain | Ternary | ListExpr | MapExpr
)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below one, in the order they are written."""
    match node:
        case Select() | Unary() | Has():
            return (node.operand,)
        case Index():
            return (node.operand, node.index)
        case Call():
            return (*((node.target,) if node.target is not None else ()), *node.args)
        case Macro():
            return (node.target, *node.args)
        case Binary():
            return (node.left, node.right)
        case Chain():
            return node.operands
        case Ternary():
            return (node.condition, node.then, node.other)
        case ListExpr():
            return node.items
        case MapExpr():
            return tuple(part for entry in node.entries for part in entry)
        case Literal() | Ident():
            return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and everything below it."""
    yield node
    for child in children(node):
        yield from walk(child)
