"""The effect ledger: what a call's audit chain says happened, and what may be done next. Pure.

`evolve` folds the chain `tools.audit.<call_id>`; `decide` says the next thing to do. A shell does it, appends what came
of it behind the sequence it knows (a conflict means that another executor has the call: read the chain again, decide
again), and asks once more, until the answer is `Answer`.

The rules, by effect class:

- `pure`: no intent is written; found without an outcome, it runs again.
- `idempotent`: an intent is written; found without an outcome, it runs again (with a new intent). Where it may not run
  again (its deadline is past, it is blocked for longer, it is not admitted any more), the outcome is `unknown`.
- `compensable`, `irreversible`: an intent with `expires` is written. Found without an outcome, nothing is done until
  `expires` is past by `CLOCK_SLACK`: by then no process can act for that intent, not even the child of an executor that
  is frozen, because the sandbox ends itself. Then the tool's own check is asked. It happened: the check's output is the
  outcome. It did not: a new intent, and it runs. It cannot tell, or there is no check: the outcome is `unknown`, for a
  person to decide.

A process that ran the tool itself knows more than the chain (`Hand`). Where its execution ended without a word of the
tool (time-out, crash, an unexpected exception), an effect that must not be repeated may have happened all the same: the
check is asked at once, since the child is gone, and only its no turns the end into a failure that may be retried.

Known limits: the clocks of the hosts must agree within `CLOCK_SLACK`; and an effect that its target still carries out
after the tool's process is gone (a request in flight) is only as safe as the tool's check makes it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from agentflow.clock import parse_time
from agentflow.envelope import encode_payload, sha256_hex
from agentflow.errors import EvidenceError
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, Failure, ToolFailed
from agentflow.registry import Effect

CLOCK_SLACK = timedelta(milliseconds=250)
"""How far the clocks of two hosts may be apart."""

REPEATABLE: frozenset[str] = frozenset({"pure", "idempotent"})
"""Effects that may run again without asking anybody."""

Record = AuditIntent | AuditOutcome | AuditReconciled
"""One entry of the chain."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The fold of one call's chain."""

    executions: int = 0
    """Intents written so far."""
    intent: AuditIntent | None = None
    """The last intent."""
    reconciled: AuditReconciled | None = None
    """What the check said about the last intent, if it was asked."""
    outcome: AuditOutcome | None = None
    """Final."""
    overtaken: bool = False
    """Whether an earlier intent was still open when the last one was written."""

    @property
    def open(self) -> bool:
        """Whether the last intent is still without a word on what came of it."""
        return self.intent is not None and self.reconciled is None and self.outcome is None

    @property
    def uncertain(self) -> bool:
        """Whether an effect may have happened that nobody told of."""
        return self.open or (self.overtaken and self.outcome is None)


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts about the call that the chain does not hold."""

    tool: str
    input_sha256: str
    effect: Effect
    """What the tool declares now; an open intent's own word comes first."""
    checkable: bool
    """Whether the tool has a check."""
    deadline: datetime
    """After it nothing new starts."""
    principal: str = ""
    """Who asks; this and what follows is kept with the outcome, for those who watch."""
    tool_version: str = ""
    permissions: tuple[str, ...] = ()
    input_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Hand:
    """What this process saw of an execution of its own, not yet on the chain."""

    execution: int
    outcome: AuditOutcome
    certain: bool
    """Of a failed outcome: whether it may stand as it is, for it is known that nothing happened, or that it did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome is on the chain: give it to the caller."""

    outcome: AuditOutcome


@dataclass(frozen=True, slots=True)
class Run:
    """Admit and execute the call; write an intent first where `intent` says so."""

    execution: int
    intent: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody may still be acting: come back then."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """Ask the tool's check about this execution, and record what it says as `AuditReconciled`."""

    execution: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """Record this outcome."""

    outcome: AuditOutcome


Action = Answer | Run | Wait | Check | Conclude


def evolve(ledger: Ledger, record: Record) -> Ledger:
    """The ledger behind one more record; raises `EvidenceError` (`ledger.damaged`) for one that cannot stand there."""
    if ledger.outcome is not None:
        raise _damaged("an entry stands behind the outcome")
    match record:
        case AuditIntent():
            if record.execution != ledger.executions + 1:
                raise _damaged(f"intent {record.execution} stands behind intent {ledger.executions}")
            overtaken = ledger.uncertain
            return replace(ledger, executions=record.execution, intent=record, reconciled=None, overtaken=overtaken)
        case AuditReconciled():
            if not ledger.open:
                raise _damaged("a reconciliation stands where no intent is open")
            return replace(ledger, reconciled=record)
        case AuditOutcome():
            return replace(ledger, outcome=record)


def decide(ledger: Ledger, situation: Situation, now: datetime, hand: Hand | None = None) -> Action:
    """The next thing to do about the call, at `now`, by a process that holds `hand`."""
    if ledger.outcome is not None:
        return Answer(ledger.outcome)
    if hand is not None and _may_record(ledger, situation, hand):
        return Conclude(hand.outcome)
    if ledger.reconciled is not None:
        return _after_check(ledger, ledger.reconciled, situation, now, hand)
    if ledger.intent is not None and ledger.intent.effect not in REPEATABLE:
        return _about_open(ledger, ledger.intent, situation, now, hand)
    return _start(ledger, situation, now)


def refuse(
    ledger: Ledger, situation: Situation, outcome: AuditOutcome, now: datetime, until: datetime | None = None
) -> Wait | Conclude:
    """What becomes of a call that may not run: `outcome`, unless an effect may have happened already.

    Then it is waited for what may end that: the refusal itself (`until`), or whoever may still be acting. At the
    deadline, or where there is nothing to wait for, the outcome is `unknown`.
    """
    if ledger.intent is None or not ledger.uncertain:
        return Conclude(outcome)
    later = min(until or expiry(ledger.intent), situation.deadline)
    if now < later:
        return Wait(later)
    why = f"{outcome.error.code}: {outcome.error.message}" if outcome.error else outcome.status
    return Conclude(unknown(situation, f"its executor died, and it may not run again: {why}"))


