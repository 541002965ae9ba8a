"""YAML bytes to a tree of values with their places, strictly. Pure.

A definition comes from a person and decides what machines do, so nothing is guessed: one document, UTF-8, no custom
tags, no merge keys, a bounded size, depth and number of aliases (an alias that multiplies is how a small file becomes
a billion values), no key twice. And no surprises of YAML 1.1, where `no` is false, `1:30` is 90, `010` is 8 and
`2026-01-01` is no text: what is written without quotes is `true`, `false`, `null`, a number as JSON writes it, or
text; anything else YAML 1.1 would turn into something is an `ambiguity`, reported where its value is used.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from agentflow_planner.errors import PlannerError
from agentflow_planner.yaml_problems import allowed_by, first_piece, hint_for

MAX_BYTES = 256 * 1024
"""Size of a definition."""

MAX_DEPTH = 32
"""Levels of nesting of a definition."""

MAX_ALIASES = 32
"""Aliases (`*name`) in a definition."""

MAX_NODES = 20_000
"""Values in a definition, counted at every place they stand."""

_PARSER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_CONSTANTS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_READ_AS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "merge": "a merge key",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file, line and column from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value."""

    mark: Mark
    end: Mark
    text: str
    """As YAML reads it: quotes and escapes resolved."""
    value: Any
    """The JSON value: the text itself unless it is plain and a constant or a number."""
    style: str = ""
    """`'`, `"`, `|`, `>`, or nothing for plain."""
    ambiguity: str = ""
    """What YAML 1.1 would make of plain text, where that is not what it looks like."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    mark: Mark
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, its entries in the order of the file."""

    mark: Mark
    entries: "tuple[tuple[Scalar, Node], ...]"

    def get(self, key: str) -> "Node | None":
        """The value of a key; the first, should there be two."""
        return next((value for name, value in self.entries if name.text == key), None)

    def key(self, key: str) -> Scalar | None:
        """The key itself, for its place."""
        return next((name for name, _ in self.entries if name.text == key), None)


