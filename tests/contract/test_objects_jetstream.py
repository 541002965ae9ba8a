"""Object stores on a real server: what reading leaves there, and what it makes of damage."""

import asyncio
from pathlib import Path

import pytest

from agentflow.errors import EvidenceError
from agentflow.mesh.jetstream import JetStreamTransport
from tests.support.nats_server import NatsServer

STORE = {"name": "OBJ_BLOBS", "subjects": ["$O.BLOBS.C.>", "$O.BLOBS.M.>"], "allow_direct": True}
MORE = {"allow_rollup_hdrs": True, "storage": "file", "discard": "new", "retention": "limits"}


async def test_reading_leaves_no_consumer_on_the_server(tmp_path: Path) -> None:
    """However often, however large: a mesh reads a definition for every goal."""
    with NatsServer(tmp_path) as server:
        transport = await JetStreamTransport.connect(server.url)
        try:
            await transport.create_stream({**STORE, **MORE})
            blobs = await transport.objects("BLOBS")
            await blobs.put("large", b"x" * 400_000)
            found = await asyncio.gather(*(blobs.get("large") for _ in range(8)))
            info = await transport.stream_info("OBJ_BLOBS")
        finally:
            await transport.close()

    assert [b"x" * 400_000] * 8 == found
    assert info is not None
    assert 0 == info.consumers


@pytest.mark.parametrize("whole", [True, False])
async def test_chunks_that_are_gone_or_others_are_damage(tmp_path: Path, whole: bool) -> None:
    """Neither half an object nor another one is handed out, and nobody waits for what will not come."""
    with NatsServer(tmp_path) as server:
        transport = await JetStreamTransport.connect(server.url)
        try:
            await transport.create_stream({**STORE, **MORE})
            blobs = await transport.objects("BLOBS")
            await blobs.put("large", b"x" * 400_000)
            first = await transport.first("OBJ_BLOBS", "$O.BLOBS.C.>")
            assert first is not None
            await transport.request("$JS.API.STREAM.MSG.DELETE.OBJ_BLOBS", b'{"seq": %d}' % first.seq)
            if whole:  # another chunk of the same size, behind the others
                await transport.publish(first.subject, b"y" * len(first.body), stream="OBJ_BLOBS")
            with pytest.raises(EvidenceError) as damage:
                await blobs.get("large")
        finally:
            await transport.close()

    assert "artifact.altered" == damage.value.error_code
