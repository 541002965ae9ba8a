"""What the planner shows of its deciding: a `plan` span for each decision, its duration, and the replans among them."""

import contextlib
import time
from collections.abc import Iterator

from opentelemetry.trace import Span

from agentflow.clock import parse_time
from agentflow.payloads import Decision, GoalSubmitted, RunCancelled, RunFailed
from agentflow.telemetry import conventions as names
from agentflow.telemetry import metrics, spans
from agentflow_planner.machine import Decided, Verdict
from agentflow_planner.runs import Input, Recorded, RunState

REPLANS = frozenset({"retry", "error"})
"""Reasons of decisions that leave the straight way."""


class Planning:
    """One decision being made."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def decided(self, verdict: Verdict) -> None:
        """Say what it came to, in the stable words of the decision."""
        if not isinstance(verdict, Decided):
            self._span.set_attributes({names.OUTCOME: "ignored", names.REASON: verdict.reason})
            return
        recorded = verdict.recorded
        if isinstance(recorded, Decision):
            self._span.set_attributes({names.STATE: recorded.state, names.REASON: recorded.reason})
        else:
            self._span.set_attributes({names.OUTCOME: "refused", names.REASON: recorded.code})


@contextlib.contextmanager
def planning(state: RunState, given: Input) -> Iterator[Planning]:
    """Go with a decision, the look at the run's definition included."""
    workflow, began = workflow_of(state, given), time.perf_counter()
    attributes = {names.GEN_AI_CONVERSATION: given.workflow_id, names.GEN_AI_WORKFLOW: workflow}
    with spans.operation(names.PLAN, workflow, attributes) as span:
        yield Planning(span)
    metrics.planned(workflow, time.perf_counter() - began)


def tell(after: RunState, recorded: Recorded) -> None:
    """Count a decision that is on record, and tell of the run where it was the last."""
    if not isinstance(recorded, Decision):
        return
    workflow = after.definition.name if after.definition else ""
    if recorded.reason in REPLANS and not isinstance(recorded, RunFailed | RunCancelled):
        metrics.replanned(workflow, recorded.reason)
    if after.ended and after.started:
        error = recorded.error.code if recorded.error else ""
        spans.workflow_ended(workflow, after.workflow_id, parse_time(after.started), code=error)


def workflow_of(state: RunState, given: Input) -> str:
    """The name of the run's definition; of a goal, the name it asks for."""
    if state.definition is not None:
        return state.definition.name
    asked = given.payload.goal if isinstance(given.payload, GoalSubmitted) else ""
    return asked.partition("@")[0][:64]
