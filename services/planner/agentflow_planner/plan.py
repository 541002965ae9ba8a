"""A definition made ready to run: its conditions and templates compiled once, for one condition engine. Pure.

`Plan` answers the three questions a state machine asks of its definition: where to go from here, what a step is given,
and what the run returns. The variables of every expression are built in one place, `variables`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.payloads import DefinitionRef, Evaluated
from agentflow_planner.conditions import Engine, Program, read_values
from agentflow_planner.definition import Definition, StateDef
from agentflow_planner.runs import RunState
from agentflow_planner.templates import Template, compile_template


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled definition."""

    definition: Definition
    ref: DefinitionRef
    conditions: Mapping[str, Program]
    """By expression."""
    inputs: Mapping[str, Template]
    """By state."""
    output: Template | None

    @property
    def name(self) -> str:
        """`name@version`."""
        return f"{self.definition.name}@{self.definition.version}"

    def state(self, name: str) -> StateDef:
        """A state of the definition; one that only stands in `final_states` is an empty one."""
        return self.definition.state(name)

    def next_state(self, state: RunState) -> tuple[str | None, tuple[Evaluated, ...]]:
        """The first transition that holds, in declared order, and the conditions that were evaluated.

        None when no transition holds. Raises `ConditionError` when an evaluation fails: that is never a false.
        """
        found = self.state(state.state)
        values = variables(self, state)
        trace: list[Evaluated] = []
        for transition in found.transitions:
            if transition.condition is None:
                return transition.to, tuple(trace)
            program = self.conditions[transition.condition]
            result = program.holds(values)
            read = read_values(program, values)
            trace.append(Evaluated(expression=transition.condition, result=result, to=transition.to, values=read))
            if result:
                return transition.to, tuple(trace)
        return found.on_success or None, tuple(trace)

    def step_input(self, state: RunState) -> dict[str, Any]:
        """The input of the step of the state the run is in; raises `ConditionError`."""
        template = self.inputs.get(state.state)
        rendered = template.render(variables(self, state)) if template else {}
        return rendered if isinstance(rendered, dict) else {"value": rendered}

    def run_output(self, state: RunState) -> Any:
        """What the run returns; raises `ConditionError`."""
        return self.output.render(variables(self, state)) if self.output else state.output


def compile_plan(definition: Definition, sha256: str, engine: Engine) -> Plan:
    """Compile every expression of a definition; raises `ConditionError` for one that does not compile."""
    expressions = {t.condition for s in definition.states.values() for t in s.transitions if t.condition is not None}
    return Plan(
        definition=definition,
        ref=DefinitionRef(
            name=definition.name,
            version=definition.version,
            sha256=sha256,
            planner=definition.planner,
            engine=f"{engine.name}/{engine.version}",
        ),
        conditions={expression: engine.compile(expression) for expression in sorted(expressions)},
        inputs={name: compile_template(s.input, engine) for name, s in definition.states.items() if s.input},
        output=compile_template(definition.output, engine) if definition.output is not None else None,
    )


def variables(plan: Plan, state: RunState) -> dict[str, Any]:
    """What expressions see: `input`, `output`, `outputs`, `context` and `error`."""
    error = state.error
    return {
        "input": state.input,
        "output": state.output,
        "outputs": state.outputs,
        "context": {
            **plan.definition.context,
            "workflow_id": state.workflow_id,
            "state": state.state,
            "attempt": state.attempt,
            "steps": state.steps,
            "signals": state.signals,
        },
        "error": {}
        if error is None
        else {
            "code": error.code,
            "type": error.type,
            "message": error.message,
            "blame": error.blame,
            "state": state.error_state,
        },
    }
