"""Watching the processes of a local mesh: what ended by itself is started again, with growing pauses."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agentflow.ending import end
from agentflow.errors import AgentflowError, MeshError
from agentflow.local.processes import ChildProcess
from agentflow.mesh.embedded import EmbeddedServer

LOOK_EVERY = 0.2
"""Seconds between looks."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between an end and the next start: at first, and at most."""

STEADY = 60.0
"""Seconds after which a process that ran counts as sound again."""


@dataclass(slots=True)
class _Record:
    """What is known of one process: when it may start again, and how patient we have become."""

    pause: float = FIRST_PAUSE
    started: float = 0.0
    due: float | None = None


class Watch:
    """A task that looks after child processes and the server."""

    def __init__(
        self, server: EmbeddedServer, restart_server: Callable[[], Awaitable[None]], note: Callable[[str], None]
    ) -> None:
        self.restarts = 0
        """How often something was started again."""
        self._server = server
        self._restart_server = restart_server
        self._note = note
        self._task: asyncio.Task[None] | None = None

    def start(self, children: Sequence[ChildProcess]) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(children), name="watch")

    async def stop(self) -> None:
        """Watch no more; idempotent."""
        if self._task is None:
            return
        await end(self._task)
        ended = None if self._task.cancelled() else self._task.exception()
        if isinstance(ended, Exception):
            self._note(f"the processes were not watched to the end: {type(ended).__name__}: {ended}")
        self._task = None

    async def _watch(self, children: Sequence[ChildProcess]) -> None:
        loop = asyncio.get_running_loop()
        records = {child.name: _Record(started=loop.time()) for child in children}
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not self._server.alive:
                await self._revive_server()
            for child in children:
                if not child.running:
                    self._revive(child, records[child.name], loop.time())

    async def _revive_server(self) -> None:
        self._note("nats-server ended by itself: starting it again")
        try:
            await self._restart_server()
            self.restarts += 1
        except AgentflowError as error:
            self._note(f"it did not start: {error.message}")
            await asyncio.sleep(FIRST_PAUSE)

    def _revive(self, child: ChildProcess, record: _Record, now: float) -> None:
        """Note the end of a process the first time it is seen, and start it when its pause is over."""
        if record.due is None:
            record.pause = FIRST_PAUSE if now - record.started > STEADY else record.pause
            record.due = now + record.pause
            record.pause = min(record.pause * 2, LONGEST_PAUSE)
            self._note(f"{child.name} ended by itself with {child.exit_code}: starting it again, see {child.log}")
        elif now >= record.due:
            record.due, record.started = None, now
            self.restarts += 1
            child.forget("AF_CRASH_AT")  # a crash point is for one life
            try:
                child.start()
            except MeshError as error:
                self._note(error.message)
