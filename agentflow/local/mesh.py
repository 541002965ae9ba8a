"""A mesh on this machine: nats-server and the services, each a process of its own, started, watched and stopped.

    async with LocalMesh.running(directory, project=Path("agentflow.yaml")) as mesh:
        async with Client.connect(mesh.url) as client: ...

Started in order (server, streams, services, workflows) and ready when every service has announced itself; stopped in
the other order: the runtime drains while the executor still answers the tool calls it waits for, then executor and
detector, then the planner, then the server. A service that ends by itself is started again, with growing pauses.
Whatever fails on the way, nothing is left running; if this process is killed, the kernel ends its children.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from agentflow.clock import Clock, SystemClock, format_time
from agentflow.definitions import Applied, apply_definition
from agentflow.errors import MeshError
from agentflow.local import services
from agentflow.local.events import SERVER
from agentflow.local.processes import ChildProcess
from agentflow.local.room import capacity_for
from agentflow.local.running import Kind, RunningMesh, announce, process_start, withdraw
from agentflow.local.services import Program
from agentflow.local.watch import Told, Watch
from agentflow.mesh.connect import connect
from agentflow.mesh.embedded import EmbeddedServer
from agentflow.mesh.transport import Bucket, Transport
from agentflow.project import Project, load_project
from agentflow.registry import REGISTRY, Heartbeat

READY_TIMEOUT = 30.0
"""Seconds the services get to announce themselves."""

STOP_TIMEOUT = 13.0
"""Seconds the services get to drain and end: the drain timeout of the first (10 s) and a little."""

LEAST_STOP = 3.0
"""Seconds those that are stopped later get at least, however long the first took."""

LAST_TO_STOP = ("executor", "detector"), ("planner",)
"""Services that are stopped after all others, in this order: handlers in a runtime wait for what an executor does."""

_POLL = 0.02

Note = Callable[[str], None]
"""Takes a line for people about what the mesh does."""


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """How a local mesh is run."""

    port: int | None = None
    """Of the broker; None or 0 takes a free one."""
    processes: Mapping[str, int] = field(default_factory=dict)
    """How many processes a service has, by service; 1 unless given, 0 for none."""
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Settings (`AF_…`) for the processes of a service, by service; those under `*` are for all."""
    watched: bool = True
    """Start again what ended by itself; a test that kills and restarts things on its own turns this off."""
    kind: Kind = "dev"
    """What other commands see it as."""


