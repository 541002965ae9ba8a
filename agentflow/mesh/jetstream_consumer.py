"""Pull consumption with one inbox and a callback (faults.md A4, P1, P2, P12, P14).

`fetch` of the client library stalls on orphaned pulls and loses those in flight over a reconnect. Here requests are
counted: never more messages are asked for than there are free slots; a status message or a missed heartbeat takes the
rest of a request back; a reconnect forgets them all and asks again.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from agentflow import logs
from agentflow.errors import Conflict, MeshError, NotStored, Unreachable
from agentflow.mesh.jetstream_api import Api, from_nanoseconds, plain_headers
from agentflow.mesh.transport import ConsumerInfo, ConsumerSpec, ConsumerState, Delivery, Message

_SECOND = 1_000_000_000
_GROUP = "agentflow"
_RENEWAL = "renewal"
PIN_TIMEOUT = 2.0
"""Seconds until a silent active process loses its place to one that stands by."""

HEARING_TIMEOUT = 1.0
"""Seconds a broker gets to show that we hear it."""


def consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    """The server's configuration of a durable consumer; `max_deliver` is unlimited, deliveries are counted by us."""
    config: dict[str, Any] = {
        "name": spec.name,
        "durable_name": spec.name,
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait * _SECOND),
        "max_deliver": -1,
        "max_ack_pending": spec.max_ack_pending,
        "filter_subjects": sorted(spec.filters),
        "deliver_policy": spec.start,
    }
    if spec.pinned:
        pinned = {"priority_groups": [_GROUP], "priority_policy": "pinned_client"}
        config.update(pinned, priority_timeout=int(PIN_TIMEOUT * _SECOND))
    return config


LIMITS = ("ack_wait", "max_ack_pending", "max_deliver", "priority_timeout")
"""What is corrected when it is not as we want it."""

FOREIGN = ("backoff", "headers_only", "inactive_threshold", "max_batch", "max_bytes", "max_expires")
"""What we never set, and is taken away: each would let messages come late, empty, or not at all."""


