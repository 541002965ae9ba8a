"""What an expression can be told before it runs: unknown functions, wrong arguments, operators that cannot work. Pure.

A workflow's variables are JSON of unknown shape (`dyn`), so only what follows from literals, operators and functions
is checked; anything else is for the evaluation to find out. What is refused fails whatever the variables are, though
an evaluation might never come to it (`true || 1 + 'a' == 2`); a side of `&&` or `||` that is certainly no bool is
refused too, which CEL lets pass where the other side decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

from agentflow_planner.conditions.syntax import (
    Binary,
    Call,
    Chain,
    Has,
    Ident,
    Index,
    ListExpr,
    Literal,
    Macro,
    MapExpr,
    Node,
    Select,
    Ternary,
    Unary,
    children,
)

Kind: TypeAlias = OneOf[
    "bool", "bytes", "double", "duration", "dyn", "int", "list", "map", "null", "string", "timestamp", "type", "uint"
]
Problem: TypeAlias = tuple[int, str, str, str, tuple[str, ...]]
"""Offset, code, message, what was found, what is allowed."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One way to call a function."""

    result: Kind
    args: tuple[Kind, ...]
    """The target of a method is the first."""


def _same(result: Kind, *kinds: Kind) -> tuple[Overload, ...]:
    return tuple(Overload(result, (kind,)) for kind in kinds)


_TIME_PARTS = ("getHours", "getMilliseconds", "getMinutes", "getSeconds")
_DATE_PARTS = ("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getMonth", *_TIME_PARTS)
_ABOUT_TEXT = {
    name: (Overload("bool", ("string", "string")),) for name in ("contains", "endsWith", "startsWith", "matches")
}

FUNCTIONS: dict[str, tuple[Overload, ...]] = {
    "bool": _same("bool", "bool", "string"),
    "bytes": _same("bytes", "bytes", "string"),
    "double": _same("double", "double", "int", "uint", "string"),
    "duration": _same("duration", "duration", "string"),
    "dyn": (Overload("dyn", ("dyn",)),),
    "int": _same("int", "int", "uint", "double", "string", "timestamp", "bool"),
    "matches": _ABOUT_TEXT["matches"],
    "size": _same("int", "string", "bytes", "list", "map"),
    "string": _same("string", "string", "bool", "int", "uint", "double", "bytes", "timestamp", "duration"),
    "timestamp": _same("timestamp", "timestamp", "string", "int"),
    "type": (Overload("type", ("dyn",)),),
    "uint": _same("uint", "uint", "int", "double", "string"),
}
"""Functions called as `f(x)`; `has` is no function but syntax, and `len` is read as `size`."""

METHODS: dict[str, tuple[Overload, ...]] = {
    **_ABOUT_TEXT,
    "size": FUNCTIONS["size"],
    **{
        name: (
            Overload("int", ("timestamp",)),
            Overload("int", ("timestamp", "string")),
            *((Overload("int", ("duration",)),) if name in _TIME_PARTS else ()),
        )
        for name in _DATE_PARTS
    },
}
"""Functions called as `x.f()`."""

TYPE_NAMES: dict[str, Kind] = dict.fromkeys(
    ("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"), "type"
)
"""Names that stand for types, as in `type(x) == string`."""

_NUMBERS: frozenset[Kind] = frozenset({"double", "int", "uint"})
_ORDERED: frozenset[Kind] = frozenset({"bool", "bytes", "duration", "string", "timestamp"})
_SUMS: dict[tuple[Kind, Kind], Kind] = {
    **{(kind, kind): kind for kind in ("int", "uint", "double", "string", "bytes", "list", "duration")},
    ("timestamp", "duration"): "timestamp",
    ("duration", "timestamp"): "timestamp",
}
_DIFFERENCES: dict[tuple[Kind, Kind], Kind] = {
    **{(kind, kind): kind for kind in ("int", "uint", "double", "duration")},
    ("timestamp", "timestamp"): "duration",
    ("timestamp", "duration"): "timestamp",
}
_PRODUCTS: dict[tuple[Kind, Kind], Kind] = {(kind, kind): kind for kind in ("int", "uint", "double")}
_REMAINDERS: dict[tuple[Kind, Kind], Kind] = {(kind, kind): kind for kind in ("int", "uint")}
_ARITHMETIC = {"+": _SUMS, "-": _DIFFERENCES, "*": _PRODUCTS, "/": _PRODUCTS, "%": _REMAINDERS}


