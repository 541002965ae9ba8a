"""The shell every service process shares: connect, present itself, run, drain on SIGTERM, exit 0.

`run` is called by a service's `__main__` with a body that does the work until its stop event is set. A connection that
closed for good ends the process with an error: a supervisor starts it again, and what it had in hand is redelivered.
"""

import asyncio
import contextlib
import functools
import importlib.metadata
import os
import platform
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from agentflow import configuration, crash, logs
from agentflow.clock import Clock, SystemClock, format_time
from agentflow.ending import end
from agentflow.errors import AgentflowError, MeshError
from agentflow.ids import new_id
from agentflow.mesh.connect import connect
from agentflow.mesh.patience import patiently
from agentflow.mesh.transport import Bucket, ServiceSpec, Transport
from agentflow.meshclock import SKEW, MeshClock
from agentflow.redaction import secrets_of
from agentflow.registry import REGISTRY, Heartbeat, alive_key
from agentflow.settings import ServiceSettings
from agentflow.skew import SkewedClock
from agentflow.telemetry.health import LIFE, Health
from agentflow.telemetry.process import Observed, observed


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of one service process."""

    service: str
    id: str
    started: datetime


@dataclass(slots=True)
class Host:
    """What a service's body gets: the mesh, its identity, and the word to stop."""

    transport: Transport
    incarnation: Incarnation
    settings: ServiceSettings
    clock: Clock
    log: Any
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    health: Health = field(default_factory=Health)
    http: str = ""
    """Where its pages are, or an empty string."""
    _skewed: bool = False

    def heartbeat_for(self, kind: Any, id: str, **detail: Any) -> Heartbeat:
        """A registry entry for something this process hosts."""
        return Heartbeat(
            kind=kind,
            id=id,
            incarnation=self.incarnation.id,
            started=format_time(self.incarnation.started),
            pid=os.getpid(),
            host=platform.node(),
            detail={**detail, "http": self.http} if self.http else detail,
            version=importlib.metadata.version("agentflow-mesh"),
        )

    @contextlib.asynccontextmanager
    async def registered(self, *entries: Heartbeat) -> AsyncIterator[None]:
        """Keep registry entries alive inside the block, and remove them at its end."""
        bucket = await patiently(self.transport, lambda: self.transport.bucket(REGISTRY))
        keys = {alive_key(e.kind, e.id, e.incarnation): e for e in entries}

        async def tell(key: str, entry: Heartbeat) -> None:
            beat = msgspec.structs.replace(entry, beat=format_time(self.clock.now()))
            await self._set_clock(bucket, key, msgspec.json.encode(beat))

        async def beat() -> None:
            heard = True
            while True:
                try:
                    for key, entry in keys.items():
                        await tell(key, entry)
                    heard = True
                    self._heard()
                except MeshError as error:
                    self.health.says("registry", ok=False, code=error.error_code, why=error.message)
                    if heard:
                        self.log.warning("registry.unheard", code=error.error_code, why=error.message)
                    heard = False
                await asyncio.sleep(self.settings.heartbeat)

        for key, entry in keys.items():
            await patiently(self.transport, functools.partial(tell, key, entry))
        self._heard()
        if not self.stop.is_set():
            self.health.says(LIFE, ok=True)
        task = asyncio.create_task(beat(), name="heartbeat")
        try:
            yield
        finally:
            await end(task, patience=0.1)
            for key in keys:
                with contextlib.suppress(MeshError):
                    await bucket.delete(key)

    async def _set_clock(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Store a heartbeat, and set our clock by the server's date on it."""
        clock = self.clock
        if not isinstance(clock, MeshClock):
            await bucket.put(key, value)
            return
        asked = clock.steady()
        revision = await bucket.put(key, value)
        answered = clock.steady()
        stored = await bucket.get(key)
        if stored is not None and stored.revision == revision:
            clock.heard(stored.time, asked, answered)
        skew = clock.skew()
        if (abs(skew) > SKEW) != self._skewed:
            self._skewed = not self._skewed
            tell = self.log.warning if self._skewed else self.log.info
            tell("clock.skew" if self._skewed else "clock.agrees", seconds=round(skew, 3), used="the broker's time")

    def _heard(self) -> None:
        """A heartbeat was stored and acknowledged: storing works."""
        self.health.says("registry", ok=True, good_for=self.settings.heartbeat * 3 + 5.0)


LOOK_EVERY = 2.0
"""Seconds between looks at the connection."""

SILENT_LOOKS = 5
"""Looks in a row without an answer on a connection that says it is up, after which the process ends."""

Body = Callable[[Host], Awaitable[None]]


def steady() -> float:
    """Seconds on a clock nobody sets, which also counts while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def run(spec: ServiceSpec, settings: ServiceSettings, body: Body) -> int:
    """Run a service until SIGTERM or SIGINT and return the process's exit code."""
    machine = SkewedClock(SystemClock(), settings.clock_offset) if settings.clock_offset else SystemClock()
    clock = MeshClock(machine, steady)
    started = clock.now()
    incarnation = Incarnation(spec.name, new_id(started, secrets.token_bytes), started)
    secrets_known = [each for url in (settings.nats_url, settings.monitor_url) for each in secrets_of(url)]
    logs.configure(spec.name, incarnation.id, settings.log_level, console=sys.stderr.isatty(), secrets=secrets_known)
    log = logs.get(spec.name)
    for warning in configuration.warnings(likely=True):
        log.warning("settings.warning", code=warning.code, where=warning.where, what=warning.found, why=warning.allowed)
    crash.arm(settings.crash_at)
    try:
        with observed(
            spec.name, spec.version, incarnation.id, address=settings.http_address, traces=settings.traces
        ) as watch:
            asyncio.run(_run(spec, settings, body, incarnation, clock, log, watch))
    except Exception as error:  # noqa: BLE001  # the end of the process: told as a line of the log, and its exit code
        return _failed(error, log)
    return 0


def _failed(error: Exception, log: Any) -> int:
    """Log why the process ends, and return its exit code: the first error's, where several tasks failed."""
    leaves = _leaves(error)
    ours = [leaf for leaf in leaves if isinstance(leaf, AgentflowError)]
    if len(ours) < len(leaves):
        log.error("service.crashed", exc_info=error)
        return AgentflowError.exit_code
    for leaf in ours:
        log.error("service.failed", code=leaf.error_code, reason=leaf.message)
    return ours[0].exit_code


def _leaves(error: Exception) -> list[Exception]:
    """The errors a task group's error is made of; any other is its own only one."""
    if isinstance(error, ExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def _run(
    spec: ServiceSpec,
    settings: ServiceSettings,
    body: Body,
    incarnation: Incarnation,
    clock: Clock,
    log: Any,
    watch: Observed,
) -> None:
    transport = await connect(settings.nats_url, name=f"{spec.name}-{incarnation.id}", timeout=settings.connect_timeout)
    host = Host(transport, incarnation, settings, clock, log, health=watch.health, http=watch.http)
    try:
        if not settings.allow_volatile:
            await patiently(transport, lambda: transport.require_durable(settings.monitor_url))
        await patiently(transport, lambda: transport.serve(spec))
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, host.stop.set)
        log.info("service.started", pid=os.getpid(), version=spec.version, http=watch.http)
        async with watch.watching(transport, host.stop, settings.monitor_url):
            await _until_stopped(host, body)
        log.info("service.stopped")
    finally:
        await transport.close()


async def _until_stopped(host: Host, body: Body) -> None:
    """Run the body; end it when the connection closes for good or when draining takes too long."""
    work = asyncio.create_task(_as_coroutine(body, host), name="body")
    lost = asyncio.create_task(_connection_lost(host), name="connection")
    stop = asyncio.create_task(host.stop.wait(), name="stop")
    try:
        await asyncio.wait({work, lost, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and not lost.done():
            await asyncio.wait({work}, timeout=host.settings.drain_timeout)
            if not work.done():
                host.log.warning("service.drain_timeout", seconds=host.settings.drain_timeout)
        if work.done():
            work.result()
        elif lost.done():
            lost.result()
    finally:
        await end(work, lost, stop)


async def _as_coroutine(body: Body, host: Host) -> None:
    await body(host)


async def _connection_lost(host: Host) -> None:
    """Wait until the connection is of no use any more: closed for good, or up by its own account and yet silent."""
    silent = 0
    while host.transport.closed_reason is None:
        await asyncio.sleep(LOOK_EVERY)
        if not host.transport.connected:
            silent = 0
            continue
        try:
            await host.transport.rtt(timeout=LOOK_EVERY * 2)
            silent = 0
        except MeshError:
            silent += 1
        if silent >= SILENT_LOOKS:
            raise MeshError("the connection is up and nothing comes back", code="mesh.stuck")
    raise MeshError(f"connection closed for good: {host.transport.closed_reason}", code="mesh.closed")
