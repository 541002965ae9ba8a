"""Object stores: blobs by name, whole or not at all."""

import pytest

from agentflow.errors import NotStored
from agentflow.mesh.transport import Objects, Transport
from tests.contract.meshes import Mesh, objects


@pytest.fixture
async def blobs(transport: Transport) -> Objects:
    """An object store."""
    await transport.create_stream(objects())
    return await transport.objects("BLOBS")


async def test_an_object_store_has_to_exist(transport: Transport) -> None:
    """Asking for one that was never provisioned is an error at once."""
    with pytest.raises(NotStored):
        await transport.objects("BLOBS")


@pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 1024 * 1024, 5 * 1024 * 1024 + 7])
async def test_a_blob_is_read_as_it_was_put(blobs: Objects, size: int) -> None:
    """From nothing to more than a message may hold."""
    data = bytes(number % 251 for number in range(1024)) * (size // 1024) + b"x" * (size % 1024)

    await blobs.put("sha256-abc", data)

    assert data == await blobs.get("sha256-abc")
    assert await blobs.has("sha256-abc")


async def test_what_is_absent_is_an_error(blobs: Objects) -> None:
    """A lost artifact is never taken for an empty one."""
    with pytest.raises(NotStored):
        await blobs.get("sha256-abc")

    assert not await blobs.has("sha256-abc")


async def test_a_name_keeps_its_first_bytes(transport: Transport, blobs: Objects) -> None:
    """Names are hashes: putting again stores nothing."""
    await blobs.put("sha256-abc", b"first")
    before = await transport.stream_info("OBJ_BLOBS")

    await blobs.put("sha256-abc", b"second")

    after = await transport.stream_info("OBJ_BLOBS")
    assert b"first" == await blobs.get("sha256-abc")
    assert before == after


async def test_blobs_do_not_mix(blobs: Objects) -> None:
    """Each name has its own bytes."""
    names = [f"blob-{number}" for number in range(5)]
    for name in names:
        await blobs.put(name, name.encode() * 50_000)

    for name in reversed(names):
        assert name.encode() * 50_000 == await blobs.get(name)


async def test_two_connections_see_one_store(mesh: Mesh) -> None:
    """What one keeps the other finds."""
    await mesh.transport.create_stream(objects())
    mine, theirs = await mesh.transport.objects("BLOBS"), await (await mesh.attach()).objects("BLOBS")

    await mine.put("a", b"1")

    assert b"1" == await theirs.get("a")
