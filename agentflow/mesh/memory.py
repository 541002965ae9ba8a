"""The in-memory transport: a broker in this process, for tests of whatever is built on agentflow.

It keeps the contract of `agentflow.mesh.transport.Transport` (one suite runs against it and against NATS) without a
server, a socket or a background task. Streams take the server's own JSON; what it cannot honour it refuses. A
`MemoryBroker` stands for the server, a `MemoryTransport` for one connection to it; several may share a broker.

What it does not do: keep anything when the process ends, cap memory, authorise, or replicate. Nothing it stores proves
durability, so `require_durable` passes only because there is nothing to lose.
"""

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from agentflow.clock import Clock, SystemClock
from agentflow.errors import MeshError, NotStored, OutcomeUnknown, PublishFailed, Unreachable
from agentflow.mesh.memory_buckets import MemoryBucket, MemoryObjects
from agentflow.mesh.memory_config import complete, refusal
from agentflow.mesh.memory_consumer import Durable, MemoryConsumer
from agentflow.mesh.memory_core import MemorySubscription, Switchboard, ask
from agentflow.mesh.memory_faults import Faults
from agentflow.mesh.memory_stream import MemoryStream, check_message
from agentflow.mesh.memory_time import Timeline
from agentflow.mesh.transport import ConsumerInfo, ConsumerSpec, ConsumerState, Message, ServiceSpec, Stored, StreamInfo

MAX_PAYLOAD = 1024 * 1024 - 1024
"""Bytes of body and headers a message may have, as over NATS with its default limit."""

_NO_HEADERS: Mapping[str, str] = {}


class MemoryBroker:
    """The server's part: streams, durable consumers, core messaging, and the faults that are planned."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.timeline = Timeline(clock or SystemClock())
        self.faults = Faults()
        self.up = True
        self.streams: dict[str, MemoryStream] = {}
        self.durables: dict[tuple[str, str], Durable] = {}
        self.core = Switchboard(self.timeline)

    def stop(self) -> None:
        """Be gone: every call ends `Unreachable`, nothing is delivered. Nothing is lost."""
        with self.timeline.turn():
            self.up = False

    def start(self) -> None:
        """Be there again."""
        with self.timeline.turn():
            self.up = True

    def stream(self, name: str) -> MemoryStream:
        """A stream; raises `NotStored`."""
        if name not in self.streams:
            raise NotStored(f"stream {name} does not exist", stream=name)
        return self.streams[name]

    def taker(self, subject: str) -> MemoryStream | None:
        """The stream that stores a subject."""
        return next((stream for stream in self.streams.values() if stream.takes(subject)), None)

    def info(self, name: str) -> StreamInfo:
        """A stream as it is; raises `NotStored`."""
        return self.stream(name).info(sum(stream == name for stream, _ in self.durables))

    def create(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream; the same configuration again changes nothing."""
        name = config["name"]
        if name in self.streams:
            if self.streams[name].config != complete(config):
                raise refusal("stream name already in use with a different configuration", stream=name)
            return self.info(name)
        self._check_overlap(config, name)
        self.streams[name] = MemoryStream(config, self.timeline, self.core.emit)
        return self.info(name)

    def update(self, config: Mapping[str, Any]) -> StreamInfo:
        """Change a stream."""
        stream = self.stream(config["name"])
        self._check_overlap(config, config["name"])
        stream.reconfigure(config)
        return self.info(config["name"])

    def _check_overlap(self, config: Mapping[str, Any], name: str) -> None:
        full = complete(config)
        for other, stream in self.streams.items():
            if other != name and stream.overlaps(full):
                raise refusal(f"subjects overlap with stream {other}", stream=name)

    def store(
        self, name: str, subject: str, body: bytes, now: datetime, *, headers: Mapping[str, str], expect: int | None
    ) -> Stored:
        """Store a message in the stream it names; raises `PublishFailed` if that stream does not take it."""
        taker = self.taker(subject)
        if taker is None:
            raise PublishFailed(f"no stream takes {subject}", code="mesh.no_stream", stream=name, subject=subject)
        if taker is not self.streams.get(name):
            raise refusal(f"stream {name} does not take {subject}", stream=name, subject=subject)
        return taker.store(subject, body, headers, now=now, msg_id=headers.get("Nats-Msg-Id"), expect=expect)


_brokers: dict[str, MemoryBroker] = {}


