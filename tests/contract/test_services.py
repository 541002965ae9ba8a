"""Micro services, plain requests, and whether the broker is there at all."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from agentflow.errors import MeshError, NotStored, OutcomeUnknown, Unreachable
from agentflow.mesh.transport import ServiceSpec, Transport
from tests.contract.meshes import Mesh, stream
from tests.support.waiting import eventually


async def upper(body: bytes) -> bytes:
    """An endpoint."""
    return body.upper()


def echo(**more: Any) -> ServiceSpec:
    """A service with one endpoint, `echo.upper`."""
    base: dict[str, Any] = {
        "description": "says it louder",
        "metadata": {"kind": "test"},
        "endpoints": {"upper": upper},
    }
    return ServiceSpec("echo", "1.2.3", **{**base, **more})


async def ask(transport: Transport, subject: str) -> dict[str, Any]:
    """A JSON answer to an empty request."""
    found: dict[str, Any] = json.loads(await transport.request(subject, b""))
    return found


async def test_an_endpoint_answers(mesh: Mesh) -> None:
    """From the same connection and from another."""
    other = await mesh.attach()
    await mesh.transport.serve(echo())

    assert b"HELLO" == await mesh.transport.request("echo.upper", b"hello")
    assert b"HELLO" == await other.request("echo.upper", b"hello")


async def test_nobody_answers_where_nobody_serves(transport: Transport) -> None:
    """The error comes at once and says why."""
    with pytest.raises(NotStored) as nobody:
        await transport.request("echo.upper", b"hello")

    assert "mesh.no_responders" == nobody.value.error_code


async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(transport: Transport) -> None:
    """The handler got the request and may do what it asks for."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(body: bytes) -> bytes:
        begun.set()
        await release.wait()
        return body

    await transport.serve(echo(endpoints={"slow": slow}))
    with pytest.raises(OutcomeUnknown):
        await transport.request("echo.slow", b"hello", timeout=0.2)

    assert begun.is_set()
    release.set()


@pytest.mark.parametrize("suffix", ["", ".echo"])
async def test_a_service_is_found(transport: Transport, suffix: str) -> None:
    """`$SRV.PING` and `$SRV.PING.<name>` tell name, version, id and metadata, in NATS' own format."""
    await transport.serve(echo())

    found = await ask(transport, f"$SRV.PING{suffix}")

    assert ("io.nats.micro.v1.ping_response", "echo", "1.2.3") == (found["type"], found["name"], found["version"])
    assert {"kind": "test"} == found["metadata"]
    assert found["id"]


async def test_a_service_is_found_by_its_id(transport: Transport) -> None:
    """And another id finds nobody."""
    await transport.serve(echo())
    id = (await ask(transport, "$SRV.PING.echo"))["id"]

    assert "echo" == (await ask(transport, f"$SRV.PING.echo.{id}"))["name"]
    with pytest.raises(NotStored):
        await ask(transport, "$SRV.PING.echo.somebody")


async def test_a_service_tells_its_endpoints(transport: Transport) -> None:
    """`$SRV.INFO`: description, and each endpoint with its subject."""
    await transport.serve(echo())

    found = await ask(transport, "$SRV.INFO.echo")

    assert ("io.nats.micro.v1.info_response", "says it louder") == (found["type"], found["description"])
    assert [("upper", "echo.upper")] == [(each["name"], each["subject"]) for each in found["endpoints"]]


async def test_a_service_counts_its_requests(transport: Transport) -> None:
    """`$SRV.STATS`: three requests, none failed."""
    await transport.serve(echo())
    for _ in range(3):
        await transport.request("echo.upper", b"x")

    async def counted() -> dict[str, Any] | None:
        found = await ask(transport, "$SRV.STATS.echo")
        return found if found["endpoints"][0]["num_requests"] == 3 else None

    found = await eventually(counted)
    assert "io.nats.micro.v1.stats_response" == found["type"]
    assert 0 == found["endpoints"][0]["num_errors"]
    assert found["started"]


async def test_a_handler_that_fails_is_counted_and_the_service_lives(transport: Transport) -> None:
    """Its caller is answered, the error shows in `$SRV.STATS`, and the next request is served."""

    async def fails(body: bytes) -> bytes:
        raise ValueError(body)

    await transport.serve(echo(endpoints={"fails": fails, "upper": upper}))
    with contextlib.suppress(MeshError):
        await transport.request("echo.fails", b"x")

    assert b"X" == await transport.request("echo.upper", b"x")

    async def counted() -> bool:
        found = await ask(transport, "$SRV.STATS.echo")
        return {each["name"]: each["num_errors"] for each in found["endpoints"]} == {"fails": 1, "upper": 0}

    assert await eventually(counted)


async def test_a_service_without_endpoints_is_still_found(transport: Transport) -> None:
    """Presence is enough."""
    await transport.serve(echo(endpoints={}))

    assert "echo" == (await ask(transport, "$SRV.PING.echo"))["name"]


async def test_a_service_ends_with_its_connection(mesh: Mesh) -> None:
    """Whoever closes answers no more."""
    serving = await mesh.attach()
    await serving.serve(echo())
    assert b"X" == await mesh.transport.request("echo.upper", b"x")
    await serving.close()

    async def silent() -> bool:
        try:
            await mesh.transport.request("echo.upper", b"x", timeout=0.3)
        except NotStored:
            return True
        except OutcomeUnknown:  # sent before the broker knew that the connection is gone
            return False
        return False

    assert await eventually(silent)


async def test_a_plain_request_to_a_stream_is_stored_and_acknowledged(transport: Transport) -> None:
    """What `nats req` does: the answer is the stream's acknowledgement as JSON, and the bytes are there."""
    await transport.create_stream(stream())

    answer = json.loads(await transport.request("events.a", b'{"goal":"support"}'))

    found = await transport.last("EVENTS", "events.a")
    assert ("EVENTS", 1) == (answer["stream"], answer["seq"])
    assert found is not None
    assert b'{"goal":"support"}' == found.body


# --- liveness --------------------------------------------------------------------------------------------------------


async def test_a_round_trip_takes_a_moment(transport: Transport) -> None:
    """Seconds, and few of them."""
    assert 0 <= await transport.rtt() < 1
    assert transport.connected
    assert transport.closed_reason is None


async def test_a_closed_connection_has_no_round_trip(mesh: Mesh) -> None:
    """`Unreachable`, as for every other call; closing was asked for, so there is no reason to give."""
    other = await mesh.attach()
    await other.close()

    with pytest.raises(Unreachable):
        await other.rtt(timeout=0.5)
    with pytest.raises(MeshError):
        await other.stream_info("EVENTS")
    with pytest.raises(MeshError):
        await other.request("echo.upper", b"")
    assert other.closed_reason is None
