"""The client: submit goals, follow runs, steer them.

    async with Client.connect() as client:
        run = await client.submit("support", {"text": "my card never came"})
        print(await run.result(timeout=60))

`submit` is idempotent by id: the same goal and input under the same id is the same run. Everything a client says is
sealed, and every call returns only after the server's acknowledgement. A run is followed by what is *stored*: core
messages on `stored.…` only wake us, the stream answers, and we look again from time to time because hints can be lost.
`agentflow.blocking` has the same without `await`.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from agentflow import subjects
from agentflow.clock import Clock, SystemClock
from agentflow.definitions import Applied, apply_definition
from agentflow.errors import Conflict, OutcomeUnknown, SubjectError, Unreachable
from agentflow.ids import check_token
from agentflow.inputs import Inputs
from agentflow.mesh.connect import connect
from agentflow.mesh.transport import Transport
from agentflow.payloads import GoalSubmitted
from agentflow.plain import check_plain
from agentflow.run import STREAM, Run, stored_event
from agentflow.runs import RunState, Status, evolve, goal_key, goal_of

DEFAULT_URL = "nats://127.0.0.1:4222"


class Client:
    """A connection to a mesh, for whoever gives it work."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock | None = None,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.transport = transport
        self._clock = clock or SystemClock()
        self._inputs = Inputs(transport, self._clock, randomness)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str | None = None, *, timeout: float = 10.0) -> AsyncIterator[Self]:
        """A client for the time of a block; raises `Unreachable` after `timeout` seconds without a broker.

        `url` is by default `AF_NATS_URL`, `NATS_URL`, or port 4222 on this machine.
        """
        client = await cls.open(url, timeout=timeout)
        try:
            yield client
        finally:
            await client.close()

    @classmethod
    async def open(cls, url: str | None = None, *, timeout: float = 10.0) -> Self:
        """A client that has to be closed; see `connect`."""
        return cls(await connect(url or url_from(os.environ), name="agentflow-client", timeout=timeout))

    async def close(self) -> None:
        """Flush and end the connection; idempotent."""
        await self.transport.close()

    async def apply(self, path: str | Path) -> Applied:
        """Check a workflow definition and store it under its name and version.

        The same file again changes nothing. Raises `DefinitionError` with what is wrong and where, and `Conflict`
        (`definition.version_taken`) when the version means another file already.
        """
        return await apply_definition(self.transport, Path(path), self._clock.now())

    async def submit(
        self,
        goal: str,
        input: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run of the definition `goal`: `name` (its latest version) or `name@version`.

        Returns when the goal is stored. `id` makes it idempotent: the same goal and input under it is the same run,
        another goal raises `Conflict` (`run.id_taken`). Without one a new ULID is taken. `OutcomeUnknown` and
        `Unreachable` name the id in their field `run_id`: submitting again under it cannot start a second run.
        """
        payload = GoalSubmitted(goal, dict(input or {}))
        check_plain(payload.input, "input")
        check_plain(dict(metadata or {}), "metadata")
        run_id = self._inputs.new_id() if id is None else check_token(id, "run id")
        try:
            await self._inputs.put(run_id, payload, metadata=metadata, expect=0)
        except Conflict:
            await self._require_same_goal(run_id, payload)
        except (OutcomeUnknown, Unreachable) as error:
            raise type(error)(
                f"{error.message}; the goal may or may not be stored",
                code=error.error_code,
                run_id=run_id,
                hint=f"submit it again with the id {run_id!r}: it cannot start twice",
            ) from error
        return self.run(run_id)

    def run(self, id: str) -> Run:
        """A run by its id; whether there is one is seen when it is asked something."""
        return Run(self.transport, self._inputs, check_token(id, "run id"))

    async def runs(
        self, *, status: Status | None = None, workflow: str | None = None, limit: int | None = None
    ) -> list[RunState]:
        """The runs on the stream, the newest first; `workflow` is a `name` or `name@version`."""
        found: dict[str, RunState] = {}
        for subject in ("workflows.*.in", "workflows.*.out"):
            async for message in self.transport.read(STREAM, subject):
                run_id = owner_of(message.subject)
                if run_id is None:
                    continue  # the server stores also what is no run's
                event = await stored_event(self.transport, message)
                found[run_id] = evolve(found.get(run_id) or RunState(run_id), event)
        wanted = [
            state
            for state in found.values()
            if status in (None, state.status) and workflow in (None, state.workflow, state.workflow.partition("@")[0])
        ]
        wanted.sort(key=lambda state: (state.submitted, state.id), reverse=True)
        return wanted[:limit]

    async def _require_same_goal(self, run_id: str, payload: GoalSubmitted) -> None:
        first = await self.transport.first(STREAM, subjects.workflow_in(run_id))
        there = None if first is None else goal_of(await stored_event(self.transport, first))
        if there is None or goal_key(there) != goal_key(payload):
            raise Conflict(
                f"run id {run_id!r} belongs to another goal" + (f", {there.goal!r}" if there else ""),
                code="run.id_taken",
                run_id=run_id,
                hint="choose another id, or give none",
            )


def owner_of(subject: str) -> str | None:
    """The run a subject belongs to; None for one outside the grammar, such as a literal `workflows.*.in`."""
    try:
        return subjects.parse(subject).owner
    except SubjectError:
        return None


def url_from(environment: Mapping[str, str]) -> str:
    """The broker an environment names: `AF_NATS_URL`, `NATS_URL`, or port 4222 on this machine."""
    return environment.get("AF_NATS_URL") or environment.get("NATS_URL") or DEFAULT_URL
