"""How a stream on the server differs from its definition. Pure: two configurations in, differences out.

The server leaves out of its answers what is off, empty or default, and adds metadata of its own; none of that is
drift. A setting nobody declared is: a `sources` or `subject_transform` added by hand changes what a stream holds.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from agentflow_streams.definitions import Definition

PROTECTED = frozenset(
    {
        "allow_msg_schedules",
        "allow_msg_ttl",
        "allow_rollup_hdrs",
        "deny_delete",
        "deny_purge",
        "discard",
        "no_ack",
        "persist_mode",
        "retention",
        "sealed",
        "storage",
    }
)
"""Keys whose drift means that a stream no longer keeps what it should keep."""

LIMITS = ("max_age", "max_bytes", "max_msgs", "max_msgs_per_subject")
"""Keys that remove stored messages when they become narrower."""

OPERATORS_OWN = frozenset({"metadata", "placement"})
"""Keys that are not declared because they are the operator's, or the server's own."""

_DEFAULTS = {"compression": "none", "persist_mode": "default"}


class Drift(msgspec.Struct, frozen=True):
    """One key of one stream that is not as declared."""

    stream: str
    key: str
    declared: Any
    """None: not declared at all."""
    found: Any
    protected: bool
    """Whether the stream's evidence is less safe than declared."""
    note: str = ""
    """Why an update left it as it is, where it did."""

    @property
    def sentence(self) -> str:
        """The difference in words."""
        told = f"{self.stream}.{self.key} is {_shown(self.found)}, declared is {_shown(self.declared)}"
        return f"{told} ({self.note})" if self.note else told


def compare(definition: Definition, found: Mapping[str, Any]) -> list[Drift]:
    """Every difference between a definition and what the server has, sorted by key."""
    declared = definition.config()
    keys = {*declared, *found} - OPERATORS_OWN
    return [
        Drift(definition.name, key, declared.get(key), found.get(key), key in PROTECTED)
        for key in sorted(keys)
        if _normal(key, declared.get(key)) != _normal(key, found.get(key))
    ]


def would_remove_history(definition: Definition, drift: Drift) -> bool:
    """Whether setting the declared value would make the server drop messages it has."""
    if drift.key not in LIMITS or definition.subject_delete_marker_ttl:  # what is refreshed all the time has no history
        return False
    declared, found = _as_limit(drift.declared), _as_limit(drift.found)
    return declared < found


def _normal(key: str, value: Any) -> Any:
    """A value with everything that means "off" or "default" as None."""
    if isinstance(value, Mapping):
        inner = {name: _normal(name, item) for name, item in value.items()}
        value = {name: item for name, item in inner.items() if item is not None}
    elif isinstance(value, list | tuple):
        value = list(value)
    if not value or value == _DEFAULTS.get(key):
        return None
    return value


def _as_limit(value: Any) -> float:
    """A limit as a number; what is not above 0 is no limit."""
    return value if isinstance(value, int | float) and value > 0 else float("inf")


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
