"""Labels: whatever strangers send, there are few series."""

from hypothesis import given
from hypothesis import strategies as st

from agentflow.telemetry.labels import ALLOWED, NONE, OTHER, Values


@given(st.lists(st.text(max_size=80), max_size=300))
def test_values_of_a_label_are_bounded(sent: list[str]) -> None:
    """The first few are told apart, the others are one."""
    values = Values(limit=5)

    found = {values.bounded("tenant", value) for value in sent}

    assert len(found) <= 5 + 2
    assert found <= {*sent, OTHER, NONE}


def test_a_value_that_is_known_stays_itself() -> None:
    """Also when there are too many by then; and each label has its own."""
    values = Values(limit=1)

    first = [values.bounded("tenant", name) for name in ("a", "b", "a", "")]

    assert ["a", OTHER, "a", NONE] == first
    assert "b" == values.bounded("workflow", "b")


def test_no_id_of_one_of_very_many_is_a_label() -> None:
    """Runs, messages and calls come without end."""
    assert not {"workflow_id", "run", "run_id", "message_id", "call_id", "trace_id", "id"} & ALLOWED
