"""Whether a tool may change the way it did without a new version (requirement AF-21-02). Pure.

A version is a promise to callers: what they sent is still taken, what they were given is still there, and what a call
may do and how it may be repeated is unchanged. Titles, descriptions, examples, cost and timeout may change freely.
"""

from typing import Any

from agentflow.registry import ToolDeclaration

_ANNOTATIONS = frozenset({"title", "description", "examples", "default", "$comment"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})


def incompatibilities(old: ToolDeclaration, new: ToolDeclaration) -> list[str]:
    """What in `new` breaks a promise of `old`; empty where the versions differ or nothing is broken."""
    if old.version != new.version:
        return []
    found = []
    if old.effect != new.effect:
        found.append(f"effect was {old.effect}, is {new.effect}")
    if sorted(old.permissions) != sorted(new.permissions):
        found.append(f"permissions were {sorted(old.permissions)}, are {sorted(new.permissions)}")
    before, after = bare(old.input_schema), bare(new.input_schema)
    found += _shape("input", before, after)
    found += [f"input {name!r} is required now" for name in _new(before, after, "required")]
    closed = after.get("additionalProperties") is False
    found += [f"input {name!r} is not taken any more" for name in _new(after, before, "properties") if closed]
    before, after = bare(old.output_schema), bare(new.output_schema)
    found += _shape("output", before, after)
    found += [f"output {name!r} is not promised any more" for name in _new(after, before, "required")]
    return found


def bare(schema: Any) -> Any:
    """A schema without what only people read."""
    if not isinstance(schema, dict):
        return [bare(item) for item in schema] if isinstance(schema, list) else schema
    return {
        key: {name: bare(each) for name, each in value.items()} if key in _MAPS else bare(value)
        for key, value in schema.items()
        if key not in _ANNOTATIONS
    }


def _new(before: dict[str, Any], after: dict[str, Any], member: str) -> list[str]:
    """The names under `member` that are in `after` and not in `before`."""
    return sorted(set(after.get(member, ())) - set(before.get(member, ())))


def _shape(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Members both have whose schemas differ, and keywords beside the members that differ."""
    old, new = before.get("properties", {}), after.get("properties", {})
    found = [
        f"{what} {name!r} has another schema" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
    ]
    loose = {"properties", "required"}
    if {k: v for k, v in before.items() if k not in loose} != {k: v for k, v in after.items() if k not in loose}:
        found.append(f"the {what} as a whole has another schema")
    return found
