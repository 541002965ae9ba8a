"""Looks at what a process needs in order to make progress, once a second, and tells its `Health`.

Looking never stores anything: what can be stored is known from the heartbeat of the registry and from the outcomes of
the work itself. A stream in doubt stays in doubt until something is acknowledged there, by this process or, seen by the
stream's growing, by another; or until another server process is there, which has opened its files anew.
"""

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from agentflow.errors import AgentflowError, MeshError
from agentflow.mesh.transport import ConsumerState, Transport
from agentflow.telemetry.health import LIFE, Health
from agentflow.telemetry.outcomes import STORES, Stores

EVERY = 1.0
"""Seconds between looks."""

ANSWER_WITHIN = 2.0
"""Seconds a look may take."""

GOOD_FOR = 6.0
"""Seconds what was seen is believed: two looks that take as long as they may."""

CONSUMERS_EVERY = 5.0
"""Seconds between looks at the consumers, which cost the server more."""

BEAT = 0.1
"""Seconds between signs of life of the event loop."""


class Probe:
    """Watches one transport on behalf of a `Health`."""

    def __init__(self, transport: Transport, health: Health, *, monitor_url: str = "", stores: Stores = STORES) -> None:
        self._transport, self._health, self._monitor_url = transport, health, monitor_url
        self._stores = stores
        self._doubted: dict[str, int] = {}
        self._server = transport.server_id
        self.consumers: Sequence[ConsumerState] = ()
        """As they were last seen."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look until cancelled; `stop` is the word to drain."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(), name="loop-beat")
            group.create_task(self._look_at_consumers(), name="look-at-consumers")
            group.create_task(self._drain(stop), name="draining")
            while True:
                await self.look()
                await asyncio.sleep(EVERY)

    async def _beat(self) -> None:
        while True:
            self._health.turned()
            await asyncio.sleep(BEAT)

    async def _drain(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._health.says(LIFE, ok=False, code="service.draining", why="it was told to stop, and finishes its work")

    async def look(self) -> None:
        """One look at everything but the consumers."""
        answers = await self._look_at_broker()
        await self._look_at_server()
        await self._look_at_stores(answers)

    async def _look_at_broker(self) -> bool:
        try:
            if not self._transport.connected:
                raise MeshError("there is no connection", code="mesh.unreachable")
            await self._transport.rtt(ANSWER_WITHIN)
        except MeshError as error:
            self._health.says("broker", ok=False, code=error.error_code, why=error.message)
            return False
        self._health.says("broker", ok=True, good_for=GOOD_FOR)
        return True

    async def _look_at_server(self) -> None:
        """What the server says of itself. With a full disk that is the only one to know before something is stored."""
        if not self._monitor_url:
            return
        problem = await asyncio.to_thread(server_problem, self._monitor_url)
        self._health.says(
            "server",
            ok=problem is None,
            code="" if problem is None else "server.unhealthy",
            why=problem or "",
            good_for=GOOD_FOR,
        )

    async def _look_at_stores(self, answers: bool) -> None:
        if answers and self._transport.server_id != self._server:
            self._server = self._transport.server_id
            self._stores.clear()
        doubts = self._stores.doubts()
        for stream, code in doubts.items():
            if answers and await self._grew(stream):
                self._stores.acknowledged(stream)
                continue
            why = f"the last attempt to store in {stream} was not acknowledged"
            self._health.says(f"store:{stream}", ok=False, code=code, why=why)
            self._doubted.setdefault(stream, 0)
        for stream in [each for each in self._doubted if each not in self._stores.doubts()]:
            self._health.forget(f"store:{stream}")
            del self._doubted[stream]

    async def _grew(self, stream: str) -> bool:
        """Whether a stream in doubt has more in it than when it was first looked at."""
        try:
            info = await self._transport.stream_info(stream)
        except AgentflowError:
            return False
        if info is None:
            return False
        before = self._doubted.get(stream)
        if not before:
            self._doubted[stream] = info.last_seq + 1
            return False
        return info.last_seq + 1 > before

    async def _look_at_consumers(self) -> None:
        while True:
            try:
                self.consumers = await self._transport.attached()
            except AgentflowError:
                pass  # the broker's check says it; consumers have not changed by that
            else:
                lost = [f"{each.name} of {each.stream}" for each in self.consumers if not each.exists]
                why = f"not there: {', '.join(lost)}" if lost else ""
                self._health.says("consumers", ok=not lost, code="consumer.missing" if lost else "", why=why)
            await asyncio.sleep(CONSUMERS_EVERY if self.consumers else EVERY)


def server_problem(monitor_url: str) -> str | None:
    """Why the server is not healthy, by its plain `/healthz`, or None. Blocks: run in a thread."""
    try:
        with urllib.request.urlopen(f"{monitor_url.rstrip('/')}/healthz", timeout=ANSWER_WITHIN) as answer:  # noqa: S310  # operator's URL
            answer.read()
        return None
    except urllib.error.HTTPError as error:
        return f"its /healthz says {error.code}: {_said(error)}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"its /healthz does not answer: {type(error).__name__}"


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(10_000)).get("error", ""))[:300]
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return ""
