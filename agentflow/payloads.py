"""The payloads of every message, with the name and version of their schemas.

A payload is a frozen msgspec struct; `SCHEMAS` maps `name/version` to the struct and to the message type it travels as.
A member is added only with a default; anything else is a new version. Unknown members and unknown versions are refused.
"""

from typing import Any, Literal

import msgspec

from agentflow.envelope import MessageType
from agentflow.errors import Blame, SchemaError


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all payloads: frozen (each says so again, for type checkers), and closed against unknown members."""


# --- what clients send to a run ------------------------------------------------------------------------------------


class GoalSubmitted(Payload, frozen=True):
    """Start a run: `goal` is a definition's `name` (latest) or `name@version`."""

    goal: str
    input: dict[str, Any] = {}


class RunSignalled(Payload, frozen=True):
    """An outside event for a run."""

    name: str
    data: dict[str, Any] = {}


class CancelRequested(Payload, frozen=True):
    """Stop a run: nothing new starts."""

    reason: str = ""


# --- steps and tools -----------------------------------------------------------------------------------------------


class Failure(Payload, frozen=True):
    """Why a step, a tool call or a run failed."""

    code: str
    """Stable, such as `step.timeout`."""
    type: str
    """The error's class, for people."""
    message: str
    blame: Blame
    retryable: bool = True
    """Whether trying the same again can help."""
    retry_after: float | msgspec.UnsetType = msgspec.UNSET
    """Seconds until trying again can help, where that is known; not written where it is not."""


class StepRequested(Payload, frozen=True):
    """The planner asks an agent to do one step."""

    workflow: str
    """`name@version` of the definition."""
    state: str
    attempt: int
    """From 1."""
    input: dict[str, Any]
    deadline: str
    """RFC 3339; what is done later may be ignored."""


class StepCompleted(Payload, frozen=True):
    """A step's output."""

    output: Any


class StepFailed(Payload, frozen=True):
    """A step's failure."""

    error: Failure


class ToolRequested(Payload, frozen=True):
    """One call of one tool; the envelope's id is the call id."""

    tool: str
    input: dict[str, Any]
    deadline: str
    workflow: str = ""
    """`name@version` of the definition, when a run's state is the caller."""
    state: str = ""
    attempt: int = 1


class ToolCompleted(Payload, frozen=True):
    """A tool's output, after it was validated against the tool's output schema."""

    output: Any


class ToolFailed(Payload, frozen=True):
    """A tool call that was refused, failed, or whose outcome nobody knows (`effect.outcome_unknown`)."""

    error: Failure


# --- the audit of one tool call: the effect ledger -----------------------------------------------------------------


class Usage(Payload, frozen=True):
    """What one execution used."""

    wall_ms: float
    cpu_ms: float = 0.0
    max_rss_kib: int = 0
    output_bytes: int = 0


class AuditIntent(Payload, frozen=True):
    """Written before the effect: what will be done, under which limits, and until when it may still happen."""

    tool: str
    tool_version: str
    effect: str
    principal: str
    """Who asked: an agent id, or `workflow:<name>`."""
    input_sha256: str
    profile_sha256: str
    execution: int
    """Which execution of this call this is, from 1."""
    expires: str
    """RFC 3339; the sandbox ends itself by then, so a later observer may trust the tool's own check."""
    permissions: tuple[str, ...] = ()
    """What the compiled profile permits."""


class AuditOutcome(Payload, frozen=True):
    """Written after: what came of it."""

    tool: str
    status: Literal["completed", "failed", "refused", "unknown"]
    input_sha256: str
    output_sha256: str = ""
    exit_code: int | None = None
    usage: Usage | None = None
    error: Failure | None = None
    result: dict[str, Any] = {}
    """The payload the caller is given (`output` or `error`), so that a lost result can be sent again."""
    principal: str = ""
    """Who asked, as in the intent, which `pure` tools have none of; empty in records from before it was kept."""
    tool_version: str = ""
    """Empty where there is no such tool."""
    permissions: tuple[str, ...] = ()
    """What the tool declares, and so what its profile permits."""
    input_bytes: int = 0
    """JSON of the input."""
    output_bytes: int = 0
    """JSON of the payload the caller is given."""


