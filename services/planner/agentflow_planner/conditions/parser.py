"""CEL text to a syntax tree: recursive descent after the grammar of the language definition. Pure.

Two limits keep every later step safe, whatever the engine: `MAX_PARENS` brackets may be open at once, and the tree is
at most `MAX_DEPTH` levels deep (the C++ engine stops at 32, the Python one at its recursion limit).
"""

import functools
from collections.abc import Callable
from typing import NoReturn

from agentflow_planner.conditions.emit import levels
from agentflow_planner.conditions.lexer import KEYWORDS, MAX_EXPRESSION, RESERVED, Token, tokens
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
from agentflow_planner.errors import ExpressionError

MAX_PARENS = 24
"""Brackets of any kind that may be open at once."""

MAX_DEPTH = 28
"""Levels of nesting: operators, steps of a path, and the brackets that are needed."""

MACROS = {"all": (2, 2), "exists": (2, 2), "exists_one": (2, 2), "filter": (2, 2), "map": (2, 3)}
"""Least and most arguments of the macros over lists and maps."""

_RELATIONS = ("==", "!=", "<=", ">=", "<", ">", "in")
_OPENING = {"(": ")", "[": "]", "{": "}"}
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


@functools.lru_cache(maxsize=512)
def parse(source: str) -> Node:
    """The syntax tree of a whole expression; raises `ExpressionError`."""
    parser = _Parser(source, 0)
    node = parser.expression()
    if parser.token.kind != "end":
        parser.unexpected("the expression should end here")
    return _bounded(source, node)


def parse_part(source: str, start: int) -> tuple[Node, int]:
    """The expression that starts at `start` of a template, and the offset of the `}` that ends it."""
    parser = _Parser(source, start)
    node = parser.expression()
    if parser.token.text != "}" or parser.token.kind != "op":
        parser.unexpected("'}' should end the expression that '${' began")
    return _bounded(source, node), parser.token.offset


def _bounded(source: str, root: Node) -> Node:
    """The tree, unless it is too deep."""
    if levels(root) > MAX_DEPTH:
        reason = f"the expression is nested more than {MAX_DEPTH} levels deep"
        raise ExpressionError(source, reason, offset=root.offset, code="condition.too_large")
    return root


