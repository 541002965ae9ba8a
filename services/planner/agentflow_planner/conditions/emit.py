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
    """The text of an expression."""
    return _Emitter(dialect).text(node)


class _Emitter:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def text(self, node: Node) -> str:
        """The text of a node."""
        match node:
            case Literal():
                return constant(node)
            case Ident():
                return node.name
            case Select():
                return f"{self.operand(node.operand)}.{node.field}"
            case Index():
                return f"{self.operand(node.operand)}[{self.text(node.index)}]"
            case Has():
                return f"has({self.text(node.operand)})"
            case Call():
                target = f"{self.operand(node.target)}." if node.target is not None else ""
                return f"{target}{node.function}({self.listed(node.args)})"
            case Macro():
                return self.macro(node)
            case _:
                return self.operator(node)

    def operator(self, node: Unary | Binary | Chain | Ternary | ListExpr | MapExpr) -> str:
        """The text of an operator with its operands, or of something in brackets."""
        match node:
            case Unary():
                return f"{node.op}{self.operand(node.operand)}"
            case Binary():
                return f"{self.operand(node.left)} {node.op} {self.operand(node.right)}"
            case Chain():
                return self.chain(node.op, [self.operand(operand) for operand in node.operands])
            case Ternary():
                parts = [self.operand(part) for part in (node.condition, node.then, node.other)]
                return f"{parts[0]} ? {parts[1]} : {parts[2]}"
            case ListExpr():
                return f"[{self.listed(node.items)}]"
            case MapExpr():
                return "{" + ", ".join(f"{self.text(key)}: {self.text(value)}" for key, value in node.entries) + "}"

    def operand(self, node: Node) -> str:
        """The text of a node where an operator stands beside it."""
        text = self.text(node)
        grouped = isinstance(node, (Unary, Binary, Chain, Ternary)) or text.startswith("-")
        return f"({text})" if grouped else text

    def listed(self, nodes: tuple[Node, ...]) -> str:
        """Texts between commas."""
        return ", ".join(map(self.text, nodes))

    def chain(self, op: str, operands: list[str]) -> str:
        """Operands joined, in halves where the engine needs it."""
        if not self.dialect.balance or len(operands) <= 2:
            return f" {op} ".join(operands)
        half = (len(operands) + 1) // 2
        rest = operands[half:]
        right = rest[0] if len(rest) == 1 else f"({self.chain(op, rest)})"
        return f"({self.chain(op, operands[:half])}) {op} {right}"

    def macro(self, node: Macro) -> str:
        """A macro over what it may go through."""
        target = self.operand(node.target)
        if self.dialect.guard_maps and node.name in {"filter", "map"} and not _is_list(node.target):
            guarded = f"type({_ITEM}) == map ? {UNORDERED}({_ITEM}) : {_ITEM}"
            target = f"[{self.text(node.target)}].map({_ITEM}, {guarded})[0]"
        if len(node.args) == 2:
            target = f"{target}.filter({node.variable}, {self.text(node.args[0])})"
        return f"{target}.{node.name}({node.variable}, {self.text(node.args[-1])})"


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
