"""Tokens of CEL, with their places. Pure.

It reads on demand, so that a template can ask it for the end of the expression that starts at `${`.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from agentflow_planner.conditions.syntax import Scalar
from agentflow_planner.errors import ExpressionError

RESERVED = frozenset(
    {
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    }
)
"""Identifiers CEL keeps for itself; as fields (`output.package`) they are allowed."""

KEYWORDS = frozenset({"false", "in", "null", "true"})
"""Words with a meaning; they are neither variables nor fields."""

MAX_EXPRESSION = 4096
"""Characters of an expression."""

TokenKind: TypeAlias = Literal["ident", "int", "uint", "double", "string", "bytes", "op", "end"]


class Token(NamedTuple):
    """One token."""

    kind: TokenKind
    text: str
    """As it is written."""
    value: Scalar
    """What a literal stands for."""
    offset: int


_SKIP = re.compile(r"(?:[\t\n\f\r ]+|//[^\n]*)*")
_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"(?:[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|0x[0-9A-Fa-f]+|[0-9]+)")
_OPERATOR = re.compile(r"==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}]")
_QUOTED = re.compile(r"([bBrR]{0,2})(\"\"\"|'''|\"|')")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|[xX]([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2}))"
)
_SIMPLE = dict(zip("abfnrtv\\?\"'`", "\a\b\f\n\r\t\v\\?\"'`", strict=True))


def tokens(source: str, start: int = 0) -> Iterator[Token]:
    """The tokens from `start` on, an `end` last; raises `ExpressionError` where there is none."""
    position = start
    while True:
        position = _skip(source, position)
        token, position = _next(source, position)
        yield token
        if token.kind == "end":
            return


def _skip(source: str, position: int) -> int:
    match = _SKIP.match(source, position)
    return match.end() if match else position


def _next(source: str, at: int) -> tuple[Token, int]:
    if at >= len(source):
        return Token("end", "", None, at), at
    quoted = _QUOTED.match(source, at)
    if quoted and quoted[1].lower() in {"", "b", "r", "br", "rb"}:
        return _text(source, at, quoted)
    if match := _IDENT.match(source, at):
        return Token("ident", match[0], None, at), match.end()
    if match := _NUMBER.match(source, at):
        return _number(source, at, match)
    if match := _OPERATOR.match(source, at):
        return Token("op", match[0], None, at), match.end()
    hint = {"=": "compare with ==", "&": "both is written &&", "|": "either is written ||", "`": "write ['field']"}.get(
        source[at], ""
    )
    message = f"{source[at]!r} has no meaning here" + (f"; {hint}" if hint else "")
    raise ExpressionError(source, message, offset=at, found=source[at])


def _number(source: str, at: int, match: re.Match[str]) -> tuple[Token, int]:
    text, end = match[0], match.end()
    if any(char in text for char in ".eE") and not text.startswith("0x"):
        token = Token("double", text, float(text), at)
    elif source[end : end + 1] in {"u", "U"}:
        token, end = Token("uint", source[at : end + 1], int(text, 0) if "x" in text else int(text), at), end + 1
    else:
        token = Token("int", text, int(text, 16) if "x" in text else int(text), at)
    if source[end : end + 1].isalnum() or source[end : end + 1] == "_":
        raise ExpressionError(source, f"{source[at : end + 1]!r} is no number", offset=at, found=source[at : end + 1])
    if token.kind == "uint" and int(text, 0 if "x" in text else 10) > 2**64 - 1:
        raise ExpressionError(source, "the number is too large for uint", offset=at, found=text)
    if token.value == math.inf:
        raise ExpressionError(source, "the number is too large for double", offset=at, found=text)
    return token, end


def _text(source: str, at: int, opening: re.Match[str]) -> tuple[Token, int]:
    prefix, quote = opening[1].lower(), opening[2]
    raw, start = "r" in prefix, opening.end()
    end = _closing(source, start, quote, raw=raw)
    if end < 0:
        raise ExpressionError(source, f"the text that starts here has no closing {quote}", offset=at, found=quote)
    body = source[start:end]
    if "b" in prefix:
        value: str | bytes = body.encode() if raw else _unescape_bytes(source, body, start)
    else:
        value = body if raw else _unescape(source, body, start)
    if isinstance(value, str) and "\0" in value:
        raise ExpressionError(source, "text with NUL characters is not supported", offset=at)
    close = end + len(quote)
    return Token("bytes" if "b" in prefix else "string", source[at:close], value, at), close


def _closing(source: str, start: int, quote: str, *, raw: bool) -> int:
    """Where the closing quote starts, -1 if there is none; only triple quotes reach over lines."""
    at = start
    while at < len(source):
        if source.startswith(quote, at):
            return at
        if len(quote) == 1 and source[at] in "\r\n":
            return -1
        at += 2 if source[at] == "\\" and not raw else 1
    return -1


def _parts(source: str, body: str, start: int) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Plain stretches of a text and its escapes; raises for an escape that is none."""
    at = 0
    while at < len(body):
        stop = body.find("\\", at)
        if stop < 0:
            yield body[at:], None
            return
        if stop > at:
            yield body[at:stop], None
        match = _ESCAPE.match(body, stop)
        if match is None:
            found = body[stop : stop + 2]
            allowed = ("\\n", "\\t", "\\\\", "\\'", '\\"', "\\xHH", "\\uHHHH", "\\UHHHHHHHH", "\\OOO", "r'raw text'")
            message = f"{found!r} is no escape"
            raise ExpressionError(source, message, offset=start + stop, found=found, allowed=allowed)
        yield match[0], match
        at = match.end()


def _code(match: re.Match[str]) -> int:
    if match[1]:
        return ord(_SIMPLE[match[1]])
    return int(match[5], 8) if match[5] else int(match[2] or match[3] or match[4], 16)


def _unescape(source: str, body: str, start: int) -> str:
    pieces: list[str] = []
    for text, match in _parts(source, body, start):
        code = _code(match) if match else 0
        if match and (0xD800 <= code <= 0xDFFF or code > 0x10FFFF):
            raise ExpressionError(source, f"{text} is no character", offset=start, found=text)
        pieces.append(chr(code) if match else text)
    return "".join(pieces)


def _unescape_bytes(source: str, body: str, start: int) -> bytes:
    pieces: list[bytes] = []
    for text, match in _parts(source, body, start):
        code = _code(match) if match else 0
        if match and (match[3] or match[4]):
            raise ExpressionError(source, f"{text} has no place in bytes", offset=start, found=text)
        pieces.append(bytes([code]) if match else text.encode())
    return b"".join(pieces)
