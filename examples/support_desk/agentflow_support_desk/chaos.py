"""Chaos: carries out a plan of faults against a mesh at work, and sees every process come back.

Killed processes are started again by the mesh's own watch, as those that crash are; this module only strikes, and waits
until the watch says that the process is up: announced in the registry, or for the server taking connections again. No
process is struck while it is down or frozen. A frozen process is continued whatever happens. An executor is killed in the worst
moment there is: when an effect has just appeared in the desk's files, which whoever did it has not recorded yet.

`Storm` paces the work: it holds tickets back until the round of faults that sets them free. `unleashed` runs it beside
the work, and ends both when either fails.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.clock import Clock
from agentflow.local.events import SERVER, ProcessEvent
from agentflow.local.mesh import LocalMesh, process_names
from agentflow.mesh.transport import Transport
from agentflow.subjects import parse
from agentflow_streams.history import Artifacts, read_stream
from agentflow_support_desk.chaos_figures import Audited, Struck, audit, chaos_figures
from agentflow_support_desk.chaos_plan import Round, Strike
from agentflow_support_desk.chaos_plan import plan as make_plan
from agentflow_support_desk.errors import ChaosError
from agentflow_support_desk.figures import Worked

PROCESSES = {"planner": 2, "runtime": 2, "executor": 2, "detector": 2}
"""How many processes of each service share the work."""

FREEZE = 5.0
"""Seconds a frozen process stands still."""

COMEBACK = 90.0
"""Seconds a process gets to be up again."""

AIM = 3.0
"""Seconds a kill of an executor waits for an effect to fall on; then it falls all the same."""

STALL = 180.0
"""Seconds without any progress after which the run is given up: nothing recovers any more."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The chaos that is asked for."""

    seed: int
    kills: int = 3
    """Of each process."""


