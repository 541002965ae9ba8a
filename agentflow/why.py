"""Why a run does not move: the message, service, timer or person it waits for, and what can be done. Pure.

Every run that has not ended has a reason and an owner (architecture, section 5). `wait_of` reads from a run's events
what it waits for; `explain` adds what is known of the mesh: who is alive, what was given up, what is blocked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from agentflow import subjects
from agentflow.clock import parse_time
from agentflow.payloads import DeadLetter, Decision
from agentflow.runs import RunEvent, RunState, fold

Kind = Literal["ended", "goal", "agent", "tool", "signal", "retry", "input"]
"""What a run waits for: nothing, a decision on its goal, an agent's or a tool's answer, an outside signal, the time of a
retry, or a decision on something it was told."""

_STAYS = frozenset({"noted", "rearmed"})


class Wait(msgspec.Struct, frozen=True):
    """What a run waits for, by its own history."""

    kind: Kind
    owner: str
    """Who has to act: an agent's id, a tool call's, a signal's name, `planner`, `timer`."""
    since: str
    """RFC 3339: when it began to wait."""
    message: str = ""
    """Id of the message that has to be answered."""
    subject: str = ""
    """Where that message is."""
    until: str = ""
    """RFC 3339: when the run looks at it again by itself; empty where nothing is set."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the mesh just now."""

    now: datetime
    alive: Mapping[str, int] = field(default_factory=dict)
    """Live processes by `planner`, `executor`, `agent.<id>`."""
    letters: tuple[DeadLetter, ...] = ()
    """What was given up."""
    tool: str = ""
    """The tool that is called, where that is waited for."""
    intended: bool = False
    """Whether an executor has recorded that it is at that call."""
    blocked_until: str = ""
    """RFC 3339: until when that tool, or its caller, is blocked."""
    blocked_by: str = ""
    """The key that blocks: `tool.<id>`, `agent.<id>` or `workflow.<name>`."""
    unreadable: str = ""
    """A key of the call that cannot be read, and therefore blocks."""


class Reason(msgspec.Struct, frozen=True):
    """The answer."""

    run: str
    status: str
    wait: Wait
    code: str
    """Stable: `ended`, `waits`, `waits.overdue`, or what is in the way: `planner.absent`, `agent.absent`,
    `executor.absent`, `message.dead`, `breaker.open`,
    `breaker.unreadable`."""
    why: str
    """One sentence."""
    do: str = ""
    """What can be done; empty where nothing has to be."""


def wait_of(run_id: str, events: Iterable[RunEvent]) -> tuple[RunState, Wait]:
    """Where a run stands and what it waits for, from its stored events in stream order."""
    known = list(events)
    state = fold(run_id, known)
    if state.ended:
        return state, Wait("ended", "", state.updated)
    decisions = [event for event in known if isinstance(event.payload, Decision)]
    if not decisions:
        goal = next((event for event in known if event.subject.endswith(".in")), None)
        subject = goal.subject if goal else ""
        return state, Wait("goal", "planner", state.submitted, _id(goal), subject)
    waiting = _decided(decisions)
    consumed = {each.id for event in decisions for each in _payload(event).consumed}
    told = [e for e in known if e.envelope and not e.subject.endswith(".out") and e.envelope.id not in consumed]
    if told and told[-1].seq > decisions[-1].seq:
        return state, Wait("input", "planner", told[-1].ts, _id(told[-1]), told[-1].subject, waiting.until)
    return state, waiting


def explain(state: RunState, wait: Wait, facts: Facts) -> Reason:
    """The reason, and what can be done about it."""
    code, why, do = _judge(state, wait, facts)
    return Reason(state.id, state.status, wait, code, why, do)


def _judge(state: RunState, wait: Wait, facts: Facts) -> tuple[str, str, str]:
    if wait.kind == "ended":
        code = f" ({state.error.code})" if state.error and state.status != "completed" else ""
        return "ended", f"it does not wait: it is {state.status}{code}", ""
    if letter := next((each for each in facts.letters if each.subject == wait.subject and wait.subject), None):
        told = f"what it waits for was given up: {letter.reason} ({letter.code})"
        return "message.dead", told, "agentflow dead ls; then mend the cause and agentflow dead retry"
    if not facts.alive.get("planner"):
        return "planner.absent", "no planner is alive to decide", "start agentflow-planner, or agentflow dev"
    match wait.kind:
        case "agent" if not facts.alive.get(f"agent.{wait.owner}"):
            return "agent.absent", f"no live process hosts the agent {wait.owner!r}", "start a runtime with it"
        case "tool" if facts.unreadable:
            told = f"{facts.unreadable} holds no breaker that can be read, and nothing is executed past it"
            return "breaker.unreadable", told, f"agentflow breakers reset {facts.unreadable}"
        case "tool" if facts.blocked_until:
            told = f"the call of tool {facts.tool!r} is blocked by {facts.blocked_by} until {facts.blocked_until}"
            return "breaker.open", told, "agentflow breakers ls; agentflow breakers reset lifts it"
        case "tool" if not facts.alive.get("executor"):
            return (
                "executor.absent",
                "no executor is alive to run the tool",
                "start agentflow-executor, or agentflow dev",
            )
    overdue = bool(wait.until) and parse_time(wait.until) < facts.now
    sentence = _sentence(wait, facts) + (f", and until {wait.until}, which is over" if overdue else "")
    return ("waits.overdue" if overdue else "waits"), sentence, _todo(state, wait)


def _sentence(wait: Wait, facts: Facts) -> str:
    match wait.kind:
        case "goal":
            return "the planner has not answered the goal yet"
        case "agent":
            return f"the agent {wait.owner!r} works on it"
        case "tool":
            at_it = "an executor is at it" if facts.intended else "no executor has begun an effect"
            return f"the tool {facts.tool or wait.owner!r} was called, and {at_it}"
        case "signal":
            return f"somebody has to send the signal {wait.owner!r}"
        case "retry":
            return f"a failed step is tried again at {wait.until}"
        case _:
            return "the planner has not decided about what it was told last"


def _todo(state: RunState, wait: Wait) -> str:
    return f"agentflow signal {state.id} {wait.owner}" if wait.kind == "signal" else ""


def _decided(decisions: list[RunEvent]) -> Wait:
    """What the last decision that moved the run waits for."""
    until = next((_payload(event).timer for event in reversed(decisions) if _payload(event).timer), None)
    due = until.due if until else ""
    moved = next((e for e in reversed(decisions) if _payload(e).reason not in _STAYS), decisions[-1])
    decision = _payload(moved)
    if decision.retry_at:
        return Wait("retry", "timer", moved.ts, until=decision.retry_at)
    if decision.commands:
        command = decision.commands[-1]
        place = subjects.parse(command.subject)
        kind: Kind = "agent" if place.kind == "agent.in" else "tool"
        owner = place.owner if kind == "agent" else place.item
        return Wait(kind, owner, moved.ts, command.id, command.subject, due)
    if decision.waits_for:
        return Wait("signal", decision.waits_for, moved.ts, until=due)
    return Wait("input", "planner", moved.ts, until=due)


def _payload(event: RunEvent) -> Decision:
    assert isinstance(event.payload, Decision)
    return event.payload


def _id(event: RunEvent | None) -> str:
    return event.envelope.id if event and event.envelope else ""
