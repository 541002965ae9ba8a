"""The real transport: NATS JetStream through nats-py.

All the known pitfalls of the client and the server (faults.md, A2 to A4) are dealt with here and in the
`jetstream_*` modules beside it, so that nobody above has to know them: explicit expected streams (P9), copied headers
(P10), no publish while disconnected (P7), size checks that count headers (P4), endless fast reconnects with a noticed
half-open link (P6), a closed connection that is told (P5), leader reads for read-backs, and no library retries (P17).
"""

import asyncio
import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import nats
import nats.errors
import nats.js.errors
import nats.micro
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig

from agentflow import logs
from agentflow.errors import MeshError, NotStored, OutcomeUnknown, PublishFailed, ServerUnfit, Unreachable
from agentflow.masking import mask_url
from agentflow.mesh.jetstream_api import Api, api_error, direct_message, parse_time, plain_headers, translate
from agentflow.mesh.jetstream_buckets import JetStreamBucket, JetStreamObjects
from agentflow.mesh.jetstream_consumer import PullConsumer, consumer_info, reconcile
from agentflow.mesh.transport import ConsumerInfo, ConsumerSpec, ConsumerState, Message, ServiceSpec, Stored, StreamInfo

MINIMUM_VERSION = (2, 14, 0)
"""The first server with everything used here (message schedules with time zones)."""

PING_EVERY = 5
"""Seconds between pings on a connection."""

UNANSWERED_PINGS = 2
"""Pings without an answer after which a connection is given up and made anew: 15 to 20 s behind the last answer.

That is sooner than a service ends itself because nothing comes back (`agentflow.service`): a partition is waited out,
and only a client that is broken for good ends its process.
"""

_BATCH = 512
_BATCH_TIMEOUT, _LOOKS = 5.0, 20
_HEADER_ROOM = 1024


