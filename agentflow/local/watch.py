"""Watching the processes of a local mesh: what ended by itself is started again, with growing pauses.

What happens is told as `ProcessEvent`s. A process counts as up when it works, not when it has been started: a service
when its process id is in the registry, the server when it takes connections and its streams are there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from agentflow.ending import end
from agentflow.errors import AgentflowError, MeshError
from agentflow.local.events import SERVER, ProcessEvent
from agentflow.local.processes import ChildProcess
from agentflow.mesh.embedded import EmbeddedServer

LOOK_EVERY = 0.2
"""Seconds between looks."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between an end and the next start: at first, and at most."""

STEADY = 10.0
"""Seconds after which a process that worked counts as sound again."""

BRIEF = 2.0
"""Seconds within which a server that ends again is no longer started at once."""

Told = Callable[[ProcessEvent], None]
"""Takes what happens to a process."""


@dataclass(slots=True)
class _Record:
    """What is known of one process: since when it works, when it may start again, how patient we have become."""

    pause: float = field(default_factory=lambda: FIRST_PAUSE)
    """Before the next start."""
    up: float | None = None
    """Since when it works; None while it does not."""
    ended: float = 0.0
    due: float | None = None

    def note_end(self, now: float) -> float:
        """Note an end, and return the pause before the next start."""
        sound = self.up is not None and now - self.up > STEADY
        pause = FIRST_PAUSE if sound else self.pause
        if self.up is not None:
            self.ended = now
        self.due, self.up, self.pause = now + pause, None, min(pause * 2, LONGEST_PAUSE)
        return pause


class Watch:
    """A task that looks after child processes and the server."""

    def __init__(
        self,
        server: EmbeddedServer,
        restart_server: Callable[[], Awaitable[None]],
        announced: Callable[[], Awaitable[frozenset[int]]],
        tell: Told,
        note: Callable[[str], None],
    ) -> None:
        """`announced` says which process ids are in the registry."""
        self.restarts = 0
        """How often something was started again."""
        self._server = server
        self._restart_server = restart_server
        self._announced = announced
        self._tell = tell
        self._note = note
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[frozenset[int]] | None = None

    def start(self, children: Sequence[ChildProcess]) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(children), name="watch")

    async def stop(self) -> None:
        """Watch no more; idempotent."""
        if self._looking is not None:
            await end(self._looking)
            self._looking = None
        if self._task is None:
            return
        await end(self._task)
        ended = None if self._task.cancelled() else self._task.exception()
        if isinstance(ended, Exception):
            self._note(f"the processes were not watched to the end: {type(ended).__name__}: {ended}")
        self._task = None

    async def _watch(self, children: Sequence[ChildProcess]) -> None:
        loop = asyncio.get_running_loop()
        records = {name: _Record(up=loop.time()) for name in (SERVER, *(child.name for child in children))}
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not self._server.alive:
                await self._revive_server(records[SERVER])
            for child in children:
                if not child.running:
                    self._revive(child, records[child.name], loop.time())
            self._greet([child for child in children if child.running and records[child.name].up is None], records)

    async def _revive_server(self, record: _Record) -> None:
        """Start the server at once, because everybody waits for it, and with growing pauses where it does not last."""
        loop = asyncio.get_running_loop()
        if record.due is None:
            lasted = record.up is not None and loop.time() - record.up > BRIEF
            pause = record.note_end(loop.time())
            if lasted:
                pause, record.due = 0.0, loop.time()
            code, log = self._server.exit_code, str(self._server.log)
            self._tell(ProcessEvent("ended", SERVER, exit_code=code, pause=pause, detail=log))
        if record.due is None or loop.time() < record.due:
            return
        try:
            await self._restart_server()
        except AgentflowError as error:
            pause = record.note_end(loop.time())
            self._tell(ProcessEvent("failed", SERVER, pause=pause, detail=error.message))
            return
        self.restarts += 1
        record.due, record.up = None, loop.time()
        self._tell(ProcessEvent("up", SERVER, pid=self._server.pid, down=record.up - record.ended))

    def _revive(self, child: ChildProcess, record: _Record, now: float) -> None:
        """Note the end of a process the first time it is seen, and start it when its pause is over."""
        if record.due is None:
            code, pause = child.exit_code, record.note_end(now)
            self._tell(ProcessEvent("ended", child.name, exit_code=code, pause=pause, detail=str(child.log)))
        elif now >= record.due:
            self.restarts += 1
            child.forget("AF_CRASH_AT")  # a crash point is for one life
            try:
                child.start()
            except MeshError as error:
                self._tell(ProcessEvent("failed", child.name, pause=record.note_end(now), detail=error.message))
                return
            record.due = None
            self._tell(ProcessEvent("starting", child.name, pid=child.pid))

    def _greet(self, waiting: Sequence[ChildProcess], records: dict[str, _Record]) -> None:
        """Tell of those that have announced themselves; asking the registry holds up nothing else."""
        if self._looking is not None and self._looking.done():
            failed = self._looking.cancelled() or self._looking.exception() is not None
            found = frozenset[int]() if failed else self._looking.result()
            self._looking = None
            for child in waiting:
                if child.pid in found:
                    record = records[child.name]
                    record.up = asyncio.get_running_loop().time()
                    self._tell(ProcessEvent("up", child.name, pid=child.pid, down=record.up - record.ended))
        elif waiting and self._looking is None and self._server.alive:
            self._looking = asyncio.ensure_future(self._announced())
