"""Keys and values of the registry's buckets."""

import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given

from agentflow import registry
from agentflow.errors import SubjectError
from agentflow.registry import (
    AgentDeclaration,
    Heartbeat,
    WorkflowDeclaration,
    agent_key,
    alive_key,
    tool_key,
    workflow_key,
)
from tests.core.strategies import tokens
from tests.core.test_ids import HOSTILE

KEY = re.compile(r"[A-Za-z0-9_=./-]+")
"""What a bucket takes as a key."""


@given(tokens, tokens, tokens)
def test_keys_are_keys_of_a_bucket_and_say_what_they_are(one: str, other: str, third: str) -> None:
    """The forms are documented: other clients list a bucket by their prefixes."""
    keys = [agent_key(one), tool_key(one), workflow_key(one, f"{other}.{third}"), alive_key(one, other, third)]

    assert [f"agent.{one}", f"tool.{one}", f"workflow.{one}.{other}.{third}", f"{one}.{other}.{third}"] == keys
    assert all(KEY.fullmatch(key) for key in keys)


@given(tokens, tokens)
def test_different_things_have_different_keys(one: str, other: str) -> None:
    """An agent and a tool of the same id too; no id reaches into another's key."""
    assert agent_key(one) != tool_key(other)
    assert (one == other) == (agent_key(one) == agent_key(other)) == (tool_key(one) == tool_key(other))
    assert workflow_key(one, "1.0.0") != workflow_key(one, "1.0.1")
    assert (one == other) == (alive_key("agent", one, other) == alive_key("agent", other, one))


@pytest.mark.parametrize("version", ["1.0.0", "10.20.30", "1.0.0-rc.1", "1.0.0-alpha-2.x"])
def test_a_version_may_have_dots(version: str) -> None:
    """It is the last part of its key, so that a name's versions share a prefix."""
    assert f"workflow.support.{version}" == workflow_key("support", version)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_parts_reach_no_key(text: str) -> None:
    """A key is a subject on the broker: a wildcard in one would read or write what belongs to others."""
    attempts: list[Callable[[], str]] = [
        lambda: agent_key(text),
        lambda: tool_key(text),
        lambda: workflow_key(text, "1.0.0"),
        lambda: alive_key(text, "a", "b"),
        lambda: alive_key("agent", text, "b"),
        lambda: alive_key("agent", "a", text),
    ]
    for attempt in attempts:
        with pytest.raises(SubjectError):
            attempt()
    if text != "a.b":
        with pytest.raises(SubjectError):
            workflow_key("support", text)


@pytest.mark.parametrize("version", ["1..0", ".1", "1.", "1.*", "1.0.>", "1.0.0+build"])
def test_a_version_with_a_part_that_is_no_token_is_refused(version: str) -> None:
    """Empty parts, wildcards, and what a key cannot hold."""
    with pytest.raises(SubjectError):
        workflow_key("support", version)


@pytest.mark.parametrize(
    "value",
    [
        AgentDeclaration("greeter", "Says hello.", 2),
        WorkflowDeclaration("support", "1.0.0", "fsm", "ab" * 32, "2026-11-20T18:00:00.000000Z"),
        Heartbeat("agent", "greeter", "life-1", "2026-11-20T18:00:00.000000Z", 7, "host", {"engine": "x"}),
    ],
)
def test_values_survive_the_bucket(value: msgspec.Struct) -> None:
    """They are JSON, and a reader of an older version skips members it does not know."""
    stored = msgspec.json.encode(value)

    assert value == msgspec.json.decode(stored, type=type(value))
    assert value == msgspec.json.decode(stored[:-1] + b',"newer":1}', type=type(value))


def test_buckets_have_the_documented_names() -> None:
    """Architecture, section 3.4."""
    assert ("AF_CONFIG", "AF_REGISTRY", "AF_STATE", "AF_BREAKERS", "AF_ARTIFACTS") == (
        registry.CONFIG,
        registry.REGISTRY,
        registry.STATE,
        registry.BREAKERS,
        registry.ARTIFACTS,
    )