class CoreSubscription:
    """A core subscription whose messages wait in a bounded queue; the oldest are dropped, they are only hints."""

    def __init__(self, api: Api, subject: str) -> None:
        self._api, self._subject = api, subject
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(4096)
        self._subscription: NatsSubscription | None = None

    async def _put(self, msg: Msg) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait((msg.subject, msg.data))

    async def ready(self) -> None:
        """Return once the broker knows the subscription."""
        if self._subscription is None:
            try:
                self._subscription = await self._api.client.subscribe(self._subject, cb=self._put)
            except (nats.errors.Error, OSError) as error:
                raise translate(error, f"subscribe {self._subject}") from error
            await self._api.round_trip()

    async def next(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """The next subject and body, or None."""
        await self.ready()
        try:
            return await asyncio.wait_for(self._queue.get(), timeout)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """End it."""
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()


class _ConnectionGone(nats.errors.TimeoutError):
    """The connection a request was made on is gone, before its answer came: what became of it is not known."""

    def __str__(self) -> str:
        return "the connection was lost"


class TolerantClient(NatsClient):
    """The client, with two faults mended and header blocks read without a look at each character.

    A malformed header block kills its read loop for good, and with it everything. The server stores such messages
    (anybody can publish one); without headers they are refused where they are handled. And requests in flight on a
    connection that is lost wait for their whole time-out, though their answers cannot come.
    """

    async def _process_headers(self, headers: bytes | bytearray) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - whatever the parser cannot take is a message without headers
            return {}
        return found

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """`Name: value` lines; those without a colon, or with a name that is no token, are passed over."""
        found: dict[str, str] = {}
        for line in bytes(raw).split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.isascii() and len(name.split()) == 1:
                found[name.strip().decode()] = value.strip().decode("utf-8", "replace")
        return found

    def abandon_requests(self) -> None:
        """End the requests in flight on a connection that is gone: nobody answers them any more, and they would wait."""
        for answer in list(self._resp_map.values()):
            if not answer.done():
                answer.set_exception(_ConnectionGone())
                answer.exception()  # so that one nobody waits for any more is not complained about


class JetStreamTransport:
    """A connection to a NATS server with JetStream."""

    def __init__(self, client: "TolerantClient") -> None:
        self._client = client
        self._api = Api(client)
        self._consumers: list[PullConsumer] = []
        self._services: list[Any] = []
        self._served: set[str] = set()
        self._closing = False
        self._closed_reason: str | None = None
        self._last_error = ""

    @classmethod
    async def connect(cls, url: str, *, name: str = "agentflow", timeout: float = 10.0) -> Self:
        """Connect to `url` (several servers by comma); keeps trying for `timeout` seconds, then `Unreachable`."""
        client = TolerantClient()
        transport = cls(client)
        servers = [part.strip() for part in url.split(",") if part.strip()]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not await _listening(servers):
            if loop.time() >= deadline:
                raise Unreachable(f"no NATS server answers at {mask_url(url)}", url=mask_url(url))
            await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(max(1.0, deadline - loop.time())):  # a frozen server accepts and says nothing
                await client.connect(
                    servers,
                    name=name,
                    connect_timeout=max(1, int(timeout)),
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # annotated int, used as seconds of any kind
                    max_reconnect_attempts=-1,
                    ping_interval=PING_EVERY,
                    max_outstanding_pings=UNANSWERED_PINGS,
                    error_cb=transport._on_error,
                    closed_cb=transport._on_closed,
                    disconnected_cb=transport._on_disconnected,
                    reconnected_cb=transport._on_reconnected,
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            transport._closing, shown = True, mask_url(url)
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await client.close()
            raise Unreachable(f"cannot connect to {shown}: {type(error).__name__} {error}", url=shown) from error
        return transport

    async def _on_error(self, error: Exception) -> None:
        self._last_error = f"{type(error).__name__}: {error}"

    async def _on_closed(self) -> None:
        if not self._closing:
            self._closed_reason = self._last_error or "the client gave up"

    async def _on_disconnected(self) -> None:
        self._api.losses += 1
        self._client.abandon_requests()

    async def _on_reconnected(self) -> None:
        for consumer in self._consumers:
            consumer.reconnected()

    # --- storing -----------------------------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        stream: str,
        headers: Mapping[str, str] | None = None,
        msg_id: str | None = None,
        expect: int | None = None,
        timeout: float = 5.0,
    ) -> Stored:
        """One attempt to store a message; see `Transport.publish`."""
        sent = self._publish_headers(subject, body, stream, headers, msg_id, expect)
        try:
            answer = json.loads(await self._api.ask(subject, body, headers=sent, timeout=timeout))
        except NotStored as absent:
            raise await self._why_no_responders(subject, stream) from absent
        except json.JSONDecodeError as error:
            raise OutcomeUnknown(f"{subject}: answer is not an acknowledgement", subject=subject) from error
        if refused := api_error(answer, f"publish to {subject}"):
            raise refused
        return Stored(answer["stream"], answer["seq"], answer.get("duplicate", False))

    def _publish_headers(
        self,
        subject: str,
        body: bytes,
        stream: str,
        headers: Mapping[str, str] | None,
        msg_id: str | None,
        expect: int | None,
    ) -> dict[str, str]:
        if "*" in subject or ">" in subject:
            raise PublishFailed(f"{subject!r} has a wildcard", code="mesh.bad_subject", subject=subject)
        sent = {**(headers or {}), "Nats-Expected-Stream": stream}
        if expect is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(expect)
        elif msg_id is not None:
            sent["Nats-Msg-Id"] = msg_id
        size = len(body) + sum(len(key) + len(value) + 4 for key, value in sent.items())
        if size > self._client.max_payload - _HEADER_ROOM:
            raise PublishFailed(
                f"message to {subject} has {size} bytes; the server takes {self._client.max_payload - _HEADER_ROOM}",
                code="mesh.too_large",
                found=size,
            )
        return sent

    async def _why_no_responders(self, subject: str, stream: str) -> Exception:
        """No stream listens on the subject: is it missing, or is JetStream not up yet?"""
        try:
            info = await self.stream_info(stream)
        except (Unreachable, OutcomeUnknown, NotStored):
            return Unreachable(f"{subject}: JetStream is not answering", subject=subject)
        if info is None:
            return PublishFailed(f"stream {stream} does not exist", code="mesh.no_stream", stream=stream)
        subjects = ", ".join(info.config.get("subjects", []))
        return PublishFailed(f"stream {stream} takes {subjects}, not {subject}", code="mesh.no_stream", stream=stream)

    # --- reading -----------------------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message under `subject`, from the leader."""
        return await self._api.stored_message(stream, {"last_by_subj": subject})

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message under `subject`, from the leader."""
        return await self._api.stored_message(stream, {"seq": 1, "next_by_subj": subject})

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence, from the leader."""
        if seq < 1:
            return None
        return await self._api.stored_message(stream, {"seq": seq})

    async def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History in batched direct gets; what is stored while it is read is left out."""
        left: int | None = None
        while True:
            batch, known, pending = await self._batch(stream, subject, start)
            left = known if left is None else left
            for message in batch:
                if left == 0 or (end is not None and message.seq > end):
                    return
                left -= 1
                yield message
            if not batch or pending == 0:
                return
            start = batch[-1].seq + 1

    async def _batch(self, stream: str, subject: str, start: int) -> tuple[list[Message], int, int]:
        """One batch from `start`, how many messages there were when it began, and how many are left behind it."""
        inbox, losses = self._client.new_inbox(), self._api.losses
        query = {"seq": max(1, start), "batch": _BATCH, "next_by_subj": subject, "max_bytes": 8 * 1024 * 1024}
        found: list[Message] = []
        known = 0
        try:
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), reply=inbox)
                while True:
                    msg = await self._next(subscription, losses)
                    pending = int((msg.headers or {}).get("Nats-Num-Pending", "0"))
                    headers = plain_headers(msg.headers)
                    if status := headers.get("Status"):
                        _check_status(stream, status, headers)
                        return found, known, pending
                    known = known or pending + 1
                    found.append(await self._direct(stream, subject, msg, found[-1].seq + 1 if found else start))
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError) as error:
            raise translate(error, f"read of {stream}") from error

    async def _next(self, subscription: NatsSubscription, losses: int) -> Msg:
        """The next message of a batch; the rest of one that was asked for on a connection that is lost never comes."""
        for _ in range(_LOOKS):
            try:
                return await subscription.next_msg(timeout=_BATCH_TIMEOUT / _LOOKS)
            except nats.errors.TimeoutError:
                if self._api.losses != losses:
                    raise _ConnectionGone from None
        raise nats.errors.TimeoutError

    async def _direct(self, stream: str, subject: str, msg: Msg, expected: int) -> Message:
        """A message of a batch; one whose headers cannot be read is asked for again, in a form that needs none."""
        if "Nats-Sequence" in (msg.headers or {}):
            return direct_message(stream, msg)
        found = await self._api.stored_message(stream, {"seq": max(1, expected), "next_by_subj": subject})
        if found is None:
            raise OutcomeUnknown(f"read of {stream}: sequence {expected} cannot be read", stream=stream)
        return found

    # --- consuming ---------------------------------------------------------------------------------------------

    async def consume(self, spec: ConsumerSpec) -> PullConsumer:
        """Create or reconcile the durable consumer and attach to it."""
        if corrected := await reconcile(self._api, spec):
            log = logs.get("agentflow.mesh.consumer")
            log.warning("consumer.drift", stream=spec.stream, consumer=spec.name, corrected=corrected)
        consumer = PullConsumer(self._api, spec)
        await consumer.start()
        self._consumers.append(consumer)
        return consumer

    async def attached(self) -> Sequence[ConsumerState]:
        """The consumers in use, as the server has them."""
        return [await consumer.state() for consumer in self._consumers if not consumer.closed]

    def follow(self, subject: str) -> CoreSubscription:
        """A core subscription; in place once `ready()` returned."""
        return CoreSubscription(self._api, subject)

    async def request(self, subject: str, body: bytes, *, timeout: float = 2.0) -> bytes:
        """A core request."""
        return await self._api.ask(subject, body, timeout=timeout)

    # --- buckets and streams -----------------------------------------------------------------------------------

    async def bucket(self, name: str) -> JetStreamBucket:
        """An existing bucket."""
        await self._require_stream(f"KV_{name}", f"bucket {name}")
        return JetStreamBucket(self, name)

    async def objects(self, name: str) -> JetStreamObjects:
        """An existing object store."""
        await self._require_stream(f"OBJ_{name}", f"object store {name}")
        return JetStreamObjects(self, await self._client.jetstream().object_store(name), name)

    async def _require_stream(self, stream: str, what: str) -> None:
        if await self.stream_info(stream) is None:
            raise NotStored(f"{what} does not exist; is the mesh provisioned (agentflow streams apply)?", name=stream)

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream from the server's own JSON configuration."""
        return _stream_info(await self._api.call(f"STREAM.CREATE.{config['name']}", config, timeout=15))

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Change a stream."""
        return _stream_info(await self._api.call(f"STREAM.UPDATE.{config['name']}", config, timeout=15))

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as it is, or None."""
        try:
            return _stream_info(await self._api.call(f"STREAM.INFO.{name}"))
        except NotStored as absent:
            if absent.error_code == "mesh.no_responders":
                raise Unreachable(f"JetStream is not answering about {name}") from absent
            return None

    async def stream_names(self) -> Sequence[str]:
        """All streams, sorted."""
        names: list[str] = []
        while True:
            page = await self._api.call("STREAM.NAMES", {"offset": len(names)})
            names.extend(page.get("streams") or [])
            if len(names) >= page.get("total", 0) or not page.get("streams"):
                return sorted(names)

    # --- presence ----------------------------------------------------------------------------------------------

    async def consumers(self, stream: str) -> Sequence[ConsumerInfo]:
        """The durable consumers of a stream, by name."""
        found: list[ConsumerInfo] = []
        while True:
            try:
                page = await self._api.call(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            except NotStored as absent:
                if absent.error_code == "mesh.no_responders":
                    raise Unreachable(f"JetStream is not answering about {stream}") from absent
                return []
            listed = page.get("consumers") or []
            found.extend(consumer_info(each) for each in listed)
            if len(found) >= page.get("total", 0) or not listed:
                return sorted((each for each in found if each.config.get("durable_name")), key=lambda each: each.name)

    async def serve(self, spec: ServiceSpec) -> None:
        """Register as a NATS micro service."""
        if spec.name in self._served:
            return await self._api.round_trip()
        config = ServiceConfig(
            name=spec.name, version=spec.version, description=spec.description, metadata=dict(spec.metadata)
        )
        try:
            service = await nats.micro.add_service(self._client, config)
            for name, handler in spec.endpoints.items():

                async def answer(request: Request, handler: Any = handler) -> None:
                    await request.respond(await handler(request.data))

                await service.add_endpoint(EndpointConfig(name=name, subject=f"{spec.name}.{name}", handler=answer))
        except (nats.errors.Error, OSError) as error:
            raise translate(error, f"register service {spec.name}") from error
        self._services.append(service)
        self._served.add(spec.name)
        return await self._api.round_trip()

    async def require_durable(self, monitor_url: str = "") -> None:
        """Raise `ServerUnfit` for a server that is too old, or that cannot be shown to sync before it acknowledges."""
        version = self._client.connected_server_version
        if (version.major, version.minor, version.patch) < MINIMUM_VERSION:
            raise ServerUnfit(
                f"nats-server {version} is too old; needed is {'.'.join(map(str, MINIMUM_VERSION))} or later",
                code="server.too_old",
            )
        varz = await asyncio.to_thread(_varz, monitor_url)
        if not varz.get("jetstream", {}).get("config", {}).get("sync_always"):
            raise ServerUnfit(
                "the server acknowledges before it has synced to disk: set `jetstream { sync_interval: always }`",
                code="server.not_durable",
            )

    async def rtt(self, timeout: float = 2.0) -> float:
        """Seconds a round trip takes."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        try:
            await self._api.round_trip(timeout)
        except (Unreachable, OutcomeUnknown) as error:
            raise Unreachable("no answer from the broker", timeout=timeout) from error
        return loop.time() - before

    @property
    def connected(self) -> bool:
        """Whether a connection is up just now."""
        return self._client.is_connected

    @property
    def server_id(self) -> str:
        """Names the server process."""
        return str(self._client._server_info.get("server_id", ""))

    @property
    def closed_reason(self) -> str | None:
        """Why the connection closed for good, or None."""
        return self._closed_reason

    async def close(self) -> None:
        """Flush and end; bounded in time, because a dead server must not hold up the end of a process."""
        if self._closing:
            return
        self._closing = True
        for consumer in self._consumers:
            await consumer.close()
        for service in self._services:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await asyncio.wait_for(service.stop(), 1.0)
        with contextlib.suppress(MeshError):
            await self._api.round_trip(2.0)
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await asyncio.wait_for(self._client.close(), 2.5)


async def _listening(servers: list[str]) -> bool:
    """Whether one of the servers takes TCP connections (the client library sleeps 2 s after a first refusal)."""
    for server in servers:
        match = re.match(r"(?:\w+://)?(?:[^@/]*@)?(\[[^\]]+\]|[^:/]+)(?::(\d+))?", server)
        if match is None:
            raise Unreachable(f"{server!r} is not a server URL", code="mesh.bad_url", url=server)
        try:
            port = int(match.group(2) or 4222)
            _, writer = await asyncio.wait_for(asyncio.open_connection(match.group(1).strip("[]"), port), 1.0)
        except (OSError, TimeoutError):
            continue
        writer.close()
        return True
    return False


def _check_status(stream: str, status: str, headers: Mapping[str, str]) -> None:
    """204 ends a batch, 404 says there is nothing more; anything else is an error."""
    if status not in ("204", "404"):
        raise NotStored(f"read of {stream}: {status} {headers.get('Description', '')}".strip(), stream=stream)


def _stream_info(answer: Mapping[str, Any]) -> StreamInfo:
    state = answer["state"]
    created: datetime = parse_time(answer["created"])
    return StreamInfo(
        name=answer["config"]["name"],
        config=answer["config"],
        messages=state["messages"],
        bytes=state["bytes"],
        first_seq=state["first_seq"] if state["messages"] else state["last_seq"] + 1,
        last_seq=state["last_seq"],
        consumers=state["consumer_count"],
        created=created,
        subjects=state.get("num_subjects", 0),
    )


def _varz(monitor_url: str) -> dict[str, Any]:
    """The server's own account of its configuration; it is only to be had over its monitoring port."""
    if not monitor_url:
        raise ServerUnfit(
            "cannot tell whether the server syncs before it acknowledges: set AF_MONITOR_URL to its monitoring address "
            "(http://host:8222), or AF_ALLOW_VOLATILE=true to go without",
            code="server.not_provable",
        )
    try:
        with urllib.request.urlopen(f"{monitor_url.rstrip('/')}/varz", timeout=3) as answer:  # noqa: S310  # operator's URL
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ServerUnfit(f"{monitor_url}/varz: {error}", code="server.not_provable") from error
