"""A syntax tree as text that an engine is known to take and to understand the same way. Pure.

Every engine is given the same meaning: constants in one notation, grouping made explicit, `map` with a condition as
`filter` and `map`. What an engine needs besides is its `Dialect`.
"""

from dataclasses import dataclass

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

UNORDERED = "map_has_no_order"
"""A function no engine has: calling it on a map is the error that its name says."""

_ITEM = "af_item__"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an engine needs."""

    guard_maps: bool = False
    """Make `map` and `filter` over a map an error: the engine goes through maps in an order that changes from process
    to process, and a decision must be the same everywhere."""
    balance: bool = False
    """Group long chains of `&&` and `||` in halves: the engine descends into them."""


def emit(node: Node, dialect: Dialect) -> str:
    """The text of an expression, with no more brackets than it needs: engines count them as nesting."""
    return _Emitter(dialect).text(node)


def levels(root: Node) -> int:
    """How deep the emitted text is nested, as the C++ engine counts: every operator, bracket and step of a path."""
    deepest, waiting = 0, [(root, 1)]
    while waiting:
        node, level = waiting.pop()
        level += _GUARD_LEVELS if _needs_guard(node) else 0
        deepest = max(deepest, level)
        for child, need in zip(children(node), _needs(node), strict=True):
            waiting.append((child, level + 1 + (_tightness(child) < need)))
    return deepest


_TERNARY, _OR, _AND, _RELATION, _SUM, _PRODUCT, _SIGN, _PRIMARY = range(8)
_TIGHTNESS = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), _RELATION),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "%"), _PRODUCT),
    "||": _OR,
    "&&": _AND,
}
_GUARD_LEVELS = 3


def _tightness(node: Node) -> int:
    """How tightly a node holds together; what is looser than its place allows is put in brackets."""
    match node:
        case Ternary():
            return _TERNARY
        case Binary() | Chain():
            return _TIGHTNESS[node.op]
        case Unary():
            return _SIGN
        case Literal(value=int() | float() as value) if value < 0 or str(value).startswith("-"):
            return _SIGN
        case _:
            return _PRIMARY


def _needs(node: Node) -> tuple[int, ...]:
    """How tightly each child has to hold together where it stands."""
    count = len(children(node))
    match node:
        case Select() | Has() | Unary():
            return (_PRIMARY,)
        case Index() | Macro():
            return (_PRIMARY, *[_TERNARY] * (count - 1))
        case Call():
            return (*[_PRIMARY] * (node.target is not None), *[_TERNARY] * len(node.args))
        case Binary():
            return (_TIGHTNESS[node.op], _TIGHTNESS[node.op] + 1)
        case Chain():
            return (_TIGHTNESS[node.op] + 1,) * count
        case Ternary():
            return (_OR, _OR, _TERNARY)
        case _:
            return (_TERNARY,) * count


class _Emitter:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def text(self, node: Node) -> str:
        """The text of a node."""
        parts = [self.part(child, need) for child, need in zip(children(node), _needs(node), strict=True)]
        match node:
            case Literal():
                return constant(node)
            case Ident():
                return node.name
            case Select():
                return f"{parts[0]}.{node.field}"
            case Index():
                return f"{parts[0]}[{parts[1]}]"
            case Has():
                return f"has({parts[0]})"
            case Call() if node.target is not None:
                return f"{parts[0]}.{node.function}({', '.join(parts[1:])})"
            case Call():
                return f"{node.function}({', '.join(parts)})"
            case Macro():
                return self.macro(node, parts)
            case _:
                return self.operator(node, parts)

    def operator(self, node: Unary | Binary | Chain | Ternary | ListExpr | MapExpr, parts: list[str]) -> str:
        """The text of an operator with its operands, or of something in brackets."""
        match node:
            case Unary():
                return f"{node.op}{parts[0]}"
            case Binary():
                return f"{parts[0]} {node.op} {parts[1]}"
            case Chain():
                return self.chain(node.op, parts)
            case Ternary():
                return f"{parts[0]} ? {parts[1]} : {parts[2]}"
            case ListExpr():
                return f"[{', '.join(parts)}]"
            case MapExpr():
                pairs = zip(parts[::2], parts[1::2], strict=True)
                return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"

    def part(self, node: Node, need: int) -> str:
        """The text of a child, in brackets where it is too loose for its place."""
        text = self.text(node)
        return f"({text})" if _tightness(node) < need else text

    def chain(self, op: str, operands: list[str]) -> str:
        """Operands joined, in halves where the engine needs it."""
        if not self.dialect.balance or len(operands) <= 2:
            return f" {op} ".join(operands)
        half = (len(operands) + 1) // 2
        rest = operands[half:]
        right = rest[0] if len(rest) == 1 else f"({self.chain(op, rest)})"
        return f"({self.chain(op, operands[:half])}) {op} {right}"

    def macro(self, node: Macro, parts: list[str]) -> str:
        """A macro over what it may go through."""
        target, *args = parts
        if self.dialect.guard_maps and _needs_guard(node):
            guarded = f"type({_ITEM}) == map ? {UNORDERED}({_ITEM}) : {_ITEM}"
            target = f"[{self.text(node.target)}].map({_ITEM}, {guarded})[0]"
        if len(args) == 2:
            target = f"{target}.filter({node.variable}, {args[0]})"
        return f"{target}.{node.name}({node.variable}, {args[-1]})"


def _needs_guard(node: Node) -> bool:
    """Whether a node could go through a map whose order would show."""
    return isinstance(node, Macro) and node.name in {"filter", "map"} and not _is_list(node.target)


def _is_list(node: Node) -> bool:
    """Whether a node is a list whatever the variables are."""
    return isinstance(node, ListExpr) or (isinstance(node, Macro) and node.name in {"filter", "map"})


def constant(node: Literal) -> str:
    """A constant, in the notation every engine reads the same way: escapes only where there is no choice."""
    match node.value:
        case None:
            return "null"
        case bool():
            return "true" if node.value else "false"
        case str():
            return "'" + "".join(map(_character, node.value)) + "'"
        case bytes():
            return "b'" + "".join(f"\\x{byte:02x}" for byte in node.value) + "'"
        case float():
            return repr(node.value)
        case int():
            return f"{node.value}u" if node.kind == "uint" else str(node.value)


def _character(char: str) -> str:
    if " " <= char <= "~" and char not in "'\"\\":
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
