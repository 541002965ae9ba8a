"""Glimpses: whatever a message is, telemetry gets ids and names of it, few templates, and never the payload."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.envelope import traceparent
from agentflow.mesh.transport import Message
from agentflow.payloads import GoalSubmitted, StepCompleted
from agentflow.telemetry.glimpse import OTHER, Glimpse, glimpse, glimpse_of, template_of
from agentflow.testing import START, envelope, goal
from agentflow_planner.arrivals import read_input

IN = "workflows.run-1.in"
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_an_envelope_tells_its_ids_and_names() -> None:
    """Run, tenant and trace from the members; the workflow of a goal is the name it asks for."""
    sealed = goal("support@1.2.0", {"text": "secret"}, workflow_id="run-1")

    found = glimpse(IN, sealed.body, {}, START)

    assert (sealed.envelope.id, "goal.submitted/1", "run-1") == (found.id, found.schema, found.workflow_id)
    assert (sealed.envelope.trace_id, sealed.envelope.span_id) == (found.trace_id, found.span_id)
    assert ("support", "workflows.{id}.in", "run-1") == (found.workflow, found.template, found.correlation_id)
    assert "secret" not in repr(found)


def test_the_workflow_of_a_runs_messages_comes_from_the_metadata() -> None:
    """Without the version, which would be another label for every release."""
    sealed = envelope(StepCompleted({}), "workflows.run-1.results.c1", metadata={"workflow": "support@2.0"})

    assert "support" == glimpse(sealed.envelope.subject, sealed.body, {}, START).workflow
    assert "support" == glimpse_of(sealed).workflow


@pytest.mark.parametrize(("sampled", "other"), [(True, False), (False, False), (True, True)])
def test_sampled_is_who_was_recorded_under_these_very_ids(sampled: bool, other: bool) -> None:
    """A header with other ids, as somebody else's tracer sets, does not vouch for ours."""
    sealed = goal("support", {}, workflow_id="run-1")
    header = PARENT if other else traceparent(sealed.envelope, sampled=sampled)

    found = glimpse(IN, sealed.body, {"traceparent": header}, START)

    assert (sampled and not other) is found.sampled


def test_a_plain_body_has_the_ids_the_planner_adopts_it_under() -> None:
    """So that the span of its being taken is in the run's own trace."""
    body = b'{"goal": "support", "input": {}}'
    message = Message("AF_MESSAGES", 1, IN, body, START)

    found, taken = glimpse(IN, body, {"traceparent": PARENT}, START), read_input(message)

    assert (taken.ref.id, taken.trace_id) == (found.id, found.trace_id)
    assert ("", False, "run-1") == (found.span_id, found.sampled, found.workflow_id)
    assert ("a" * 32, "b" * 16) == found.caller


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_have_a_glimpse(body: bytes, claimed: bool) -> None:
    """Junk is handled too, and must not fail while it is looked at."""
    found = glimpse(IN, (b'{"envelope_hash":"' if claimed else b"") + body, {"traceparent": "x"}, START)

    assert IN == found.subject


@pytest.mark.parametrize(
    "body",
    [
        b'{"envelope_hash":"' + b"[" * 100_000,
        b'{"envelope_hash":"x","metadata":{"workflow_id":7}}',
        b'{"envelope_hash":"x","trace_id":"' + b"0" * 32 + b'","span_id":"' + b"0" * 16 + b'"}',
        b'{"envelope_hash":"x","trace_id":"' + b"Z" * 32 + b'","span_id":"' + b"1" * 16 + b'"}',
    ],
)
def test_what_is_no_trace_is_none(body: bytes) -> None:
    """Zeros and letters are not ids of a trace, however deep they come."""
    assert ("", "") == (glimpse(IN, body, {}, START).trace_id, glimpse(IN, body, {}, START).span_id)


def test_long_names_are_cut() -> None:
    """A label or an attribute of half a megabyte helps nobody."""
    sealed = envelope(GoalSubmitted("g" * 5000, {}), IN, metadata={"tenant": "t" * 5000})

    found = glimpse(IN, sealed.body, {}, START)

    assert (64, 64) == (len(found.workflow), len(found.tenant))


def test_there_are_few_templates() -> None:
    """Each kind of subject has one, without ids; anything else is `other`."""
    made = [
        subjects.workflow_in("r"),
        subjects.workflow_out("r"),
        subjects.workflow_result("r", "c"),
        subjects.agent_in("a", "e"),
        subjects.agent_out("a"),
        subjects.tool_call("c"),
        subjects.tool_result("a", "c"),
        subjects.tool_audit("c"),
        subjects.timer_set("planner", "r", 1),
        subjects.timer_due("planner", "r", 1),
        subjects.dead("S", "c"),
    ]

    assert len(made) == len({template_of(subject) for subject in made})
    assert OTHER not in {template_of(subject) for subject in made}
    assert [OTHER, OTHER] == [template_of("evil.>"), template_of("")]


def test_a_message_from_long_ago_has_a_glimpse() -> None:
    """Times before 1970 make no id; nobody stores such, and a glimpse is no reason to fail."""
    assert isinstance(glimpse(IN, b"{}", {}, datetime(1971, 1, 1, tzinfo=UTC)), Glimpse)