def check(root: Node) -> tuple[Kind, tuple[Problem, ...]]:
    """The kind of an expression's value (`dyn` when it depends on the variables), and what is wrong with it."""
    checker = _Checker()
    return checker.kind(root), tuple(sorted(checker.problems))


class _Checker:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.scope: list[str] = []

    def refuse(self, node: Node, code: str, message: str, found: str = "", allowed: tuple[str, ...] = ()) -> Kind:
        """Note what is wrong; the value is unknown from there on."""
        self.problems.append((node.offset, code, message, found, allowed))
        return "dyn"

    def kind(self, node: Node) -> Kind:
        """The kind of a node's value."""
        match node:
            case Literal():
                return node.kind
            case Ident():
                return "dyn" if node.name in self.scope else TYPE_NAMES.get(node.name, "dyn")
            case Select() | Has():
                return self.selected(node)
            case Index():
                return self.indexed(node)
            case Call():
                return self.called(node)
            case Macro():
                return self.macro(node)
            case _:
                return self.operator(node)

    def operator(self, node: Unary | Binary | Chain | Ternary | ListExpr | MapExpr) -> Kind:
        """The kind of what an operator or a pair of brackets makes."""
        kinds = [self.kind(child) for child in children(node)]
        match node:
            case Unary():
                return self.unary(node, kinds[0])
            case Binary():
                return self.binary(node, kinds[0], kinds[1])
            case Chain():
                return self.chain(node, kinds)
            case Ternary():
                if kinds[0] not in {"bool", "dyn"}:
                    self.no_overload(node.condition, "a condition before '?'", kinds[:1], ("bool",))
                return kinds[1] if kinds[1] == kinds[2] else "dyn"
            case ListExpr():
                return "list"
            case MapExpr():
                return "map"

    def no_overload(self, node: Node, what: str, kinds: list[Kind], allowed: tuple[str, ...] = ()) -> Kind:
        """Refuse values of these kinds."""
        found = ", ".join(kinds)
        return self.refuse(node, "condition.type", f"{what} cannot be of {found}", found, allowed)

    def selected(self, node: Select | Has) -> Kind:
        """A field: only maps have some."""
        select = node.operand if isinstance(node, Has) else node
        kind = self.kind(select.operand)
        if kind not in {"map", "dyn"}:
            self.no_overload(select, f"what has the field {select.field!r}", [kind], ("map",))
        return "bool" if isinstance(node, Has) else "dyn"

    def indexed(self, node: Index) -> Kind:
        """An element of a list or the value of a key."""
        operand, index = self.kind(node.operand), self.kind(node.index)
        if operand not in {"list", "map", "dyn"}:
            return self.no_overload(node, "what is indexed", [operand], ("list", "map"))
        wanted = _NUMBERS | {"dyn"} if operand == "list" else _NUMBERS | {"dyn", "string", "bool"}
        if index not in wanted:
            return self.no_overload(node, f"the index of a {operand}", [index], tuple(sorted(wanted - {"dyn"})))
        return "dyn"

    def called(self, node: Call) -> Kind:
        """The result of a function that exists and takes these arguments."""
        given = [self.kind(child) for child in children(node)]
        known = FUNCTIONS if node.target is None else METHODS
        overloads = known.get(node.function)
        name = f"{node.function}()" if node.target is None else f".{node.function}()"
        if overloads is None:
            message = f"there is no function {name}{_other_form(node)}"
            return self.refuse(node, "condition.unknown_function", message, node.function, tuple(sorted(known)))
        fitting = [overload for overload in overloads if _fits(overload.args, given)]
        if not fitting:
            allowed = tuple(", ".join(o.args[1:] if node.target else o.args) or "nothing" for o in overloads)
            shown = given if node.target is None else given[1:]
            message = f"{name} does not take ({', '.join(shown)})" + (f" of {given[0]}" if node.target else "")
            return self.refuse(node, "condition.type", message, ", ".join(given), tuple(dict.fromkeys(allowed)))
        results = {overload.result for overload in fitting}
        return results.pop() if len(results) == 1 else "dyn"

    def macro(self, node: Macro) -> Kind:
        """A list, or a bool, over the elements of a list or the keys of a map."""
        target = self.kind(node.target)
        if target not in {"list", "map", "dyn"}:
            self.no_overload(node, f"what .{node.name}() goes through", [target], ("list", "map"))
        self.scope.append(node.variable)
        kinds = [self.kind(arg) for arg in node.args]
        self.scope.pop()
        if (node.name != "map" or len(kinds) == 2) and kinds[0] not in {"bool", "dyn"}:
            self.no_overload(node.args[0], f"the condition of .{node.name}()", kinds[:1], ("bool",))
        return "list" if node.name in {"filter", "map"} else "bool"

    def unary(self, node: Unary, kind: Kind) -> Kind:
        """Not, or minus."""
        wanted: tuple[Kind, ...] = ("bool",) if node.op == "!" else ("int", "double")
        if kind in wanted:
            return kind
        if kind != "dyn":
            self.no_overload(node, f"what stands behind {node.op!r}", [kind], wanted)
        return "bool" if node.op == "!" else "dyn"

    def chain(self, node: Chain, kinds: list[Kind]) -> Kind:
        """Bools on every side."""
        for operand, kind in zip(node.operands, kinds, strict=True):
            if kind not in {"bool", "dyn"}:
                self.no_overload(operand, f"a side of {node.op!r}", [kind], ("bool",))
        return "bool"

    def binary(self, node: Binary, left: Kind, right: Kind) -> Kind:
        """A comparison, a membership, or arithmetic."""
        if node.op in {"==", "!="}:
            return "bool"
        if node.op == "in":
            if right not in {"list", "map", "dyn"}:
                self.no_overload(node, "what stands behind 'in'", [right], ("list", "map"))
            return "bool"
        if node.op in _ARITHMETIC:
            return self.arithmetic(node, left, right)
        unknown = "dyn" in {left, right} and {left, right} <= _NUMBERS | _ORDERED | {"dyn"}
        if not unknown and not {left, right} <= _NUMBERS and not (left == right and left in _ORDERED):
            self.no_overload(node, f"the sides of {node.op!r}", [left, right], ("two numbers", "two of the same kind"))
        return "bool"

    def arithmetic(self, node: Binary, left: Kind, right: Kind) -> Kind:
        """CEL converts no numbers in arithmetic: both sides are of one kind."""
        table = _ARITHMETIC[node.op]
        fitting = {result for sides, result in table.items() if _fits(sides, [left, right])}
        if not fitting:
            allowed = tuple(f"{a} {node.op} {b}" for a, b in table)
            hint = "; convert one side with double() or int()" if {left, right} <= _NUMBERS else ""
            message = f"{left} {node.op} {right} has no meaning in CEL{hint}"
            return self.refuse(node, "condition.type", message, f"{left} {node.op} {right}", allowed)
        return fitting.pop() if len(fitting) == 1 else "dyn"


def _other_form(node: Call) -> str:
    """A hint for a function that is called as a method, or the other way about."""
    if node.target is None:
        return f"; it is called as x.{node.function}()" if node.function in METHODS else ""
    return f"; it is called as {node.function}(x)" if node.function in FUNCTIONS else ""


def _fits(wanted: tuple[Kind, ...], given: list[Kind]) -> bool:
    """Whether values of the given kinds could be what is wanted."""
    return len(wanted) == len(given) and all(
        "dyn" in {want, kind} or want == kind for want, kind in zip(wanted, given, strict=True)
    )


def unbound(root: Node) -> Iterator[Ident]:
    """Every mention of a variable that comes from outside: not a macro's own, and not the name of a type."""

    def visit(node: Node, bound: frozenset[str]) -> Iterator[Ident]:
        if isinstance(node, Ident) and node.name not in bound and node.name not in TYPE_NAMES:
            yield node
        if isinstance(node, Macro):
            yield from visit(node.target, bound)
            for arg in node.args:
                yield from visit(arg, bound | {node.variable})
            return
        for child in children(node):
            yield from visit(child, bound)

    return visit(root, frozenset())
