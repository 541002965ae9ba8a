"""The runtime process at work: every agent hosted on its own, from its declaration to the end of its last message.

Each agent has its own consumer, slots, results and lifecycle; they share nothing but the connection, so what happens to
one leaves the others alone. An agent that cannot start, or whose consumer breaks, is `Failed`: told, and started again
with a new instance after a growing pause. On the word to stop an agent takes nothing new, finishes what it has in hand
within the drain time, and gives the rest back.
"""

import asyncio
import contextlib
import secrets
from typing import Any

import msgspec

from agentflow import logs, subjects
from agentflow.agent import AgentContext
from agentflow.ending import end
from agentflow.errors import AgentflowError, NotStored
from agentflow.mesh.patience import patiently
from agentflow.mesh.retries import Retries
from agentflow.mesh.transport import ConsumerSpec
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import ARTIFACTS, CONFIG, agent_key
from agentflow.service import Host
from agentflow_runtime.delivery import PRODUCER, Mesh, Receiver
from agentflow_runtime.failures import text
from agentflow_runtime.handling import call
from agentflow_runtime.hosting import Hooks, HostedAgent
from agentflow_runtime.journal import Journal
from agentflow_runtime.leftovers import CountingConsumer, Leftovers
from agentflow_runtime.lifecycle import Failed, Loaded, Running, Stopped, Unloaded, announcement
from agentflow_runtime.results import ResultFeed
from agentflow_runtime.settings import RuntimeSettings

STREAM = "AF_AGENTS"
NEEDED = (STREAM, "AF_AUDIT", "AF_MESSAGES", "AF_DEAD")
"""Streams without which nothing can be handled."""

LONGEST_DELAY = 30.0
"""Seconds until a failed agent is started again, at most."""


async def serve(host: Host, settings: RuntimeSettings, agents: list[HostedAgent]) -> None:
    """Host agents until `host.stop` is set; the body of the service.

    Raises `NotStored` when the mesh was not set up, and other `MeshError`s while the agents are declared.
    """
    await patiently(host.transport, lambda: require_streams(host))
    await patiently(host.transport, lambda: declare(host, agents))
    objects = await patiently(host.transport, lambda: host.transport.objects(ARTIFACTS))
    mesh = Mesh(host.transport, objects, host.clock)
    hosts = [AgentHost(host, settings, mesh, agent) for agent in agents]
    own = host.heartbeat_for("runtime", PRODUCER, agents=[agent.id for agent in agents])
    async with host.registered(own):
        await asyncio.gather(*(each.run() for each in hosts))


async def require_streams(host: Host) -> None:
    """Raise `NotStored` with the names of the streams that are missing."""
    missing = [name for name in NEEDED if await host.transport.stream_info(name) is None]
    if missing:
        raise NotStored(f"streams are missing: {', '.join(missing)}; set up the mesh first", missing=missing)


async def declare(host: Host, agents: list[HostedAgent]) -> None:
    """List the agents in `AF_CONFIG`; an entry that says the same already is left alone."""
    bucket = await host.transport.bucket(CONFIG)
    for agent in agents:
        key, value = agent_key(agent.id), msgspec.json.encode(agent.declaration)
        there = await bucket.get(key)
        if there is None or there.deleted or there.value != value:
            await bucket.put(key, value)


