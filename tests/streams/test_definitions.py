"""The stream definitions: complete, safe, and the server's own JSON."""

import json
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigError, InputError
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.registry import ARTIFACTS, BREAKERS, CONFIG, REGISTRY, STATE
from agentflow.subjects import STREAMS
from agentflow_streams.definitions import (
    REGISTRY_STREAM,
    SECOND,
    Definition,
    definition_of,
    definitions,
    evidence,
    fitted,
)
from agentflow_streams.verification import DEFAULT_STREAMS

DAY = 86_400 * SECOND
NAMES = [definition.name for definition in definitions()]
EVIDENCE = {"AF_MESSAGES", "AF_AGENTS", "AF_AUDIT", "AF_PROTOCOLS", "AF_DEAD", "AF_CHECKPOINTS"}
BUCKETS = {f"KV_{name}" for name in (REGISTRY, STATE, BREAKERS, CONFIG)}
OPTIONAL = {"republish", "subject_delete_marker_ttl"}


def raw(name: str) -> dict[str, Any]:
    """A definition as it is in its file."""
    found: dict[str, Any] = json.loads((files("agentflow_streams") / "definitions" / f"{name}.json").read_text())
    return found


def test_there_is_a_definition_for_every_stream_of_the_architecture() -> None:
    """Evidence, timers, buckets, the object store; nothing else."""
    assert {*EVIDENCE, "AF_TIMERS", *BUCKETS, f"OBJ_{ARTIFACTS}"} == set(NAMES)
    assert sorted(EVIDENCE) == list(evidence())


def test_every_subject_of_the_grammar_has_its_stream() -> None:
    """What `agentflow.subjects` says is stored somewhere is stored there."""
    for first, stream in STREAMS.items():
        assert (f"{first}.>",) == definition_of(stream).subjects


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_is_complete(name: str) -> None:
    """Every key the server knows is said, so that no default decides, and the file is named after its stream."""
    found = raw(name)

    assert name == found["name"]
    assert set(Definition.__struct_fields__) - OPTIONAL <= set(found)
    assert found == definition_of(name).config()
    assert found["description"]


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_never_lets_an_acknowledgement_come_too_early(name: str) -> None:
    """Acknowledged means stored: no asynchronous persistence, no unacknowledged stream; one replica, to be replaced."""
    found = raw(name)

    assert ("default", False, False, 1) == (
        found["persist_mode"],
        found["no_ack"],
        found["sealed"],
        found["num_replicas"],
    )
    assert "limits" == found["retention"]
    assert found["deny_delete"]
    assert found["allow_direct"]


@pytest.mark.parametrize("name", sorted(EVIDENCE))
def test_evidence_cannot_be_removed_before_its_time(name: str) -> None:
    """No delete, purge, rollup, message TTL or schedule; a full stream refuses the new; its room is said."""
    found = raw(name)

    assert ("file", "new", True, True) == (
        found["storage"],
        found["discard"],
        found["deny_delete"],
        found["deny_purge"],
    )
    assert not any(
        found[key]
        for key in (
            "allow_rollup_hdrs",
            "allow_msg_ttl",
            "allow_msg_schedules",
            "allow_msg_counter",
            "allow_atomic",
            "discard_new_per_subject",
        )
    )
    assert (-1, -1) == (found["max_msgs"], found["max_msgs_per_subject"])
    assert found["max_bytes"] > 0
    assert 2 * 60 * SECOND == found["duplicate_window"]


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("AF_MESSAGES", 7),
        ("AF_AGENTS", 3),
        ("AF_AUDIT", 30),
        ("AF_PROTOCOLS", 3),
        ("AF_DEAD", 0),
        ("AF_CHECKPOINTS", 0),
    ],
)
def test_evidence_is_kept_as_long_as_the_architecture_says(name: str, days: int) -> None:
    """Days; 0 is for ever."""
    assert days * DAY == raw(name)["max_age"]


def test_stored_decisions_and_results_are_told_to_followers() -> None:
    """Only what is stored is republished, and nothing else of a stream is."""
    assert ("workflows.*.out", "stored.workflows.{{wildcard(1)}}.out") == (
        raw("AF_MESSAGES")["republish"]["src"],
        raw("AF_MESSAGES")["republish"]["dest"],
    )
    assert ("tools.results.*.*", "stored.tools.results.{{wildcard(1)}}.{{wildcard(2)}}") == (
        raw("AF_AUDIT")["republish"]["src"],
        raw("AF_AUDIT")["republish"]["dest"],
    )
    assert {"AF_MESSAGES", "AF_AUDIT"} == {name for name in NAMES if "republish" in raw(name)}


def test_timers_are_never_discarded() -> None:
    """The server refuses schedules with `discard: new`, so no limit may exist that would drop an armed timer."""
    found = raw("AF_TIMERS")

    assert ("old", -1, -1, 0, 1) == (
        found["discard"],
        found["max_bytes"],
        found["max_msgs"],
        found["max_age"],
        found["max_msgs_per_subject"],
    )
    assert found["allow_msg_schedules"]
    assert found["allow_msg_ttl"]


