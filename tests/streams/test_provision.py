"""Provisioning: idempotent, honest about drift, and never overwriting; in memory and against a real server."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agentflow.errors import ConfigError, MeshError, OutcomeUnknown, PublishFailed, ServerUnfit
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import StreamInfo, Transport
from agentflow.registry import ARTIFACTS, REGISTRY
from agentflow_streams.definitions import SECOND, definition_of, definitions
from agentflow_streams.provision import StreamReport, provision, survey
from tests.support.waiting import eventually

NAMES = tuple(definition.name for definition in definitions())


async def report_on(transport: Transport, name: str, **choices: Any) -> StreamReport:
    """Provision, and what was said of one stream."""
    report = await provision(transport, **choices)
    (found,) = [stream for stream in report.streams if stream.name == name]
    return found


async def make(transport: Transport, name: str, **changes: Any) -> None:
    """A stream that differs from its definition."""
    await transport.create_stream({**definition_of(name).config(), **changes})


async def test_an_empty_server_gets_every_stream(mesh: Transport) -> None:
    """All are created, and none differs from its definition."""
    report = await provision(mesh)

    assert NAMES == report.named("created")
    assert () == report.drift
    assert report.safe
    assert set(NAMES) <= set(await mesh.stream_names())


async def test_a_second_time_changes_nothing(mesh: Transport) -> None:
    """Idempotent, with and without update."""
    await provision(mesh)

    for update in (False, True):
        report = await provision(mesh, update=update)
        assert NAMES == report.named("unchanged")


async def test_what_is_missing_is_created_beside_what_is_there(mesh: Transport) -> None:
    """Half a mesh is completed."""
    await make(mesh, "AF_DEAD")
    report = await provision(mesh)

    assert ("AF_DEAD",) == report.named("unchanged")
    assert len(NAMES) - 1 == len(report.named("created"))


async def test_several_at_once_make_one_mesh(mesh: Transport) -> None:
    """Whoever comes second finds what the first made."""
    reports = await asyncio.gather(*(provision(mesh) for _ in range(4)))

    assert all(report.drift == () and report.safe for report in reports)
    assert NAMES == tuple(sorted(set(await mesh.stream_names()) & set(NAMES)))


async def test_drift_is_reported_and_not_overwritten(mesh: Transport) -> None:
    """What was declared, what was found; the stream stays as it is."""
    await make(mesh, "AF_AUDIT", max_age=99 * SECOND * 60)
    found = await report_on(mesh, "AF_AUDIT")
    info = await mesh.stream_info("AF_AUDIT")

    assert "drifted" == found.state
    (drift,) = found.drift
    assert ("max_age", definition_of("AF_AUDIT").max_age, 99 * SECOND * 60) == (drift.key, drift.declared, drift.found)
    assert not drift.protected
    assert info is not None
    assert 99 * SECOND * 60 == info.config["max_age"]


async def test_a_lost_protection_makes_a_report_unsafe(mesh: Transport) -> None:
    """A stream without deny_purge can be emptied; that is not a matter of taste."""
    await make(mesh, "AF_AUDIT", deny_purge=False)
    report = await provision(mesh)

    assert not report.safe
    assert ["AF_AUDIT.deny_purge is not set, declared is True"] == [
        each.sentence.replace("False", "not set") for each in report.drift
    ]


async def test_update_mends_what_may_be_mended(mesh: Transport) -> None:
    """Asked for, and then told as done."""
    await make(mesh, "AF_AUDIT", max_age=60 * SECOND, duplicate_window=30 * SECOND)
    found = await report_on(mesh, "AF_AUDIT", update=True)
    info = await mesh.stream_info("AF_AUDIT")

    assert ("updated", ()) == (found.state, found.drift)
    assert info is not None
    assert definition_of("AF_AUDIT").max_age == info.config["max_age"]


async def test_update_does_not_narrow_what_holds_messages(mesh: Transport) -> None:
    """The server would drop what is above a narrower limit without a word, so a person has to do that."""
    await make(mesh, "AF_DEAD", max_bytes=2**30, description="ours")
    await mesh.publish("dead.a.b", b"{}", stream="AF_DEAD")
    found = await report_on(mesh, "AF_DEAD", update=True)
    info = await mesh.stream_info("AF_DEAD")

    assert "drifted" == found.state
    (left,) = found.drift
    assert "max_bytes" == left.key
    assert "narrowing it would drop stored messages" in left.sentence
    assert info is not None
    assert (2**30, definition_of("AF_DEAD").description) == (info.config["max_bytes"], info.config["description"])


async def test_update_narrows_what_is_empty(mesh: Transport) -> None:
    """Nothing can be lost there."""
    await make(mesh, "AF_DEAD", max_bytes=2**30)

    assert "updated" == (await report_on(mesh, "AF_DEAD", update=True)).state


async def test_an_update_the_server_refuses_is_reported(jetstream: JetStreamTransport) -> None:
    """Storage cannot be changed; the other streams are provisioned all the same."""
    await make(jetstream, "AF_DEAD", storage="memory")
    report = await provision(jetstream, update=True)
    (dead,) = [stream for stream in report.streams if stream.name == "AF_DEAD"]

    assert ("drifted", False) == (dead.state, report.safe)
    assert "storage" in dead.refused
    assert len(NAMES) - 1 == len(report.named("created"))


async def test_an_update_keeps_where_a_stream_lives(jetstream: JetStreamTransport) -> None:
    """Metadata is the operator's."""
    await make(jetstream, "AF_DEAD", description="ours", metadata={"owner": "ops"})
    await provision(jetstream, update=True)
    info = await jetstream.stream_info("AF_DEAD")

    assert info is not None
    assert "ops" == info.config["metadata"]["owner"]