Node: TypeAlias = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong with the file, at a place."""

    mark: Mark
    code: str
    message: str
    found: str = ""
    allowed: tuple[str, ...] = ()
    suggestion: str = ""


class Unreadable(PlannerError):
    """The file cannot be read any further; carries the `Trouble`."""

    code = "definition.yaml"

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message, code=trouble.code)
        self.trouble = trouble


@dataclass(slots=True)
class Document:
    """A file: its tree, its lines, and what is wrong without keeping it from being read."""

    root: Node | None
    lines: list[str]
    troubles: list[Trouble] = field(default_factory=list)


def lines_of(source: bytes) -> list[str]:
    """The lines of a file, whatever is wrong with it."""
    return _BREAKS.split(source[:MAX_BYTES].decode("utf-8", "replace").removeprefix("\ufeff"))


def read_document(source: bytes) -> Document:
    """Read one YAML document; raises `Unreadable` for what is no YAML, too large, or more than one document."""
    text = _decoded(source)
    document = Document(None, _BREAKS.split(text))
    events = yaml.parse(text, Loader=_PARSER)
    try:
        document.root = _Composer(events, document).compose()
    except yaml.YAMLError as error:
        raise Unreadable(_yaml_trouble(error, document.lines)) from error
    return document


def _refuse(
    mark: Mark, message: str, found: str = "", allowed: tuple[str, ...] = (), suggestion: str = ""
) -> Unreadable:
    return Unreadable(Trouble(mark, "definition.yaml", message, found, allowed, suggestion))


def _decoded(source: bytes) -> str:
    if len(source) > MAX_BYTES:
        raise _refuse(Mark(1, 1), "the file is too large", f"{len(source)} bytes", (f"up to {MAX_BYTES} bytes",))
    try:
        return source.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8").removeprefix("\ufeff")
        lines = _BREAKS.split(before)
        mark = Mark(len(lines), len(lines[-1]) + 1)
        raise _refuse(mark, "the file is not UTF-8", f"byte 0x{source[error.start]:02x}", ("UTF-8",)) from error


def _yaml_trouble(error: yaml.YAMLError, lines: list[str]) -> Trouble:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).splitlines()[0]
    place = Mark(mark.line + 1, mark.column + 1) if mark else _of_position(getattr(error, "position", 0), lines)
    found, allowed = _found_at(place, lines), allowed_by(problem)
    return Trouble(place, "definition.yaml", f"this is no YAML: {problem}", found, allowed, hint_for(problem))


def _found_at(place: Mark, lines: list[str]) -> str:
    """The word or character at a place; where there is none, what ends there."""
    if piece := first_piece("".join(lines[place.line - 1 : place.line])[place.column - 1 :]):
        return piece
    behind = any(line.strip() for line in lines[place.line :])
    return "the end of the line" if behind else "the end of the file"


def _of_position(position: int, lines: list[str]) -> Mark:
    for number, line in enumerate(lines, 1):
        if position <= len(line):
            return Mark(number, position + 1)
        position -= len(line) + 1
    return Mark(len(lines), 1)


class _Composer:
    """Builds the tree from parser events; PyYAML's own would follow aliases without counting."""

    def __init__(self, events: Iterator[Any], document: Document) -> None:
        self.events = events
        self.document = document
        self.anchors: dict[str, tuple[Node | None, int]] = {}
        self.aliases = 0
        self.nodes = 0

    def compose(self) -> Node | None:
        """The root of the only document; None for an empty file."""
        root: Node | None = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refuse(_mark(event.start_mark), "a second document starts here", "---", ("one document",))
                root = self.node(next(self.events), 1)
        return root

    def node(self, event: Any, depth: int) -> Node:
        """The node an event starts."""
        if depth > MAX_DEPTH:
            message = f"the file is nested more than {MAX_DEPTH} levels deep"
            raise _refuse(_mark(event.start_mark), message, f"level {depth}", (f"up to {MAX_DEPTH} levels",))
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        before = self.nodes
        self.count(1, event)
        if event.anchor:
            self.anchors[event.anchor] = (None, 0)
        self.tagged(event)
        if isinstance(event, yaml.ScalarEvent):
            node: Node = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(event, depth)
        else:
            node = self.mapping(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = (node, self.nodes - before)
        return node

    def count(self, nodes: int, event: Any) -> None:
        """Count nodes at the places they stand."""
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            message = f"the file stands for more than {MAX_NODES} values"
            found, allowed = f"{self.nodes} values up to here", (f"up to {MAX_NODES} values",)
            raise _refuse(_mark(event.start_mark), message, found, allowed)

    def alias(self, event: Any) -> Node:
        """The node an alias repeats."""
        self.aliases += 1
        mark = _mark(event.start_mark)
        if self.aliases > MAX_ALIASES:
            message = f"the file has more than {MAX_ALIASES} aliases"
            raise _refuse(mark, message, f"*{event.anchor}", (f"up to {MAX_ALIASES} aliases",))
        node, nodes = self.anchors.get(event.anchor, (None, 0))
        if node is None:
            inside = event.anchor in self.anchors
            message = "an alias inside of what it repeats has no end" if inside else "there is no such anchor before it"
            known = tuple(f"*{name}" for name, (anchored, _) in self.anchors.items() if anchored is not None)
            raise _refuse(mark, message, f"*{event.anchor}", known or ("an alias of an &anchor that ends before it",))
        self.count(nodes, event)
        return node

    def tagged(self, event: Any) -> None:
        """Refuse tags; a condition that starts with `!` is one by accident."""
        tag = event.tag
        if tag is None or (isinstance(event, yaml.ScalarEvent) and tag == "!" and event.style):
            return
        shown = tag if tag.startswith("!") else tag.replace("tag:yaml.org,2002:", "!!")
        hint = "put a condition that starts with ! in quotes" if not shown.startswith("!!") else ""
        mark, message = _mark(event.start_mark), f"the tag {shown} is not supported"
        self.trouble(mark, "definition.yaml", message, shown, "values without a tag", hint)

    def sequence(self, event: Any, depth: int) -> Sequence:
        """A list, up to its end."""
        items: list[Node] = []
        while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(item, depth + 1))
        return Sequence(_mark(event.start_mark), tuple(items))

    def mapping(self, event: Any, depth: int) -> Mapping:
        """A mapping, up to its end."""
        entries: list[tuple[Scalar, Node]] = []
        seen: set[str] = set()
        while not isinstance(start := next(self.events), yaml.MappingEndEvent):
            key = self.node(start, depth + 1)
            value = self.node(next(self.events), depth + 1)
            if isinstance(key, Scalar):
                self.check_key(key, seen)
                entries.append((key, value))
            else:
                self.trouble(key.mark, "definition.yaml", "a key is a text", "a mapping or a list", "text")
        return Mapping(_mark(event.start_mark), tuple(entries))

    def check_key(self, key: Scalar, seen: set[str]) -> None:
        """Report a key that stands twice, or that YAML 1.1 does not read as the text it looks like."""
        if key.text in seen:
            self.trouble(
                key.mark, "definition.duplicate_key", f"the key {key.text!r} stands twice", key.text, "each key once"
            )
        seen.add(key.text)
        if key.text == "<<" and not key.style:
            self.trouble(key.mark, "definition.yaml", "merge keys are not supported", "<<", "keys written out")
        elif key.ambiguity or not isinstance(key.value, str):
            what = key.ambiguity or read_as(key.value)
            message = f"the key {key.text!r} is read as {what}: put it in quotes"
            hint = f'write "{key.text}"'
            self.trouble(key.mark, "definition.ambiguous", message, key.text, "text in quotes", hint)

    def trouble(self, mark: Mark, code: str, message: str, found: str, allowed: str, suggestion: str = "") -> None:
        """Report something that does not keep the file from being read."""
        self.document.troubles.append(Trouble(mark, code, message, found[:80], (allowed,), suggestion))


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _scalar(event: Any) -> Scalar:
    # A condition such as `!output.done` is a tag to YAML; refused as one, but still read as what was meant.
    meant = (event.tag or "").startswith("!") and event.tag != "!"
    text: str = f"{event.tag} {event.value}".strip() if meant else event.value
    style = event.style or ""
    value: Any = text
    ambiguity = ""
    if not style and event.tag is None:
        value, ambiguity = plain_value(text)
    return Scalar(_mark(event.start_mark), _mark(event.end_mark), text, value, style, ambiguity)


