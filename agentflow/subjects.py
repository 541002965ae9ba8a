"""The subject grammar (architecture, section 3.4): builders that validate every token, and one parser.

Every subject a service publishes is built here, so an id from a user or a model never reaches a subject unchecked
(JetStream itself accepts and stores literal `*` and `>`).
"""

from dataclasses import dataclass
from typing import Literal

from agentflow.errors import SubjectError
from agentflow.ids import check_token

Kind = Literal[
    "workflow.in",
    "workflow.out",
    "workflow.result",
    "agent.in",
    "agent.out",
    "tool.call",
    "tool.result",
    "tool.audit",
    "tool.anomaly",
    "protocol",
    "timer.set",
    "timer.due",
    "dead",
    "dead.case",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """A parsed subject: its `kind`, the `owner` token (workflow, agent, call, stream) and the last `item` token."""

    kind: Kind
    owner: str = ""
    item: str = ""


def workflow_in(workflow_id: str) -> str:
    """Where clients put goals, signals and cancels of a run."""
    return f"workflows.{check_token(workflow_id, 'workflow id')}.in"


def workflow_out(workflow_id: str) -> str:
    """The run's decisions; written by the planner alone."""
    return f"workflows.{check_token(workflow_id, 'workflow id')}.out"


def workflow_result(workflow_id: str, command_id: str) -> str:
    """Where the one result of one command is stored, once."""
    return f"workflows.{check_token(workflow_id, 'workflow id')}.results.{check_token(command_id, 'command id')}"


def workflow_all(workflow_id: str) -> str:
    """Filter for everything stored about a run on its own subjects."""
    return f"workflows.{check_token(workflow_id, 'workflow id')}.>"


def stored_out(workflow_id: str) -> str:
    """The republished copy of `workflow_out`: what was stored, for core subscribers."""
    return f"stored.{workflow_out(workflow_id)}"


def agent_in(agent_id: str, envelope_id: str) -> str:
    """A request to an agent, on a subject of its own, stored once."""
    return f"agents.{check_token(agent_id, 'agent id')}.in.{check_token(envelope_id, 'envelope id')}"


def agent_out(agent_id: str) -> str:
    """An agent's spontaneous events."""
    return f"agents.{check_token(agent_id, 'agent id')}.out"


def tool_call(call_id: str) -> str:
    """A tool call."""
    return f"tools.calls.{check_token(call_id, 'call id')}"


def tool_result(agent_id: str, call_id: str) -> str:
    """The result of a call an agent made, stored once."""
    return f"tools.results.{check_token(agent_id, 'agent id')}.{check_token(call_id, 'call id')}"


def stored_tool_results(agent_id: str) -> str:
    """The republished copies of an agent's tool results, for core subscribers."""
    return f"stored.tools.results.{check_token(agent_id, 'agent id')}.*"


def tool_audit(call_id: str) -> str:
    """The audit chain of one call: its effect ledger."""
    return f"tools.audit.{check_token(call_id, 'call id')}"


def timer_set(owner_kind: str, owner_id: str, index: int = 0) -> str:
    """Where a timer is armed; overwriting it cancels or re-arms."""
    return f"timers.set.{check_token(owner_kind, 'owner kind')}.{check_token(owner_id, 'owner id')}.{_index(index)}"


def timer_due(owner_kind: str, owner_id: str, index: int = 0) -> str:
    """Where the server stores the timer when it is due."""
    return f"timers.due.{check_token(owner_kind, 'owner kind')}.{check_token(owner_id, 'owner id')}.{_index(index)}"


def _index(index: int) -> str:
    if not 0 <= index < 2**63:
        raise SubjectError("timer index is not allowed: use 0 to 2**63 - 1", code="id.invalid")
    return str(index)


def dead(stream: str, consumer: str) -> str:
    """Messages a consumer gave up."""
    return f"dead.{check_token(stream, 'stream')}.{check_token(consumer, 'consumer')}"


def dead_case(stream: str, consumer: str, letter_id: str) -> str:
    """What became of one dead letter: that it was retried, and that it was handled then."""
    return f"{dead(stream, consumer)}.{check_token(letter_id, 'letter id')}"


def tool_anomaly(anomaly_id: str) -> str:
    """A finding of the detector, stored once under its derived id."""
    return f"tools.anomaly.{check_token(anomaly_id, 'anomaly id')}"


def parse(subject: str) -> Subject:
    """The parts of a concrete subject; raises `SubjectError` for one outside the grammar."""
    tokens = subject.split(".")
    for token in tokens:
        check_token(token, "subject token")
    match tokens:
        case ["workflows", owner, ("in" | "out") as way]:
            return Subject("workflow.in" if way == "in" else "workflow.out", owner)
        case ["workflows", owner, "results", item]:
            return Subject("workflow.result", owner, item)
        case ["agents", owner, "in", *rest] if len(rest) <= 1:
            return Subject("agent.in", owner, *rest)
        case ["agents", owner, "out", *rest] if len(rest) <= 1:
            return Subject("agent.out", owner, *rest)
        case ["tools", "calls", item]:
            return Subject("tool.call", item, item)
        case ["tools", "results", owner, item]:
            return Subject("tool.result", owner, item)
        case ["tools", "audit", item]:
            return Subject("tool.audit", item, item)
        case ["tools", "anomaly", *rest] if len(rest) <= 1:
            return Subject("tool.anomaly", *rest, *rest)
        case ["protocols", owner, item]:
            return Subject("protocol", owner, item)
        case ["timers", ("set" | "due") as way, _, owner, item]:
            return Subject("timer.set" if way == "set" else "timer.due", owner, item)
        case ["dead", *rest] if len(rest) in (2, 3):
            return Subject("dead" if len(rest) == 2 else "dead.case", *rest[-2:])
    raise SubjectError(f"subject {subject[:200]!r} is outside the grammar", found=subject[:200])


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject pattern (`*` one token, `>` the rest) covers a concrete subject."""
    wanted, found = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(found) > position
        if position >= len(found) or part not in ("*", found[position]):
            return False
    return len(wanted) == len(found)


STREAMS = {
    "workflows": "AF_MESSAGES",
    "agents": "AF_AGENTS",
    "tools": "AF_AUDIT",
    "protocols": "AF_PROTOCOLS",
    "timers": "AF_TIMERS",
    "dead": "AF_DEAD",
}
"""The stream that stores a subject, by its first token."""


def stream_of(subject: str) -> str:
    """The stream that stores `subject`; raises `SubjectError` for a subject no stream stores."""
    stream = STREAMS.get(subject.partition(".")[0])
    if stream is None:
        raise SubjectError(f"no stream stores {subject[:200]!r}", found=subject[:200], allowed=", ".join(STREAMS))
    return stream
