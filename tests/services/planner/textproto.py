"""A reader for the CEL conformance cases: protocol buffers' text format, as far as those files use it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, list[Any]]
"""Fields by name, every one a list: text format repeats them."""

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<word>[-+]?[A-Za-z0-9_./]+)|(?P<mark>[{}\[\]<>:,;])"""
)


class NotSupported(Exception):
    """A case uses what is no JSON: messages, enums, types, durations and so on."""


@dataclass(frozen=True)
class Case:
    """One conformance case."""

    file: str
    section: str
    name: str
    expr: str
    variables: dict[str, Any]
    fails: bool
    value: Any

    def __str__(self) -> str:
        return f"{self.file}/{self.section}/{self.name}"


def read_cases(path: Path) -> Iterator[Case | str]:
    """The cases of a file; the name alone of one that needs what is no JSON."""
    for section in parse(path.read_text("utf-8")).get("section", []):
        for test in section.get("test", []):
            where = (path.stem, section["name"][0], test["name"][0])
            try:
                yield _case(where, test)
            except NotSupported:
                yield "/".join(where)


def _case(where: tuple[str, str, str], test: Message) -> Case:
    if {"container", "type_env", "typed_result", "unknown", "any_unknowns", "check_only"} & _relevant(test):
        raise NotSupported
    variables = {entry["key"][0]: _value(entry["value"][0]["value"][0]) for entry in test.get("bindings", [])}
    fails = "eval_error" in test or "any_eval_errors" in test
    value = None if fails else _value(test["value"][0]) if "value" in test else True
    return Case(*where, test["expr"][0], variables, fails, value)


def _relevant(test: Message) -> set[str]:
    """Fields that change a case's meaning; declarations of dynamic or JSON-like variables do not."""
    names = set(test)
    if "type_env" in names and not any("message_type" in str(each) or "function" in each for each in test["type_env"]):
        names.discard("type_env")
    if "container" in names and test["container"] == [""]:
        names.discard("container")
    return names


def _value(message: Message) -> Any:
    """A `cel.expr.Value` as JSON."""
    if len(message) != 1:
        raise NotSupported
    kind, values = next(iter(message.items()))
    match kind:
        case "null_value":
            return None
        case "bool_value":
            return values[0] == "true"
        case "int64_value" | "uint64_value":
            return int(values[0], 0)
        case "double_value":
            return float(values[0])
        case "string_value":
            return values[0]
        case "list_value":
            return [_value(item) for item in values[0].get("values", [])]
        case "map_value":
            return {_key(entry["key"][0]): _value(entry["value"][0]) for entry in values[0].get("entries", [])}
    raise NotSupported


def _key(message: Message) -> str:
    key = _value(message)
    if not isinstance(key, str):
        raise NotSupported
    return key


def parse(text: str) -> Message:
    """A message in text format."""
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup]
    message, end = _message(tokens, 0)
    assert end == len(tokens), f"unread: {tokens[end][0]}"
    return message


def _message(tokens: list[re.Match[str]], at: int) -> tuple[Message, int]:
    message: Message = {}
    while at < len(tokens) and tokens[at][0] not in {"}", ">"}:
        if tokens[at][0] in {",", ";"}:
            at += 1
            continue
        name, at = _name(tokens, at)
        at += tokens[at][0] == ":"
        value, at = _field(tokens, at)
        message.setdefault(name, []).extend(value)
    return message, at


def _name(tokens: list[re.Match[str]], at: int) -> tuple[str, int]:
    if tokens[at][0] != "[":
        return tokens[at][0], at + 1
    end = next(index for index in range(at, len(tokens)) if tokens[index][0] == "]")
    return "".join(token[0] for token in tokens[at + 1 : end]), end + 1


def _field(tokens: list[re.Match[str]], at: int) -> tuple[list[Any], int]:
    token = tokens[at]
    if token[0] in {"{", "<"}:
        message, end = _message(tokens, at + 1)
        return [message], end + 1
    if token[0] == "[":
        values: list[Any] = []
        at += 1
        while tokens[at][0] != "]":
            value, at = _field(tokens, at)
            values += value
            at += tokens[at][0] == ","
        return values, at + 1
    if token.lastgroup == "word":
        return [token[0]], at + 1
    text = ""
    while at < len(tokens) and tokens[at].lastgroup == "string":
        text += _unescaped(tokens[at][0])
        at += 1
    return [text], at


_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))|[^\\]+", re.S)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _unescaped(quoted: str) -> str:
    """Text format escapes bytes, in octal or hexadecimal, and characters; together they are UTF-8."""
    value = b"".join(map(_piece, _ESCAPE.finditer(quoted[1:-1])))
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _piece(match: re.Match[str]) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal or hexadecimal:
        return bytes([int(octal, 8) if octal else int(hexadecimal, 16)])
    if short or long:
        return chr(int(short or long, 16)).encode()
    if simple:
        return bytes([_SIMPLE[simple]]) if simple in _SIMPLE else simple.encode()
    return match[0].encode()
