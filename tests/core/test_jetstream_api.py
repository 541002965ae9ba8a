"""The edge to the NATS client: errors translated in one table, the server's forms read as ours. Pure, no server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from agentflow.errors import AgentflowError, Conflict, MeshError, NotStored, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh.connect import connect
from agentflow.mesh.jetstream import TolerantClient
from agentflow.mesh.jetstream_api import (
    api_error,
    direct_message,
    from_nanoseconds,
    parse_headers,
    parse_time,
    plain_headers,
    translate,
)
from agentflow.mesh.jetstream_consumer import PIN_TIMEOUT, JetStreamDelivery, consumer_config, corrections
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import ConsumerSpec, Message
from tests.core.strategies import EPOCH, moments

# --- headers ---------------------------------------------------------------------------------------------------------

_LINES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.tuples(st.sampled_from([b"Nats-Msg-Id", b" a", b"b c", b"\xc3\xbc", b"x\t"]), st.binary(max_size=12)).map(
            lambda pair: pair[0] + b": " + pair[1]
        ),
    ),
    max_size=5,
).map(b"\r\n".join)


@given(_LINES)
def test_header_lines_are_read_as_the_client_reads_them(block: bytes) -> None:
    """Ours is quicker and takes the same; only a name of nothing is passed over."""
    theirs = Client._parse_header_lines(block)

    assert {name: value for name, value in theirs.items() if name} == TolerantClient._parse_header_lines(block)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours", "code"),
    [
        (nats.errors.MaxPayloadError(), PublishFailed, "mesh.too_large"),
        (nats.errors.BadSubjectError(), PublishFailed, "mesh.bad_subject"),
        (nats.errors.TimeoutError(), OutcomeUnknown, "mesh.outcome_unknown"),
        (TimeoutError(), OutcomeUnknown, "mesh.outcome_unknown"),
        (nats.errors.NoRespondersError(), NotStored, "mesh.no_responders"),
        (nats.errors.ConnectionClosedError(), Unreachable, "mesh.unreachable"),
        (nats.errors.ConnectionDrainingError(), Unreachable, "mesh.unreachable"),
        (nats.errors.OutboundBufferLimitError(), Unreachable, "mesh.unreachable"),
        (nats.errors.StaleConnectionError(), Unreachable, "mesh.unreachable"),
        (nats.errors.Error("anything else"), Unreachable, "mesh.unreachable"),
        (ConnectionRefusedError("refused"), Unreachable, "mesh.unreachable"),
        (OSError("network down"), Unreachable, "mesh.unreachable"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(type(value).__name__),
)
def test_client_errors_become_ours(theirs: Exception, ours: type[MeshError], code: str) -> None:
    """A time-out is never taken for a failure: what was sent may have landed."""
    error = translate(theirs, "publish to x")

    assert ours is type(error)
    assert code == error.error_code
    assert str(error).startswith("publish to x: ")


def test_what_is_no_mesh_error_is_not_made_one() -> None:
    """A mistake in our own code stays visible."""
    with pytest.raises(ZeroDivisionError):
        translate(ZeroDivisionError(), "publish")


@pytest.mark.parametrize(
    ("answer", "ours", "code"),
    [
        ({"code": 400, "err_code": 10071}, Conflict, "mesh.conflict"),
        ({"code": 400, "err_code": 10164}, Conflict, "mesh.conflict"),
        ({"code": 404, "err_code": 10059}, NotStored, "mesh.not_stored"),
        ({"code": 404, "err_code": 10037}, NotStored, "mesh.not_stored"),
        ({"code": 404, "err_code": 10014}, NotStored, "mesh.not_stored"),
        ({"code": 404}, NotStored, "mesh.not_stored"),
        ({"code": 503, "err_code": 10077}, PublishFailed, "mesh.no_room"),
        ({"code": 503, "err_code": 10008}, Unreachable, "mesh.unreachable"),
        ({"code": 400, "err_code": 10058}, PublishFailed, "mesh.refused"),
        ({"code": 500}, PublishFailed, "mesh.refused"),
    ],
)
def test_errors_in_answers_become_ours(answer: dict[str, Any], ours: type[AgentflowError], code: str) -> None:
    """By the server's own numbers; its words are kept for people."""
    error = api_error({"error": {**answer, "description": "in its words"}}, "STREAM.INFO.X")

    assert ours is type(error)
    assert error is not None
    assert (code, "STREAM.INFO.X: in its words") == (error.error_code, str(error))