class _Parser:
    def __init__(self, source: str, start: int) -> None:
        self.source = source
        self.start = start
        self.stream = tokens(source, start)
        self.token: Token = next(self.stream)
        self.open = 0

    # --- the stream ------------------------------------------------------------------------------------------------

    def advance(self) -> Token:
        """Go on to the next token; return the present one."""
        present = self.token
        if present.kind != "end":
            self.token = next(self.stream)
        if self.token.offset - self.start > MAX_EXPRESSION:
            reason = f"an expression has at most {MAX_EXPRESSION} characters"
            raise ExpressionError(self.source, reason, offset=self.start, code="condition.too_large")
        return present

    def at(self, *texts: str) -> bool:
        """Whether the present token is one of these operators (or the word `in`)."""
        return self.token.text in texts and (self.token.kind == "op" or self.token.text == "in")

    def take(self, text: str) -> Token:
        """The present token, which has to be this operator."""
        if not self.at(text):
            self.unexpected(f"{text!r} is missing")
        return self.advance()

    def unexpected(self, why: str) -> NoReturn:
        """Refuse the present token."""
        found = self.token.text or "the end"
        self.fail(f"{why}, found {found[:40]!r}" if self.token.text else f"{why}, the expression ends", found=found)

    def fail(
        self, reason: str, *, offset: int | None = None, found: str = "", allowed: tuple[str, ...] = ()
    ) -> NoReturn:
        """Refuse the expression."""
        place = self.token.offset if offset is None else offset
        raise ExpressionError(self.source, reason, offset=place, found=found[:80], allowed=allowed)

    # --- operators, loosest first ------------------------------------------------------------------------------------

    def expression(self) -> Node:
        """A ternary, or what binds tighter."""
        condition = self.chain("||", lambda: self.chain("&&", self.relation))
        if not self.at("?"):
            return condition
        offset = self.enter()
        then = self.chain("||", lambda: self.chain("&&", self.relation))
        self.take(":")
        other = self.expression()
        self.open -= 1
        return Ternary(offset, condition, then, other)

    def chain(self, op: str, operand: Callable[[], Node]) -> Node:
        """Operands joined by `&&` or `||`."""
        operands, offset = [operand()], self.token.offset
        while self.at(op):
            self.advance()
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Chain(offset, op, tuple(operands))

    def relation(self) -> Node:
        """Comparisons, left to right."""
        return self.binary(_RELATIONS, self.addition)

    def addition(self) -> Node:
        """Sums, left to right."""
        return self.binary(("+", "-"), self.multiplication)

    def multiplication(self) -> Node:
        """Products, left to right."""
        return self.binary(("*", "/", "%"), self.unary)

    def binary(self, ops: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        """Operands of one level, grouped from the left."""
        left = operand()
        while self.at(*ops):
            op = self.advance()
            left = Binary(op.offset, op.text, left, operand())
        return left

    def unary(self) -> Node:
        """A run of `!` or of `-`, and what it stands before."""
        if not self.at("!", "-"):
            return self.member()
        op, count = self.token, 0
        while self.at(op.text):
            self.advance()
            count += 1
        return self.negated(op, count)

    def negated(self, op: Token, count: int) -> Node:
        """A run of signs applied; the last `-` before a number belongs to the number."""
        minus = op.text == "-"
        if minus and self.token.kind in {"int", "double"}:
            node = self.member(negative=True)
            count -= 1
        else:
            node = self.unary() if not minus and self.at("-") else self.member()
        # Two of a kind cancel out, but never all: `--'a'` has to fail like `-'a'`.
        for _ in range(count if count <= 2 else 2 - count % 2):
            node = Unary(op.offset, op.text, node)
        return node

    # --- members and primaries ---------------------------------------------------------------------------------------

    def member(self, *, negative: bool = False) -> Node:
        """A primary with its selections, indexes and calls."""
        node = self.literal(negative=True) if negative else self.primary()
        while self.at(".", "[", "{"):
            if self.at("."):
                node = self.selection(node)
            elif self.at("["):
                node = self.index(node)
            else:
                self.fail("messages cannot be made here, only maps", found="{", allowed=("{'key': value}",))
        return node

    def selection(self, operand: Node) -> Node:
        """`.field`, `.method(…)` or `.macro(x, …)`."""
        self.take(".")
        name = self.token
        if name.kind != "ident" or name.text in KEYWORDS:
            self.fail(
                "a field name is missing after '.'", found=name.text, allowed=("[A-Za-z_][A-Za-z0-9_]*", "['key']")
            )
        self.advance()
        if not self.at("("):
            return Select(name.offset, operand, name.text)
        args = self.arguments()
        if name.text in MACROS:
            return self.macro(name, operand, args)
        return Call(name.offset, "size" if name.text == "len" else name.text, operand, args)

    def macro(self, name: Token, target: Node, args: tuple[Node, ...]) -> Node:
        """One of the macros, its first argument the name of its variable."""
        least, most = MACROS[name.text]
        if not least <= len(args) <= most:
            wanted = " or ".join(str(count) for count in range(least, most + 1))
            self.fail(f"{name.text}() takes {wanted} arguments, found {len(args)}", offset=name.offset)
        variable = args[0]
        if not isinstance(variable, Ident):
            self.fail(f"the first argument of {name.text}() is the name of a variable", offset=variable.offset)
        return Macro(name.offset, name.text, target, variable.name, args[1:])

    def index(self, operand: Node) -> Node:
        """`[index]`."""
        offset = self.enter()
        index = self.expression()
        self.leave("]")
        return Index(offset, operand, index)

    def primary(self) -> Node:
        """A literal, a name, a call, or something in brackets."""
        if self.at("("):
            self.enter()
            inner = self.expression()
            self.leave(")")
            return inner
        if self.at("["):
            offset = self.enter()
            return ListExpr(offset, self.items("]"))
        if self.at("{"):
            return self.mapping()
        if self.at("."):
            self.advance()
            if self.token.kind != "ident" or self.token.text in KEYWORDS:
                self.unexpected("a name is missing")
        if self.token.kind == "ident" and self.token.text not in KEYWORDS:
            return self.name()
        return self.literal()

    def name(self) -> Node:
        """A variable or a call of a function."""
        name = self.advance()
        if name.text in RESERVED:
            self.fail(f"{name.text!r} is reserved in CEL", offset=name.offset, found=name.text)
        if not self.at("("):
            return Ident(name.offset, name.text)
        args = self.arguments()
        if name.text == "has":
            return self.has(name, args)
        return Call(name.offset, "size" if name.text == "len" else name.text, None, args)

    def has(self, name: Token, args: tuple[Node, ...]) -> Node:
        """`has(x.field)`."""
        if len(args) != 1 or not isinstance(args[0], Select):
            self.fail("has() takes one field, such as has(output.answer)", offset=name.offset)
        return Has(name.offset, args[0])

    def literal(self, *, negative: bool = False) -> Node:
        """A constant."""
        token = self.token
        match token.kind, token.text:
            case "ident", ("true" | "false"):
                node = Literal(token.offset, token.text == "true", "bool")
            case "ident", "null":
                node = Literal(token.offset, None, "null")
            case (("int" | "double"), _):
                node = self.number(token, negative=negative)
            case ("uint" | "string" | "bytes") as kind, _:
                node = Literal(token.offset, token.value, kind)
            case _:
                self.unexpected("a value is missing")
        self.advance()
        return node

    def number(self, token: Token, *, negative: bool) -> Literal:
        """A signed number."""
        assert isinstance(token.value, (int, float))
        value = -token.value if negative else token.value
        if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
            self.fail("the number is too large for int", found=token.text)
        return Literal(token.offset, value, "double" if token.kind == "double" else "int")

    # --- brackets ----------------------------------------------------------------------------------------------------

    def enter(self) -> int:
        """Take an opening bracket (or the `?` of a ternary); returns where it is."""
        self.open += 1
        if self.open > MAX_PARENS:
            reason = f"more than {MAX_PARENS} brackets are open"
            raise ExpressionError(self.source, reason, offset=self.token.offset, code="condition.too_large")
        return self.advance().offset

    def leave(self, closing: str) -> None:
        """Take the closing bracket."""
        self.take(closing)
        self.open -= 1

    def arguments(self) -> tuple[Node, ...]:
        """`(a, b)`; no comma may end them."""
        self.enter()
        return self.items(")", trailing=False)

    def items(self, closing: str, *, trailing: bool = True) -> tuple[Node, ...]:
        """Expressions between commas, up to the closing bracket."""
        found: list[Node] = []
        while not self.at(closing):
            found.append(self.expression())
            if self.at(closing):
                break
            self.take(",")
            if self.at(closing) and not trailing:
                self.unexpected("an argument is missing")
        self.leave(closing)
        return tuple(found)

    def mapping(self) -> Node:
        """`{key: value, …}`."""
        offset, entries = self.enter(), list[tuple[Node, Node]]()
        while not self.at("}"):
            key = self.expression()
            self.take(":")
            entries.append((key, self.expression()))
            if self.at("}"):
                break
            self.take(",")
        self.leave("}")
        return MapExpr(offset, tuple(entries))
