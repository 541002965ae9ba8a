"""What a plain publisher sent, as a typed payload: strict about the JSON, helpful about what is wrong. Pure.

A person with the `nats` command sends one of three forms (architecture, section 3.5):

    {"goal": NAME, "input": {…}}      {"signal": NAME, "data": {…}}      {"cancel": REASON}

Whatever else it is, is refused with a code of `CODES`, what was found, and what is allowed. Readers of JSON differ over
duplicate keys, NaN and very large numbers, so a body with any of these is not taken at all.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from agentflow.errors import InputError, SchemaError
from agentflow.payloads import CancelRequested, GoalSubmitted, RunSignalled
from agentflow.plain import check_plain
from agentflow_planner.findings import did_you_mean, shorten

MAX_PLAIN = 256 * 1024
"""Bytes a plain publisher's body may have."""

FORMS = '{"goal": NAME, "input": {…}}, {"signal": NAME, "data": {…}} or {"cancel": REASON}'
"""What a plain publisher may send."""

MEMBERS: dict[str, tuple[str, ...]] = {"goal": ("goal", "input"), "signal": ("signal", "data"), "cancel": ("cancel",)}
"""The members of each form, by the one it is known by."""

CODES: dict[str, str] = {
    "plain.empty": "the message has no body",
    "plain.too_large": "the body has more bytes than a plain message may have",
    "plain.malformed": "the body is not JSON in UTF-8: broken, with a byte order mark, NaN, or nested without end",
    "plain.duplicate_key": "an object has the same key twice, and readers differ over which counts",
    "plain.unknown_form": "the body is neither a goal, nor a signal, nor a cancel",
    "plain.ambiguous": "the body is more than one of goal, signal and cancel",
    "plain.unknown_member": "the form has no member of that name",
    "plain.wrong_type": "a member holds another kind of value than it has to",
    "value.too_deep": "a value is nested too deeply",
    "value.not_json": "a value is a number or a text that JSON cannot keep as it is",
    "value.key": "an object has a key that is no text JSON can keep",
}
"""Every code a plain body can be refused with, and what it means."""

Plain = GoalSubmitted | RunSignalled | CancelRequested


@dataclass(frozen=True, slots=True)
class Adopted:
    """A plain body that is taken."""

    kind: Literal["goal", "signal", "cancel"]
    schema: str
    payload: Plain


def read_plain(body: bytes) -> Adopted:
    """The payload of a plain body; raises `InputError` with a code of `CODES`, and the fields `found` and `allowed`."""
    form, members = _form(_decoded(body))
    _check_members(form, members)
    named, given = members[form], members.get(MEMBERS[form][-1], {})
    if form == "cancel":
        return Adopted("cancel", "run.cancel_requested/1", CancelRequested(_reason(named)))
    _require(isinstance(named, str) and named != "", form, named, "a name in quotes")
    _require(isinstance(given, dict), MEMBERS[form][1], given, "an object")
    _keepable(given, MEMBERS[form][1])
    if form == "signal":
        return Adopted("signal", "run.signalled/1", RunSignalled(named, given))
    return Adopted("goal", "goal.submitted/1", GoalSubmitted(named, given))


def _decoded(body: bytes) -> Any:
    if len(body) > MAX_PLAIN:
        _refuse(
            "plain.too_large", f"body has {len(body)} bytes; allowed are {MAX_PLAIN}", len(body), f"{MAX_PLAIN} bytes"
        )
    if not body.strip():
        _refuse("plain.empty", "the message has no body", "nothing", FORMS)
    try:
        text = body.decode()
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark; send UTF-8 without one")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        _refuse("plain.malformed", "body is not JSON that can be read: it is nested without end", _start(body), FORMS)
    except ValueError as error:
        _refuse("plain.malformed", f"body is not JSON: {str(error)[:200]}", _start(body), FORMS)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen, double = set[str](), ""
        for key, _ in pairs:
            double = double or (key if key in seen else "")
            seen.add(key)
        _refuse("plain.duplicate_key", f"the key {shorten(double)!r} is there twice", double, "each key once")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _form(value: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        _refuse("plain.unknown_form", "body is not a JSON object", value, FORMS)
    forms = [name for name in MEMBERS if name in value]
    if len(forms) > 1:
        _refuse("plain.ambiguous", f"body is {' and '.join(forms)} at once", ", ".join(forms), "one of them")
    if not forms:
        hints = (did_you_mean(key, MEMBERS) for key in list(value)[:8])
        hint = next(filter(None, hints), "")
        message = "body is not a goal, signal or cancel" + (f": {hint}" if hint else "")
        _refuse("plain.unknown_form", message, ", ".join(map(shorten, list(value)[:8])) or "{}", FORMS)
    return forms[0], value


def _check_members(form: str, members: dict[str, Any]) -> None:
    for name in members:
        if name not in MEMBERS[form]:
            hint = did_you_mean(name, MEMBERS[form]) or "put it into the object a goal or signal carries"
            message = f"a {form} has no member {shorten(name)!r}: {hint}"
            _refuse("plain.unknown_member", message, name, ", ".join(MEMBERS[form]))


def _reason(value: Any) -> str:
    _require(value is True or isinstance(value, str), "cancel", value, "a reason in quotes, or true")
    _keepable(value, "cancel")
    return value if isinstance(value, str) else ""


def _require(fine: bool, member: str, found: Any, allowed: str) -> None:  # the check itself
    if not fine:
        _refuse("plain.wrong_type", f"member {member!r} is not {allowed}", found, allowed)


def _keepable(value: Any, where: str) -> None:
    try:
        check_plain(value, where)
    except SchemaError as error:
        _refuse(error.error_code, error.message, where, "values that JSON keeps as they are")


def _start(body: bytes) -> str:
    return body[:120].decode("utf-8", "replace")


def _shown(found: Any) -> str:
    """What was found, short: a stranger's value may be endless, or a number too long to be written."""
    if isinstance(found, str):
        return shorten(found)
    if isinstance(found, dict | list):
        return "an object" if isinstance(found, dict) else "a list"
    large = (isinstance(found, int) and abs(found) > 2**64) or (isinstance(found, float) and not math.isfinite(found))
    return "a number that is too large" if large else json.dumps(found)


def _refuse(code: str, message: str, found: Any, allowed: str | Iterable[str]) -> NoReturn:
    # A lone surrogate in a text from outside must not keep the refusal from being recorded.
    clean, shown = (text.encode(errors="backslashreplace").decode() for text in (message, _shown(found)))
    raise InputError(clean, code=code, found=shown, allowed=allowed)
