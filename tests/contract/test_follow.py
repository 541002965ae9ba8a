"""Core subscriptions to republished subjects: hints that something was stored."""

import pytest

from agentflow.errors import Conflict, PublishFailed
from agentflow.mesh.transport import Transport
from tests.contract.meshes import Mesh, stream

REPUBLISH = {"src": "events.*.out", "dest": "stored.events.{{wildcard(1)}}.out"}


@pytest.fixture(autouse=True)
async def events(transport: Transport) -> None:
    """A stream that repeats `events.*.out` on `stored.…`."""
    await transport.create_stream(stream(republish=REPUBLISH))


async def test_what_is_stored_is_repeated(transport: Transport) -> None:
    """Body and mapped subject, in order, for whoever subscribed before."""
    following = transport.follow("stored.events.*.out")
    await following.ready()
    for name in ("a", "b", "a"):
        await transport.publish(f"events.{name}.out", f"from {name}".encode(), stream="EVENTS")

    seen = [await following.next(timeout=5) for _ in range(3)]

    assert [
        ("stored.events.a.out", b"from a"),
        ("stored.events.b.out", b"from b"),
        ("stored.events.a.out", b"from a"),
    ] == seen


async def test_only_what_the_rule_covers_is_repeated(transport: Transport) -> None:
    """Another subject of the same stream is not."""
    following = transport.follow("stored.>")
    await following.ready()
    await transport.publish("events.a.in", b"quiet", stream="EVENTS")
    await transport.publish("events.a.out", b"loud", stream="EVENTS")

    assert ("stored.events.a.out", b"loud") == await following.next(timeout=5)
    assert await following.next(timeout=0.2) is None


async def test_what_the_stream_refused_is_not_repeated(transport: Transport) -> None:
    """Neither the loser of a race nor a duplicate: followers see what is stored, and that once."""
    following = transport.follow("stored.events.a.out")
    await following.ready()
    await transport.publish("events.a.out", b"won", stream="EVENTS", expect=0)
    with pytest.raises(Conflict):
        await transport.publish("events.a.out", b"lost", stream="EVENTS", expect=0)
    for _ in range(2):
        await transport.publish("events.a.out", b"next", stream="EVENTS", msg_id="one")

    assert [b"won", b"next"] == [(await following.next(timeout=5) or ("", b""))[1] for _ in range(2)]
    assert await following.next(timeout=0.2) is None


async def test_followers_see_their_subjects_each_for_itself(mesh: Mesh) -> None:
    """Two followers of one subject both get it, one of another subject does not."""
    other = await mesh.attach()
    same, again, elsewhere = (
        mesh.transport.follow("stored.events.a.out"),
        other.follow("stored.events.a.out"),
        other.follow("stored.events.b.out"),
    )
    for following in (same, again, elsewhere):
        await following.ready()

    await mesh.transport.publish("events.a.out", b"x", stream="EVENTS")

    assert ("stored.events.a.out", b"x") == await same.next(timeout=5) == await again.next(timeout=5)
    assert await elsewhere.next(timeout=0.2) is None


async def test_a_follower_sees_nothing_from_before_it_was_there(transport: Transport) -> None:
    """It is a hint, not a history."""
    await transport.publish("events.a.out", b"before", stream="EVENTS")
    following = transport.follow("stored.events.a.out")
    await following.ready()
    await transport.publish("events.a.out", b"after", stream="EVENTS")

    assert ("stored.events.a.out", b"after") == await following.next(timeout=5)


async def test_a_closed_follower_gets_nothing_more(transport: Transport) -> None:
    """Closing twice is fine."""
    following = transport.follow("stored.events.a.out")
    await following.ready()
    await following.close()
    await following.close()
    await transport.publish("events.a.out", b"x", stream="EVENTS")

    assert await following.next(timeout=0.2) is None


async def test_a_plain_destination_works_too(transport: Transport) -> None:
    """One fixed subject for all that a rule covers."""
    await transport.create_stream(stream("MORE", "more.>", republish={"src": "more.*.b", "dest": "stored.more"}))
    following = transport.follow("stored.more")
    await following.ready()
    await transport.publish("more.a.b", b"x", stream="MORE")

    assert ("stored.more", b"x") == await following.next(timeout=5)


async def test_the_rest_of_a_subject_is_carried_over(transport: Transport) -> None:
    """`>` at the end of the rule stands for the same in the copy."""
    await transport.create_stream(stream("MORE", "more.>", republish={"src": "more.>", "dest": "stored.more.>"}))
    following = transport.follow("stored.more.>")
    await following.ready()
    await transport.publish("more.a.b", b"x", stream="MORE")

    assert ("stored.more.a.b", b"x") == await following.next(timeout=5)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("more.>", "stored.more"),
        ("more.a", "stored.>"),
        ("more.*.out", "stored.*.out"),
        ("more.*", "stored.{{wildcard(2)}}"),
        ("more.>", "more.again.>"),
    ],
    ids=["loses the rest", "has no rest", "bare wildcard", "no such wildcard", "cycle"],
)
async def test_a_rule_that_cannot_be_carried_out_is_refused(transport: Transport, source: str, target: str) -> None:
    """When the stream is created, not when a message is lost."""
    with pytest.raises(PublishFailed):
        await transport.create_stream(stream("MORE", "more.>", republish={"src": source, "dest": target}))