@pytest.mark.parametrize("answer", [{}, {"error": None}, {"error": {}}, {"stream": "X", "seq": 1}])
def test_an_answer_without_an_error_is_none(answer: dict[str, Any]) -> None:
    """The server leaves the member out."""
    assert api_error(answer, "x") is None


# --- times -----------------------------------------------------------------------------------------------------------


@given(moments, st.integers(0, 999))
def test_server_times_are_cut_to_microseconds(moment: datetime, nanoseconds: int) -> None:
    """Never rounded up: a decision's time is its input's, and must not lie in the future of it."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + f"{nanoseconds:03}Z"

    assert moment == parse_time(text)
    assert moment == from_nanoseconds((moment - EPOCH) // timedelta(microseconds=1) * 1000 + nanoseconds)


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [("2026-11-20T18:00:00Z", 0), ("2026-11-20T18:00:00.5Z", 500_000), ("2026-11-20T18:00:00.000001999Z", 1)],
)
def test_server_times_come_with_any_number_of_digits(text: str, microsecond: int) -> None:
    """Go leaves zeros at the end out."""
    assert datetime(2026, 11, 20, 18, 0, 0, microsecond, tzinfo=UTC) == parse_time(text)


# --- headers ---------------------------------------------------------------------------------------------------------


def test_stored_headers_are_read_without_those_that_only_steered() -> None:
    """The expected sequence says nothing about the message."""
    block = (
        b"NATS/1.0\r\ntraceparent: 00-1-2-01\r\nNats-Expected-Stream: X\r\nNats-Expected-Last-Subject-Sequence:0\r\n"
        b"Nats-Msg-Id:abc\r\nX-Time: 18:00:00\r\nX-Empty:\r\n\r\n"
    )

    assert {
        "traceparent": "00-1-2-01",
        "Nats-Msg-Id": "abc",
        "X-Time": "18:00:00",
        "X-Empty": "",
    } == parse_headers(block)


@pytest.mark.parametrize(
    "block", [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n", b"junk", b"\xff\r\n\xff"]
)
def test_a_block_without_headers_has_none(block: bytes) -> None:
    """Nor does junk: a stranger may have written it."""
    assert {} == parse_headers(block)


def test_received_headers_are_plain_text() -> None:
    """The client mixes in other kinds of keys and values."""
    assert {"a": "1", "Status": "503"} == plain_headers({"a": 1, "Status": "503", "Nats-Num-Pending": "3"})
    assert {} == plain_headers(None)


def message(reply: str = "", headers: dict[str, str] | None = None) -> Msg:
    """A message as the client hands it over."""
    return Msg(_client=None, subject="events.a", reply=reply, data=b"body", headers=headers)  # type: ignore[arg-type]  # never sent


def test_a_direct_get_says_its_place_in_headers() -> None:
    """They become the message's place, and the message keeps its own headers only."""
    found = direct_message(
        "EVENTS",
        message(
            headers={
                "Nats-Stream": "EVENTS",
                "Nats-Subject": "events.real",
                "Nats-Sequence": "42",
                "Nats-Time-Stamp": "2026-11-20T18:00:00.123456789Z",
                "Nats-Last-Sequence": "41",
                "Nats-Num-Pending": "3",
                "traceparent": "00-1-2-01",
            }
        ),
    )

    moment = datetime(2026, 11, 20, 18, 0, 0, 123_456, tzinfo=UTC)
    assert Message("EVENTS", 42, "events.real", b"body", moment, {"traceparent": "00-1-2-01"}) == found


# --- deliveries and consumers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.EVENTS.worker.3.42.17.1763661600123456789.5",
        "$JS.ACK._.hash.EVENTS.worker.3.42.17.1763661600123456789.5",
        "$JS.ACK.domain.hash.EVENTS.worker.3.42.17.1763661600123456789.5.random",
    ],
)
def test_a_delivery_says_its_place_in_its_reply_subject(reply: str) -> None:
    """In the server's old form of nine tokens and the new ones of eleven and more."""
    delivery = JetStreamDelivery(message(reply), None)  # type: ignore[arg-type]  # nothing is sent

    assert ("EVENTS", 42, 3) == (delivery.message.stream, delivery.message.seq, delivery.deliveries)
    assert from_nanoseconds(1763661600123456789) == delivery.message.time


