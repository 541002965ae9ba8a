"""Events for people: a line each, whatever they are."""

import json
from typing import Any, get_origin, get_type_hints

import msgspec
import pytest

from agentflow.cli.timeline import as_object, detail, in_a_line, short_time, shorten
from agentflow.payloads import (
    SCHEMAS,
    CancelRequested,
    DefinitionRef,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    Payload,
    RunAdvanced,
    RunCompleted,
    RunFailed,
    RunSignalled,
    StepCompleted,
    StepFailed,
    TimerDue,
    ToolCompleted,
    ToolFailed,
)
from agentflow.runs import RunEvent
from agentflow.testing import envelope
from tests.support.fake_planner import failure

DEFINITION = DefinitionRef(name="greet", version="1.0.0", sha256="0" * 64, planner="fsm", engine="test/1")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (GoalSubmitted("greet"), "greet"),
        (RunSignalled("approved"), "'approved'"),
        (CancelRequested("a duplicate"), "a duplicate"),
        (GoalAccepted(consumed=(), definition=DEFINITION, seed="", state="hello"), "greet@1.0.0 → hello"),
        (RunAdvanced(consumed=(), reason="completed", state="b"), "completed → b"),
        (RunAdvanced(consumed=(), reason="retry", state="b", attempt=2), "retry → b (attempt 2)"),
        (
            RunAdvanced(consumed=(), reason="completed", state="b", waits_for="go"),
            "completed → b, waits for the signal 'go'",
        ),
        (RunAdvanced(consumed=(), reason="noted"), "noted"),
        (RunCompleted(consumed=(), output={"a": 1}), '{"a": 1}'),
        (RunFailed(consumed=(), reason="error", error=failure()), "error: it broke (step.failed)"),
        (GoalRejected(consumed=(), code="c", message="no such workflow"), "no such workflow"),
        (InputRejected(consumed=(), code="c", message="what is this?"), "what is this?"),
        (StepCompleted(output=[1]), "[1]"),
        (ToolCompleted(output="x"), '"x"'),
        (StepFailed(error=failure()), "it broke (step.failed, agent)"),
        (ToolFailed(error=failure()), "it broke (step.failed, agent)"),
        (TimerDue(due="2026-01-01T00:00:00.000000Z", state="hello"), "hello"),
        ({"output": 1, "more": 2}, "1"),
        ({"text": "hello"}, '{"text": "hello"}'),
    ],
)
def test_what_a_payload_says(payload: Payload | dict[str, object], expected: str) -> None:
    """In a few words."""
    assert expected == detail(payload)


def test_every_schema_has_a_line() -> None:
    """None that is stored on a run's subjects may stop the listing."""
    for schema, (struct, _) in SCHEMAS.items():
        event = RunEvent(1, "workflows.run-1.out", schema, "2026-01-01T00:00:00.123456Z", smallest(struct), None)
        assert in_a_line(event).startswith(f"2026-01-01 00:00:00.123  {schema.partition('/')[0]}")


def smallest(struct: type[Payload]) -> Payload:
    """A payload with only what it must have."""
    values: dict[Any, Any] = {
        str: "x",
        int: 1,
        float: 1.0,
        tuple: (),
        dict: {},
        Failure: failure(),
        DefinitionRef: DEFINITION,
    }
    required = [field for field in msgspec.structs.fields(struct) if field.required]
    hints = get_type_hints(struct)
    return struct(**{f.name: values.get(get_origin(hints[f.name]) or hints[f.name]) for f in required})


def test_a_line_has_its_time_to_the_millisecond() -> None:
    """As people read it."""
    event = RunEvent(
        1, "workflows.run-1.in", "goal.submitted/1", "2026-01-01T00:00:00.123456Z", GoalSubmitted("x"), None
    )

    assert "2026-01-01 00:00:00.123  goal.submitted     x" == in_a_line(event)
    assert "" == short_time("")


def test_long_values_are_cut_and_stay_on_their_line() -> None:
    """The whole is in `--json`."""
    assert 100 == len(shorten({"text": "x" * 500}))
    assert "\n" not in shorten({"text": "a\nb"})
    assert shorten("ä" * 500).endswith("…")


def test_an_event_as_an_object_names_its_envelope() -> None:
    """And is JSON throughout."""
    sealed = envelope(StepCompleted(output={"a": 1}), "workflows.run-1.results.x", sender="greeter", to="planner")
    event = RunEvent(
        3,
        sealed.envelope.subject,
        sealed.envelope.schema,
        sealed.envelope.ts,
        StepCompleted(output={"a": 1}),
        sealed.envelope,
    )

    assert {
        "seq": 3,
        "subject": "workflows.run-1.results.x",
        "schema": "step.completed/1",
        "ts": sealed.envelope.ts,
        "id": sealed.envelope.id,
        "from": "greeter",
        "to": "planner",
        "payload": {"output": {"a": 1}},
    } == json.loads(json.dumps(as_object(event)))
