"""Telling the mesh which tools exist: `tool.<id>` in `AF_CONFIG`, written only where something changed."""

import msgspec

from agentflow.errors import ConfigError, Conflict
from agentflow.mesh.transport import Bucket, Entry
from agentflow.registry import ToolDeclaration, tool_key
from agentflow_executor.compat import incompatibilities


async def declare(bucket: Bucket, declaration: ToolDeclaration) -> bool:
    """Declare a tool; returns whether something had to be written. Safe to do from several processes at once.

    Raises `ConfigError` (`tool.incompatible`) where the tool breaks what its version promised before.
    """
    key, value = tool_key(declaration.id), msgspec.json.encode(declaration)
    while True:
        there = await bucket.get(key)
        try:
            if there is None:
                await bucket.create(key, value)
                return True
            if there.value == value:
                return False
            check_compatible(there, declaration)
            await bucket.update(key, value, there.revision)
            return True
        except Conflict:
            continue


def check_compatible(there: Entry, declaration: ToolDeclaration) -> None:
    """Refuse a declaration that breaks the promise of the one that is there."""
    try:
        before = msgspec.json.decode(there.value, type=ToolDeclaration)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{there.key} holds no tool declaration: {error}", code="tool.declaration") from error
    broken = incompatibilities(before, declaration)
    if broken:
        raise ConfigError(
            f"tool {declaration.id} {declaration.version} breaks what this version promised: {'; '.join(broken)}; "
            "give it a new version",
            code="tool.incompatible",
            tool=declaration.id,
            problems=broken,
        )