class LocalMesh:
    """nats-server and services as child processes. Without a `directory` everything is temporary."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        project: Path | None = None,
        options: MeshOptions = MeshOptions(),
        note: Note = lambda _: None,
        told: Told | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`told` takes what happens to its processes while it runs; by default it is noted as sentences."""
        self.project: Project = load_project(project)
        self.server = EmbeddedServer(directory, port=options.port)
        self.services: dict[str, list[ChildProcess]] = {}
        """The processes of each service, by service."""
        self.applied: list[Applied] = []
        """The project's workflows."""
        self._options = options
        self._note = note
        self._clock = clock or SystemClock()
        tell = told or (lambda event: note(event.sentence))
        self._watch = Watch(self.server, self.restart_server, self._announced_pids, tell, note)
        self._looker: Transport | None = None
        self._provisioners: Sequence[services.Provisioner] = ()
        self._announced: RunningMesh | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        directory: Path | None = None,
        *,
        project: Path | None = None,
        options: MeshOptions = MeshOptions(),
        note: Note = lambda _: None,
        told: Told | None = None,
    ) -> AsyncIterator[Self]:
        """A mesh for the time of a block."""
        mesh = cls(directory, project=project, options=options, note=note, told=told)
        try:
            await mesh.start()
            yield mesh
        finally:
            await mesh.stop()

    @property
    def url(self) -> str:
        """Where its broker listens."""
        return self.server.url

    @property
    def directory(self) -> Path:
        """Where everything is kept."""
        return self.server.directory

    @property
    def logs(self) -> Path:
        """The folder of its log files."""
        return self.directory / "logs"

    def processes(self) -> list[ChildProcess]:
        """All processes of services."""
        return [child for children in self.services.values() for child in children]

    def pid_of(self, process: str) -> int:
        """The process id of a process by its name; raises `KeyError` for a name that none has."""
        return {child.name: child for child in self.processes()}[process].pid if process != SERVER else self.server.pid

    async def start(self) -> Self:
        """Start everything and return when work can be done.

        Raises what `EmbeddedServer.start` raises, `ConfigError` for what is not installed, `MeshError`
        (`service.exited`, `service.not_ready`) with the last lines of the service's log, and `DefinitionError` for a
        workflow that is refused. Then nothing is left running.
        """
        try:
            programs = self._programs()
            self._provisioners = services.installed_provisioners()
            await self.server.start()
            async with self._connected() as transport:
                await self._provision(transport)
                self._start_services(programs)
                await self._until_ready(transport)
                await self._apply_workflows(transport)
            self._announce()
            if self._options.watched:
                self._watch.start(self.processes())
        except BaseException:
            await self.stop()
            raise
        return self

    async def restart_server(self) -> None:
        """Start the server again, at the same address, and make again what may be missing."""
        await self.server.restart()
        async with self._connected() as transport:
            await self._provision(transport)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Transport]:
        transport = await connect(self.url, name="agentflow-local")
        try:
            yield transport
        finally:
            await transport.close()

    async def stop(self, deadline: float = STOP_TIMEOUT) -> None:
        """Stop the services in order, then the server; idempotent. What did not end by itself is noted.

        The services have `deadline` seconds together, but each stage `LEAST_STOP` (or `deadline`, if that is less).
        """
        await self._watch.stop()
        if self._looker is not None:
            await self._looker.close()
            self._looker = None
        if self._announced is not None:
            withdraw(self._announced)
            self._announced = None
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        for names in stages(self.services):
            children = [child for name in names for child in self.services[name] if child.running]
            await self._stop_children(children, max(until - loop.time(), min(LEAST_STOP, deadline)))
        await self.server.stop()

    async def _stop_children(self, children: Sequence[ChildProcess], deadline: float) -> None:
        codes = await asyncio.gather(*(child.stop(deadline) for child in children))
        for child, code in zip(children, codes, strict=True):
            if code:
                self._note(f"{child.name} ended with {code}, see {child.log}")

    def _programs(self) -> list[Program]:
        programs, absent = services.programs_to_start(services.installed_programs())
        for name in absent:
            self._note(f"{name} is not installed: the mesh runs without it")
        if not self.project.agents:
            self._note("the project has no agents: no runtime is started")
            programs = [program for program in programs if program.name != "runtime"]
        return programs

    async def _provision(self, transport: Transport) -> None:
        capacity = capacity_for(self.directory, self.server.max_storage)
        if capacity < 1.0:
            self._note(f"there is little room on this disk: streams are made with {capacity:.1%} of their usual size")
        for provision in self._provisioners:
            report = await provision(transport, replicas=1, **({"capacity": capacity} if capacity < 1.0 else {}))
            for drift in getattr(report, "drift", ()):
                self._note(f"stream drift: {getattr(drift, 'sentence', drift)}")

    def _start_services(self, programs: Sequence[Program]) -> None:
        for program in programs:
            names = process_names(program.name, self._options.processes.get(program.name, 1))
            children = [self._child(program, name) for name in names]
            self.services[program.name] = children
            for child in children:
                child.start()

    def _child(self, program: Program, name: str) -> ChildProcess:
        return ChildProcess(
            name,
            program.argv,
            log=self.logs / f"{name}.log",
            env=self._environment(program.name),
            cwd=self.project.folder if self.project.path else self.directory,
        )

    def _environment(self, service: str) -> dict[str, str]:
        """What a service inherits: our environment, where the mesh is, and what was given for it."""
        found = {**os.environ, "AF_NATS_URL": self.url, "AF_MONITOR_URL": self.server.monitor_url}
        found["AF_SETTINGS_DIR"] = os.environ.get("AF_SETTINGS_DIR") or os.getcwd()  # theirs is the project's folder
        found.pop("AF_PROJECT", None)
        if self.project.path:
            found["AF_PROJECT"] = self.project.path
        return {**found, **self._options.environment.get("*", {}), **self._options.environment.get(service, {})}

    async def _until_ready(self, transport: Transport) -> None:
        """Wait until the process of each service is in the registry."""
        registry = await transport.bucket(REGISTRY)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_TIMEOUT
        waiting = {child.pid: child for child in self.processes()}
        while waiting:
            for child in waiting.values():
                if not child.running:
                    raise service_failed(child, "service.exited", f"ended with {child.exit_code} before it was ready")
            if loop.time() >= deadline:
                child = next(iter(waiting.values()))
                raise service_failed(child, "service.not_ready", f"was not ready within {READY_TIMEOUT:g} s")
            await asyncio.sleep(_POLL)
            for pid in await registered_pids(registry, self.services):
                waiting.pop(pid, None)

    async def _announced_pids(self) -> frozenset[int]:
        """The process ids in the registry, asked over a connection that is kept."""
        if self._looker is None or self._looker.closed_reason is not None:
            self._looker = await connect(self.url, name="agentflow-watch")
        return await registered_pids(await self._looker.bucket(REGISTRY), self.services)

    async def _apply_workflows(self, transport: Transport) -> None:
        for name in self.project.workflows:
            applied = await apply_definition(transport, self.project.folder / name, self._clock.now())
            self.applied.append(applied)
            if applied.warnings:
                self._note(applied.warnings)

    def _announce(self) -> None:
        self._announced = RunningMesh(
            kind=self._options.kind,
            pid=os.getpid(),
            process_started=process_start(os.getpid()) or "",
            since=format_time(self._clock.now()),
            url=self.url,
            monitor_url=self.server.monitor_url,
            data_dir=str(self.directory),
        )
        announce(self._announced)


