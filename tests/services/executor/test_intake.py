"""Reading a call: who may send what, and where its answer may go."""

from datetime import UTC, datetime
from typing import Any

import pytest

from agentflow import subjects
from agentflow.envelope import ChainPlace, Sealed, encode_payload, sha256_hex
from agentflow.errors import InputError
from agentflow.payloads import CancelRequested, Payload, ToolRequested
from agentflow.schemas import compose
from agentflow_executor.audit import carried
from agentflow_executor.intake import open_call, read_request, reply_subject
from tests.services.executor.harness import call, envelope, planned, request


def refused(sealed: Sealed, subject: str | None = None) -> str:
    """The code a message is refused with."""
    with pytest.raises(InputError) as caught:
        open_call(sealed.body, subject or sealed.envelope.subject)
    return caught.value.error_code


def test_an_agents_call_is_answered_on_the_agents_subject() -> None:
    """`tools.results.<agent>.<call>`."""
    asked = call("add", {"a": 1})
    found = open_call(asked.body, asked.envelope.subject)

    assert subjects.tool_result("clerk", asked.envelope.id) == found.reply_to == reply_subject(asked)
    assert asked.envelope.id == found.id


def test_a_planners_call_is_answered_on_the_runs_subject() -> None:
    """`workflows.<run>.results.<call>`."""
    asked = planned("add", {"a": 1})

    assert (
        subjects.workflow_result("run-0", asked.envelope.id) == open_call(asked.body, asked.envelope.subject).reply_to
    )


@pytest.mark.parametrize(
    "reply_to",
    [
        "",
        "tools.results.boss.x",
        "workflows.run-0.results.x",
        "workflows.run-0.out",
        "tools.audit.x",
        "tools.calls.x",
        "AF_CONFIG",
        "$JS.API.STREAM.DELETE.AF_AUDIT",
    ],
)
@pytest.mark.parametrize("sender", ["clerk", "planner"])
def test_no_other_subject_is_ever_answered_on(sender: str, reply_to: str) -> None:
    """Not another agent's, not a run's decisions, not the audit, not the broker's own."""
    payload = request("add", {"a": 1}, workflow="support")

    assert "call.reply_to" == refused(envelope(payload, sender, reply_to=reply_to or "none"))


@pytest.mark.parametrize("metadata", [{"reply_to": None}, {"reply_to": 7}, {"reply_to": ["x"]}])
def test_a_reply_subject_is_text(metadata: dict[str, Any]) -> None:
    """Whatever else stands there is refused."""
    assert "call.reply_to" == refused(envelope(request("add"), "clerk", metadata=metadata))


@pytest.mark.parametrize("workflow_id", ["", "a b", "run.1", "*", ">", 7, None])
def test_a_planner_says_for_which_run_it_calls(workflow_id: Any) -> None:
    """A run id that is none is refused before a subject is made of it."""
    asked = envelope(request("add", workflow="support"), "planner", metadata={"workflow_id": workflow_id})

    assert refused(asked) in ("id.invalid", "call.reply_to")


@pytest.mark.parametrize("sender", ["workflow:support", "a.b", "*", ""])
def test_a_sender_is_a_token(sender: str) -> None:
    """Or its answer would go to a subject nobody checked."""
    assert "id.invalid" == refused(envelope(request("add"), sender))


def test_a_call_stands_on_its_own_subject() -> None:
    """The call id is the envelope's id, and a copy on another subject is none."""
    asked = call("add", {"a": 1})
    other = call("add", {"a": 1}, index=1)

    assert "envelope.moved" == refused(asked, other.envelope.subject)


def test_a_call_id_that_is_not_the_envelopes_is_refused() -> None:
    """Sealed for the wrong subject by whoever made it."""
    asked = call("add", {"a": 1})
    misplaced = compose(
        request("add"),
        id=asked.envelope.id,
        subject=subjects.tool_call("another"),
        sender="clerk",
        to="executor",
        trace_id="0" * 32,
        span_id="0" * 16,
        ts=datetime(2026, 1, 1, tzinfo=UTC),
        place=ChainPlace("x"),
    )

    assert "call.misplaced" == refused(misplaced)


def test_a_request_is_typed() -> None:
    """The input's hash is that of its JSON; a name nobody could have is cut."""
    asked = call("add", {"a": 1})
    found = read_request(
        open_call(asked.body, asked.envelope.subject), request("x" * 500, {"a": 1}, workflow="support@1")
    )

    assert 200 == len(found.tool)
    assert sha256_hex(encode_payload({"a": 1})) == found.input_sha256
    assert "clerk" == found.principal
    assert found.deadline.tzinfo is not None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (CancelRequested(), "schema.unexpected"),
        (ToolRequested("add", {}, "tomorrow"), "call.deadline"),
        (ToolRequested("add", {}, "2026-01-01T00:00:00"), "call.deadline"),
        (ToolRequested("add", {}, ""), "call.deadline"),
    ],
)
def test_a_request_that_says_too_little_is_refused(payload: Payload, code: str) -> None:
    """Another schema, or a deadline that is none."""
    asked = call("add")
    with pytest.raises(InputError) as caught:
        read_request(open_call(asked.body, asked.envelope.subject), payload)

    assert code == caught.value.error_code


def test_answers_carry_the_calls_metadata_on() -> None:
    """All but what is the call's own, and nothing large: an answer always fits into an envelope."""
    metadata = {
        "workflow_id": "run-1",
        "attempt": 2,
        "residency": ["eu"],
        "reply_to": "x",
        "deadline": "y",
        "novel": "z" * 5000,
        "k" * 100: 1,
    }

    assert {"workflow_id": "run-1", "attempt": 2, "residency": ["eu"]} == carried(metadata)
