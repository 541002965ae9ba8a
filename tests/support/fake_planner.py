"""A planner without a mind: it stores the decisions a test tells it to, on the run's own chain, as a real one would."""

from typing import Any

import msgspec

from agentflow import subjects
from agentflow.artifacts import check_in
from agentflow.chain import workflow_chain
from agentflow.envelope import ChainPlace, Sealed, seal, unseal
from agentflow.errors import EnvelopeError
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Transport
from agentflow.payloads import (
    SCHEMAS,
    Command,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalRejected,
    InputRejected,
    Payload,
    RunAdvanced,
    RunCancelled,
    RunCompleted,
    RunFailed,
    StepCompleted,
    schema_of,
)
from agentflow.testing import envelope

STREAM = "AF_MESSAGES"
DEFINITION = DefinitionRef(name="greet", version="1.0.0", sha256="0" * 64, planner="fsm", engine="test/1")


def failure(code: str = "step.failed", message: str = "it broke") -> Failure:
    """A step's failure."""
    return Failure(code=code, type="StepError", message=message, blame="agent")


class FakePlanner:
    """Writes the `out` and `results` subjects of runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._places: dict[str, ChainPlace] = {}

    @property
    def connected(self) -> bool:
        """Whether it could decide just now."""
        return self._transport.connected

    async def decide(self, run_id: str, payload: Payload) -> Sealed:
        """Store one decision behind those before it."""
        subject = subjects.workflow_out(run_id)
        last = await self._transport.last(STREAM, subject)
        if run_id not in self._places:
            goal = await self._transport.first(STREAM, subjects.workflow_in(run_id))
            assert goal is not None, f"nothing was submitted as {run_id}"
            self._places[run_id] = workflow_chain(run_id, goal_id(goal.body))
        sealed = await self._seal(payload, subject, last.seq if last else 0, self._places[run_id])
        await store(self._transport, sealed, expect=last.seq if last else 0)
        self._places[run_id] = self._places[run_id].after(sealed)
        return sealed

    async def _seal(self, payload: Payload, subject: str, index: int, place: ChainPlace) -> Sealed:
        """As `agentflow.testing.envelope` does, with large payloads by claim check."""
        draft = envelope(RunAdvanced(consumed=()), subject, index=index, sender="planner", place=place).envelope
        raw = await check_in(await self._transport.objects("AF_ARTIFACTS"), payload)
        schema = schema_of(payload)
        return seal(msgspec.structs.replace(draft, schema=schema, type=SCHEMAS[schema][1], payload=raw))

    async def accept(self, run_id: str, state: str = "hello") -> Sealed:
        """The run begins and asks an agent for its first step."""
        accepted = GoalAccepted(
            consumed=(), definition=DEFINITION, seed="00", state=state, reason="started", attempt=1, commands=(ask(),)
        )
        return await self.decide(run_id, accepted)

    async def advance(self, run_id: str, state: str, **more: Any) -> Sealed:
        """The run moves to another state."""
        return await self.decide(run_id, RunAdvanced(consumed=(), state=state, reason="completed", **more))

    async def complete(self, run_id: str, output: Any = None) -> Sealed:
        """The run ends well."""
        return await self.decide(run_id, RunCompleted(consumed=(), state="done", reason="completed", output=output))

    async def fail(self, run_id: str, error: Failure | None = None) -> Sealed:
        """The run ends without reaching its goal."""
        return await self.decide(
            run_id, RunFailed(consumed=(), state="hello", reason="error", error=error or failure())
        )

    async def cancel(self, run_id: str) -> Sealed:
        """The run ends because somebody asked."""
        return await self.decide(run_id, RunCancelled(consumed=(), state="hello", reason="cancelled"))

    async def reject_goal(self, run_id: str) -> Sealed:
        """No run begins."""
        return await self.decide(
            run_id, GoalRejected(consumed=(), code="definition.unknown", message="no such workflow")
        )

    async def reject_input(self, run_id: str) -> Sealed:
        """The run does not take something."""
        return await self.decide(run_id, InputRejected(consumed=(), code="input.unexpected", message="what is this?"))

    async def result(self, run_id: str, output: Any, index: int = 0) -> Sealed:
        """The result of a step, as an agent's host stores it."""
        made = envelope(StepCompleted(output), subjects.workflow_result(run_id, f"step-{index}"), sender="greeter")
        await store(self._transport, made, expect=0)
        return made


def ask(agent_id: str = "greeter") -> Command:
    """A command to an agent."""
    subject = subjects.agent_in(agent_id, "01JCYZ00000000000000000000")
    return Command(id="01JCYZ00000000000000000000", subject=subject, schema="step.requested/1", payload_sha256="0" * 64)


def goal_id(body: bytes) -> str:
    """The id of a goal's envelope, or a fixed one for a plain body."""
    try:
        return unseal(body).envelope.id
    except EnvelopeError:
        return "01JCYZ00000000000000000000"
