"""One durable consumer, several processes: work is shared, or one is active and the others stand by."""

from collections.abc import Sequence

from agentflow.mesh.transport import Transport
from tests.contract.meshes import Mesh, Worker, consumer, fill, stream, workers
from tests.support.waiting import eventually, stays

TAKEOVER = 15.0
"""Seconds; the server notices a silent active process after a few."""


def seqs(worker: Worker) -> set[int]:
    """The sequences of what a worker has seen."""
    return {delivery.message.seq for delivery in worker.seen}


async def first_to_see(shared: Sequence[Worker], count: int) -> Worker:
    """The worker that has seen `count` messages first."""
    await eventually(lambda: any(len(worker.seen) >= count for worker in shared))
    return next(worker for worker in shared if len(worker.seen) >= count)


async def three(mesh: Mesh) -> list[Transport]:
    """Connections to a broker with the stream."""
    await mesh.transport.create_stream(stream())
    return [mesh.transport, await mesh.attach(), await mesh.attach()]


async def test_attachments_share_the_work(mesh: Mesh) -> None:
    """Ninety messages for three workers with two slots each: each message goes to one, and each worker gets some."""
    transports = await three(mesh)
    async with workers(transports, consumer(), capacity=2) as shared:
        await fill(mesh.transport, 90)

        async def settle() -> bool:
            for worker in shared:
                await worker.ack(*worker.seen[len(worker.seen) - worker.in_hand :])
            return sum(len(worker.seen) for worker in shared) == 90

        await eventually(settle)

    assert list(range(1, 91)) == sorted(each.message.seq for worker in shared for each in worker.seen)
    assert all(worker.seen for worker in shared)


async def test_of_pinned_attachments_one_is_active(mesh: Mesh) -> None:
    """All messages go to one of three, in order, although all of them have slots."""
    transports = await three(mesh)
    async with workers(transports, consumer(pinned=True), acks=True) as shared:
        bodies = await fill(mesh.transport, 10)
        await eventually(lambda: sum(len(worker.seen) for worker in shared) == 10)
        bodies += await fill(mesh.transport, 10, "events.b")
        await eventually(lambda: sum(len(worker.seen) for worker in shared) == 20)
        active = next(worker for worker in shared if worker.seen)
        await stays(lambda: len(active.seen) == 20)

    assert bodies == active.bodies


async def test_an_idle_pinned_attachment_stays_the_active_one(mesh: Mesh) -> None:
    """Waiting for messages longer than a takeover takes does not cost it its place."""
    transports = await three(mesh)
    async with workers(transports, consumer(pinned=True), acks=True) as shared:
        await fill(mesh.transport, 1)
        active = await first_to_see(shared, 1)
        await stays(lambda: True, during=5.0)
        await fill(mesh.transport, 5)
        await eventually(lambda: sum(len(worker.seen) for worker in shared) == 6)

    assert 6 == len(active.seen)


async def test_a_busy_pinned_attachment_stays_the_active_one(mesh: Mesh) -> None:
    """A handler that takes all slots for a while does not lose its place to one that stands by: work is not reordered."""
    transports = await three(mesh)
    async with workers(transports[:2], consumer(pinned=True), capacity=2) as shared:
        await fill(mesh.transport, 6)
        active = await first_to_see(shared, 2)
        other = next(worker for worker in shared if worker is not active)
        await stays(lambda: not other.seen, during=4.0)
        for handled in (2, 4):
            await active.ack(*active.seen[handled - 2 : handled])
            await first_to_see([active], handled + 2)

    assert not other.seen


async def test_when_the_active_attachment_closes_another_takes_over(mesh: Mesh) -> None:
    """What it did not settle comes to the one that takes over, and so does all that is new."""
    transports = await three(mesh)
    async with workers(transports, consumer(pinned=True, ack_wait=1.0)) as shared:
        await fill(mesh.transport, 4)
        active = await first_to_see(shared, 4)
        await active.ack(*active.seen[:3])
        await active.stop()
        await fill(mesh.transport, 2)
        others = [worker for worker in shared if worker is not active]
        await eventually(lambda: any({4, 5, 6} <= seqs(worker) for worker in others), within=TAKEOVER)
        heir = next(worker for worker in others if worker.seen)
        await heir.ack(*heir.seen)

    assert [heir] == [worker for worker in others if worker.seen]


async def test_when_the_active_process_dies_another_takes_over(mesh: Mesh) -> None:
    """It ends without a word; one that stood by becomes active by itself, in bounded time."""
    spec = consumer(pinned=True, ack_wait=1.0)
    transports = await three(mesh)
    dying = await Worker(await transports[1].consume(spec)).__aenter__()
    await fill(mesh.transport, 1)
    await eventually(lambda: dying.seen)
    async with Worker(await transports[2].consume(spec)) as heir:
        await stays(lambda: not heir.seen)
        dying.kill()
        await transports[1].close()
        await fill(mesh.transport, 2)
        await eventually(lambda: {1, 2, 3} <= seqs(heir), within=TAKEOVER)
        await heir.ack(*heir.seen)