@pytest.mark.parametrize("name", sorted(BUCKETS))
def test_a_bucket_is_what_clients_expect(name: str) -> None:
    """The last value of each key, purgeable by rollup, as nats-py and the other clients make them."""
    found = raw(name)

    assert [f"$KV.{name.removeprefix('KV_')}.>"] == found["subjects"]
    assert (1, True, False, "new") == (
        found["max_msgs_per_subject"],
        found["allow_rollup_hdrs"],
        found["deny_purge"],
        found["discard"],
    )


def test_only_the_registry_forgets() -> None:
    """Its entries end by age, with markers, and it outlives the server; what must be remembered has no time to live."""
    registry = raw(REGISTRY_STREAM)

    assert ("file", 6 * SECOND, 6 * SECOND) == (
        registry["storage"],
        registry["max_age"],
        registry["subject_delete_marker_ttl"],
    )
    for name in BUCKETS - {REGISTRY_STREAM}:
        assert ("file", 0) == (raw(name)["storage"], raw(name)["max_age"])
    assert {REGISTRY_STREAM, f"KV_{BREAKERS}"} == {name for name in BUCKETS if raw(name)["allow_msg_ttl"]}


def test_artifacts_are_kept() -> None:
    """No age: an envelope's payload must be there as long as the envelope is; replacing an object needs rollups."""
    found = raw(f"OBJ_{ARTIFACTS}")

    assert [f"$O.{ARTIFACTS}.C.>", f"$O.{ARTIFACTS}.M.>"] == found["subjects"]
    assert (0, True, False) == (found["max_age"], found["allow_rollup_hdrs"], found["deny_purge"])


def test_what_is_verified_by_default_is_evidence() -> None:
    """Signed heads are not envelopes: they are checked by whoever signs them."""
    assert EVIDENCE - {"AF_CHECKPOINTS"} == set(DEFAULT_STREAMS)


def test_all_streams_fit_on_a_small_disk() -> None:
    """The server reserves what it promises: all together, below 5 GiB."""
    assert sum(max(0, raw(name)["max_bytes"]) for name in NAMES) < 5 * 2**30


@pytest.mark.parametrize("name", NAMES)
async def test_the_server_takes_the_file_as_it_is(name: str, jetstream: JetStreamTransport) -> None:
    """Unchanged: what `nats stream add --config FILE` sends is the file, and every key of it holds afterwards."""
    found = raw(name)
    info = await jetstream.create_stream(found)

    for key, value in found.items():
        assert (value or None) == (info.config.get(key) or None) or value in ("default",) or key == "republish"


def test_an_unknown_stream_is_refused_by_name() -> None:
    """The error says what there is."""
    with pytest.raises(InputError, match="AF_MESSAGE'") as caught:
        definition_of("AF_MESSAGE")
    assert "stream.unknown" == caught.value.error_code
    assert "AF_MESSAGES" in str(caught.value.fields["allowed"])


def test_an_unknown_key_in_a_file_is_refused() -> None:
    """A typo in a definition must not pass as the server's default."""
    with pytest.raises(msgspec.ValidationError, match="max_byte"):
        msgspec.convert({**raw("AF_DEAD"), "max_byte": 1}, Definition)


@given(
    name=st.sampled_from(NAMES),
    replicas=st.integers(1, 5),
    ttl=st.floats(0.1, 10_000),
    capacity=st.floats(0.001, 1000),
)
def test_what_a_deployment_chooses_changes_nothing_else(name: str, replicas: int, ttl: float, capacity: float) -> None:
    """Replicas and room everywhere, ages in the registry only; an unlimited stream stays unlimited."""
    before, after = (
        definition_of(name).config(),
        fitted(definition_of(name), replicas=replicas, registry_ttl=ttl, capacity=capacity).config(),
    )
    changed = {key for key in before if before[key] != after[key]}
    ages = {"max_age", "duplicate_window", "subject_delete_marker_ttl"} if name == REGISTRY_STREAM else set()

    assert changed <= {"num_replicas", "max_bytes"} | ages
    assert replicas == after["num_replicas"]
    assert (before["max_bytes"] > 0) == (after["max_bytes"] > 0)
    assert after["max_age"] == 0 or after["duplicate_window"] <= after["max_age"]
    assert after.get("subject_delete_marker_ttl", 0) % SECOND == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 0),
        ("replicas", 6),
        ("registry_ttl", 0.05),
        ("registry_ttl", float("inf")),
        ("registry_ttl", float("nan")),
        ("capacity", 0.0),
        ("capacity", -1.0),
        ("capacity", float("nan")),
    ],
)
def test_a_choice_the_server_cannot_take_is_refused(name: str, value: float) -> None:
    """With what was found and what is allowed."""
    choices: dict[str, Any] = {"replicas": 1, "registry_ttl": 6.0, "capacity": 1.0, name: value}
    with pytest.raises(ConfigError, match=name) as caught:
        fitted(definition_of("AF_DEAD"), **choices)
    assert "streams.choice" == caught.value.error_code
