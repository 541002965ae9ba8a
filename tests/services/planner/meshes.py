"""A planner on the memory mesh: its inputs are delivered by hand, so that a test decides what is lost and when."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from agentflow import logs, subjects
from agentflow.chain import handling_chain
from agentflow.definitions import store_definition
from agentflow.envelope import Sealed, unseal
from agentflow.ids import derive_id
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Message, Objects
from agentflow.payloads import CancelRequested, Payload, RunSignalled, StepCompleted
from agentflow.registry import ARTIFACTS
from agentflow.schemas import decode_payload
from agentflow.testing import START, FixedClock, envelope, goal, memory_mesh
from agentflow_planner.catalog import Catalog
from agentflow_planner.conditions import engine_for
from agentflow_planner.histories import read_history
from agentflow_planner.runs import RunState
from agentflow_planner.shell import Planner

DEFINITION = b"""
name: sample
version: 1.0.0
planner: fsm
timeout: 1h
input_schema: {type: object, properties: {n: {type: integer}}}
initial_state: first
final_states: [done]
states:
  first: {agent: worker, input: {n: "${input.n}"}, timeout: 10s, retry: {max_attempts: 2, backoff: 1s}, on_success: second}
  second: {agent: worker, input: {n: "${output.n}"}, timeout: 10s, on_success: done}
"""


@dataclass(slots=True)
class Delivered:
    """A delivery that remembers how it was settled."""

    message: Message
    deliveries: int = 1
    settled: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        """Done."""
        self.settled.append("ack")

    async def nak(self, delay: float = 0.0) -> None:
        """Again."""
        self.settled.append("nak")

    async def in_progress(self) -> None:
        """Still working."""

    async def term(self) -> None:
        """Given up."""
        self.settled.append("term")


@dataclass(slots=True)
class PlannerMesh:
    """The mesh, its clock, and what a test does with them."""

    transport: MemoryTransport
    objects: Objects
    clock: FixedClock
    taken: set[int] = field(default_factory=set)
    """Timers that were handled."""

    def planner(self) -> Planner:
        """A planner process that has just started: it remembers nothing."""
        catalog = Catalog(self.transport, self.objects, engine_for("python"))
        return Planner(self.transport, self.objects, catalog, logs.get("test"))

    async def put(self, sealed: Sealed) -> Message:
        """Store an envelope and return the stored message."""
        stored = await store(self.transport, sealed)
        message = await self.transport.get(stored.stream, stored.seq)
        assert message is not None
        return message

    async def submit(self, run_id: str = "run-1", **given: Any) -> Message:
        """A goal on its subject."""
        return await self.put(goal("sample", given, workflow_id=run_id))

    async def plain(self, body: bytes, run_id: str = "run-1") -> Message:
        """A plain publisher's body on the run's subject."""
        stored = await self.transport.publish(subjects.workflow_in(run_id), body, stream="AF_MESSAGES")
        message = await self.transport.get(stored.stream, stored.seq)
        assert message is not None
        return message

    async def cancel(self, run_id: str = "run-1") -> Message:
        """A cancel on the run's subject."""
        return await self.put(envelope(CancelRequested("enough"), subjects.workflow_in(run_id), index=7))

    async def signal(self, name: str, run_id: str = "run-1") -> Message:
        """A signal on the run's subject."""
        return await self.put(envelope(RunSignalled(name), subjects.workflow_in(run_id), index=8))

    async def answer(self, command: Sealed, payload: Payload | None = None, run_id: str = "run-1") -> Message:
        """The result of a command."""
        payload = payload or StepCompleted(output={"n": 1})
        place = handling_chain(command)
        subject = subjects.workflow_result(run_id, command.envelope.id)
        made = envelope(payload, subject, sender="worker", place=place, causes=(command.ref,))
        assert derive_id(command.envelope.id, "worker", "result")
        return await self.put(made)

    async def stored(self, stream: str, subject: str) -> list[Sealed]:
        """Every envelope under a subject pattern, in order, each verified."""
        found = []
        async for message in self.transport.read(stream, subject):
            found.append(unseal(message.body, message.subject))
        return found

    async def decisions(self, run_id: str = "run-1") -> list[str]:
        """The schemas of a run's decisions."""
        return [each.envelope.schema for each in await self.stored("AF_MESSAGES", f"workflows.{run_id}.out")]

    async def commands(self) -> list[Sealed]:
        """Every request to an agent."""
        return await self.stored("AF_AGENTS", "agents.>")

    async def state(self, run_id: str = "run-1") -> RunState:
        """The run, folded from its stream."""
        return (await read_history(self.transport, self.objects, run_id)).state

    async def timers(self) -> list[bytes]:
        """The bodies of what is set under `timers.set`."""
        return [message.body async for message in self.transport.read("AF_TIMERS", "timers.set.>")]

    async def due(self) -> list[Message]:
        """Timers that have fired."""
        return [message async for message in self.transport.read("AF_TIMERS", "timers.due.>")]


def payload_of(sealed: Sealed) -> Any:
    """The typed payload of an envelope."""
    return decode_payload(sealed.envelope.schema, sealed.envelope.payload)


@contextlib.asynccontextmanager
async def planner_mesh() -> AsyncIterator[PlannerMesh]:
    """A provisioned memory mesh with the sample definition applied."""
    clock = FixedClock()
    async with memory_mesh(clock=clock) as transport:
        await store_definition(transport, DEFINITION, "sample", "1.0.0", "fsm", applied=START)
        yield PlannerMesh(transport, await transport.objects(ARTIFACTS), clock)
