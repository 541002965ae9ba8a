"""Comparing what the server has with what is declared."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_streams.definitions import Definition, definition_of, definitions
from agentflow_streams.drift import PROTECTED, Drift, compare, would_remove_history


def as_the_server_answers(definition: Definition) -> dict[str, Any]:
    """Without what is off, empty or default, and with metadata of the server's own."""
    found = {key: value for key, value in definition.config().items() if value or key == "max_age"}
    if "republish" in found:
        found["republish"] = {key: value for key, value in found["republish"].items() if value}
    del found["persist_mode"]
    return {**found, "metadata": {"_nats.ver": "2.15.1"}}


@pytest.mark.parametrize("definition", definitions(), ids=lambda definition: definition.name)
def test_what_the_server_leaves_out_is_no_drift(definition: Definition) -> None:
    """Off is off, whether it is said or not."""
    assert [] == compare(definition, as_the_server_answers(definition))
    assert [] == compare(definition, definition.config())


@given(st.sampled_from(definitions()), st.data())
def test_every_changed_key_is_told(definition: Definition, data: st.DataObject) -> None:
    """Whatever key differs is named, with what is declared and what was found, and no other is."""
    config = definition.config()
    key = data.draw(st.sampled_from(sorted(key for key in config if isinstance(config[key], bool | int))))
    other: Any = not config[key] if isinstance(config[key], bool) else config[key] + 1
    found = {**as_the_server_answers(definition), key: other}
    told = compare(definition, found)

    if not config[key] and other in (None, 0, False):
        assert [] == told
        return
    assert [(key, config[key], other)] == [(each.key, each.declared, each.found) for each in told]
    assert (key in PROTECTED) == told[0].protected


@pytest.mark.parametrize("key", ["deny_delete", "deny_purge"])
def test_a_lost_protection_is_told_as_one(key: str) -> None:
    """The server says it by leaving the key out."""
    found = as_the_server_answers(definition_of("AF_AUDIT"))
    del found[key]
    (told,) = compare(definition_of("AF_AUDIT"), found)

    assert (key, True) == (told.key, told.protected)
    assert f"AF_AUDIT.{key} is not set, declared is True" == told.sentence


def test_a_setting_nobody_declared_is_drift() -> None:
    """Whoever feeds another stream into evidence changes what it holds."""
    found = as_the_server_answers(definition_of("AF_AUDIT")) | {"sources": [{"name": "ELSEWHERE"}]}
    (told,) = compare(definition_of("AF_AUDIT"), found)

    assert ("sources", None) == (told.key, told.declared)


def test_placement_and_metadata_are_the_operators_own() -> None:
    """Where a stream lives is not ours to say."""
    found = as_the_server_answers(definition_of("AF_AUDIT")) | {"placement": {"cluster": "eu"}}

    assert [] == compare(definition_of("AF_AUDIT"), found)


@pytest.mark.parametrize(
    ("key", "declared", "found", "removes"),
    [
        ("max_bytes", 10, 20, True),
        ("max_bytes", 20, 10, False),
        ("max_bytes", 20, -1, True),
        ("max_age", 7, 0, True),
        ("max_age", 0, 7, False),
        ("max_msgs", -1, 5, False),
        ("max_msgs_per_subject", 1, -1, True),
        ("num_replicas", 1, 3, False),
        ("description", "a", "b", False),
    ],
)
def test_a_narrower_limit_would_remove_history(key: str, declared: Any, found: Any, removes: bool) -> None:
    """Measured: an update to a narrower limit drops what is above it without a word."""
    assert removes == would_remove_history(definition_of("AF_AUDIT"), Drift("AF_AUDIT", key, declared, found, False))


def test_the_registry_may_be_narrowed() -> None:
    """It is refreshed by heartbeats, so nothing is lost."""
    narrower = Drift("KV_AF_REGISTRY", "max_age", 1, 6, False)

    assert not would_remove_history(definition_of("KV_AF_REGISTRY"), narrower)
