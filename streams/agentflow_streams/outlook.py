"""What would come of retrying a dead letter: whether it can help, and if not, why and what does. Pure.

A retry delivers the same message again; it does not turn time back. A step or a call has a deadline and one result for
ever, and a run that has ended stays ended.
"""

from dataclasses import dataclass
from datetime import datetime

from agentflow import subjects
from agentflow.clock import parse_time
from agentflow.envelope import Sealed
from agentflow.errors import InputError
from agentflow.letters import Letter, redelivery_subject
from agentflow.payloads import AuditOutcome, Payload, StepFailed, StepRequested, ToolRequested

SUBMIT_AGAIN = "submit the goal again"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known around a letter's message."""

    sealed: Sealed | None
    """The message, if it is an envelope."""
    payload: Payload | None
    answer: Payload | None = None
    """What is stored as its answer: a step's result, a call's outcome."""
    run_id: str = ""
    run_status: str = ""
    """Empty where there is no run, or none is known."""
    run_error: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a retry comes to."""

    code: str = ""
    """Empty where it can help; else `dead.not_retryable`, `dead.answered` or `dead.too_late`."""
    message: str = ""
    note: str = ""
    """What should be known all the same."""

    @property
    def helps(self) -> bool:
        """Whether the handler would run."""
        return not self.code


def foresee(letter: Letter, known: Known, now: datetime) -> Outlook:
    """The outlook of retrying a letter at `now`."""
    try:
        redelivery_subject(letter)
    except InputError as error:
        return Outlook("dead.not_retryable", error.message)
    if (answered := _answered(known)) is not None:
        return Outlook("dead.answered", f"it was answered: {answered}; {SUBMIT_AGAIN}")
    if isinstance(known.payload, StepRequested | ToolRequested) and (late := _late(known.payload.deadline, now)):
        return Outlook("dead.too_late", f"{late}; {SUBMIT_AGAIN}")
    return Outlook(note=_note(letter, known))


def _answered(known: Known) -> str | None:
    """How it was answered for good. That it was given up is the letter's own trace, and no answer to a step."""
    answer = known.answer
    if isinstance(answer, AuditOutcome):
        failed = f" ({answer.error.code})" if answer.error else ""
        return f"the call's outcome is recorded as {answer.status}{failed}, and a call is never made twice"
    if isinstance(answer, StepFailed):
        return None if answer.error.type == "DeadLetter" else f"the step failed ({answer.error.code})"
    return None if answer is None else "the step completed"


def _late(deadline: str, now: datetime) -> str:
    try:
        return f"its deadline passed at {deadline}" if parse_time(deadline) <= now else ""
    except ValueError:
        return f"its deadline {deadline[:40]!r} is no time"


def _note(letter: Letter, known: Known) -> str:
    if known.run_status in ("completed", "failed", "cancelled", "rejected"):
        why = f" ({known.run_error})" if known.run_error else ""
        return (
            f"the run {known.run_id} ended run.{known.run_status}{why} and stays so; "
            f"the handler runs and its result is not used: {SUBMIT_AGAIN}"
        )
    if isinstance(known.answer, StepFailed):
        return "the run was told that this step failed and goes on from there; the handler's result is not used"
    if known.sealed is None:
        return "it is no envelope, and will be refused again unless the code that takes it has changed"
    return ""


def run_of(letter: Letter, sealed: Sealed | None) -> str:
    """The run a letter's message belongs to; empty where it says none."""
    if sealed is not None and sealed.workflow_id:
        return sealed.workflow_id
    try:
        place = subjects.parse(letter.content.subject)
    except InputError:
        return ""
    return place.owner if place.kind in ("workflow.in", "workflow.result", "timer.due") else ""


def answer_subject(letter: Letter, sealed: Sealed | None) -> str:
    """Where the answer of a letter's message would be stored; empty where it has none."""
    if sealed is None:
        return ""
    try:
        kind = subjects.parse(letter.content.subject).kind
        if kind == "tool.call":
            return subjects.tool_audit(sealed.envelope.id)
        if kind == "agent.in" and sealed.workflow_id:
            return subjects.workflow_result(sealed.workflow_id, sealed.envelope.id)
    except InputError:
        pass
    return ""
