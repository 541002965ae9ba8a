"""A run's history from its stream: read, checked, folded. The only place where a planner reads back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from agentflow import subjects
from agentflow.artifacts import check_out
from agentflow.chain import is_stranger
from agentflow.envelope import Sealed, unseal
from agentflow.errors import EvidenceError, InputError, NotStored, SubjectError
from agentflow.mesh.transport import Message, Objects, Transport
from agentflow.payloads import Decision, GoalRejected, InputRejected
from agentflow_planner.arrivals import REDELIVERED, needs_artifact, read_input, refuse_arrival, twin_of
from agentflow_planner.runs import Input, Problem, Recorded, RunState, evolve, key_of

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
        waiting = (
            given
            for given in self.inputs.values()
            if not is_consumed(self.state, given) and not stands_for_another(given)
        )
        return sorted((given for given in waiting if given.ref.seq < seq), key=lambda given: given.ref.seq)

    def step_that_consumed(self, given: Input) -> Step | None:
        """The decision that consumed an input."""
        wanted = self.state.consumed.get(key_of(given.ref))
        return next((step for step in self.steps if step.sealed.envelope.id == wanted), None)


def identified(state: RunState, given: Input) -> Input:
    """The input as the run knows it: refused under an id of its own, when another input has its id already."""
    if key_of(given.ref) in state.consumed:
        return given
    taken = any(key.startswith(f"{given.ref.id}:") for key in state.consumed)
    return twin_of(given) if taken else given


def is_consumed(state: RunState, given: Input) -> bool:
    """Whether a decision of the run is about this input."""
    return key_of(identified(state, given).ref) in state.consumed


async def to_input(message: Message, objects: Objects) -> Input:
    """The input a message is, with a payload kept by reference fetched; one whose payload is gone is refused."""
    sealed = needs_artifact(message)
    if sealed is None:
        return read_input(message)
    try:
        return read_input(message, await check_out(objects, sealed.envelope))
    except (InputError, EvidenceError, NotStored) as error:
        return refuse_arrival(message, Problem(error.error_code, error.message[:500]))


async def read_history(transport: Transport, objects: Objects, workflow_id: str) -> History:
    """Read and fold a run; raises `EvidenceError` when what is stored does not verify or does not fold.

    What others put beside the run's own subjects, or among its decisions, is no part of it.
    """
    history = History(RunState(workflow_id))
    async for message in transport.read(STREAM, subjects.workflow_all(workflow_id)):
        kind = _kind(message.subject)
        if kind == "workflow.out":
            await _fold(history, message, objects)
        elif kind in ("workflow.in", "workflow.result"):
            given = await to_input(message, objects)
            history.inputs.setdefault(key_of(given.ref), given)
    return history


async def read_inputs(transport: Transport, objects: Objects, workflow_id: str, start: int, end: int) -> list[Input]:
    """The inputs of a run stored from sequence `start` to `end`, in stream order."""
    found = []
    async for message in transport.read(STREAM, subjects.workflow_all(workflow_id), start=start, end=end):
        if _kind(message.subject) in ("workflow.in", "workflow.result"):
            given = await to_input(message, objects)
            if not stands_for_another(given):
                found.append(given)
    return found


def stands_for_another(given: Input) -> bool:
    """Whether a message is the redelivery of another, which is resolved where it is delivered."""
    return given.problem is not None and given.problem.code == REDELIVERED


def _kind(subject: str) -> str:
    try:
        return subjects.parse(subject).kind
    except SubjectError:
        return ""


async def _fold(history: History, message: Message, objects: Objects) -> None:
    if is_stranger(message.body, history.state.workflow_id):
        history.state = msgspec.structs.replace(history.state, out_seq=message.seq)
        return
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
    _require_inputs(history, message, recorded)
    after = evolve(before, sealed, recorded, _known(history.inputs, recorded), message.seq)
    history.steps.append(Step(sealed, recorded, before, after))
    history.state = after


def _link(sealed: Sealed) -> tuple[int, str]:
    return sealed.envelope.chain_seq, sealed.envelope.prev_hash


def _known(inputs: Mapping[str, Input], recorded: Recorded) -> Mapping[str, Input]:
    return {key_of(c): inputs[key_of(c)] for c in recorded.consumed if key_of(c) in inputs}


def _require_inputs(history: History, message: Message, recorded: Recorded) -> None:
    """What a decision consumed must still be there as it was: without it the run would fold to something else."""
    there = {given.ref.hash for given in history.inputs.values()}
    for consumed in recorded.consumed:
        if consumed.subject.startswith("workflows.") and consumed.hash not in there:
            raise _damaged(message, f"input {consumed.id} on {consumed.subject} is missing or altered")


def _damaged(message: Message, why: str) -> EvidenceError:
    return EvidenceError(
        f"history of {message.subject} is damaged at {message.stream}:{message.seq}: {why}",
        code="history.damaged",
        stream=message.stream,
        seq=message.seq,
    )
