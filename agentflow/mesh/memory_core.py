"""Core messaging of the in-memory broker: subscriptions to republished subjects, and micro services.

Nothing here is stored. A message goes to the subscriptions that exist when it is sent; a request to a handler, on the
event loop of whoever serves it. The `$SRV` verbs answer as NATS micro services do (`io.nats.micro.v1.*`).
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentflow.clock import format_time
from agentflow.mesh.memory_time import Timeline
from agentflow.mesh.transport import ServiceSpec
from agentflow.subjects import matches

_QUEUE = 4096
"""Messages a subscription keeps; the oldest are dropped, they are only hints."""


class MemorySubscription:
    """A core subscription."""

    def __init__(self, subject: str, timeline: Timeline, end: Callable[["MemorySubscription"], None]) -> None:
        self.subject = subject
        self.waiting: deque[tuple[str, bytes]] = deque(maxlen=_QUEUE)
        self._timeline, self._end = timeline, end

    async def ready(self) -> None:
        """Return at once: it has been in place since it was made."""

    async def next(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """The next subject and body, or None."""
        return await self._timeline.until(lambda: self.waiting.popleft() if self.waiting else None, timeout)

    async def close(self) -> None:
        """End it."""
        self._end(self)


@dataclass(slots=True)
class Served:
    """A service that is registered, where it runs, and what it has answered."""

    spec: ServiceSpec
    id: str
    owner: object
    loop: asyncio.AbstractEventLoop
    started: datetime
    requests: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    async def answer(self, endpoint: str, body: bytes) -> bytes:
        """The handler's answer; empty when it fails, as over NATS, where the error travels in a header."""
        self.requests[endpoint] = self.requests.get(endpoint, 0) + 1
        try:
            return await self.spec.endpoints[endpoint](body)
        except Exception:  # noqa: BLE001 - a handler is the user's code, and its caller must be answered
            self.errors[endpoint] = self.errors.get(endpoint, 0) + 1
            return b""

    def about(self, verb: str) -> bytes:
        """The answer to `$SRV.<verb>`."""
        identity = {"name": self.spec.name, "id": self.id, "version": self.spec.version}
        found: dict[str, Any] = {**identity, "metadata": dict(self.spec.metadata)}
        found["type"] = f"io.nats.micro.v1.{verb.lower()}_response"
        if verb == "INFO":
            found.update(description=self.spec.description, endpoints=[*self._endpoints()])
        elif verb == "STATS":
            endpoints = [{**endpoint, **self._figures(endpoint)} for endpoint in self._endpoints()]
            found.update(started=format_time(self.started), endpoints=endpoints)
        return json.dumps(found).encode()

    def _endpoints(self) -> Iterator[dict[str, str]]:
        for name in self.spec.endpoints:
            yield {"name": name, "subject": f"{self.spec.name}.{name}", "queue_group": "q"}

    def _figures(self, endpoint: dict[str, str]) -> dict[str, int]:
        name = endpoint["name"]
        return {"num_requests": self.requests.get(name, 0), "num_errors": self.errors.get(name, 0)}


class Switchboard:
    """Who subscribes and who serves. Its methods are called inside a turn of the timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._subscriptions: list[MemorySubscription] = []
        self._services: list[Served] = []
        self._registered = 0

    def subscribe(self, subject: str) -> MemorySubscription:
        """A subscription from now on."""
        subscription = MemorySubscription(subject, self._timeline, self._unsubscribe)
        self._subscriptions.append(subscription)
        return subscription

    def _unsubscribe(self, subscription: MemorySubscription) -> None:
        with self._timeline.turn():
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def emit(self, subject: str, body: bytes) -> None:
        """Hand a message to everyone who subscribes to its subject."""
        for subscription in self._subscriptions:
            if matches(subscription.subject, subject):
                subscription.waiting.append((subject, body))

    def register(self, spec: ServiceSpec, owner: object, now: datetime) -> None:
        """Serve `spec` on the running loop, until `owner` leaves."""
        self._registered += 1
        loop = asyncio.get_running_loop()
        self._services.append(Served(spec, f"memory-{self._registered}", owner, loop, now))

    def leave(self, owner: object) -> None:
        """`owner` serves nothing any more."""
        self._services = [served for served in self._services if served.owner is not owner]

    def route(self, subject: str) -> tuple[Served, str] | None:
        """Who answers a request and at which endpoint (for `$SRV` the verb), or None."""
        for served in self._services:
            for name in served.spec.endpoints:
                if subject == f"{served.spec.name}.{name}":
                    return served, name
            prefix, _, rest = subject.partition(".")
            verb, *wanted = rest.split(".")
            known = [served.spec.name, served.id][: len(wanted)]
            if prefix == "$SRV" and verb in ("PING", "INFO", "STATS") and wanted == known:
                return served, f"$SRV.{verb}"
        return None


async def ask(served: Served, endpoint: str, body: bytes, timeout: float) -> bytes | None:
    """One request to a service on whatever loop it runs, or None after `timeout` seconds."""
    if endpoint.startswith("$SRV."):
        return served.about(endpoint.removeprefix("$SRV."))
    try:
        answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(served.answer(endpoint, body), served.loop))
    except RuntimeError:  # its loop was closed without closing the transport: nobody answers
        return None
    done, _ = await asyncio.wait({answer}, timeout=timeout)
    return answer.result() if done else None
