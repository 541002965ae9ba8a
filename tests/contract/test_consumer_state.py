"""What a connection says of its consumers and of its server."""

from tests.contract.meshes import Mesh, Worker, consumer, fill, stream
from tests.support.waiting import eventually


async def test_a_connection_knows_the_backlog_of_its_consumers(mesh: Mesh) -> None:
    """What was not delivered yet, what is in somebody's hands; settled, nothing is left."""
    transport = mesh.transport
    await transport.create_stream(stream())
    await fill(transport, 5)
    assert [] == list(await transport.attached())

    async with Worker(await transport.consume(consumer()), capacity=2) as worker:
        await eventually(lambda: len(worker.seen) == 2)
        [held] = await transport.attached()
        assert ("EVENTS", "worker", True) == (held.stream, held.name, held.exists)
        assert (3, 2) == (held.pending, held.unacknowledged)
        worker.in_hand = -100
        await eventually(lambda: len(worker.seen) == 5)
        await worker.ack(*worker.seen)

        async def settled() -> bool:
            [state] = await transport.attached()
            return (state.pending, state.unacknowledged) == (0, 0)

        await eventually(settled)
    assert [] == list(await transport.attached())


async def test_other_subjects_are_no_backlog(mesh: Mesh) -> None:
    """Only what the consumer takes counts."""
    transport = mesh.transport
    await transport.create_stream(stream())
    await transport.consume(consumer("worker", "events.a"))
    await fill(transport, 2, "events.a")
    await fill(transport, 3, "events.b")

    [state] = await transport.attached()

    assert 2 == state.pending


async def test_two_connections_see_the_same_server(mesh: Mesh) -> None:
    """Its name is its process', not the connection's."""
    assert mesh.transport.server_id
    assert mesh.transport.server_id == (await mesh.attach()).server_id
