"""The error tree: stable codes, facts in fields, one reaction a branch."""

import inspect

import pytest

from agentflow import errors
from agentflow.errors import AgentflowError, Blame, Conflict, RunTimeout, StepError, Unreachable

CODES = {
    "AgentflowError": ("agentflow.error", 1),
    "InputError": ("input.invalid", 2),
    "EnvelopeError": ("envelope.invalid", 2),
    "SubjectError": ("subject.invalid", 2),
    "SchemaError": ("schema.invalid", 2),
    "DefinitionError": ("definition.invalid", 2),
    "ConfigError": ("config.invalid", 2),
    "EvidenceError": ("evidence.damaged", 1),
    "NondeterminismError": ("handler.nondeterministic", 1),
    "MeshError": ("mesh.error", 4),
    "Unreachable": ("mesh.unreachable", 4),
    "PublishFailed": ("mesh.publish_failed", 4),
    "OutcomeUnknown": ("mesh.outcome_unknown", 4),
    "Conflict": ("mesh.conflict", 7),
    "NotStored": ("mesh.not_stored", 3),
    "ServerUnfit": ("mesh.server_unfit", 4),
    "Denied": ("policy.denied", 6),
    "RunError": ("run.error", 1),
    "RunFailed": ("run.failed", 1),
    "RunCancelled": ("run.cancelled", 1),
    "RunTimeout": ("run.timeout", 5),
    "StepError": ("step.error", 1),
}
"""Code and exit code of every error; scripts match on them."""

TREE = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, AgentflowError)]


def test_codes_and_exit_codes_are_the_documented_ones() -> None:
    """Every error there is, and no other; changing one breaks somebody's script."""
    assert {each.__name__: (each.code, each.exit_code) for each in TREE} == CODES


@pytest.mark.parametrize("error", TREE)
def test_an_error_carries_message_code_and_facts(error: type[AgentflowError]) -> None:
    """Its own code unless a narrower one is given; the message is what is shown."""
    plain, narrow = error("it broke", found=7), error("it broke", code="x.y")

    assert ("it broke", "it broke", error.code, {"found": 7}) == (
        str(plain),
        plain.message,
        plain.error_code,
        dict(plain.fields),
    )
    assert "x.y" == narrow.error_code
    assert error.code == CODES[error.__name__][0]


def test_only_what_may_pass_says_when_to_try_again() -> None:
    """The retry decision is in the type."""
    assert {"Unreachable", "OutcomeUnknown"} == {each.__name__ for each in TREE if each.retry_after is not None}
    assert 1.0 == Unreachable.retry_after


def test_a_step_error_says_who_has_to_change() -> None:
    """The agent unless the raiser knows better."""
    blamed: Blame = "tool"

    assert "agent" == StepError("no").blame
    assert (blamed, "tool.busy") == (StepError("no", blame=blamed, code="tool.busy").blame, "tool.busy")


def test_fields_hold_what_a_caller_needs_to_go_on() -> None:
    """A conflict carries what is stored, a time-out the run's state."""
    assert b"theirs" == Conflict("x", stored=b"theirs").fields["stored"]
    assert "waiting" == RunTimeout("x", state="waiting").fields["state"]


def test_a_time_out_is_also_what_everybody_calls_one() -> None:
    """Callers who know nothing of agentflow catch it; its message and facts are those of our errors."""
    with pytest.raises(TimeoutError) as caught:
        raise RunTimeout("run r has not ended", state="x", run_id="r")
    error = caught.value

    assert isinstance(error, RunTimeout)
    assert ("run r has not ended", "run.timeout", {"state": "x", "run_id": "r"}) == (
        str(error),
        error.error_code,
        error.fields,
    )
    assert (None, ("run r has not ended",)) == (error.errno, error.args)
