"""Declaring tools to the mesh: written where something changed, refused where a promise is broken."""

import asyncio

import msgspec
import pytest

from agentflow.errors import ConfigError
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Bucket
from agentflow.registry import CONFIG, ToolDeclaration, tool_key
from agentflow_executor.declare import declare
from tests.services.executor.sample_tools import add

MINE = add.declaration


@pytest.fixture
async def bucket(mesh: MemoryTransport) -> Bucket:
    """Where declarations are kept."""
    return await mesh.bucket(CONFIG)


async def there(bucket: Bucket) -> tuple[ToolDeclaration, int]:
    """What is declared, and its revision."""
    entry = await bucket.get(tool_key("add"))
    assert entry is not None
    return msgspec.json.decode(entry.value, type=ToolDeclaration), entry.revision


async def test_a_new_tool_is_declared(bucket: Bucket) -> None:
    """As it is."""
    assert await declare(bucket, MINE)
    assert MINE == (await there(bucket))[0]


async def test_an_unchanged_tool_is_not_written_again(bucket: Bucket) -> None:
    """Every start would move the revision."""
    await declare(bucket, MINE)
    before = await there(bucket)

    assert not await declare(bucket, MINE)
    assert before == await there(bucket)


async def test_a_compatible_change_is_written(bucket: Bucket) -> None:
    """Another description under the same version; anything under another."""
    await declare(bucket, MINE)

    assert await declare(bucket, msgspec.structs.replace(MINE, description="Adds."))
    assert await declare(bucket, msgspec.structs.replace(MINE, version="2.0.0", effect="idempotent"))
    assert "2.0.0" == (await there(bucket))[0].version


async def test_an_incompatible_change_is_refused_and_nothing_is_written(bucket: Bucket) -> None:
    """The message says what broke and what to do."""
    await declare(bucket, MINE)

    with pytest.raises(ConfigError) as caught:
        await declare(bucket, msgspec.structs.replace(MINE, effect="irreversible"))

    assert "tool.incompatible" == caught.value.error_code
    assert "tool add 1.0.0" in str(caught.value)
    assert "give it a new version" in str(caught.value)
    assert MINE == (await there(bucket))[0]


async def test_what_is_no_declaration_is_not_overwritten(bucket: Bucket) -> None:
    """Somebody else's value under the key is for a person."""
    await bucket.put(tool_key("add"), b"{}")

    with pytest.raises(ConfigError) as caught:
        await declare(bucket, MINE)

    assert "tool.declaration" == caught.value.error_code


async def test_several_processes_may_declare_at_once(mesh: MemoryTransport) -> None:
    """One of them writes; none fails."""
    connections = [MemoryTransport(mesh.broker) for _ in range(5)]
    buckets = [await each.bucket(CONFIG) for each in connections]
    wrote = await asyncio.gather(*(declare(bucket, MINE) for bucket in buckets))

    assert 1 == sum(wrote)
    assert MINE == (await there(buckets[0]))[0]
