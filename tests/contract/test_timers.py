"""Durable timers: a message stored for later, replaced, and called off."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from agentflow.clock import SystemClock, format_time
from agentflow.errors import PublishFailed
from agentflow.mesh.transport import Message, Transport
from tests.contract.meshes import SECOND, stream, timers
from tests.support.waiting import eventually, stays

SET, DUE = "timers.set.workflow.run.0", "timers.due.workflow.run.0"


@pytest.fixture(autouse=True)
async def timer_stream(transport: Transport) -> None:
    """A stream for timers."""
    await transport.create_stream(timers())


def in_seconds(seconds: float) -> datetime:
    """A moment by the machine's clock, which the server shares."""
    return SystemClock().now() + timedelta(seconds=seconds)


def at(moment: datetime, target: str = DUE, **more: str) -> Mapping[str, str]:
    """The headers that arm a timer."""
    return {"Nats-Schedule": f"@at {format_time(moment)}", "Nats-Schedule-Target": target, **more}


async def due(transport: Transport, subject: str = DUE) -> Message | None:
    """What a timer stored when it was due."""
    return await transport.last("TIMERS", subject)


async def test_a_timer_is_stored_on_its_target_when_it_is_due(transport: Transport) -> None:
    """Not before its time, and soon after; its own message is gone then."""
    moment = in_seconds(1.0)
    await transport.publish(SET, b"wake up", stream="TIMERS", headers=at(moment))
    assert await due(transport) is None
    assert await transport.last("TIMERS", SET) is not None

    found = await eventually(lambda: due(transport))

    assert b"wake up" == found.body
    assert moment - timedelta(milliseconds=20) <= found.time <= moment + timedelta(seconds=3)
    assert await transport.last("TIMERS", SET) is None


async def test_what_a_timer_stores_carries_its_headers_but_not_its_schedule(transport: Transport) -> None:
    """Trace context survives; the schedule is gone, and its TTL became the message's own."""
    headers = at(in_seconds(0.1), **{"Nats-Schedule-TTL": "1h", "traceparent": "00-ab"})
    await transport.publish(SET, b"x", stream="TIMERS", headers=headers)

    found = await eventually(lambda: due(transport))

    assert "00-ab" == found.headers["traceparent"]
    assert SET == found.headers["Nats-Scheduler"]
    assert found.headers["Nats-TTL"] in ("1h", "1h0m0s", "3600s")
    assert not {"Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL"} & found.headers.keys()


async def test_a_timer_of_the_past_fires_at_once(transport: Transport) -> None:
    """What fell due while nobody was there is not forgotten."""
    await transport.publish(SET, b"late", stream="TIMERS", headers=at(datetime(2020, 1, 1, tzinfo=UTC)))

    found = await eventually(lambda: due(transport))

    assert b"late" == found.body


async def test_arming_again_replaces(transport: Transport) -> None:
    """An owner has one timer: the later message counts, and the earlier one never fires (the sequence tells)."""
    await transport.publish(SET, b"first", stream="TIMERS", headers=at(in_seconds(1.0)))
    await transport.publish(SET, b"second", stream="TIMERS", headers=at(in_seconds(1.5)))

    found = await eventually(lambda: due(transport))

    assert (b"second", 3) == (found.body, found.seq)


async def test_arming_again_may_bring_it_forward(transport: Transport) -> None:
    """A timer far away is replaced by a near one, and fires once."""
    await transport.publish(SET, b"far", stream="TIMERS", headers=at(in_seconds(3600)))
    await transport.publish(SET, b"near", stream="TIMERS", headers=at(in_seconds(0.2)))

    found = await eventually(lambda: due(transport))

    assert b"near" == found.body
    assert await transport.last("TIMERS", SET) is None


async def test_a_plain_message_calls_a_timer_off(transport: Transport) -> None:
    """Overwriting the set subject cancels; the plain message leaves by its own TTL."""
    await transport.publish(SET, b"x", stream="TIMERS", headers=at(in_seconds(1.0)))
    await transport.publish(SET, b"", stream="TIMERS", headers={"Nats-TTL": "1s"})

    async def gone() -> bool:
        return await transport.last("TIMERS", SET) is None

    assert await eventually(gone)
    await stays(lambda: True, during=0.5)
    info = await transport.stream_info("TIMERS")
    assert info is not None
    assert (0, 2) == (info.messages, info.last_seq)


async def test_timers_of_different_owners_do_not_touch_each_other(transport: Transport) -> None:
    """Three timers fire in the order they are due, not in the order they were set."""
    now = in_seconds(0)
    for owner, seconds in (("a", 1.4), ("b", 1.0), ("c", 1.2)):
        headers = at(now + timedelta(seconds=seconds), f"timers.due.workflow.{owner}.0")
        await transport.publish(f"timers.set.workflow.{owner}.0", owner.encode(), stream="TIMERS", headers=headers)

    async def fired() -> list[bytes]:
        found = [message.body async for message in transport.read("TIMERS", "timers.due.>")]
        return found if len(found) == 3 else []

    assert [b"b", b"c", b"a"] == await eventually(fired)


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z"},
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": SET},
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "events.a"},
        {"Nats-Schedule": "@at tomorrow", "Nats-Schedule-Target": DUE},
        {"Nats-Schedule": "whenever", "Nats-Schedule-Target": DUE},
    ],
    ids=["no target", "itself", "another stream", "no time", "no schedule"],
)
async def test_a_timer_that_could_never_fire_is_refused(transport: Transport, headers: dict[str, str]) -> None:
    """With the certainty of a refusal, and nothing is stored."""
    await transport.create_stream(stream())

    with pytest.raises(PublishFailed):
        await transport.publish(SET, b"", stream="TIMERS", headers=headers)

    assert await transport.last("TIMERS", SET) is None


@pytest.mark.parametrize("ttl", ["soon", "0s", "10ms", "-5s"])
async def test_a_lifetime_that_is_none_is_refused(transport: Transport, ttl: str) -> None:
    """Lifetimes are whole seconds or Go durations, of one second at least."""
    with pytest.raises(PublishFailed):
        await transport.publish(SET, b"", stream="TIMERS", headers={"Nats-TTL": ttl})


async def test_schedules_and_discard_new_exclude_each_other(transport: Transport) -> None:
    """The server refuses such a stream, so the timers' stream must have no limit that could drop one."""
    with pytest.raises(PublishFailed):
        await transport.create_stream(stream("MORE", "more.>", allow_msg_schedules=True, discard="new"))


async def test_lifetimes_are_seconds_durations_or_never(transport: Transport) -> None:
    """The shorter of a message's own and its stream's counts; `never` outlives the stream's."""
    config = stream(max_age=2 * SECOND, duplicate_window=SECOND, allow_msg_ttl=True)
    await transport.create_stream(config)
    for name, ttl in (("plain", "1"), ("duration", "1h1m1s"), ("never", "never")):
        await transport.publish(f"events.{name}", b"", stream="EVENTS", headers={"Nats-TTL": ttl})
    await transport.publish("events.none", b"", stream="EVENTS")

    async def left() -> list[str]:
        return [message.subject.removeprefix("events.") async for message in transport.read("EVENTS")]

    async def without_plain() -> bool:
        return "plain" not in await left()

    async def only_never() -> bool:
        return await left() == ["never"]

    assert await eventually(without_plain)
    assert ["duration", "never", "none"] == await left()
    assert await eventually(only_never)