class Storm:
    """The faults of one run, and the pace they set."""

    def __init__(
        self, wish: Wish, tickets: int, clock: Clock, note: Callable[[str], None], effects: Sequence[Path] = ()
    ) -> None:
        """`effects` are the files that grow by each effect. Raises `TooFewTicketsError`: not every fault would fall on work."""
        self.plan = make_plan(wish.seed, names_of(PROCESSES), kills=wish.kills, tickets=tickets)
        self.struck: list[Struck] = []
        """Faults that were done and overcome, in the order of their ends."""
        self.unasked: list[str] = []
        """Processes that ended though nobody killed them, once for each time."""
        self._wish, self._tickets, self._clock, self._note = wish, tickets, clock, note
        self._effects = effects
        self._released = self._begun = self._done = self._count = 0
        self._moved = asyncio.Condition()
        self._busy: set[str] = set()
        self._killed: set[str] = set()
        self._comebacks: dict[str, asyncio.Event] = {}

    # --- the pace of the work --------------------------------------------------------------------------------------

    async def admit(self, number: int) -> None:
        """Return when ticket `number` (from 1) may be worked."""
        await self._until(lambda: number <= self._released)

    async def begun(self) -> None:
        """Take note that a ticket's goal is stored."""
        await self._move(begun=1)

    async def done(self) -> None:
        """Take note that a ticket has ended."""
        await self._move(done=1)

    async def _move(self, *, begun: int = 0, done: int = 0, released: int = 0) -> None:
        async with self._moved:
            self._begun, self._done = self._begun + begun, self._done + done
            self._released = max(self._released, released)
            self._moved.notify_all()

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with self._moved:
            await self._moved.wait_for(reached)

    async def _until_soon(self, reached: Callable[[], bool], what: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(STALL):
                await self._until(reached)
        except TimeoutError:
            raise ChaosError(what(), STALL, self._wish.seed) from None

    # --- what the watch tells --------------------------------------------------------------------------------------

    def tell(self, event: ProcessEvent) -> None:
        """Take what the mesh says about a process; an end nobody caused is noted."""
        if event.event == "ended" and event.process in self._killed:
            self._killed.discard(event.process)
        elif event.event == "ended":
            self.unasked.append(event.process)
            self._note(f"not a fault of the plan: {event.sentence}")
        elif event.event != "starting":
            self._note(event.sentence)
        if event.event == "up" and (comeback := self._comebacks.pop(event.process, None)):
            comeback.set()

    # --- the faults ------------------------------------------------------------------------------------------------

    async def rage(self, mesh: LocalMesh) -> None:
        """Carry out the plan; returns when every process is up again. Raises `ChaosError` for one that is not."""
        counts = {service: len(children) for service, children in mesh.services.items()}
        if counts != PROCESSES:  # a service is not installed here
            processes = names_of(counts)
            self.plan = make_plan(self._wish.seed, processes, kills=self._wish.kills, tickets=self._tickets)
        async with asyncio.TaskGroup() as strikes:
            planned = 0
            for each in self.plan.rounds:
                await self._due(each, planned)
                planned += len(each.strikes)
                for strike in each.strikes:
                    self._busy.add(strike.process)
                    strikes.create_task(self._strike(mesh, strike))

    async def _due(self, each: Round, before: int) -> None:
        """Return when the round's faults may fall, the ones `before` having fallen.

        Enough is done, all its processes are up, and work is in flight.
        """
        await self._until_soon(lambda: self._count == before, lambda: f"{before} faults should have fallen")
        names = {strike.process for strike in each.strikes}
        await self._until_soon(
            lambda: self._done >= each.at_done, lambda: f"{each.at_done} tickets should be done, {self._done} are"
        )
        await self._until_soon(lambda: not names & self._busy, lambda: f"not all of {sorted(names)} came back")
        begun = self._begun
        await self._move(released=each.released)
        await self._until_soon(
            lambda: self._begun > begun or self._begun == each.released, lambda: "no ticket could be submitted"
        )

    async def _strike(self, mesh: LocalMesh, strike: Strike) -> None:
        await asyncio.sleep(strike.delay)
        if strike.fault == "kill" and strike.process in names_of(PROCESSES)["executor"]:
            await until_growth(self._effects, AIM)
        pid, at = mesh.pid_of(strike.process), self._clock.now()
        if strike.fault == "kill":
            comeback = self._kill(strike.process, pid)
            await self._tell_strike(strike, pid)
            await self._until_back(strike.process, comeback)
        else:
            await self._tell_strike(strike, pid)
            await freeze(pid, FREEZE)
            self._note(f"{strike.process} is continued after {FREEZE:g} s")
        self.struck.append(Struck(strike.process, strike.fault, pid, at, self._clock.now()))
        self._busy.discard(strike.process)
        await self._move()

    async def _tell_strike(self, strike: Strike, pid: int) -> None:
        self._count += 1
        what = f"fault {self._count} of {self.plan.strikes}: {strike.fault} {strike.process} (pid {pid})"
        self._note(f"{what}; {self._begun - self._done} tickets in flight, {self._done} done")
        await self._move()

    def _kill(self, process: str, pid: int) -> asyncio.Event:
        """End a process as a crash would; the event is set when the watch says that another is up in its place."""
        comeback = self._comebacks[process] = asyncio.Event()
        self._killed.add(process)
        os.kill(pid, signal.SIGKILL)
        return comeback

    async def _until_back(self, process: str, comeback: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(COMEBACK):
                await comeback.wait()
        except TimeoutError:
            raise ChaosError(f"{process} did not come back", COMEBACK, self._wish.seed) from None

    async def figures(self, transport: Transport, worked: Sequence[Worked], lines: Mapping[str, int]) -> dict[str, Any]:
        """What the storm did and what came of it; `lines` counts the lines of the desk's files by call id."""
        info = await transport.stream_info("AF_DEAD")
        found = chaos_figures(
            self.struck,
            worked,
            await read_audit(transport),
            lines,
            dead_letters=info.messages if info else 0,
            unasked=self.unasked,
        )
        return {**found, "chaos": self.plan.as_json()}


async def until_growth(files: Sequence[Path], within: float) -> bool:
    """Return as soon as one of the files has grown, with True, or, with False, after so many seconds."""
    before, deadline = _size(files), asyncio.get_running_loop().time() + within
    while files and asyncio.get_running_loop().time() < deadline:
        if _size(files) > before:
            return True
        await asyncio.sleep(0.002)
    return False


def _size(files: Iterable[Path]) -> int:
    return sum(os.stat(each).st_size for each in files)


async def freeze(pid: int, seconds: float) -> None:
    """Let a process stand still; it is continued whatever happens."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def unleashed(storm: Storm, mesh: LocalMesh) -> AsyncIterator[None]:
    """Let a storm rage beside a block; the end waits for its last fault. A failure of either ends both."""
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(storm.rage(mesh), name="chaos")
            yield
    except ExceptionGroup as failed:
        raise _first(failed) from None


def _first(error: Exception) -> Exception:
    """The first error of a group, however deep."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def names_of(processes: Mapping[str, int]) -> dict[str, list[str]]:
    """The processes of a mesh by service, the server among them."""
    return {SERVER: [SERVER], **{service: process_names(service, count) for service, count in processes.items()}}


async def read_audit(transport: Transport) -> Audited:
    """What the stored audit says about calls that were found half done."""
    artifacts = await Artifacts.of(transport)
    records = [record async for record in read_stream(transport, "AF_AUDIT", artifacts=artifacts)]
    return audit(
        (parse(record.subject).owner, record.payload)
        for record in records
        if record.payload is not None and record.subject.startswith("tools.audit.")
    )
