"""What the executor shows of its work: a span and a duration for each execution, a count for each call with an outcome."""

import contextlib
import time
from collections.abc import Iterator

from opentelemetry.trace import Span

from agentflow.payloads import AuditOutcome
from agentflow.registry import Effect
from agentflow.telemetry import conventions as names
from agentflow.telemetry import metrics, spans
from agentflow_executor.catalog import Catalog

UNKNOWN = "unknown"


class Executing:
    """One execution of a tool."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.status = "broken"
        """What came of it; `broken` where not even that was seen."""

    def ended(self, outcome: AuditOutcome) -> None:
        """Say what came of it."""
        self.status = outcome.status
        self._span.set_attribute(names.OUTCOME, outcome.status)
        if outcome.error is not None:
            spans.fail(self._span, outcome.error.code)


@contextlib.contextmanager
def executing(call_id: str, tool: str, effect: Effect) -> Iterator[Executing]:
    """Go with one execution in the sandbox."""
    attributes = {names.GEN_AI_TOOL: tool, names.GEN_AI_TOOL_CALL: call_id, names.EFFECT: effect}
    began = time.perf_counter()
    with spans.operation(names.EXECUTE_TOOL, tool, attributes) as span:
        seen = Executing(span)
        try:
            yield seen
        finally:
            metrics.tool_executed(tool, seen.status, time.perf_counter() - began)


def called(outcome: AuditOutcome, catalog: Catalog) -> None:
    """Count a call whose outcome is on record; tools nobody declared are all one."""
    tool = catalog.tools.get(outcome.tool)
    metrics.tool_called(outcome.tool if tool else UNKNOWN, outcome.status, tool.declaration.effect if tool else UNKNOWN)