def test_a_consumer_counts_deliveries_itself() -> None:
    """The server never gives a message up; acks are explicit, the wait and the limit are the spec's."""
    config = consumer_config(ConsumerSpec("EVENTS", "worker", ("b.>", "a.>"), ack_wait=1.5, max_ack_pending=7))

    assert {
        "name": "worker",
        "durable_name": "worker",
        "ack_policy": "explicit",
        "ack_wait": 1_500_000_000,
        "max_deliver": -1,
        "max_ack_pending": 7,
        "filter_subjects": ["a.>", "b.>"],
        "deliver_policy": "all",
    } == config


def test_a_pinned_consumer_has_one_active_client() -> None:
    """Which loses its place when it is silent."""
    config = consumer_config(ConsumerSpec("EVENTS", "worker", ("a.>",), pinned=True, start="new"))

    assert ("pinned_client", "new") == (config["priority_policy"], config["deliver_policy"])
    assert int(PIN_TIMEOUT * 1_000_000_000) == config["priority_timeout"]
    assert 1 == len(config["priority_groups"])


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_a_memory_url_names_a_broker_of_this_process() -> None:
    """The same name is the same broker, however the URL is written."""
    try:
        first, again, other = [await connect(url) for url in ("memory:one", "memory://one", "memory://two/")]

        assert isinstance(first, MemoryTransport)
        assert isinstance(again, MemoryTransport)
        assert isinstance(other, MemoryTransport)
        assert first.broker is again.broker
        assert first.broker is not other.broker
    finally:
        MemoryTransport.forget("one")
        MemoryTransport.forget("two")


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "127.0.0.1:1", "nats://127.0.0.1:1,nats://127.0.0.1:2"])
async def test_a_broker_that_does_not_answer_is_unreachable(url: str) -> None:
    """After the time that was given, and with the address."""
    with pytest.raises(Unreachable) as refused:
        await connect(url, timeout=0.1)

    assert url in str(refused.value)


@pytest.mark.parametrize("url", ["nats://", "nats://user@", "://x:y:z"])
async def test_what_is_no_url_is_told(url: str) -> None:
    """As a mistake in the address where it can be seen, else as nobody there: not with another error."""
    with pytest.raises(Unreachable):
        await connect(url, timeout=0.1)


# --- a consumer that drifted -----------------------------------------------------------------------------------------

_SPEC = ConsumerSpec("AF_AUDIT", "executor", ("tools.calls.*",))


@pytest.mark.parametrize(
    ("changed", "corrected"),
    [
        ({}, ()),
        ({"ack_wait": 1}, ("ack_wait",)),
        ({"max_deliver": 2}, ("max_deliver",)),
        ({"max_ack_pending": 1, "headers_only": True}, ("max_ack_pending", "headers_only")),
        ({"backoff": [1_000_000_000], "max_batch": 1}, ("backoff", "max_batch")),
        ({"metadata": {"made": "by hand"}, "max_waiting": 512}, ()),
    ],
)
def test_settings_of_a_consumer_that_drifted_are_corrected(changed: dict[str, Any], corrected: tuple[str, ...]) -> None:
    """Those that would let messages come late, empty or never; what does no harm is left alone."""
    wanted = consumer_config(_SPEC)

    assert corrected == corrections({**wanted, **changed}, wanted)


@pytest.mark.parametrize(
    "changed",
    [{"filter_subjects": ["tools.>"]}, {"priority_policy": "pinned_client"}, {"ack_policy": "all"}],
)
def test_a_consumer_that_means_something_else_is_refused(changed: dict[str, Any]) -> None:
    """Its position says nothing about what we take."""
    wanted = consumer_config(_SPEC)

    with pytest.raises(Conflict) as refused:
        corrections({**wanted, **changed}, wanted)
    assert "mesh.consumer_drift" == refused.value.error_code
