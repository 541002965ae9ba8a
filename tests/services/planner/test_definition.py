"""The typed definition and the planner's errors: small promises others rely on."""

import msgspec
import pytest

from agentflow.errors import AgentflowError
from agentflow_planner.definition import RUN_CONTEXT, VARIABLES, Declared, Definition, RetryDef, StateDef, TransitionDef
from agentflow_planner.errors import ConditionError, EvaluationFailed, ExpressionError, PlannerError
from agentflow_planner.yaml_tree import Mark, Trouble, Unreadable

STATE = StateDef(
    "ask",
    agent="writer",
    transitions=(TransitionDef("again", "output.again"), TransitionDef("done"), TransitionDef("again")),
    on_success="done",
    on_error="sorry",
)
FLOW = Definition(
    name="flow",
    version="1.0.0",
    initial_state="ask",
    final_states=("done", "over"),
    states={"ask": STATE, "over": StateDef("over")},
)


def test_a_state_knows_what_it_does_and_where_it_leads() -> None:
    """Each target once, in the order they would be tried."""
    assert STATE.targets == ("again", "done", "sorry")
    assert StateDef("x").targets == ()
    actions = [StateDef("x", agent="a"), StateDef("x", tool="t"), StateDef("x", signal="s"), StateDef("x")]
    assert [state.action for state in actions] == ["agent", "tool", "signal", "none"]


def test_a_definition_finds_its_states() -> None:
    """Spelled out or only named as final; anything else is a mistake of the caller."""
    assert FLOW.state("ask") is STATE
    assert FLOW.state("done") == StateDef("done")
    assert [FLOW.is_final(name) for name in ("ask", "done", "over", "nowhere")] == [False, True, True, False]
    assert FLOW.state_names == ("ask", "over", "done")
    with pytest.raises(KeyError):
        FLOW.state("nowhere")


def test_definitions_are_values() -> None:
    """Frozen, equal by content, and the same after JSON."""
    assert msgspec.json.decode(msgspec.json.encode(FLOW), type=Definition) == FLOW
    with pytest.raises(AttributeError):
        FLOW.name = "other"  # type: ignore[misc]  # the point of the test
    assert RetryDef() == RetryDef(1, 1.0)
    assert Declared() == Declared(frozenset(), frozenset())


def test_the_names_expressions_can_use_are_sorted() -> None:
    """They are shown to people as what is allowed."""
    assert list(VARIABLES) == sorted(VARIABLES)
    assert list(RUN_CONTEXT) == sorted(RUN_CONTEXT)


def test_a_condition_error_carries_its_facts() -> None:
    """The message is made of the fields; long expressions are cut in it, never in the field."""
    error = ConditionError("output.a", "no such key: 'a'", path="input.text")
    assert str(error) == "input.text: no such key: 'a', in 'output.a'"
    assert (error.error_code, error.exit_code) == ("condition.failed", 1)
    assert dict(error.fields) == {"expression": "output.a", "reason": "no such key: 'a'", "path": "input.text"}
    long = ConditionError("a" * 1000, "why")
    assert len(str(long)) < 250
    assert long.expression == "a" * 1000


def test_an_expression_error_carries_its_place() -> None:
    """It is a condition error too, for callers that do not care when an expression turned out wrong."""
    error = ExpressionError("a +", "a value is missing", offset=3, found="the end", allowed=("a value",))
    assert isinstance(error, ConditionError)
    assert (error.offset, error.found, error.allowed) == (3, "the end", ("a value",))
    assert (error.error_code, error.exit_code) == ("condition.syntax", 2)


def test_all_errors_of_the_planner_have_one_root() -> None:
    """Under agentflow's own, each with a stable code."""
    errors = [
        ConditionError("a", "b"),
        ExpressionError("a", "b"),
        EvaluationFailed("a"),
        Unreadable(Trouble(Mark(1, 1), "definition.yaml", "broken")),
    ]
    assert all(isinstance(error, PlannerError) and isinstance(error, AgentflowError) for error in errors)
    assert [error.error_code for error in errors] == [
        "condition.failed", "condition.syntax", "condition.failed", "definition.yaml",
    ]  # fmt: skip