def corrections(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of an existing consumer that have drifted and may be changed; raises `Conflict` for the others.

    Which subjects it takes, who is active and how it is acknowledged decide what its position means.
    """
    filters = sorted(found.get("filter_subjects") or filter(None, [found.get("filter_subject")]))
    policies = {"priority_policy": "none", "ack_policy": "explicit"}
    differing = [key for key, usual in policies.items() if found.get(key, usual) != wanted.get(key, usual)]
    if filters != wanted["filter_subjects"] or differing:
        raise Conflict(
            f"consumer {wanted['name']} takes {filters}, wanted {wanted['filter_subjects']}"
            + "".join(f"; its {key} is {found.get(key)!r}" for key in differing),
            code="mesh.consumer_drift",
            found=found,
            wanted=wanted,
            hint="look who changed it; when it is deleted it is made anew, and everything is delivered once more",
        )
    drifted = [key for key in LIMITS if key in wanted and found.get(key) != wanted[key]]
    return (*drifted, *(key for key in FOREIGN if found.get(key)))


async def reconcile(api: Api, spec: ConsumerSpec) -> tuple[str, ...]:
    """Create the consumer, or change what may be changed and say what was; raises `Conflict` as `corrections` does."""
    wanted = consumer_config(spec)
    corrected: tuple[str, ...] = ()
    try:
        found = (await api.call(f"CONSUMER.INFO.{spec.stream}.{spec.name}"))["config"]
    except NotStored:
        found = None
    if found is not None:
        corrected = corrections(found, wanted)
        if not corrected:
            return ()
        wanted["deliver_policy"] = found.get("deliver_policy", "all")
    await api.call(f"CONSUMER.CREATE.{spec.stream}.{spec.name}", {"stream_name": spec.stream, "config": wanted})
    return corrected


def consumer_info(answer: Mapping[str, Any]) -> ConsumerInfo:
    """The server's answer about a consumer. Of a pinned one it names the client that is active."""
    config = answer["config"]
    groups = answer.get("priority_groups") or []
    pinned = config.get("priority_policy") == "pinned_client"
    return ConsumerInfo(
        stream=answer["stream_name"],
        name=answer["name"],
        filters=tuple(sorted(config.get("filter_subjects") or filter(None, [config.get("filter_subject")]))),
        delivered_seq=answer["delivered"]["stream_seq"],
        ack_floor=answer["ack_floor"]["stream_seq"],
        pending=answer["num_pending"],
        unsettled=answer["num_ack_pending"],
        waiting=answer.get("num_waiting", 0),
        pinned=pinned,
        active=not pinned or any(group.get("pinned_client_id") for group in groups),
        config=config,
    )


class JetStreamDelivery:
    """One delivery; settled by a message to its reply subject."""

    def __init__(self, msg: Msg, api: Api) -> None:
        tokens = msg.reply.split(".")
        stream, _, deliveries, seq, _, time, _ = tokens[-7:] if len(tokens) == 9 else tokens[4:11]
        self._api, self._reply, self._settled = api, msg.reply, False
        self.deliveries = int(deliveries)
        self.message = Message(
            stream=stream,
            seq=int(seq),
            subject=msg.subject,
            body=msg.data,
            time=from_nanoseconds(int(time)),
            headers=plain_headers(msg.headers),
        )

    async def _answer(self, body: bytes, *, settles: bool = True) -> None:
        """Send a settlement. Lost ones only mean another delivery, which every handler expects."""
        if self._settled:
            return
        self._settled = settles
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._api.client.publish(self._reply, body)

    async def ack(self) -> None:
        """Done."""
        await self._answer(b"+ACK")

    async def nak(self, delay: float = 0.0) -> None:
        """Again, after `delay` seconds."""
        await self._answer(b'-NAK {"delay": %d}' % int(delay * _SECOND) if delay > 0 else b"-NAK")

    async def in_progress(self) -> None:
        """Still working."""
        await self._answer(b"+WPI", settles=False)

    async def term(self) -> None:
        """Given up."""
        await self._answer(b"+TERM")


class PullConsumer:
    """A durable consumer as one process uses it."""

    POLL = 0.01
    """Seconds between looks at `slots()` while none is free."""

    def __init__(self, api: Api, spec: ConsumerSpec) -> None:
        self._api, self._spec = api, spec
        self._expires = PIN_TIMEOUT / 2 if spec.pinned else 5.0
        self._received: asyncio.Queue[JetStreamDelivery | None] = asyncio.Queue()
        self._outstanding = 0
        self._heard = 0.0
        self._pin = ""
        self._gone = False
        self._deaf = False
        self._renewed = 0.0
        self._requests = 0
        self._closing = False
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._log = logs.get("agentflow.mesh.consumer")

    async def start(self) -> None:
        """Subscribe the inbox that all requests of this consumer are answered on."""
        self._inbox = self._api.client.new_inbox()
        self._subscription = await self._api.client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    def reconnected(self) -> None:
        """Requests in flight died with the connection: forget them."""
        self._outstanding = 0
        self._pin = ""
        self._deaf = False

    async def _on_message(self, msg: Msg) -> None:
        self._heard, self._deaf = asyncio.get_running_loop().time(), False
        if msg.reply.startswith("$JS.ACK."):
            self._outstanding = max(0, self._outstanding - 1)
            delivery = JetStreamDelivery(msg, self._api)
            if self._closing:
                await delivery.nak()
                return
            self._pin = (msg.headers or {}).get("Nats-Pin-Id", self._pin)
            self._received.put_nowait(delivery)
        else:
            self._on_status(plain_headers(msg.headers), msg.subject.endswith(_RENEWAL))

    def _on_status(self, headers: Mapping[str, str], renewal: bool) -> None:
        """A request ended early (404, 408, 409, 423), or only a heartbeat (100)."""
        status = headers.get("Status", "")
        if status == "423":
            self._pin = ""
        if status == "503" or "Consumer Deleted" in headers.get("Description", ""):
            self._gone = True
        if status in ("", "100") or renewal:
            return
        rest = headers.get("Nats-Pending-Messages")
        self._outstanding = max(0, self._outstanding - int(rest)) if rest else 0

    async def _ask(self, count: int) -> None:
        body: dict[str, Any] = {"batch": count, "expires": int(self._expires * _SECOND)}
        body["idle_heartbeat"] = int(self._expires / 2.5 * _SECOND)
        if self._spec.pinned:
            body["group"] = _GROUP
            if self._pin:
                body["id"] = self._pin
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._spec.stream}.{self._spec.name}"
        self._requests += 1
        self._outstanding += count
        self._heard = asyncio.get_running_loop().time()
        try:
            await self._api.client.publish(subject, json.dumps(body).encode(), reply=f"{self._inbox}.{self._requests}")
        except (nats.errors.Error, OSError):
            self._outstanding = 0

    async def _renew(self) -> None:
        """Keep the place of the active process while it has no free slot: a request that no message can fit.

        The server lets a pin go when its holder asks for nothing for a while, however busy it is.
        """
        now = asyncio.get_running_loop().time()
        if not self._pin or now - self._renewed < PIN_TIMEOUT / 4 or not self._api.client.is_connected:
            return
        self._renewed = now
        body = {"batch": 1, "max_bytes": 1, "expires": int(PIN_TIMEOUT / 5 * _SECOND), "group": _GROUP, "id": self._pin}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._spec.stream}.{self._spec.name}"
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._api.client.publish(subject, json.dumps(body).encode(), reply=f"{self._inbox}.{_RENEWAL}")

    def _silent(self) -> bool:
        """No message, status or heartbeat for longer than the server may stay silent on a live request."""
        return asyncio.get_running_loop().time() - self._heard > self._expires

    async def _hears(self) -> bool:
        """Whether the broker answers; asked before more messages are, once it owed us an answer and gave none.

        A process that can speak and not hear would have every message delivered to it again and again, each counted as
        a delivery, until whoever hears one at last takes it for one that kills its process.
        """
        try:
            await self._api.round_trip(HEARING_TIMEOUT)
            self._deaf = False
        except MeshError:
            await asyncio.sleep(self.POLL)
        return not self._deaf

    async def _make_again(self) -> None:
        """The consumer was deleted: make it again. It starts over, and every handler knows what it has handled."""
        self._outstanding, self._pin = 0, ""
        try:
            await reconcile(self._api, self._spec)
            self._gone = False
            self._log.warning("consumer.made_again", stream=self._spec.stream, consumer=self._spec.name)
        except MeshError:
            await asyncio.sleep(0.25)

    async def _top_up(self, free: int) -> None:
        if self._gone and self._api.client.is_connected:
            await self._make_again()
        if self._outstanding and self._silent():
            self._outstanding, self._deaf = 0, True
        if self._deaf and not await self._hears():
            return
        if self._spec.pinned and self._outstanding == 0 and free <= 0:
            await self._renew()
        missing = free - self._outstanding - self._received.qsize()
        if missing > 0 and (self._outstanding == 0 or missing >= free / 2) and self._api.client.is_connected:
            await self._ask(missing)

    async def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """Deliveries as they come, never more than `slots()` at once."""
        while True:
            if not self._closing:
                await self._top_up(slots())
            elif self._received.empty():
                return
            if self._received.empty():
                nothing_to_ask = not self._closing and 0 < slots() <= self._outstanding
                try:
                    delivery = await asyncio.wait_for(self._received.get(), 0.25 if nothing_to_ask else self.POLL)
                except TimeoutError:
                    continue
            else:  # a wait would make a task and a timer for each message
                delivery = self._received.get_nowait()
            if delivery is not None:
                yield delivery

    @property
    def closed(self) -> bool:
        """Whether it asks for nothing more."""
        return self._closing

    async def state(self) -> ConsumerState:
        """The consumer as the server has it; raises `MeshError`."""
        stream, name = self._spec.stream, self._spec.name
        try:
            found = await self._api.call(f"CONSUMER.INFO.{stream}.{name}")
        except NotStored as absent:
            if absent.error_code == "mesh.no_responders":
                raise Unreachable(f"no JetStream to ask about {name}") from absent
            return ConsumerState(stream, name, exists=False)
        return ConsumerState(stream, name, found["num_pending"], found["num_ack_pending"])

    async def close(self) -> None:
        """Ask for nothing more; give back what was received but not taken."""
        if self._closing:
            return
        self._closing = True
        while not self._received.empty():
            delivery = self._received.get_nowait()
            if delivery is not None:
                await delivery.nak()
        self._received.put_nowait(None)
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, MeshError, OSError):
                await self._subscription.unsubscribe()
