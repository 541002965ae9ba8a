"""The `Transport` protocol: everything agentflow asks of a broker, in agentflow's own types and errors.

`agentflow.mesh.jetstream` speaks to NATS, `agentflow.mesh.memory` keeps it all in the process; one contract suite runs
against both. Nothing here knows envelopes: a message is a subject, headers and bytes. The three outcomes of a publish
are a returned `Stored`, a raised `PublishFailed` or `Conflict` (not stored, for certain), or a raised `OutcomeUnknown`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """The broker's acknowledgement: the message is on disk in `stream` at `seq`."""

    stream: str
    seq: int
    duplicate: bool = False
    """It was there before, byte for byte (compared by whoever sets this)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message."""

    stream: str
    seq: int
    subject: str
    body: bytes
    time: datetime
    """When the server stored it, UTC."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer, as it must be on the server."""

    stream: str
    name: str
    filters: tuple[str, ...]
    """Subjects it takes."""
    ack_wait: float = 1.0
    """Seconds until an unacknowledged message is delivered again."""
    max_ack_pending: int = 256
    """How many may be unacknowledged at once, over all processes that share it."""
    pinned: bool = False
    """Only one of the processes that share it is active; the others stand by (`pinned_client`)."""
    start: Literal["all", "new"] = "all"


class Delivery(Protocol):
    """One delivery of a message, to be settled exactly once."""

    @property
    def message(self) -> Message:
        """What was stored."""
        ...

    @property
    def deliveries(self) -> int:
        """How often it has been delivered, this time included (from 1)."""
        ...

    async def ack(self) -> None:
        """Done: do not deliver again."""
        ...

    async def nak(self, delay: float = 0.0) -> None:
        """Not done: deliver again after `delay` seconds."""
        ...

    async def in_progress(self) -> None:
        """Still working: start the ack wait anew."""
        ...

    async def term(self) -> None:
        """Given up (a dead letter was written): do not deliver again."""
        ...


class Consumer(Protocol):
    """A pull consumer in use by this process."""

    def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """Deliveries as they come; never more are asked for than `slots()` says are free.

        Survives reconnects. Ends after `close()`, when everything already received has been yielded.
        """
        ...

    async def close(self) -> None:
        """Ask for nothing more. Messages received but not yet yielded are given back (`nak`)."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a bucket."""

    key: str
    value: bytes
    revision: int
    time: datetime
    deleted: bool = False


class Bucket(Protocol):
    """A key-value bucket. Keys match `[A-Za-z0-9_=./-]+`."""

    async def get(self, key: str) -> Entry | None:
        """The present value, or None."""
        ...

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Set it; returns the revision. `ttl` in seconds, where the bucket allows it."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Set it if absent; raises `Conflict` otherwise."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Set it if its revision is still `revision`; raises `Conflict` otherwise."""
        ...

    async def delete(self, key: str) -> None:
        """Remove it; fine if absent."""
        ...

    async def entries(self, prefix: str = "") -> Sequence[Entry]:
        """All present values whose key begins with `prefix`, sorted by key."""
        ...

    def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Present values, then every change, deletions included, until the iterator is closed."""
        ...


