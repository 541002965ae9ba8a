"""Breakers: their keys are safe, what cannot be read is refused, and they close by themselves."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.breakers import Breaker, breaker_keys, is_open, principal_breaker, read_breaker, tool_breaker
from agentflow.clock import parse_time
from agentflow.errors import EvidenceError, SubjectError

BREAKER = Breaker("2026-01-01T00:01:00.000000Z", "2026-01-01T00:00:00.000000Z", "rapid-fire", "A1", "too many")


def test_a_call_has_the_keys_of_its_tool_and_of_who_calls() -> None:
    """The states of a workflow's runs have a key of their own kind: no agent can be blocked in their place."""
    assert ("tool.refund", "agent.clerk") == breaker_keys("refund", "clerk")
    assert ("tool.refund", "workflow.support") == breaker_keys("refund", "workflow:support")


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_from_a_stranger_becomes_a_key_unchecked(tool: str, principal: str) -> None:
    """A key is `kind.token`, whatever is asked for."""
    for key in breaker_keys(tool, principal):
        kind, _, name = key.partition(".")
        assert kind in ("tool", "agent", "workflow")
        assert name.isascii()
        assert not set(name) & set(".*> \n:/")


@pytest.mark.parametrize("name", ["", "a.b", "*", "x" * 65, "workflow:"])
def test_what_is_no_id_has_no_breaker(name: str) -> None:
    """It is refused for being none."""
    with pytest.raises(SubjectError):
        tool_breaker(name)
    with pytest.raises(SubjectError):
        principal_breaker(name)


def test_a_breaker_is_open_until_its_end_and_not_at_it() -> None:
    """And one that was reset is not open at all."""
    end = parse_time(BREAKER.until)

    assert is_open(BREAKER, parse_time(BREAKER.since))
    assert not is_open(BREAKER, end)
    assert not is_open(msgspec.structs.replace(BREAKER, reset=True), parse_time(BREAKER.since))


def test_a_stored_breaker_is_read_as_it_was_written() -> None:
    """Its JSON is its form in the bucket."""
    assert BREAKER == read_breaker("tool.refund", msgspec.json.encode(BREAKER))


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"{}", b"[" * 5000, b'{"until":"soon","since":"","rule":"","anomaly":"","reason":""}']
)
def test_what_is_no_breaker_is_refused_with_its_key(value: bytes) -> None:
    """Whoever reads it has to fail closed."""
    with pytest.raises(EvidenceError, match=r"tool\.refund") as caught:
        read_breaker("tool.refund", value)

    assert "breaker.unreadable" == caught.value.error_code
