"""What a chaos run amounts to, counted from faults, times, the audit and the files."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, Failure
from agentflow_support_desk.chaos_figures import Audited, Struck, audit, chaos_figures, in_flight, shortcomings
from agentflow_support_desk.chaos_plan import Fault
from agentflow_support_desk.figures import Worked
from agentflow_support_desk.tickets import Ticket

START = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Audited(frozenset(), frozenset(), frozenset())


def at(seconds: float) -> datetime:
    """So many seconds after the start."""
    return START + timedelta(seconds=seconds)


def ticket(begun: float | None, ended: float | None) -> Worked:
    """A ticket that was in work from one moment to another."""
    begin, end = (None if moment is None else at(moment) for moment in (begun, ended))
    return Worked(Ticket("1", "hello"), "ticket-0001", "completed", "answered", {}, None, "", begin, end)


def fault(process: str, when: float, back: float, kind: Fault = "kill") -> Struck:
    """A fault that was overcome."""
    return Struck(process, kind, 1, at(when), at(back))


def figures(*struck: Struck, worked: list[Worked] | None = None, **more: Any) -> dict[str, Any]:
    """The figures of faults, with a ticket in flight all the time."""
    given_: dict[str, Any] = {"audited": NOTHING, "lines": {}, "dead_letters": 0, "unasked": [], **more}
    audited, lines = given_.pop("audited"), given_.pop("lines")
    return chaos_figures(struck, worked or [ticket(0, 100)], audited, lines, **given_)


def intent(effect: str = "irreversible") -> AuditIntent:
    """An effect that is about to happen."""
    return AuditIntent("send_response", "1", effect, "workflow:support", "0" * 64, "0" * 64, 1, "2026-01-01T00:00:00Z")


def outcome(status: Any) -> AuditOutcome:
    """The last record of a call."""
    error = None if status == "completed" else Failure("effect.outcome_unknown", "OutcomeUnknown", "?", "tool")
    return AuditOutcome("send_response", status, "0" * 64, error=error)


# --- the audit -----------------------------------------------------------------------------------------------------


def test_a_call_is_reconciled_when_its_check_was_asked_and_answered() -> None:
    """It happened, it did not, or nobody could tell; a call that simply went well is none of them."""
    found = audit(
        [
            ("quiet", intent()),
            ("quiet", outcome("completed")),
            ("done", intent()),
            ("done", AuditReconciled("send_response", True)),
            ("done", outcome("completed")),
            ("again", intent()),
            ("again", AuditReconciled("send_response", False)),
            ("again", intent()),
            ("again", outcome("completed")),
            ("lost", intent()),
            ("lost", AuditReconciled("send_response", None)),
            ("lost", outcome("unknown")),
        ]
    )

    assert (frozenset({"done"}), frozenset({"again"}), frozenset({"lost"})) == (
        found.happened,
        found.not_happened,
        found.undecided,
    )
    assert {"done", "again"} == found.reconciled


def test_a_call_that_ended_unknown_in_the_end_is_not_resolved() -> None:
    """Whatever its check said before about an earlier execution."""
    found = audit([("call", AuditReconciled("send_response", False)), ("call", outcome("unknown"))])

    assert frozenset() == found.reconciled


# --- the figures ---------------------------------------------------------------------------------------------------


def test_kills_and_freezes_are_counted_by_process() -> None:
    """Apart from each other."""
    found = figures(
        fault("planner", 1, 2), fault("planner-2", 1, 2), fault("planner", 5, 6), fault("runtime", 3, 8, "freeze")
    )

    assert {"planner": 2, "planner-2": 1} == found["kills"]
    assert {"runtime": 1} == found["freezes"]


def test_a_recovery_ends_with_the_next_ticket() -> None:
    """Of a kill: until some ticket ended, and until the process itself was up; a freeze is no kill."""
    worked = [ticket(0, 1), ticket(0, 4), ticket(0, 11)]
    found = figures(
        fault("planner", 1, 3), fault("nats-server", 10, 10.5), fault("runtime", 2, 7, "freeze"), worked=worked
    )

    assert {"p50": 1000.0, "max": 3000.0} == found["recovery_ms"]
    assert {"p50": 500.0, "max": 2000.0} == found["restart_ms"]


def test_a_fault_without_work_is_told() -> None:
    """Before the first ticket, between two, after the last: it proves nothing."""
    worked = [ticket(1, 2), ticket(3, 4), ticket(3, None)]
    struck = [fault("planner", when, when + 1) for when in (0.5, 1.5, 2.5, 3.5, 5)]

    assert [0, 1, 0, 2, 1] == [in_flight(worked, each.at) for each in struck]
    assert {"least": 0, "idle_faults": 2} == figures(*struck, worked=worked)["in_flight"]


def test_a_ticket_whose_goal_was_never_stored_is_not_in_flight() -> None:
    """It was only wished for."""
    assert 0 == in_flight([ticket(None, None)], START)


def test_the_files_say_what_happened_how_often() -> None:
    """Reconciled calls have one line; a second one, or none, is told."""
    audited = Audited(frozenset({"a", "b"}), frozenset({"c"}), frozenset({"d"}))
    found = figures(audited=audited, lines={"a": 1, "c": 2, "d": 1, "e": 1})

    expected = {"reconciled": 3, "reconciled_happened": 2, "reconciled_lost": 1, "unknown": 1, "doubled": 1}
    assert expected == {name: found[name] for name in expected}


def test_no_fault_is_no_figure() -> None:
    """Nothing is divided by nothing."""
    found = figures(worked=[])

    assert ({}, {}, {"p50": 0.0, "max": 0.0}) == (found["kills"], found["freezes"], found["recovery_ms"])
    assert {"least": 0, "idle_faults": 0} == found["in_flight"]


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 9)), min_size=1, max_size=20))
def test_figures_do_not_depend_on_the_order_of_faults(times: list[tuple[float, float]]) -> None:
    """They are noted when they are overcome, in whatever order."""
    struck = [fault("planner", when, when + back) for when, back in times]

    assert figures(*struck) == figures(*reversed(struck))


# --- what was not shown --------------------------------------------------------------------------------------------


def test_a_sound_run_has_no_shortcomings() -> None:
    """Effects that were resolved by their check are none."""
    audited = Audited(frozenset({"a"}), frozenset(), frozenset())

    assert [] == shortcomings(figures(fault("planner", 1, 2), audited=audited, lines={"a": 1}))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"worked": [ticket(5, 6)]}, "1 faults fell while no ticket was in flight"),
        ({"lines": {"a": 2}}, "1 tool calls took effect more than once"),
        ({"audited": Audited(frozenset({"a"}), frozenset(), frozenset())}, "1 calls were resolved by their check and"),
        ({"audited": Audited(frozenset(), frozenset(), frozenset({"a"}))}, "1 calls ended as unknown"),
        ({"dead_letters": 3}, "3 messages were given up"),
        ({"unasked": ["runtime", "runtime"]}, "2 processes ended without having been killed"),
    ],
)
def test_each_shortcoming_is_a_sentence(more: dict[str, Any], words: str) -> None:
    """With its number; the command prints it and ends with 1."""
    [sentence] = shortcomings(figures(fault("planner", 1, 2), **more))

    assert sentence.startswith(words)