class Objects(Protocol):
    """An object store for content-addressed blobs."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`; the same name always has the same bytes, so it is skipped if there."""
        ...

    async def get(self, name: str) -> bytes:
        """The bytes; raises `NotStored`."""
        ...

    async def has(self, name: str) -> bool:
        """Whether it is there."""
        ...


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream as the server has it."""

    name: str
    config: Mapping[str, Any]
    """The server's configuration object."""
    messages: int
    bytes: int
    first_seq: int
    """Of the first message there is; one behind `last_seq` in an empty stream."""
    last_seq: int
    consumers: int
    created: datetime
    subjects: int = 0
    """Different subjects there are messages under; each costs the server some memory."""


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """A durable consumer as the server has it."""

    stream: str
    name: str
    filters: tuple[str, ...]
    """Subjects it takes, sorted; none means all."""
    delivered_seq: int
    """Sequence of the last message that was delivered for the first time."""
    ack_floor: int
    """Every message it takes up to this sequence is settled."""
    pending: int
    """Messages it takes that were never delivered."""
    unsettled: int
    """Messages that were delivered and not settled."""
    waiting: int
    """Pull requests that wait for a message."""
    pinned: bool = False
    """Whether only one client is active on it."""
    active: bool = True
    """Whether that one is there; always, where it is not pinned."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The server's configuration object."""


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """A consumer this connection is attached to, as the server has it."""

    stream: str
    name: str
    pending: int = 0
    """Messages it has not delivered yet."""
    unacknowledged: int = 0
    """Messages delivered to somebody and not settled."""
    exists: bool = True


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How a service presents itself to `nats micro ls|info|stats`."""

    name: str
    version: str
    description: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoints: Mapping[str, Callable[[bytes], Awaitable[bytes]]] = field(default_factory=dict)
    """Endpoint name to handler; its subject is `<service name>.<endpoint name>`."""


class Transport(Protocol):
    """A broker."""

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
        """One attempt to store a message in `stream`.

        `expect` is the stream sequence of the subject's last message (0: none may exist) and excludes `msg_id`.
        Raises `Conflict` (code `mesh.conflict`, without reading back), `PublishFailed`, `OutcomeUnknown` (no answer in
        `timeout` seconds) or `Unreachable` (not connected: nothing was sent). `Stored.duplicate` is what the server
        says here; `agentflow.mesh.publishing` compares.
        """
        ...

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message stored under exactly `subject`, asked of the stream's leader."""
        ...

    async def first(self, stream: str, subject: str) -> Message | None:
        """The first message stored under exactly `subject`, asked of the stream's leader."""
        ...

    async def get(self, stream: str, seq: int) -> Message | None:
        """The message at a sequence, asked of the stream's leader."""
        ...

    def read(
        self, stream: str, subject: str = ">", *, start: int = 1, end: int | None = None
    ) -> AsyncIterator[Message]:
        """History in stream order from sequence `start` to `end` (by default what is last when the call is made)."""
        ...

    async def consume(self, spec: ConsumerSpec) -> Consumer:
        """Create or reconcile the durable consumer and attach to it; raises `Conflict` if its filter drifted."""
        ...

    async def attached(self) -> Sequence[ConsumerState]:
        """The consumers that are in use on this connection, asked of the server; raises `MeshError`."""
        ...

    def follow(self, subject: str) -> "Subscription":
        """A core subscription, for `stored.…` subjects only: hints that something was stored, at most once."""
        ...

    async def request(self, subject: str, body: bytes, *, timeout: float = 2.0) -> bytes:
        """A core request; raises `NotStored` with code `mesh.no_responders`, or `OutcomeUnknown` on time-out."""
        ...

    async def bucket(self, name: str) -> Bucket:
        """An existing bucket; raises `NotStored`."""
        ...

    async def objects(self, name: str) -> Objects:
        """An existing object store; raises `NotStored`."""
        ...

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream from the server's own JSON configuration."""
        ...

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Change a stream to the given configuration."""
        ...

    async def stream_info(self, name: str) -> StreamInfo | None:
        """A stream as it is, or None."""
        ...

    async def stream_names(self) -> Sequence[str]:
        """All streams, sorted."""
        ...

    async def consumers(self, stream: str) -> Sequence[ConsumerInfo]:
        """The durable consumers of a stream, by name; none where there is no such stream."""
        ...

    async def serve(self, spec: ServiceSpec) -> None:
        """Register as a micro service until the transport closes."""
        ...

    async def require_durable(self, monitor_url: str = "") -> None:
        """Raise `ServerUnfit` unless the server is recent enough and is shown to sync before it acknowledges.

        `monitor_url` is the server's monitoring address, such as `http://127.0.0.1:8222`.
        """
        ...

    async def rtt(self, timeout: float = 2.0) -> float:
        """Seconds a round trip to the broker takes: the liveness check. Raises `Unreachable`."""
        ...

    @property
    def connected(self) -> bool:
        """Whether a connection is up just now."""
        ...

    @property
    def server_id(self) -> str:
        """Names the server process this is, or was last, connected to: another one after every start of it."""
        ...

    @property
    def closed_reason(self) -> str | None:
        """Why the connection closed for good (then the process must end), or None."""
        ...

    async def close(self) -> None:
        """Flush and end; idempotent."""
        ...


class Subscription(Protocol):
    """A core subscription that is already in place when `ready()` returns."""

    async def ready(self) -> None:
        """Return once the broker knows the subscription."""
        ...

    async def next(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """The next subject and body, or None after `timeout` seconds."""
        ...

    async def close(self) -> None:
        """End it."""
        ...
