"""What helps with the problems a YAML parser names: what YAML takes there, and what was probably meant. Pure.

The parser says what it was doing, in words of its own (libyaml's and PyYAML's differ); people need what to write.
"""

import re

_HINTS = {
    "mapping values are not allowed": "put text that contains ': ' in quotes",
    "cannot start any token": "put text that starts with this character in quotes, and indent with spaces",
    "did not find expected ',' or '}'": "put text that contains '}' or ',', such as ${…}, in quotes",
    "did not find expected ',' or ']'": "put text that contains ']' or ',' in quotes",
    "alphabetic or numeric character": "put text that starts with !, & or *, such as a condition, in quotes",
    "expected comment or line break": "put text that starts with !, | or >, such as a condition, in quotes",
    "could not find expected ':'": "a key is followed by ': ' and its value",
    "did not find expected key": "look at the indentation, and at quotes that close too early",
    "control characters are not allowed": "remove the control character, or write it as an escape in double quotes",
}
_ALLOWED = {
    "mapping values are not allowed": ("one 'key: value' a line", "text with ': ' in quotes"),
    "mapping keys are not allowed": ("one 'key: value' a line",),
    "block sequence entries are not allowed": ("'- item' on a line of its own", "[item, …]"),
    "cannot start any token": ("a letter, a digit, a quote, [ or {", "spaces as indentation"),
    "tab character": ("spaces as indentation",),
    "unexpected end of stream": ("the closing quote of the text",),
    "unexpected document indicator": ("the closing quote of the text",),
    "unknown escape character": (r"\\", r"\"", r"\n", r"\t", r"\xHH", r"\uHHHH", "text in single quotes"),
    "control characters are not allowed": ("printable characters", "escapes in double quotes"),
    "special characters are not allowed": ("printable characters", "escapes in double quotes"),
    "alphabetic or numeric character": ("a name of A-Z a-z 0-9 _ - after & or *", "text in quotes"),
    "comment or line break": ("the end of the line", "# a comment", "text in quotes"),
    "expected key": ("'key: value', indented like the keys before it",),
    "<block end>": ("'key: value', indented like the keys before it",),
    "'-' indicator": ("'- item', indented like the items before it",),
    "node content": ("a value", "text in quotes"),
    "<document start>": ("one document: a mapping, with nothing behind it",),
    "tag handle": ("values without a tag",),
}
"""What YAML takes where the parser's problem contains the key; of other problems, what they say is `expected`."""

_EXPECTED = re.compile(r"expected (?:the )?(.+?)(?:,? but (?:found|got).*)?\Z")
_ANY_YAML = ("YAML 1.1: 'key: value', '- item', or text in quotes",)
_PIECE = re.compile(r" *(\w+|[^ ])")


def hint_for(problem: str) -> str:
    """What to do about a problem; empty where nothing is probable."""
    if "document" in problem and "expected" in problem:
        return "the file holds one definition"
    return next((hint for part, hint in _HINTS.items() if part in problem), "")


def allowed_by(problem: str) -> tuple[str, ...]:
    """What YAML takes where it has this problem; never empty."""
    known = next((allowed for part, allowed in _ALLOWED.items() if part in problem), None)
    expected = _EXPECTED.search(problem)
    return known or ((expected[1],) if expected else _ANY_YAML)


def first_piece(text: str) -> str:
    """The word or character a text starts with, shown so that it can be seen; empty where there is none."""
    match = _PIECE.match(text)
    if match is None:
        return ""
    piece = match[1]
    return "a tab" if piece == "\t" else piece if piece.isprintable() else f"U+{ord(piece):04X}"
