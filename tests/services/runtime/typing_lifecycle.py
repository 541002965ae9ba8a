"""The types the lifecycle's transitions have, asserted for the type checker (`test_lifecycle` runs it on this file)."""

from typing import assert_type

from agentflow_runtime.lifecycle import AgentState, Failed, Loaded, Running, Stopped, Unloaded


def legal_transitions() -> None:
    """Each transition returns exactly the next state's type."""
    assert_type(Unloaded("a").load(), Loaded)
    assert_type(Loaded("a").start(), Running)
    assert_type(Loaded("a").fail("why"), Failed)
    assert_type(Running("a").stop(), Stopped)
    assert_type(Running("a").fail("why"), Failed)
    assert_type(Stopped("a").start(), Running)
    assert_type(Stopped("a").unload(), Unloaded)
    assert_type(Failed("a", "why").reload(), Loaded)
    assert_type(Failed("a", "why").unload(), Unloaded)


def what_a_state_may_do(state: AgentState) -> str:
    """Matching over all states is exhaustive."""
    match state:
        case Unloaded() | Loaded() | Running() | Stopped():
            return "no reason"
        case Failed():
            assert_type(state, Failed)
            return state.reason