class AgentHost:
    """One agent in this process."""

    def __init__(self, host: Host, settings: RuntimeSettings, mesh: Mesh, agent: HostedAgent) -> None:
        self._host, self._settings, self._mesh, self._agent = host, settings, mesh, agent
        self._journal = Journal(
            mesh.transport, mesh.clock, secrets.token_bytes, producer=agent.id, incarnation=host.incarnation.id
        )
        self._log: Any = logs.get(f"agent.{agent.id}")
        self._leftovers = Leftovers()
        self._says("agent.starting", "it has not started yet")

    def _says(self, code: str = "", why: str = "") -> None:
        """Whether this agent takes messages here, for who asks whether the process is ready; no code means that it does."""
        self._host.health.says(f"agent:{self._agent.id}", ok=not code, code=code, why=why)

    async def run(self) -> None:
        """Keep the agent running until the process is to stop."""
        loaded, delay = Unloaded(self._agent.id).load(), self._settings.restart_delay
        while not self._host.stop.is_set():
            end = await self._live(loaded)
            if isinstance(end, Failed):
                self._says("agent.failed", "it failed and will be started again; the log says why")
            await self._announce(end)
            if isinstance(end, Stopped):
                return
            self._log.error("agent.failed", agent=self._agent.id, reason=end.reason, again_after=delay)
            await self._pause(delay)
            loaded, delay = end.reload(), min(delay * 2, LONGEST_DELAY)

    async def _live(self, loaded: Loaded) -> Stopped | Failed:
        """One life of one instance."""
        try:
            hooks = self._agent.create()
            await self._start(hooks)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the author's code may raise anything
            return loaded.fail(f"on_start: {type(error).__name__}: {text(error)}")
        running = loaded.start()
        try:
            await self._announce(running)
            await self._work(running, hooks)
        except Exception as error:  # noqa: BLE001 - whatever broke, it is this agent's alone
            return running.fail(f"{type(error).__name__}: {text(error)}")
        await self._finish(hooks)
        return running.stop()

    async def _start(self, hooks: Hooks) -> None:
        if hooks.on_start is not None:
            ctx = AgentContext(self._agent.id, self._agent.settings, self._log)
            await call(hooks.on_start, ctx, leftovers=self._leftovers)

    async def _finish(self, hooks: Hooks) -> None:
        """A hook that fails at the end changes nothing any more."""
        if hooks.on_finish is None:
            return
        try:
            await call(hooks.on_finish, leftovers=self._leftovers)
        except (Exception, SystemExit):  # noqa: BLE001 - the author's code may raise anything
            self._log.exception("agent.on_finish_failed", agent=self._agent.id)

    async def _work(self, running: Running, hooks: Hooks) -> None:
        """Take messages until the process is to stop, then drain."""
        agent, mesh, settings = self._agent, self._mesh, self._settings
        feed = ResultFeed(mesh.transport, mesh.objects, agent.id)
        receiver = Receiver(mesh, agent, hooks, feed, self._leftovers, settings.cancel_grace)
        consumer = CountingConsumer(await mesh.transport.consume(consumer_spec(agent, settings)), self._leftovers)
        policy = WorkPolicy(agent.concurrency, settings.ack_wait, settings.max_deliveries)
        retries = Retries(mesh.transport, agent.consumer)
        worker = Worker(consumer, receiver.handle, receiver.give_up, policy, self._log, retries)
        entry = self._host.heartbeat_for("agent", running.agent_id, concurrency=agent.concurrency)
        async with feed.following(), self._host.registered(entry):
            await self._until_drained(worker)

    async def _until_drained(self, worker: Worker) -> None:
        """Run a worker; when the process is to stop, what is not done in time is cancelled and so given back."""
        work = asyncio.create_task(worker.run(self._host.stop), name=f"work-{self._agent.id}")
        stop = asyncio.create_task(self._host.stop.wait())
        self._says()
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({work}, timeout=drain_seconds(self._settings))
        finally:
            self._says("agent.stopped", "it takes no messages any more")
            await end(work, stop)
        if not work.cancelled():
            work.result()
        if work.cancelled() or len(self._leftovers):
            self._log.warning("agent.drain_timeout", agent=self._agent.id, still_running=len(self._leftovers))

    async def _announce(self, state: Running | Stopped | Failed) -> None:
        """Tell a change of state; an agent does not stand still because nobody can be told."""
        event = announcement(state, self._host.incarnation.id)
        try:
            await self._journal.tell(subjects.agent_out(self._agent.id), event)
        except AgentflowError as error:
            self._log.warning("agent.untold", agent=self._agent.id, state=event.state, reason=error.message)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._host.stop.wait(), seconds)


def consumer_spec(agent: HostedAgent, settings: RuntimeSettings) -> ConsumerSpec:
    """The durable consumer all processes that host an agent share; it bounds what they have in hand together."""
    return ConsumerSpec(
        stream=STREAM,
        name=agent.consumer,
        filters=(f"agents.{agent.id}.in", f"agents.{agent.id}.in.>"),
        ack_wait=settings.ack_wait,
        max_ack_pending=agent.concurrency,
    )


def drain_seconds(settings: RuntimeSettings) -> float:
    """How long work in hand gets at the end, so that cancelling and giving back still fit into the drain time."""
    return max(settings.drain_timeout / 2, settings.drain_timeout - settings.cancel_grace - 0.5)