class MemoryTransport:
    """One connection to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self._timeline = self.broker.timeline
        self._consumers: list[MemoryConsumer] = []
        self._closed = False
        self._closed_reason: str | None = None

    @classmethod
    def named(cls, name: str) -> Self:
        """A connection to the broker of that name in this process; the first one makes it."""
        return cls(_brokers.setdefault(name, MemoryBroker()))

    @staticmethod
    def forget(name: str) -> None:
        """Drop a named broker with all it holds; the next to ask for the name gets a new one."""
        _brokers.pop(name, None)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[datetime]:
        if not self.connected:
            raise Unreachable("not connected to the in-memory broker")
        with self._timeline.turn() as now:
            yield now

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
        """One attempt to store a message; see `Transport.publish`. Faults end it at once, whatever the timeout."""
        sent = dict(headers or _NO_HEADERS)
        if expect is None and msg_id is not None:
            sent["Nats-Msg-Id"] = msg_id
        check_message(subject, body, sent, MAX_PAYLOAD)
        await asyncio.sleep(0)  # a publish over a network lets others run, and so must this one
        with self._turn() as now:
            attempt = functools.partial(self.broker.store, stream, subject, body, headers=sent, expect=expect)
            fault = self.broker.faults.strike(subject)
            if fault is None:
                return attempt(now)
            if fault.kind == "disconnected":
                raise Unreachable(f"{subject}: not connected (planned fault)", subject=subject)
            if fault.kind == "lost_ack":
                attempt(now)
            elif fault.kind == "late":
                self._timeline.at(now + timedelta(seconds=fault.seconds), _quietly(attempt))
        raise OutcomeUnknown(f"{subject}: no acknowledgement (planned fault: {fault.kind})", subject=subject)

    # --- reading -----------------------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message under `subject`."""
        with self._turn():
            found = self.broker.streams.get(stream)
            return found.last(subject) if found else None

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message under `subject`."""
        with self._turn():
            found = self.broker.streams.get(stream)
            return found.first(subject) if found else None

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence."""
        with self._turn():
            found = self.broker.streams.get(stream)
            return found.messages.get(seq) if found else None

    async def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History in order; what is stored while it is read is left out."""
        with self._turn():
            found = self.broker.stream(stream)
            messages = found.select(subject, start, found.last_seq if end is None else end)
        for message in messages:
            yield message

    # --- consuming ---------------------------------------------------------------------------------------------

    async def consume(self, spec: ConsumerSpec) -> MemoryConsumer:
        """Create or reconcile the durable consumer and attach to it."""
        with self._turn():
            stream = self.broker.stream(spec.stream)
            key = (spec.stream, spec.name)
            if key in self.broker.durables:
                self.broker.durables[key].reconcile(spec)
            durable = self.broker.durables.setdefault(key, Durable(spec, stream, self._timeline))
        consumer = MemoryConsumer(durable, self._timeline, lambda: self.connected)
        self._consumers.append(consumer)
        return consumer

    async def attached(self) -> Sequence[ConsumerState]:
        """The consumers in use."""
        with self._turn():
            return [consumer.state() for consumer in self._consumers if not consumer.closed]

    def follow(self, subject: str) -> MemorySubscription:
        """A core subscription to republished subjects."""
        with self._turn():
            return self.broker.core.subscribe(subject)

    async def request(self, subject: str, body: bytes, *, timeout: float = 2.0) -> bytes:
        """A core request: to a service, or to a stream, which answers with its acknowledgement as JSON."""
        with self._turn() as now:
            route = self.broker.core.route(subject)
            stream = self.broker.taker(subject)
            if route is None and stream is not None:
                stored = stream.store(subject, body, _NO_HEADERS, now=now)
                return json.dumps({"stream": stored.stream, "seq": stored.seq}).encode()
        if route is None:
            raise NotStored(f"{subject}: nobody answers", code="mesh.no_responders", subject=subject)
        answer = await ask(*route, body, timeout)
        if answer is None:
            raise OutcomeUnknown(f"{subject}: no answer in {timeout} s", subject=subject)
        return answer

    # --- buckets and streams -----------------------------------------------------------------------------------

    async def bucket(self, name: str) -> MemoryBucket:
        """An existing bucket."""
        with self._turn():
            stream = self.broker.stream(f"KV_{name}")
        return MemoryBucket(stream, name, self._timeline, self._turn, MAX_PAYLOAD)

    async def objects(self, name: str) -> MemoryObjects:
        """An existing object store."""
        with self._turn():
            return MemoryObjects(self.broker.stream(f"OBJ_{name}"), name, self._turn)

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream from the server's own JSON configuration."""
        with self._turn():
            return self.broker.create(config)

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Change a stream."""
        with self._turn():
            return self.broker.update(config)

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as it is, or None."""
        with self._turn():
            return self.broker.info(name) if name in self.broker.streams else None

    async def stream_names(self) -> Sequence[str]:
        """All streams, sorted."""
        with self._turn():
            return sorted(self.broker.streams)

    async def consumers(self, stream: str) -> Sequence[ConsumerInfo]:
        """The durable consumers of a stream, by name."""
        with self._turn():
            durables = self.broker.durables
            return [durables[key].info() for key in sorted(durables) if key[0] == stream]

    # --- presence ----------------------------------------------------------------------------------------------

    async def serve(self, spec: ServiceSpec) -> None:
        """Register as a micro service on the running event loop."""
        with self._turn() as now:
            self.broker.core.register(spec, self, now)

    async def require_durable(self, monitor_url: str = "") -> None:
        """Pass: there is no disk."""

    async def rtt(self, timeout: float = 2.0) -> float:
        """Next to nothing; raises `Unreachable` while the broker is stopped."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        with self._turn():
            return loop.time() - before

    @property
    def connected(self) -> bool:
        """Whether the broker is there and this transport is open."""
        return self.broker.up and not self._closed

    @property
    def server_id(self) -> str:
        """One broker is one server process for ever."""
        return f"memory-{id(self.broker):x}"

    @property
    def closed_reason(self) -> str | None:
        """What `lose` was told, or None."""
        return self._closed_reason

    def lose(self, reason: str) -> None:
        """Close for good from the far side, as a server does that throws a client out."""
        self._closed_reason = self._closed_reason or reason
        self._end()

    async def close(self) -> None:
        """End every consumer and service of this connection."""
        self._end()
        for consumer in self._consumers:
            await consumer.close()

    def _end(self) -> None:
        with self._timeline.turn():
            self._closed = True
            self.broker.core.leave(self)


def _quietly(attempt: Callable[[datetime], Stored]) -> Callable[[datetime], None]:
    """The attempt, for when nobody waits for its answer any more."""

    def late(moment: datetime) -> None:
        with contextlib.suppress(MeshError):
            attempt(moment)

    return late
