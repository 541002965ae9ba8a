"""The state-machine planner as others find it: entry point `fsm` of the group `agentflow.planners`."""

from collections.abc import Sequence

from agentflow_planner.check import check_definition, render_findings
from agentflow_planner.conditions import engine_for
from agentflow_planner.definition import Declared, Definition
from agentflow_planner.findings import Finding


class FSM:
    """Checks definitions whose `planner` is `fsm`."""

    def check(self, source: bytes, path: str, declared: Declared | None) -> tuple[Definition | None, Sequence[Finding]]:
        """The definition, or None where it is refused, and every finding with its place in the file."""
        return check_definition(source, path, declared, engine_for("auto"))

    def render(self, findings: Sequence[Finding]) -> str:
        """The findings for a terminal."""
        return render_findings(findings)