async def test_registry_entries_live_three_heartbeats(jetstream: JetStreamTransport) -> None:
    """The age is set from the argument, and an entry nobody refreshes is gone after it, with a marker for watchers."""
    await provision(jetstream, registry_ttl=0.3)
    bucket = await jetstream.bucket(REGISTRY)
    await bucket.put("agent.a.1", b"{}")

    assert await bucket.get("agent.a.1") is not None
    await eventually(lambda: _gone(jetstream), "the entry's end")


async def _gone(transport: Transport) -> bool:
    return await (await transport.bucket(REGISTRY)).get("agent.a.1") is None


async def test_another_heartbeat_is_drift_until_it_is_applied(mesh: Transport) -> None:
    """Two provisioners with different settings do not fight: the second is told."""
    await provision(mesh)
    told = await report_on(mesh, "KV_AF_REGISTRY", registry_ttl=30.0)

    assert "max_age" in {drift.key for drift in told.drift}
    assert "updated" == (await report_on(mesh, "KV_AF_REGISTRY", registry_ttl=30.0, update=True)).state


async def test_buckets_and_artifacts_can_be_used(mesh: Transport) -> None:
    """What was made is what clients expect: put, get, delete, watch, and an object in chunks."""
    await provision(mesh)
    for name in ("AF_REGISTRY", "AF_STATE", "AF_BREAKERS", "AF_CONFIG"):
        bucket = await mesh.bucket(name)
        await bucket.put("a.b", b"1")
        assert [("a.b", b"1")] == [(entry.key, entry.value) for entry in await bucket.entries()]
        await bucket.delete("a.b")
        assert [] == list(await bucket.entries())
    objects = await mesh.objects(ARTIFACTS)
    await objects.put("sha256-x", b"x" * 300_000)
    assert b"x" * 300_000 == await objects.get("sha256-x")


async def test_a_survey_changes_nothing(mesh: Transport) -> None:
    """What there is, how it differs, and what is not there."""
    await make(mesh, "AF_DEAD", max_age=60 * SECOND, duplicate_window=60 * SECOND)
    found = {each.name: each for each in await survey(mesh, definitions())}

    assert ["duplicate_window", "max_age"] == [drift.key for drift in found["AF_DEAD"].drift]
    assert found["AF_AUDIT"].info is None
    assert ["AF_DEAD"] == list(await mesh.stream_names())


class Sly(MemoryTransport):
    """A server that changes a stream while it creates it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes = changes

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        return await super().create_stream({**config, **self.changes})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"deny_purge": False}, "deny_purge"),
        ({"deny_delete": False}, "deny_delete"),
        ({"allow_rollup_hdrs": True}, "allow_rollup_hdrs"),
        ({"discard": "old"}, "discard"),
        ({"persist_mode": "async"}, "persist_mode"),
    ],
)
async def test_a_server_that_changes_a_protection_in_silence_is_unfit(changes: dict[str, Any], key: str) -> None:
    """Measured: enabling TTLs or schedules switches deny-purge off without an error, so what was made is read back."""
    with pytest.raises(ServerUnfit, match=key) as caught:
        await provision(Sly(**changes))
    assert "server.changed_stream" == caught.value.error_code
    assert [key] == caught.value.fields["keys"]


async def test_a_server_that_changes_something_harmless_is_told() -> None:
    """The stream is made, and the difference is in the report."""
    report = await provision(Sly(max_consumers=7))

    assert NAMES == report.named("created")
    assert {"max_consumers"} == {drift.key for drift in report.drift}


class Failing(MemoryTransport):
    """A server that refuses to create streams, or does not answer."""

    def __init__(self, error: MeshError, *, creates: bool = False) -> None:
        super().__init__()
        self.error, self.creates = error, creates

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        if self.creates:
            await super().create_stream(config)
        raise self.error


async def test_no_room_says_what_to_do() -> None:
    """The server reserves `max_bytes` when it creates a stream."""
    full = Failing(PublishFailed("insufficient storage resources available", err_code=10047))
    with pytest.raises(ConfigError, match="no room for AF_AGENTS") as caught:
        await provision(full)
    assert "--capacity" in str(caught.value.fields["hint"])


async def test_a_server_without_room_is_told_as_such(jetstream: JetStreamTransport) -> None:
    """The same with a real server: nobody has a billion times the room."""
    with pytest.raises(ConfigError, match="no room"):
        await provision(jetstream, capacity=1e9)


async def test_a_refused_stream_is_an_error() -> None:
    """What the server says reaches the caller."""
    with pytest.raises(PublishFailed, match="not today"):
        await provision(Failing(PublishFailed("not today")))


async def test_a_creation_without_an_answer_is_looked_up() -> None:
    """The stream may be there all the same."""
    report = await provision(Failing(OutcomeUnknown("no answer"), creates=True))

    assert NAMES == report.named("unchanged")


async def test_a_creation_that_did_not_happen_stays_unknown() -> None:
    """Nothing is reported that is not there."""
    with pytest.raises(OutcomeUnknown):
        await provision(Failing(OutcomeUnknown("no answer")))