def plain_value(text: str) -> tuple[Any, str]:
    """What text without quotes stands for, and what YAML 1.1 would read it as, if that is something else again."""
    if text in _CONSTANTS:
        return _CONSTANTS[text], ""
    if match := _NUMBER.match(text):
        number: int | float = float(text) if match[1] or match[2] else int(text) if len(text) < 400 else 10**400
        return _bounded(text, number)
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        kind = tag.rpartition(":")[2]
        if kind in _READ_AS and pattern.match(text):
            return text, _READ_AS[kind]
    return text, ""


def _bounded(text: str, number: int | float) -> tuple[Any, str]:
    if isinstance(number, float):
        return (text, "an infinite number") if abs(number) == float("inf") else (number, "")
    return (number, "") if -(2**63) <= number < 2**63 else (text, "a number of more than 64 bits")


def read_as(value: Any) -> str:
    """What a value is, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "text"


def place_in(scalar: Scalar, lines: list[str], offset: int) -> Mark:
    """Where a character of a text stands in the file: exactly on one line, nearly in texts over several lines."""
    line = lines[scalar.mark.line - 1] if scalar.mark.line <= len(lines) else ""
    if scalar.style in {"|", ">"} or scalar.end.line > scalar.mark.line:
        return _in_lines(scalar, lines, offset)
    start = line.find(scalar.style or scalar.text, scalar.mark.column - 1)
    at = max(start, 0)
    if not scalar.style:
        return Mark(scalar.mark.line, at + offset + 1)
    at += 1
    for _ in range(offset):
        at += _width(line, at, scalar.style)
    return Mark(scalar.mark.line, at + 1)


def _width(line: str, at: int, style: str) -> int:
    """How many characters of a quoted text stand for the one that starts here."""
    if style == "'":
        return 2 if line.startswith("''", at) else 1
    if not line.startswith("\\", at):
        return 1
    return {"x": 4, "u": 6, "U": 10}.get(line[at + 1 : at + 2], 2)


def _in_lines(scalar: Scalar, lines: list[str], offset: int) -> Mark:
    block = scalar.style in {"|", ">"}
    first = scalar.mark.line + block
    filled = next((line for line in lines[first - 1 : scalar.end.line] if line.strip()), "")
    indent = len(filled) - len(filled.lstrip(" "))
    for number in range(first, min(scalar.end.line, len(lines)) + 1):
        line = lines[number - 1]
        start = indent if block else len(line) - len(line.lstrip(" "))
        if number == scalar.mark.line:
            start = scalar.mark.column - 1 + len(scalar.style)
        length = len(line[start:] if block else line[start:].rstrip())
        if offset <= length:
            return Mark(number, start + offset + 1)
        offset -= length + 1
    return scalar.mark