def process_names(service: str, count: int) -> list[str]:
    """What the processes of a service are called: `planner`, `planner-2` and so on."""
    return [service if number == 1 else f"{service}-{number}" for number in range(1, count + 1)]


def stages(names: Iterable[str]) -> list[list[str]]:
    """The services that are stopped together, the first to be stopped first."""
    late = [name for stage in LAST_TO_STOP for name in stage]
    present = list(names)
    found = [[name for name in present if name not in late]]
    found += [[name for name in present if name in stage] for stage in LAST_TO_STOP]
    return [stage for stage in found if stage]


async def registered_pids(registry: Bucket, names: Iterable[str]) -> frozenset[int]:
    """The processes of some services that have announced themselves."""
    found = [entry.value for name in names for entry in await registry.entries(f"{name}.")]
    return frozenset(msgspec.json.decode(value, type=Heartbeat).pid for value in found)


def service_failed(child: ChildProcess, code: str, what: str) -> MeshError:
    """A service that cannot be used, with why: the last thing it logged."""
    lines = child.last_lines()
    return MeshError(
        f"{child.name} {what}: {reason_in(lines)}",
        code=code,
        service=child.name,
        log=lines,
        hint=f"see {child.log}",
    )


def reason_in(lines: Sequence[str]) -> str:
    """What a service's last log lines say about its end: the reason in a JSON line, or the last line as it is."""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.DecodeError):
            found = msgspec.json.decode(line)
            if isinstance(found, dict) and (reason := found.get("reason")):
                return str(reason)
    return next((line for line in reversed(lines) if line.strip()), "it logged nothing")
