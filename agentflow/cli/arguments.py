"""Values given on the command line: JSON objects, from the argument, a file or stdin."""

import json
import sys
from pathlib import Path
from typing import Any

from agentflow.errors import InputError

MAX_INPUT = 16 * 1024 * 1024
"""Characters an argument may have."""


def json_object(given: str, option: str) -> dict[str, Any]:
    """The object that `{…}`, `@FILE` or `-` gives; raises `InputError` (`argument.unreadable`, `argument.not_json`)."""
    text, origin = _read(given, option)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{origin} is not JSON: {error}", code="argument.not_json", option=option, found=text[:80]
        ) from error
    if not isinstance(found, dict):
        raise InputError(
            f'{origin} is {_kind(found)}; allowed is an object such as {{"text": "hello"}}',
            code="argument.not_object",
            option=option,
            found=text[:80],
        )
    return found


def _read(given: str, option: str) -> tuple[str, str]:
    try:
        if given == "-":
            return sys.stdin.read(MAX_INPUT), "stdin"
        if given.startswith("@"):
            return Path(given[1:]).read_text("utf-8"), given[1:]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{option} {given}: {reason}", code="argument.unreadable", option=option) from error
    return given, option


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "an array", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