class AuditReconciled(Payload, frozen=True):
    """Found with an intent and no outcome: what the tool's own check says happened."""

    tool: str
    happened: bool | None
    """None when the check could not tell."""
    detail: str = ""
    result: dict[str, Any] = {}


# --- what the detector finds ---------------------------------------------------------------------------------------


class Evidence(Payload, frozen=True):
    """An envelope that made a finding."""

    id: str
    hash: str
    subject: str


Severity = Literal["low", "medium", "high", "critical"]
"""How bad a finding is, by the rule's own word."""

Action = Literal["flag", "auto_block", "escalate"]
"""What is done about a finding: it is recorded, what it is about is blocked, a person is told."""


class ToolAnomaly(Payload, frozen=True, kw_only=True):
    """A rule of the detector was broken. Empty members are not part of what the finding is about."""

    rule: str
    """Id of the rule."""
    kind: str
    """Of the rule: `rate`, `sequence`, `scope`, `streak`, `spike`."""
    rule_sha256: str
    rules_version: str
    """Version of the rules file."""
    rules_sha256: str
    severity: Severity
    detail: str
    """A sentence for people."""
    count: int
    """Calls that made it; more than `evidence` lists where there were many."""
    tool: str = ""
    principal: str = ""
    workflow_id: str = ""
    tenant: str = ""
    evidence: tuple[Evidence, ...] = ()
    """In stream order; the last one is the one that broke the rule."""
    features: dict[str, Any] = {}
    """Of that last call: latency, exit code, bytes, permissions …"""
    actions: tuple[Action, ...] = ("flag",)
    breakers: tuple[str, ...] = ()
    """Keys in `AF_BREAKERS` that are blocked."""
    until: str = ""
    """RFC 3339; until when they are."""


# --- the planner's decisions ---------------------------------------------------------------------------------------


class Consumed(Payload, frozen=True):
    """An input a decision is about."""

    id: str
    hash: str
    schema: str
    subject: str
    seq: int
    """Stream sequence it was read at: a hint for readers, never an identity."""


class Evaluated(Payload, frozen=True):
    """One condition that was evaluated, and what it read."""

    expression: str
    result: bool
    to: str
    values: dict[str, Any] = {}


class Command(Payload, frozen=True):
    """A message a decision sends; the message itself is a pure function of the decision and what it rests on."""

    id: str
    subject: str
    schema: str
    payload_sha256: str


class TimerSet(Payload, frozen=True):
    """The run's one timer."""

    id: str
    set_subject: str
    """Where it is armed, and taken back by overwriting."""
    payload_sha256: str
    due: str


class DefinitionRef(Payload, frozen=True):
    """The exact definition a run keeps to."""

    name: str
    version: str
    sha256: str
    planner: str
    engine: str
    """Condition engine and version."""


class Decision(Payload, frozen=True, kw_only=True):
    """What a planner decided about one or more inputs: the delta only."""

    consumed: tuple[Consumed, ...]
    state: str = ""
    """Where the run stands now."""
    previous: str = ""
    """Where it stood."""
    reason: str = ""
    """Why, in one stable word: `started`, `completed`, `signal`, `error`, `retry`, `resume`, `noted`, `rearmed`,
    `cancelled`."""
    attempt: int = 0
    conditions: tuple[Evaluated, ...] = ()
    commands: tuple[Command, ...] = ()
    waits_for: str = ""
    """The signal the run waits for now."""
    timer: TimerSet | None = None
    retry_at: str = ""
    """RFC 3339; a failed step is tried again then."""
    error: Failure | None = None


class GoalAccepted(Decision, frozen=True, kw_only=True):
    """A run exists now; the first decision of its chain."""

    definition: DefinitionRef
    seed: str
    """Hex; every random draw of the run comes from it."""


class RunAdvanced(Decision, frozen=True):
    """The run moved, waits for a retry, or took note of a signal."""


class RunCompleted(Decision, frozen=True, kw_only=True):
    """The run ended in a final state."""

    output: Any = None


class RunFailed(Decision, frozen=True):
    """The run ended without reaching a final state; `error` says why."""


class RunCancelled(Decision, frozen=True):
    """The run ended because somebody asked."""


