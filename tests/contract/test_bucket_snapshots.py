"""Listing a bucket while others write to it: keys that are there all the time are always listed."""

import asyncio

from agentflow.mesh.transport import Bucket
from tests.contract.meshes import Mesh, bucket

KEYS = [f"agent.{number}" for number in range(700)]
"""More than one batch of a read."""

PAUSE = 0.2
"""Seconds; far less than between real heartbeats."""


async def beat(registry: Bucket, stop: asyncio.Event) -> None:
    """Write every key again and again, with a pause between the beats, as heartbeats do."""
    while not stop.is_set():
        await asyncio.gather(*(registry.put(key, b"alive") for key in KEYS))
        await asyncio.sleep(PAUSE)


async def test_keys_that_are_refreshed_are_never_missing(mesh: Mesh) -> None:
    """Each write moves a key to the end of the stream, past whoever reads it just then; it must be found there."""
    await mesh.transport.create_stream(bucket())
    registry = await mesh.transport.bucket("STATE")
    writer = await (await mesh.attach()).bucket("STATE")
    for key in KEYS:
        await registry.put(key, b"alive")

    stop = asyncio.Event()
    beating = asyncio.create_task(beat(writer, stop))
    listed = [[entry.key for entry in await registry.entries("agent.")] for _ in range(6)]
    stop.set()
    await beating

    assert [sorted(KEYS)] * 6 == listed
