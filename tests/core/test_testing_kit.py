"""The public test kit: what a user's tests may rely on."""

import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentflow.envelope import ChainPlace, Ref, unseal
from agentflow.errors import ConfigError, SubjectError
from agentflow.payloads import GoalSubmitted, RunSignalled
from agentflow.schemas import payload_as
from agentflow.testing import START, FixedClock, envelope, goal, memory_mesh

STREAMS = [{"name": "AF_MESSAGES", "subjects": ["workflows.>"]}]

# --- the clock -------------------------------------------------------------------------------------------------------


def test_a_fixed_clock_stands_still() -> None:
    """It has a beginning, in UTC, and stays there."""
    clock = FixedClock()

    assert clock.now() == clock.now() == START
    assert timedelta(0) == clock.now().utcoffset()


def test_a_fixed_clock_begins_where_it_is_told() -> None:
    """Other offsets are turned into UTC."""
    start = datetime(2026, 11, 20, 19, tzinfo=timezone(timedelta(hours=1)))

    now = FixedClock(start).now()

    assert (datetime(2026, 11, 20, 18, tzinfo=UTC), UTC) == (now, now.tzinfo)


def test_a_fixed_clock_moves_when_it_is_told() -> None:
    """By seconds and parts of them, and it says where it is."""
    clock = FixedClock()

    assert START + timedelta(seconds=1.5) == clock.advance(1.5) == clock.now()
    assert START + timedelta(hours=1, seconds=1.5) == clock.advance(3600)


def test_a_fixed_clock_never_goes_back() -> None:
    """That is a mistake in the test, not a thing to simulate by accident."""
    clock = FixedClock()

    with pytest.raises(ValueError, match="cannot go back by 1 s"):
        clock.advance(-1)

    assert START == clock.now()


def test_a_fixed_clock_tells_who_listens() -> None:
    """After each move, in the order they came, and the new time is in force then."""
    clock = FixedClock()
    heard: list[tuple[str, datetime]] = []
    clock.on_advance(lambda: heard.append(("a", clock.now())))
    clock.on_advance(lambda: heard.append(("b", clock.now())))

    moment = clock.advance(1)

    assert [("a", moment), ("b", moment)] == heard


# --- the mesh --------------------------------------------------------------------------------------------------------


async def test_a_memory_mesh_has_the_streams_it_is_given() -> None:
    """Those and no others; it is closed at the end."""
    async with memory_mesh(STREAMS) as mesh:
        assert ["AF_MESSAGES"] == list(await mesh.stream_names())

    assert not mesh.connected


async def test_a_memory_mesh_without_streams_is_bare() -> None:
    """An empty list is not the default."""
    async with memory_mesh([]) as mesh:
        assert [] == list(await mesh.stream_names())


async def test_a_memory_mesh_is_provisioned_like_a_real_one() -> None:
    """With all streams, buckets and the object store, under the names that services ask for, and no drift."""
    provision = pytest.importorskip("agentflow_streams.provision").provision

    async with memory_mesh() as mesh:
        assert {"AF_MESSAGES", "AF_AGENTS", "AF_AUDIT", "AF_TIMERS", "AF_DEAD"} <= set(await mesh.stream_names())
        for name in ("AF_REGISTRY", "AF_STATE", "AF_CONFIG", "AF_BREAKERS"):
            await mesh.bucket(name)
        await mesh.objects("AF_ARTIFACTS")
        report = await provision(mesh)

    assert () == report.drift
    assert {"unchanged"} == {stream.state for stream in report.streams}


async def test_a_provisioned_mesh_keeps_the_rules_of_a_real_one() -> None:
    """Timers fire, decisions are republished, registry entries end, large artifacts are kept."""
    pytest.importorskip("agentflow_streams")
    clock = FixedClock()
    async with memory_mesh(clock=clock) as mesh:
        following = mesh.follow("stored.workflows.run-1.out")
        await following.ready()
        await mesh.publish("workflows.run-1.out", b"decided", stream="AF_MESSAGES")
        headers = {"Nats-Schedule": "@at 2026-01-01T01:00:00Z", "Nats-Schedule-Target": "timers.due.workflow.run-1.0"}
        await mesh.publish("timers.set.workflow.run-1.0", b"wake", stream="AF_TIMERS", headers=headers)
        await (await mesh.bucket("AF_REGISTRY")).put("agent.a.1", b"alive")
        await (await mesh.objects("AF_ARTIFACTS")).put("sha256-1", b"x" * 3_000_000)

        clock.advance(3600)

        assert ("stored.workflows.run-1.out", b"decided") == await following.next(timeout=1)
        assert await mesh.last("AF_TIMERS", "timers.due.workflow.run-1.0") is not None
        assert [] == list(await (await mesh.bucket("AF_REGISTRY")).entries())
        assert 3_000_000 == len(await (await mesh.objects("AF_ARTIFACTS")).get("sha256-1"))


async def test_without_the_streams_distribution_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it, or give the streams."""
    monkeypatch.setitem(sys.modules, "agentflow_streams.provision", None)

    with pytest.raises(ConfigError) as missing:
        async with memory_mesh():
            pass

    assert "testing.no_streams" == missing.value.error_code
    assert "agentflow-streams" in missing.value.message


# --- envelopes -------------------------------------------------------------------------------------------------------


def test_a_goal_is_what_a_client_submits() -> None:
    """A valid envelope on the run's own subject, with its workflow in the metadata."""
    sealed = goal("support@1", {"text": "hello"}, workflow_id="run-7")

    opened = unseal(sealed.body, "workflows.run-7.in")

    assert sealed == opened
    assert "run-7" == opened.workflow_id
    assert GoalSubmitted("support@1", {"text": "hello"}) == payload_as(opened, GoalSubmitted)


def test_the_same_arguments_make_the_same_bytes() -> None:
    """In every run and on every machine; another index is another envelope."""
    assert goal("support").body == goal("support").body
    assert goal("support").envelope.id != goal("support", index=1).envelope.id
    assert "01KDVDNA007PJ3ZH0ZESFNQME7" == goal("support").envelope.id


def test_an_envelope_takes_its_place_and_its_causes() -> None:
    """For tests of chains and of what was handled."""
    cause = goal("support").ref
    place = ChainPlace("workflow:run-1:x", 3, "a" * 64)

    sealed = envelope(RunSignalled("go"), "workflows.run-1.in", place=place, causes=(cause,), sender="client")

    members = sealed.envelope
    assert ("workflow:run-1:x", 3, "a" * 64) == (members.chain, members.chain_seq, members.prev_hash)
    assert (Ref(cause.id, cause.hash),) == members.causes
    assert ("run.signalled/1", "control", "client") == (members.schema, members.type, members.sender)


def test_an_envelope_keeps_to_the_grammar() -> None:
    """A subject outside it is refused here as everywhere."""
    with pytest.raises(SubjectError):
        goal("support", workflow_id="no.dots")
