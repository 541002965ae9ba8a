"""Decisions and their commands as sealed envelopes. Pure: a function of the input, the run and the stored decision.

Every planner that seals the same decision, or sends the commands of a stored one again, makes the same bytes.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from agentflow import subjects
from agentflow.chain import decision_chain
from agentflow.envelope import ChainPlace, Ref, Sealed, encode_payload, sha256_hex
from agentflow.errors import NondeterminismError
from agentflow.payloads import Decision, Payload, TimerSet
from agentflow.schemas import compose
from agentflow_planner.machine import decision_id
from agentflow_planner.plan import Plan
from agentflow_planner.runs import Input, Recorded, RunState, decision_time, place_for
from agentflow_planner.sending import OWNER_KIND, PRODUCER, Outgoing, commands_of, timer_payload

UNKNOWN_PUBLISHER = "unknown publisher"
"""Whom a decision names for a body that is no envelope: the broker does not say who sent it."""

SCHEDULE_TTL = "720h"
"""How long a due timer waits to be taken: 30 days."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer to arm: the sealed due message and how to set it."""

    sealed: Sealed
    headers: dict[str, str]


def span_of(envelope_id: str) -> str:
    """The span id of an envelope: derived, so that replay makes the same."""
    return hashlib.sha256(envelope_id.encode()).hexdigest()[:16]


def seal_decision(state: RunState, given: Input, recorded: Recorded) -> Sealed:
    """The envelope of a decision, at the next place of the run's chain."""
    made = decision_id(given)
    goal = state.definition or getattr(recorded, "definition", None)
    tenant = state.tenant if state.exists else given.tenant
    metadata: dict[str, Any] = {"workflow_id": state.workflow_id, "tenant": tenant}
    if not given.sender and given.ref.subject.startswith("workflows."):
        metadata["adopted"] = {"from": UNKNOWN_PUBLISHER, "sha256": given.ref.hash}
    if goal is not None:
        metadata.update(planner=goal.planner, workflow=f"{goal.name}@{goal.version}")
    return compose(
        recorded,
        id=made,
        subject=subjects.workflow_out(state.workflow_id),
        sender=PRODUCER,
        to=f"workflows.{state.workflow_id}",
        trace_id=state.trace_id or given.trace_id,
        span_id=span_of(made),
        ts=decision_time(state, given),
        place=place_for(state, given),
        causes=(Ref(given.ref.id, given.ref.hash),),
        metadata=metadata,
    )


def seal_commands(
    plan: Plan, after: RunState, decision: Sealed, recorded: Decision
) -> tuple[tuple[Sealed, Payload], ...]:
    """The messages a stored decision sends; raises `NondeterminismError` if they are not the ones it lists."""
    made = commands_of(plan, after, decision.envelope.id) if recorded.commands else ()
    if tuple(out.command for out in made) != recorded.commands:
        raise NondeterminismError(
            f"the commands of decision {decision.envelope.id} cannot be made again as it lists them",
            code="planner.nondeterministic",
            decision=decision.envelope.id,
        )
    sent: list[tuple[Sealed, Payload]] = []
    place = decision_chain(decision)
    for out in made:
        sealed = _seal_command(after, decision, out, place)
        sent.append((sealed, out.payload))
        place = place.after(sealed)
    return tuple(sent)


def _seal_command(after: RunState, decision: Sealed, out: Outgoing, place: ChainPlace) -> Sealed:
    envelope, command = decision.envelope, out.command
    return compose(
        out.payload,
        id=command.id,
        subject=command.subject,
        sender=PRODUCER,
        to=out.to,
        trace_id=envelope.trace_id,
        span_id=span_of(command.id),
        ts=envelope.ts,
        place=place,
        causes=(decision.ref,),
        metadata={
            **_carried(decision),
            "state": after.state,
            "attempt": after.attempt,
            "reply_to": subjects.workflow_result(after.workflow_id, command.id),
        },
    )


def _carried(decision: Sealed) -> dict[str, Any]:
    """What of a decision's metadata its messages carry on: all but whom its input came from."""
    return {name: value for name, value in decision.envelope.metadata.items() if name != "adopted"}


def seal_timer(after: RunState, decision: Sealed, timer: TimerSet) -> Timer:
    """The timer a stored decision arms. Its chain is its own: timers are no evidence, the decision lists them."""
    envelope = decision.envelope
    payload = timer_payload(timer.due, after.state)
    if sha256_hex(encode_payload(payload)) != timer.payload_sha256:
        raise NondeterminismError(
            f"the timer of decision {envelope.id} cannot be made again as it lists it",
            code="planner.nondeterministic",
            decision=envelope.id,
        )
    index = envelope.chain_seq
    due = subjects.timer_due(OWNER_KIND, after.workflow_id, index)
    sealed = compose(
        payload,
        id=timer.id,
        subject=due,
        sender=PRODUCER,
        to=PRODUCER,
        trace_id=envelope.trace_id,
        span_id=span_of(timer.id),
        ts=envelope.ts,
        place=ChainPlace(f"timer:{envelope.id}", 0, decision.hash),
        causes=(decision.ref,),
        metadata=_carried(decision),
    )
    headers = {
        "Nats-Schedule": f"@at {timer.due}",
        "Nats-Schedule-Target": due,
        "Nats-Schedule-TTL": SCHEDULE_TTL,
    }
    return Timer(sealed, headers)
