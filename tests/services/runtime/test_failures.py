"""What a step fails with: code, blame, and a message that always fits its schema."""

import builtins
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.envelope import encode_payload
from agentflow.errors import AgentflowError, Blame, NondeterminismError, SchemaError, StepError
from agentflow.payloads import Failure, StepFailed, ToolFailed
from agentflow.schemas import decode_payload
from agentflow_runtime.failures import (
    MAX_MESSAGE,
    deadline_passed,
    failure_of,
    given_up,
    output_invalid,
    text,
    tool_error,
)


def readable(failure: Failure) -> Failure:
    """The failure as whoever reads the stored result gets it."""
    payload = decode_payload("step.failed/1", encode_payload(StepFailed(failure)))
    assert isinstance(payload, StepFailed)
    return payload.error


@given(st.text(), st.sampled_from(["input", "agent", "tool", "model", "mesh"]), st.text(min_size=1), st.booleans())
def test_a_step_error_keeps_its_code_its_blame_and_its_word_on_retrying(
    message: str, blame: Blame, code: str, retryable: bool
) -> None:
    """The author's own words reach the planner, whatever characters they are made of."""
    failure = readable(failure_of(StepError(message, blame=blame, code=code, retryable=retryable)))
    assert (failure.blame, failure.retryable, failure.type) == (blame, retryable, "StepError")
    assert failure.code == text(code, 200)
    assert len(failure.message) <= MAX_MESSAGE


ORDINARY = sorted(
    name
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, Exception) and found.__name__ == name
    if "Group" not in name and "Unicode" not in name
)


@pytest.mark.parametrize("name", [*ORDINARY, "SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_any_other_error_is_the_agents(name: str) -> None:
    """Its class is told, and that trying again may help."""
    failure = readable(failure_of(getattr(builtins, name)("no luck")))
    assert failure == Failure("agent.error", name, failure.message, "agent", retryable=True)
    assert "no luck" in failure.message


def test_an_error_without_a_message_is_told_by_its_type() -> None:
    """Nothing fails with an empty reason."""
    assert failure_of(ValueError()).message == "ValueError"


@given(st.text(min_size=MAX_MESSAGE, max_size=MAX_MESSAGE + 100))
def test_messages_are_bounded(message: str) -> None:
    """A novel in an exception does not become a novel on the stream."""
    assert len(failure_of(ValueError(message)).message) <= MAX_MESSAGE


class Wordless(Exception):
    """Its author got the message wrong."""

    def __str__(self) -> str:
        raise RuntimeError("oops")


def test_an_error_whose_message_raises_still_fails_the_step() -> None:
    """The type is told in its place."""
    assert failure_of(Wordless()).message == "(Wordless without a readable message)"


def test_lone_surrogates_in_a_message_are_replaced() -> None:
    """Names of files can hold them; JSON cannot."""
    assert readable(failure_of(OSError("no file \udc80"))).message == "no file ?"


@pytest.mark.parametrize(("code", "blame"), [(7, "nobody"), (None, 3)])
def test_a_step_error_made_with_wrong_types_still_fits_the_schema(code: Any, blame: Any) -> None:
    """A result no planner can read would leave the run waiting: what does not fit is made to."""
    error = StepError("bad", blame=cast(Blame, blame), code=code)
    assert readable(failure_of(error)).blame == "agent"


def test_what_changed_between_two_attempts_is_told() -> None:
    """`handler.nondeterministic` shows the call before and now, and trying again is not advised."""
    error = NondeterminismError("tools.calls.X differs", before='{"tool":"a"}', now='{"tool":"b"}')
    failure = failure_of(error)
    assert (failure.code, failure.blame, failure.retryable) == ("handler.nondeterministic", "agent", False)
    assert failure.message == 'tools.calls.X differs; before: {"tool":"a"}; now: {"tool":"b"}'


def test_long_differences_are_bounded_on_both_sides() -> None:
    """Neither side pushes the other out of the message."""
    failure = failure_of(NondeterminismError("differs", before="b" * 5000, now="n" * 5000))
    assert len(failure.message) <= MAX_MESSAGE
    assert failure.message.count("b") > 700
    assert failure.message.count("n") > 700


def test_a_group_of_one_is_the_error_inside() -> None:
    """A `TaskGroup` in a handler does not hide a tool's failure."""
    inner = StepError("no card", blame="tool", code="card.unknown")
    failure = failure_of(ExceptionGroup("tasks", [ExceptionGroup("more", [inner])]))
    assert (failure.code, failure.blame) == ("card.unknown", "tool")


def test_a_group_of_several_is_told_as_it_is() -> None:
    """Which of them counts cannot be known."""
    failure = failure_of(ExceptionGroup("tasks", [ValueError("a"), KeyError("b")]))
    assert (failure.code, failure.type) == ("agent.error", "ExceptionGroup")


def test_a_failed_tool_is_raised_with_the_tools_own_words() -> None:
    """Uncaught, it fails the step with the tool's code, blame and word on retrying."""
    failed = ToolFailed(Failure("search.down", "OSError", "no index", "mesh", retryable=False))
    error = tool_error(failed, "search", "01ABC")
    assert (error.fields["tool"], error.fields["call_id"]) == ("search", "01ABC")
    assert failure_of(error) == Failure(
        "search.down", "StepError", "tool search failed: no index", "mesh", retryable=False
    )


def test_failures_that_are_nobodys_exception() -> None:
    """An output that is no JSON, a deadline, a message given up: each with its code and whose fault it is."""
    found = [
        output_invalid(SchemaError("output is set")),
        deadline_passed("2026-01-01T00:00:00.000000Z"),
        given_up("delivery.exhausted", "delivered 8 times", exhausted=True),
        given_up("schema.mismatch", "no deadline", exhausted=False),
    ]
    assert [(readable(each).code, each.blame, each.retryable) for each in found] == [
        ("agent.output_invalid", "agent", True),
        ("step.deadline", "agent", True),
        ("delivery.exhausted", "mesh", True),
        ("schema.mismatch", "input", False),
    ]


def test_errors_of_the_library_raised_on_purpose_are_the_agents_too() -> None:
    """Only `StepError` says how a step fails; other errors of the tree have no blame."""
    assert failure_of(AgentflowError("x")).code == "agent.error"
