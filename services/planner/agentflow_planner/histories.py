"""A run's history from its stream: read, checked, folded. The only place where a planner reads back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentflow import subjects
from agentflow.artifacts import check_out
from agentflow.envelope import Sealed, unseal
from agentflow.errors import EvidenceError, InputError
from agentflow.mesh.transport import Message, Objects, Transport
from agentflow.payloads import Decision, GoalRejected, InputRejected
from agentflow_planner.arrivals import needs_artifact, read_input
from agentflow_planner.runs import Input, Recorded, RunState, evolve

STREAM = "AF_MESSAGES"


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded decision and the state before and after it."""

    sealed: Sealed
    recorded: Recorded
    before: RunState
    after: RunState


@dataclass(slots=True)
class History:
    """Everything stored about a run on its own subjects."""

    state: RunState
    steps: list[Step] = field(default_factory=list)
    inputs: dict[str, Input] = field(default_factory=dict)

    def unconsumed_before(self, seq: int) -> list[Input]:
        """Inputs stored before `seq` that no decision has consumed, in stream order."""
        waiting = (given for given in self.inputs.values() if given.ref.id not in self.state.consumed)
        return sorted((given for given in waiting if given.ref.seq < seq), key=lambda given: given.ref.seq)

    def step_that_consumed(self, input_id: str) -> Step | None:
        """The decision that consumed an input."""
        wanted = self.state.consumed.get(input_id)
        return next((step for step in self.steps if step.sealed.envelope.id == wanted), None)


async def to_input(message: Message, objects: Objects) -> Input:
    """The input a message is, with a payload kept by reference fetched."""
    sealed = needs_artifact(message)
    return read_input(message, await check_out(objects, sealed.envelope) if sealed else None)


async def read_history(transport: Transport, objects: Objects, workflow_id: str) -> History:
    """Read and fold a run; raises `EvidenceError` when what is stored does not verify or does not fold."""
    history = History(RunState(workflow_id))
    async for message in transport.read(STREAM, subjects.workflow_all(workflow_id)):
        if subjects.parse(message.subject).kind == "workflow.out":
            await _fold(history, message, objects)
        else:
            given = await to_input(message, objects)
            history.inputs.setdefault(given.ref.id, given)
    return history


async def _fold(history: History, message: Message, objects: Objects) -> None:
    try:
        sealed = unseal(message.body, message.subject)
        recorded = await check_out(objects, sealed.envelope)
    except InputError as error:
        raise _damaged(message, error.message) from error
    if not isinstance(recorded, Decision | GoalRejected | InputRejected):
        raise _damaged(message, f"{sealed.envelope.schema} is no decision")
    before = history.state
    place = before.place
    continues = place is not None and place.chain == sealed.envelope.chain
    if continues and place is not None and (place.seq, place.prev_hash) != _link(sealed):
        raise _damaged(message, f"the chain breaks at place {sealed.envelope.chain_seq}")
    after = evolve(before, sealed, recorded, _known(history.inputs, recorded), message.seq)
    history.steps.append(Step(sealed, recorded, before, after))
    history.state = after


def _link(sealed: Sealed) -> tuple[int, str]:
    return sealed.envelope.chain_seq, sealed.envelope.prev_hash


def _known(inputs: Mapping[str, Input], recorded: Recorded) -> Mapping[str, Input]:
    return {c.id: inputs[c.id] for c in recorded.consumed if c.id in inputs}


def _damaged(message: Message, why: str) -> EvidenceError:
    return EvidenceError(
        f"history of {message.subject} is damaged at {message.stream}:{message.seq}: {why}",
        code="history.damaged",
        stream=message.stream,
        seq=message.seq,
    )
