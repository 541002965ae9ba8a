"""What a stream's JSON configuration means to the in-memory broker. Pure.

It takes the server's own objects, fills in the server's defaults, and refuses what it cannot honour: a test that passes
because a setting was ignored proves nothing.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agentflow.clock import parse_time
from agentflow.errors import PublishFailed, ServerUnfit
from agentflow.subjects import matches

_MINUTE = 60_000_000_000
_DEFAULTS: dict[str, Any] = {
    "retention": "limits",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "discard": "old",
    "storage": "file",
    "num_replicas": 1,
    "duplicate_window": 2 * _MINUTE,
    "compression": "none",
    "allow_direct": False,
    "mirror_direct": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "consumer_limits": {},
    "allow_msg_ttl": False,
}
_KNOWN = {
    *("name", "description", "subjects", "no_ack", "placement", "first_seq", "republish", "discard_new_per_subject"),
    *("subject_delete_marker_ttl", "allow_atomic", "allow_batched", "allow_msg_schedules", "persist_mode", "metadata"),
    *("template_owner", "mirror", "sources", "subject_transform", "allow_msg_counter"),
    *_DEFAULTS,
}
_UNSUPPORTED = ("mirror", "sources", "subject_transform", "allow_msg_counter", "sealed", "discard_new_per_subject")
_ZERO_IS_DEFAULT = (
    "max_msgs",
    "max_bytes",
    "max_msgs_per_subject",
    "max_msg_size",
    "max_consumers",
    "duplicate_window",
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PLACE = re.compile(r"\{\{\s*wildcard\((\d+)\)\s*\}\}|\$(\d+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the server's defaults.

    Raises `PublishFailed` (`mesh.refused`) for what the server refuses, `ServerUnfit` (`memory.unsupported`) for what
    only a real server does.
    """
    if unknown := sorted(config.keys() - _KNOWN):
        raise refusal(f"unknown field {unknown[0]!r} in a stream configuration", found=unknown[0])
    given = {name: value for name, value in config.items() if not (name in _ZERO_IS_DEFAULT and value == 0)}
    full = {**_DEFAULTS, "subjects": [config["name"]], **given}
    missing = [name for name in _UNSUPPORTED if full.get(name)]
    if missing or full["retention"] != "limits":
        what = missing[0] if missing else f"retention {full['retention']}"
        raise ServerUnfit(f"the in-memory transport has no {what}", code="memory.unsupported", found=what)
    if full.get("allow_msg_schedules") and full["discard"] == "new":
        raise refusal("message schedules cannot be used with discard new")
    if full.get("subject_delete_marker_ttl") or full.get("allow_msg_schedules"):
        full.update(allow_rollup_hdrs=True, deny_purge=False)  # so does the server, silently
    _limit_window(full, "duplicate_window" in given)
    if full.get("republish"):
        full["republish"] = _republish_rule(full["republish"], full["subjects"])
    return full


def _limit_window(full: dict[str, Any], chosen: bool) -> None:
    if not 0 < full["max_age"] < full["duplicate_window"]:
        return
    if chosen:
        raise refusal("duplicates window can not be larger than max age")
    full["duplicate_window"] = full["max_age"]


def refusal(message: str, **fields: object) -> PublishFailed:
    """What the broker says no to."""
    return PublishFailed(message, code="mesh.refused", **fields)


def overlap(one: str, other: str) -> bool:
    """Whether some subject is covered by both patterns."""
    mine, theirs = one.split("."), other.split(".")
    for first, second in zip(mine, theirs, strict=False):
        if ">" in (first, second):
            return True
        if "*" not in (first, second) and first != second:
            return False
    return len(mine) == len(theirs)


def _republish_rule(rule: Mapping[str, Any], subjects: list[str]) -> dict[str, Any]:
    """A rule as the server keeps it; refused where it could not be carried out or would never end."""
    source, target = rule.get("src") or ">", rule["dest"]
    places = [int(found[1] or found[2]) for found in map(_PLACE.fullmatch, target.split(".")) if found]
    carries = (">" in source) == (">" in target) and "*" not in target.split(".")
    if not carries or any(place > source.split(".").count("*") for place in places):
        raise refusal(f"republish from {source!r} to {target!r} is not valid", found=target)
    if any(overlap(_PLACE.sub("*", target), subject) for subject in subjects):
        raise refusal(f"republish to {target!r} forms a cycle", found=target)
    return {**rule, "src": source}


def republished(rule: Mapping[str, Any] | None, subject: str) -> str | None:
    """The subject a stored message is repeated on, or None.

    `dest` may hold `{{wildcard(n)}}` or `$n` for the n-th `*` of `src`, and `>` for the rest.
    """
    if not rule or not matches(rule["src"], subject):
        return None
    found, pattern = subject.split("."), rule["src"].split(".")
    captured = [token for token, wanted in zip(found, pattern, strict=False) if wanted == "*"]
    rest = found[len(pattern) - 1 :] if pattern[-1] == ">" else []
    made: list[str] = []
    for part in rule["dest"].split("."):
        place = _PLACE.fullmatch(part)
        if place:
            made.append(captured[int(place[1] or place[2]) - 1])
        else:
            made.extend(rest if part == ">" else [part])
    return ".".join(made)


def lifetime(headers: Mapping[str, str], config: Mapping[str, Any]) -> timedelta | None:
    """How long a message is kept: the shorter of its `Nats-TTL` and the stream's `max_age`; None is for ever."""
    limits = [config["max_age"] / 1e9] if config["max_age"] else []
    text = headers.get("Nats-TTL")
    if text == "never":
        return None
    if text is not None:
        if not config["allow_msg_ttl"]:
            raise refusal("per-message TTL is disabled")
        limits.append(seconds(text))
    return timedelta(seconds=min(limits)) if limits else None


def seconds(text: str) -> float:
    """Seconds of a `Nats-TTL`: whole seconds, or a Go duration; less than one second is refused."""
    parts = _PART.findall(text)
    if text.isdigit():
        found = float(text)
    elif parts and "".join(number + unit for number, unit in parts) == text:
        found = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        found = 0.0
    if found < 1.0:
        raise refusal(f"invalid per-message TTL {text!r}", found=text)
    return found


def schedule(headers: Mapping[str, str], config: Mapping[str, Any], subject: str) -> datetime | None:
    """When a scheduled message is due, or None for a plain one; only `@at <RFC 3339>` is offered."""
    text = headers.get("Nats-Schedule")
    if text is None:
        return None
    if not config.get("allow_msg_schedules"):
        raise refusal("message schedules is disabled")
    target = headers.get("Nats-Schedule-Target", "")
    if target in ("", subject) or not any(matches(pattern, target) for pattern in config["subjects"]):
        raise refusal("message schedules target is invalid", found=target)
    kind, _, moment = text.partition(" ")
    try:
        if kind != "@at":
            raise ValueError(text)
        return parse_time(moment)
    except ValueError as error:
        raise refusal("message schedules pattern is invalid", found=text) from error
