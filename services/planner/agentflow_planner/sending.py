"""What a run sends and when it must be looked at again: functions of its state. Pure.

`commands_of` makes the messages a decision sends from the state after it, so that any planner can make them again from
the stored history, byte for byte.
"""

from dataclasses import dataclass

from agentflow import subjects
from agentflow.envelope import encode_payload, sha256_hex
from agentflow.ids import derive_id
from agentflow.payloads import Command, Payload, StepRequested, TimerDue, ToolRequested, schema_of
from agentflow_planner.plan import Plan
from agentflow_planner.runs import RunState, later

PRODUCER = "planner"
"""The logical producer of every id a planner derives."""

OWNER_KIND = "planner"
"""The owner kind of a run's timers. Each is set on a subject of its own, so that a planner that was frozen can never
overwrite a later timer with an earlier one."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message a decision sends."""

    command: Command
    payload: Payload
    to: str


def commands_of(plan: Plan, after: RunState, made_by: str) -> tuple[Outgoing, ...]:
    """The messages the decision `made_by` sends, from the state after it; raises `ConditionError`."""
    step = plan.state(after.state)
    if not (step.agent or step.tool):
        return ()
    deadline = later(after.entered, step.timeout)
    command_id = derive_id(made_by, PRODUCER, "step", 0)
    given = plan.step_input(after)
    payload: Payload
    if step.agent:
        subject, to = subjects.agent_in(step.agent, command_id), step.agent
        payload = StepRequested(
            workflow=plan.name, state=after.state, attempt=after.attempt, input=given, deadline=deadline
        )
    else:
        subject, to = subjects.tool_call(command_id), "executor"
        payload = ToolRequested(
            tool=step.tool,
            workflow=plan.name,
            state=after.state,
            attempt=after.attempt,
            input=given,
            deadline=deadline,
        )
    digest = sha256_hex(encode_payload(payload))
    command = Command(id=command_id, subject=subject, schema=schema_of(payload), payload_sha256=digest)
    return (Outgoing(command, payload, to),)


def timer_payload(timer_due: str, state: str) -> TimerDue:
    """What a run's timer carries."""
    return TimerDue(due=timer_due, state=state)


def next_due(plan: Plan, state: RunState) -> str:
    """When the run must be looked at again, whatever else happens."""
    dues = [later(state.started, plan.definition.timeout)]
    if state.waiting == "retry":
        dues.append(state.retry_at)
    elif state.waiting == "signal" and state.awaits in state.signals:
        dues.append(state.entered)
    else:
        dues.append(later(state.entered, plan.state(state.state).timeout))
    return min(dues)
