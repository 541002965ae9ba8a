"""What lies among a run's decisions and never was one is stepped over; what may be a damaged decision is not."""

import pytest

from agentflow import subjects
from agentflow.chain import is_stranger, workflow_chain
from agentflow.envelope import ChainPlace
from agentflow.payloads import Lifecycle, RunAdvanced
from agentflow.testing import envelope

GOAL = "01JCYZ00000000000000000000"
OUT = subjects.workflow_out("run-1")
DECISION = envelope(RunAdvanced(consumed=()), OUT, sender="planner", place=workflow_chain("run-1", GOAL))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"null",
        b"\xff\xfe",
        b'{"goal":"order"}',
        envelope(Lifecycle("a", "b", "started"), OUT).body,
        envelope(RunAdvanced(consumed=()), OUT, place=workflow_chain("run-2", GOAL)).body,
        envelope(RunAdvanced(consumed=()), OUT, place=ChainPlace("events:mallory:1")).body,
    ],
)
def test_what_is_no_decision_of_the_run_is_a_stranger(body: bytes) -> None:
    """No envelope, or a sound one that is on another chain."""
    assert is_stranger(body, "run-1")


def test_a_decision_is_none_and_neither_is_one_that_was_altered_anywhere() -> None:
    """Whichever byte was edited: to step over it would be to decide a second time."""
    assert not is_stranger(DECISION.body, "run-1")
    for place in range(len(DECISION.body)):
        edited = bytearray(DECISION.body)
        edited[place] ^= 1
        assert not is_stranger(bytes(edited), "run-1"), place