class GoalRejected(Payload, frozen=True):
    """No run exists under this id, and this goal starts none. Terminal."""

    consumed: tuple[Consumed, ...]
    code: str
    message: str
    found: str = ""
    allowed: str = ""


class InputRejected(Payload, frozen=True):
    """An input the run does not take. Not terminal: the run goes on, or stays ended."""

    consumed: tuple[Consumed, ...]
    code: str
    message: str
    found: str = ""
    allowed: str = ""


class TimerDue(Payload, frozen=True):
    """A timer of a run; it counts only while the run's history lists its id and payload hash."""

    due: str
    state: str


# --- the mesh's own ------------------------------------------------------------------------------------------------


class DeadLetter(Payload, frozen=True):
    """A message a consumer gave up, with its bytes."""

    stream: str
    consumer: str
    seq: int
    subject: str
    deliveries: int
    code: str
    reason: str
    body_base64: str
    retry_of: str = ""
    """Id of the letter whose retry was given up, where the message came as one."""


class MessageRetried(Payload, frozen=True):
    """A person wants a dead letter's message handled after all; stored once for each letter."""

    letter: str
    """The letter's id; its hash is what this rests on."""
    redelivered: str
    """Where the consumer is told."""


class MessageRedelivered(Payload, frozen=True):
    """Stands, on a subject that a consumer takes, for the message of a dead letter of that consumer."""

    letter: str
    hash: str
    """The letter's."""
    seq: int
    """Where the letter was read: a hint, never an identity."""
    stream: str
    """Of the original message."""
    consumer: str
    """Who gave it up and takes it again; nobody else does."""


class MessageResolved(Payload, frozen=True):
    """The consumer has handled a dead letter's message after all."""

    letter: str
    deliveries: int


class Lifecycle(Payload, frozen=True):
    """A service or an agent changed its lifecycle state."""

    component: str
    incarnation: str
    state: Literal["started", "stopped", "failed"]
    detail: str = ""


TERMINAL = frozenset({"run.completed/1", "run.failed/1", "run.cancelled/1", "goal.rejected/1"})
"""Schemas after which nothing moves the run any more."""

SCHEMAS: dict[str, tuple[type[Payload], MessageType]] = {
    "goal.submitted/1": (GoalSubmitted, "request"),
    "run.signalled/1": (RunSignalled, "control"),
    "run.cancel_requested/1": (CancelRequested, "control"),
    "step.requested/1": (StepRequested, "request"),
    "step.completed/1": (StepCompleted, "response"),
    "step.failed/1": (StepFailed, "response"),
    "tool.requested/1": (ToolRequested, "request"),
    "tool.completed/1": (ToolCompleted, "response"),
    "tool.failed/1": (ToolFailed, "response"),
    "tool.intent/1": (AuditIntent, "event"),
    "tool.outcome/1": (AuditOutcome, "event"),
    "tool.reconciled/1": (AuditReconciled, "event"),
    "tool.anomaly/1": (ToolAnomaly, "event"),
    "goal.accepted/1": (GoalAccepted, "event"),
    "run.advanced/1": (RunAdvanced, "event"),
    "run.completed/1": (RunCompleted, "response"),
    "run.failed/1": (RunFailed, "response"),
    "run.cancelled/1": (RunCancelled, "response"),
    "goal.rejected/1": (GoalRejected, "response"),
    "input.rejected/1": (InputRejected, "response"),
    "timer.due/1": (TimerDue, "control"),
    "message.dead/1": (DeadLetter, "event"),
    "message.retried/1": (MessageRetried, "control"),
    "message.redelivered/1": (MessageRedelivered, "control"),
    "message.resolved/1": (MessageResolved, "event"),
    "component.lifecycle/1": (Lifecycle, "event"),
}
"""Every schema there is: its struct and the message type it travels as."""

_NAMES: dict[type[Payload], str] = {struct: name for name, (struct, _) in SCHEMAS.items()}


def schema_of(payload: Payload) -> str:
    """The schema name of a payload; raises `SchemaError` for a struct that travels only inside others."""
    name = _NAMES.get(type(payload))
    if name is None:
        raise SchemaError(f"{type(payload).__name__} is no payload of its own", code="schema.unknown")
    return name
