"""What a sandbox saw, and what that means for the caller and for the ledger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.payloads import Usage
from agentflow_executor.execution import Execution, Reason, Reply, judge, judge_check

USAGE = Usage(1234.5, 900.0, 1000, 77)


def seen(
    reply: Reply | None = None, *, reason: Reason = "", exit_code: int | None = 0, started: bool = True
) -> Execution:
    """An execution."""
    return Execution(reply, started, exit_code, reason, USAGE, b"", b"oh no\n")


@pytest.mark.parametrize(
    ("execution", "code", "blame", "retryable"),
    [
        (seen(reason="timeout", exit_code=-9), "tool.timeout", "tool", True),
        (seen(exit_code=-14), "tool.timeout", "tool", True),
        (seen(exit_code=-24), "tool.cpu", "tool", True),
        (seen(exit_code=-11), "tool.crashed", "tool", True),
        (seen(exit_code=3), "tool.crashed", "tool", True),
        (seen(exit_code=-250), "tool.crashed", "tool", True),
        (seen(reason="output"), "tool.output_too_large", "tool", False),
        (seen(reason="result"), "tool.result_too_large", "tool", False),
        (seen(reason="stopped"), "tool.stopped", "mesh", True),
        (seen(reason="silent", exit_code=None), "tool.crashed", "tool", True),
        (seen(Reply("unavailable", message="no"), started=False), "sandbox.unavailable", "mesh", True),
        (seen(Reply("expired"), started=False), "tool.deadline_passed", "mesh", True),
        (seen(Reply("check", happened=True)), "tool.crashed", "tool", True),
    ],
)
def test_every_end_has_its_code(execution: Execution, code: str, blame: str, retryable: bool) -> None:
    """And says who has to change, and whether the same again can help."""
    failure = judge(execution).failure

    assert failure is not None
    assert (code, blame, retryable) == (failure.code, failure.blame, failure.retryable)


def test_an_answer_counts_though_the_end_was_forced() -> None:
    """It was given before the time was over."""
    assert {"a": 1} == judge(seen(Reply("output", output={"a": 1}), reason="timeout")).output
    assert {"a": 1} == judge(seen(Reply("output", output={"a": 1}), reason="stopped")).output


@pytest.mark.parametrize("reason", ["output", "result"])
def test_an_answer_does_not_excuse_from_limits(reason: Reason) -> None:
    """Too much is too much."""
    assert judge(seen(Reply("output", output={"a": 1}), reason=reason)).failure is not None


def test_only_what_cannot_have_happened_is_certain() -> None:
    """Not started, or the tool's own word; an accident, a crash or a time-out is neither."""
    vouched = Reply("error", code="card.blocked", type="StepError", message="no", certain=True)
    accident = Reply("error", code="tool.error", type="KeyError", message="'x'")

    assert judge(seen(vouched)).certain
    assert not judge(seen(accident)).certain
    assert judge(seen(accident, started=False)).certain
    assert not judge(seen(exit_code=-11)).certain
    assert judge(seen(exit_code=-11, started=False)).certain
    assert not judge(seen(reason="timeout")).certain


@given(
    kind=st.sampled_from(["output", "check", "error", "expired", "unavailable", None]),
    started=st.booleans(),
    exit_code=st.none() | st.integers(-70, 255),
    reason=st.sampled_from(["", "timeout", "stopped", "output", "result", "silent"]),
)
def test_whatever_was_seen_has_a_verdict(
    kind: str | None, started: bool, exit_code: int | None, reason: Reason
) -> None:
    """An output or a failure, and a started tool that failed by accident is never certain."""
    reply = None if kind is None else Reply(kind, code="tool.error", type="E", message="m")  # type: ignore[arg-type]  # drawn from the literals
    verdict = judge(Execution(reply, started, exit_code, reason, USAGE))

    assert (verdict.failure is None) == (kind == "output" and reason not in ("output", "result"))
    assert verdict.failure is None or verdict.certain != started
    finding = judge_check(Execution(reply, started, exit_code, reason, USAGE))
    assert finding.answered == (kind == "check" and reason not in ("output", "result"))


def test_a_check_that_does_not_answer_cannot_tell() -> None:
    """And says why it did not."""
    finding = judge_check(seen(exit_code=-11))

    assert (None, False) == (finding.happened, finding.answered)
    assert "SIGSEGV" in finding.detail
    assert "oh no" in finding.detail


def test_a_check_may_say_that_it_cannot_tell() -> None:
    """That is an answer."""
    finding = judge_check(seen(Reply("check", happened=None, detail="torn")))

    assert (None, True, "torn") == (finding.happened, finding.answered, finding.detail)