def abandon(ledger: Ledger, situation: Situation, failure: Failure) -> AuditOutcome:
    """The outcome of a call that is given up: `failure`, or the truth where an effect may have happened."""
    if ledger.outcome is not None:
        return ledger.outcome
    if ledger.reconciled is not None and ledger.reconciled.happened:
        return _from_check(ledger.reconciled, situation)
    asked = ledger.reconciled is not None and ledger.reconciled.happened is False
    if ledger.intent is not None and ledger.intent.effect not in REPEATABLE and not asked:
        return unknown(situation, f"{failure.code}: {failure.message}")
    return failed(situation, failure)


def unknown(situation: Situation, detail: str) -> AuditOutcome:
    """The outcome nobody knows."""
    message = f"whether {situation.tool} took effect is not known: {detail}"
    failure = Failure("effect.outcome_unknown", "OutcomeUnknown", message, "tool", retryable=False)
    return failed(situation, failure, status="unknown")


def failed(
    situation: Situation, failure: Failure, *, status: Literal["failed", "refused", "unknown"] = "failed"
) -> AuditOutcome:
    """An outcome that is a failure."""
    result: dict[str, Any] = msgspec.to_builtins(ToolFailed(failure))
    outcome = AuditOutcome(situation.tool, status, situation.input_sha256, error=failure, result=result)
    return _attributed(outcome, situation)


def completed(situation: Situation, result: dict[str, Any]) -> AuditOutcome:
    """An outcome that is an output; `result` is the payload the caller is given, or its claim check."""
    outcome = AuditOutcome(
        tool=situation.tool,
        status="completed",
        input_sha256=situation.input_sha256,
        output_sha256=result_sha256(result),
        result=result,
    )
    return _attributed(outcome, situation)


def result_bytes(result: dict[str, Any]) -> int:
    """Bytes the caller is given: of the payload, also where a claim check stands in for it."""
    size = result.get("size")
    return size if isinstance(size, int) and "artifact" in result else len(encode_payload(result))


def result_sha256(result: dict[str, Any]) -> str:
    """Hash of the bytes the caller is given: of the payload, also where a claim check stands in for it."""
    claimed = result.get("sha256")
    return claimed if isinstance(claimed, str) and "artifact" in result else sha256_hex(encode_payload(result))


def expiry(moment: AuditIntent) -> datetime:
    """When nobody can act for this intent any more; raises `EvidenceError` for an intent that does not say."""
    try:
        return parse_time(moment.expires) + CLOCK_SLACK
    except ValueError as error:
        raise _damaged(f"intent {moment.execution} has no usable expiry") from error


def _attributed(outcome: AuditOutcome, situation: Situation) -> AuditOutcome:
    """The outcome with who asked, under which permissions, and how much went in and out."""
    return msgspec.structs.replace(
        outcome,
        principal=situation.principal,
        tool_version=situation.tool_version,
        permissions=situation.permissions,
        input_bytes=situation.input_bytes,
        output_bytes=result_bytes(outcome.result),
    )


def _may_record(ledger: Ledger, situation: Situation, hand: Hand) -> bool:
    """Whether what this process saw may become the outcome as the chain stands now."""
    effect = ledger.intent.effect if ledger.intent else situation.effect
    if effect in REPEATABLE:
        return True
    if ledger.executions != hand.execution:
        return False
    if hand.outcome.status == "completed":
        return True
    return hand.certain and ledger.open


def _after_check(
    ledger: Ledger, said: AuditReconciled, situation: Situation, now: datetime, hand: Hand | None
) -> Action:
    if said.happened is None:
        return Conclude(unknown(situation, said.detail or "its check could not tell"))
    if said.happened:
        return Conclude(_from_check(said, situation))
    if hand is not None and hand.execution == ledger.executions:
        return Conclude(hand.outcome)
    return _start(ledger, situation, now)


def _about_open(ledger: Ledger, intent: AuditIntent, situation: Situation, now: datetime, hand: Hand | None) -> Action:
    mine = hand is not None and hand.execution == ledger.executions
    if not mine and now < expiry(intent):
        return Wait(expiry(intent))
    if situation.checkable:
        return Check(ledger.executions)
    return Conclude(unknown(situation, _ending(hand) if mine else "its executor died, and the tool has no check"))


def _start(ledger: Ledger, situation: Situation, now: datetime) -> Action:
    if now >= situation.deadline:
        if ledger.uncertain:
            return Conclude(unknown(situation, "its executor died, and the deadline is past"))
        message = f"the deadline {situation.deadline.isoformat()} had passed before {situation.tool} could start"
        failure = Failure("tool.deadline_passed", "DeadlinePassed", message, "mesh")
        return Conclude(failed(situation, failure, status="refused"))
    return Run(ledger.executions + 1, intent=situation.effect != "pure")


def _from_check(said: AuditReconciled, situation: Situation) -> AuditOutcome:
    if "error" in said.result:
        failure = Failure("tool.output_invalid", "OutputInvalid", said.detail, "tool", retryable=False)
        return failed(situation, failure)
    return completed(situation, said.result)


def _ending(hand: Hand | None) -> str:
    error = hand.outcome.error if hand else None
    return f"{error.code}: {error.message}, and the tool has no check" if error else "the tool has no check"


def _damaged(what: str) -> EvidenceError:
    return EvidenceError(f"the audit chain is damaged: {what}", code="ledger.damaged")
