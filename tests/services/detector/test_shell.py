"""The detector on a mesh: what is recorded is found once, told once, and blocked as the operator allows."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from agentflow import crash, subjects
from agentflow.breakers import Breaker
from agentflow.clock import format_time, parse_time
from agentflow.envelope import Sealed
from agentflow.errors import MeshError
from agentflow.ids import derive_id
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Message
from agentflow.payloads import Action
from agentflow.registry import BREAKERS
from agentflow.registry import STATE as STATE_BUCKET
from agentflow.testing import FixedClock, envelope
from agentflow_detector.alarms import Alarms
from agentflow_detector.findings import reset
from agentflow_detector.fold import Finding, evolve
from agentflow_detector.loading import load_rules
from agentflow_detector.rules import RuleSet
from agentflow_detector.sealing import anomaly_of, seal_anomaly
from agentflow_detector.settings import ACTIONS
from agentflow_detector.snapshots import HEAD
from agentflow_streams.verification import verify
from tests.services.detector.histories import (
    anomalies,
    breakers,
    letters,
    outcome,
    pair,
    plain,
    rapid,
    record,
    requested,
    ruleset,
    sealed_anomalies,
    watch,
)

RULES = ruleset(rapid())


class Killed(BaseException):
    """As near to SIGKILL as one interpreter allows."""


async def burst(mesh: MemoryTransport, start: int = 0, count: int = 3, **more: Any) -> None:
    """So many calls in a row."""
    for number in range(start, start + count):
        await record(mesh, number, **more)


async def test_calls_in_rapid_fire_are_one_anomaly_that_names_them(mesh: MemoryTransport) -> None:
    """Rule and digests, who and what, the envelopes by id and hash, the features of the last one, and the block."""
    said = [await record(mesh, number) for number in range(3)]

    await watch(mesh, RULES)

    [anomaly] = await anomalies(mesh)
    [rule] = RULES.rules
    assert ("rapid", "rate", "medium") == (anomaly.rule, anomaly.kind, anomaly.severity)
    assert (rule.digest, RULES.version, RULES.digest) == (
        anomaly.rule_sha256,
        anomaly.rules_version,
        anomaly.rules_sha256,
    )
    assert ("lookup", "clerk", "acme", 3) == (anomaly.tool, anomaly.principal, anomaly.tenant, anomaly.count)
    assert [(each.envelope.id, each.hash, each.envelope.subject) for each in said] == [
        (each.id, each.hash, each.subject) for each in anomaly.evidence
    ]
    assert ("flag", "auto_block", "escalate") == anomaly.actions
    assert ("agent.clerk",) == anomaly.breakers
    assert 12.5 == anomaly.features["latency_ms"]
    assert {"principal": 3, "tenant": 3} == anomaly.features["calls_this_minute"]
    assert 0.0 == anomaly.features["since_call_ms"]


async def test_an_anomaly_is_stored_under_its_own_id_and_verifies(mesh: MemoryTransport, clock: FixedClock) -> None:
    """Its causes are the evidence, the one that broke the rule first; `verify` finds no damage in the history."""
    said = [await record(mesh, number) for number in range(3)]

    await watch(mesh, RULES)

    [sealed] = await sealed_anomalies(mesh)
    assert subjects.tool_anomaly(sealed.envelope.id) == sealed.envelope.subject
    assert (said[2].ref, said[0].ref, said[1].ref) == sealed.envelope.causes
    found = await verify(mesh, now=clock.now())
    assert () == found.damages
    assert [] == [warning for warning in found.warnings if "anomaly" in warning.detail]


async def test_an_anomaly_whose_evidence_is_altered_does_not_verify(mesh: MemoryTransport, clock: FixedClock) -> None:
    """Sealed anew with another status, the entry is whole by itself: only the anomaly knows that it was another."""
    await burst(mesh)
    await watch(mesh, RULES)
    call = requested(0)
    other = outcome(call, exit_code=1)
    stored = mesh.broker.streams["AF_AUDIT"].messages
    [place] = [seq for seq, each in stored.items() if each.subject == other.envelope.subject]
    stored[place] = dataclasses.replace(stored[place], body=other.body)

    found = await verify(mesh, now=clock.now())

    assert [("unlinked", "anomaly")] == [(each.kind, each.chain.partition(":")[0]) for each in found.damages]


@pytest.mark.parametrize(("apart", "found"), [(299, 1), (300, 1), (301, 0)])
async def test_a_write_followed_by_something_sent_out_counts_within_five_minutes(
    mesh: MemoryTransport, clock: FixedClock, apart: int, found: int
) -> None:
    """By the server's clock: at five minutes it still does, a second later it does not."""
    await record(mesh, 1, tool="save", permissions=("db.write:orders",))
    clock.advance(apart)
    await record(mesh, 2, tool="post", permissions=("network.http:example.com",))

    await watch(mesh, ruleset(pair()))

    assert found == len(await anomalies(mesh))


async def test_the_shipped_pair_rule_is_about_one_run(mesh: MemoryTransport) -> None:
    """A write in one run and a post in another are nothing; in the same run they block the tool and the caller."""
    await record(mesh, 1, tool="save", permissions=("db.write:orders",), run="run-1")
    await record(mesh, 2, tool="post", permissions=("network.http",), run="run-2")
    await watch(mesh, load_rules())
    assert [] == await anomalies(mesh)

    await record(mesh, 3, tool="post", permissions=("network.http",), run="run-1")
    await watch(mesh, load_rules())

    [anomaly] = await anomalies(mesh)
    assert ("write-then-send", "run-1") == (anomaly.rule, anomaly.workflow_id)
    assert {"tool.post", "agent.clerk"} == set(await breakers(mesh))


@pytest.mark.parametrize(
    ("allowed", "actions", "blocked"),
    [
        (("flag",), ("flag",), False),
        (("auto_block",), ("flag", "auto_block"), True),
        (("escalate",), ("flag", "escalate"), False),
        (("flag", "auto_block", "escalate"), ("flag", "auto_block", "escalate"), True),
    ],
)
async def test_the_operator_says_what_may_be_done(
    mesh: MemoryTransport, allowed: tuple[Action, ...], actions: tuple[Action, ...], blocked: bool
) -> None:
    """A finding is always recorded; it blocks and escalates only where rule and operator both say so."""
    await burst(mesh)

    await watch(mesh, RULES, allowed=allowed)

    [anomaly] = await anomalies(mesh)
    assert actions == anomaly.actions
    assert blocked == bool(anomaly.breakers) == bool(anomaly.until) == bool(await breakers(mesh))


async def test_a_block_ends_by_the_servers_clock(mesh: MemoryTransport, clock: FixedClock) -> None:
    """So many seconds after the call that broke the rule was stored, whenever the detector came to see it."""
    await burst(mesh)
    stored = clock.now()
    clock.advance(5)

    await watch(mesh, RULES)

    breaker = (await breakers(mesh))["agent.clerk"]
    assert 30.0 == (parse_time(breaker.until) - stored).total_seconds()
    assert format_time(stored) == breaker.since


async def test_two_detectors_at_once_tell_everything_once(mesh: MemoryTransport) -> None:
    """Both fold the same stream, step by step beside each other, and make the same anomaly under the same id."""
    from tests.services.detector.histories import detector

    one, other = await detector(mesh, RULES), await detector(mesh, RULES)
    for number in range(12):
        await record(mesh, number)
        await one.start()
        await other.start()

    assert 1 == len(await anomalies(mesh))
    assert plain(one.state) == plain(other.state)
    assert one.state.position == other.state.position


@pytest.mark.parametrize("point", ["detector.after_anomaly", "detector.after_breaker", "detector.after_snapshot"])
async def test_a_detector_killed_at_any_point_forgets_nothing_and_doubles_nothing(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The next one tells what was not told, and blocks what was not blocked."""

    def die(name: str) -> None:
        if name == point:
            raise Killed

    await burst(mesh, count=4)
    with monkeypatch.context() as patch:
        patch.setattr(crash, "point", die)
        with pytest.raises(Killed):
            await watch(mesh, RULES, pace=(1, 0.0))

    await watch(mesh, RULES)

    assert 1 == len(await anomalies(mesh))
    assert ["agent.clerk"] == list(await breakers(mesh))


async def test_a_restart_from_a_snapshot_is_the_fold_from_the_beginning(mesh: MemoryTransport) -> None:
    """Cut anywhere, with the burst on both sides of the cut."""
    await burst(mesh, count=2)
    first = await watch(mesh, RULES)
    await first.save()
    await burst(mesh, start=2, count=3)

    restarted = await watch(mesh, RULES)
    whole = await watch(mesh, RULES)

    assert 1 == len(await anomalies(mesh))
    assert plain(restarted.state) == plain(whole.state)
    assert restarted._saved == first.state.position.seq


async def test_an_anomaly_is_not_folded_into_itself(mesh: MemoryTransport) -> None:
    """What the detector stores on its own stream moves the position and nothing else."""
    await burst(mesh)
    first = await watch(mesh, RULES)
    before = plain(first.state)

    await first.start()

    assert before == plain(first.state)
    info = await mesh.stream_info("AF_AUDIT")
    assert info is not None
    assert info.last_seq == first.state.position.seq


@pytest.mark.parametrize(
    "spoil",
    [
        b"junk",
        b'{"version":99}',
        b'{"version":1,"position":{"seq":1,"sha256":"00"},"slot":"a","parts":1,"sha256":"00"}',
    ],
)
async def test_a_snapshot_that_cannot_be_used_is_none(mesh: MemoryTransport, spoil: bytes) -> None:
    """Everything is folded again, and still told once."""
    await burst(mesh)
    await (await watch(mesh, RULES)).save()
    await (await mesh.bucket(STATE_BUCKET)).put(HEAD, spoil)

    again = await watch(mesh, RULES)

    assert 0 == again._saved
    assert 1 == len(await anomalies(mesh))


async def test_a_snapshot_of_another_stream_is_none(mesh: MemoryTransport) -> None:
    """Its sequence is there, with another message: a sequence is no identity."""
    from agentflow.testing import memory_mesh

    await burst(mesh)
    await (await watch(mesh, RULES)).save()
    kept = await (await mesh.bucket(STATE_BUCKET)).entries()
    async with memory_mesh(clock=FixedClock()) as other:
        await burst(other, start=50, count=3)
        bucket = await other.bucket(STATE_BUCKET)
        for entry in kept:
            await bucket.put(entry.key, entry.value)

        found = await watch(other, RULES)

        assert 0 == found._saved
        assert 1 == len(await anomalies(other))


async def test_an_older_snapshot_does_not_replace_a_newer_one(mesh: MemoryTransport) -> None:
    """A detector that was frozen wakes up and writes what it had."""
    await burst(mesh, count=1)
    frozen = await watch(mesh, RULES)
    await burst(mesh, start=1, count=1)
    newer = await watch(mesh, RULES)
    await newer.save()

    await frozen.save()

    restarted = await watch(mesh, RULES)
    assert newer.state.position.seq == restarted._saved


async def test_changed_rules_begin_anew_and_the_others_go_on(mesh: MemoryTransport) -> None:
    """With a snapshot, a new rule is about what comes from now on; an unchanged one remembers what it has counted."""
    await burst(mesh, count=2)
    await (await watch(mesh, RULES)).save()
    changed = ruleset(rapid(), rapid(id="stricter", threshold=2, window=60.0))

    await watch(mesh, changed)
    assert [] == await anomalies(mesh)
    await burst(mesh, start=2, count=1)
    await watch(mesh, changed)

    assert ["rapid"] == [each.rule for each in await anomalies(mesh)]


async def test_the_first_word_about_a_finding_stands(mesh: MemoryTransport) -> None:
    """Without a snapshot and with a changed rule of the same id, the anomaly that is stored is not told a second time.

    What is blocked is what the rules and the operator say now: the stored word may be anybody's.
    """
    await burst(mesh)
    await watch(mesh, RULES, allowed=("flag",))

    await watch(mesh, ruleset(rapid(severity="critical")))

    assert ["medium"] == [each.severity for each in await anomalies(mesh)]
    assert ["agent.clerk"] == list(await breakers(mesh))


async def test_junk_on_the_audit_stream_gets_one_dead_letter_and_stops_nothing(
    mesh: MemoryTransport, clock: FixedClock
) -> None:
    """Folded twice and told once, also when the server has forgotten what it stored under which id.

    What is no call is the executor's to tell.
    """
    id = requested(77).envelope.id
    await mesh.publish(subjects.tool_call(id), b"\xffjunk", stream="AF_AUDIT")
    await mesh.publish(subjects.tool_audit(id), b"{}", stream="AF_AUDIT")
    forged = envelope(await _payload(mesh), subjects.tool_audit(id))
    await store(mesh, forged)
    await burst(mesh)

    await watch(mesh, RULES)
    clock.advance(3600)
    await watch(mesh, RULES)

    assert ["envelope.not_sealed", "audit.foreign"] == [each.code for each in await letters(mesh)]
    assert 1 == len(await anomalies(mesh))


async def _payload(mesh: MemoryTransport) -> Any:
    from agentflow.payloads import AuditOutcome

    return AuditOutcome("lookup", "completed", "0" * 64, principal="clerk", tool_version="1")


async def test_a_fault_of_the_fold_is_told_and_the_next_message_is_folded(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug must not leave everything unwatched."""
    real, faults = evolve, [1]

    def stumble(*given: Any) -> Any:
        if faults and given[4] is not None and given[4].kind == "outcome":
            faults.pop()
            raise ZeroDivisionError("a bug")
        return real(*given)

    monkeypatch.setattr("agentflow_detector.shell.evolve", stumble)
    await burst(mesh, count=4)

    await watch(mesh, RULES)

    assert ["detector.failed"] == [each.code for each in await letters(mesh)]
    assert 1 == len(await anomalies(mesh))


async def test_a_subject_that_is_taken_is_told_and_nothing_waits_for_it(mesh: MemoryTransport) -> None:
    """Junk stored where an anomaly belongs: a dead letter says so, and the detector goes on."""
    said = [await record(mesh, number) for number in range(3)]
    id = derive_id(said[2].envelope.id, "detector", 'anomaly:rapid:["lookup","clerk"]')
    await mesh.publish(subjects.tool_anomaly(id), b"junk", stream="AF_AUDIT")

    await watch(mesh, RULES)

    assert ["anomaly.squatted"] == [each.code for each in await letters(mesh)]
    assert {} == await breakers(mesh)


@pytest.mark.parametrize(
    "forged",
    [{"until": "never"}, {"until": "2000-01-01T00:00:00.000000Z"}, {"breakers": (), "until": "", "actions": ("flag",)}],
)
async def test_a_forged_anomaly_changes_nothing_about_what_is_blocked(
    mesh: MemoryTransport, forged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subject can be foretold: the breakers are those of the detector's own finding, and can be read."""
    said = [await record(mesh, number) for number in range(3)]
    real = Alarms.raise_alarm

    async def forestalled(self: Alarms, finding: Finding, rules: RuleSet, trigger: Sealed, heard: datetime) -> None:
        bad = msgspec.structs.replace(anomaly_of(finding, rules, ACTIONS), **forged)
        await store(mesh, seal_anomaly(finding, bad, trigger), expect=0)
        await real(self, finding, rules, trigger, heard)

    monkeypatch.setattr(Alarms, "raise_alarm", forestalled)
    await watch(mesh, RULES)

    (breaker,) = (await breakers(mesh)).values()
    assert parse_time(breaker.until) > parse_time(said[2].envelope.ts)


# --- breakers ------------------------------------------------------------------------------------------------------


async def test_a_block_that_has_expired_is_not_set_again_by_a_restart(mesh: MemoryTransport, clock: FixedClock) -> None:
    """Without a snapshot everything is folded again: the breaker keeps the end it had."""
    await burst(mesh)
    await watch(mesh, RULES)
    before = await breakers(mesh)
    clock.advance(3600)

    await watch(mesh, RULES)

    assert before == await breakers(mesh)


async def test_what_an_operator_reset_is_not_blocked_again_for_the_same(
    mesh: MemoryTransport, clock: FixedClock
) -> None:
    """Nor for anything found before; a new burst blocks anew."""
    await burst(mesh)
    await watch(mesh, RULES)
    clock.advance(1)
    assert "reset" == (await reset(mesh, "agent.clerk", clock))["state"]

    await watch(mesh, RULES)
    assert (await breakers(mesh))["agent.clerk"].reset

    clock.advance(60)
    await burst(mesh, start=20)
    await watch(mesh, RULES)
    assert not (await breakers(mesh))["agent.clerk"].reset


async def test_an_older_finding_does_not_shorten_a_block(mesh: MemoryTransport, clock: FixedClock) -> None:
    """Somebody set a longer one meanwhile."""
    longer = Breaker("2026-01-02T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z", "other", "A1", "why")
    import msgspec

    await (await mesh.bucket(BREAKERS)).put("agent.clerk", msgspec.json.encode(longer))
    await burst(mesh)

    await watch(mesh, RULES)

    assert longer == (await breakers(mesh))["agent.clerk"]


async def test_calls_that_were_blocked_count_for_nothing(mesh: MemoryTransport, clock: FixedClock) -> None:
    """A caller that keeps trying while it is blocked is not blocked for that."""
    await burst(mesh)
    await watch(mesh, RULES)
    clock.advance(31)
    await burst(mesh, start=10, count=20, code="breaker.open", status="refused")

    found = await watch(mesh, ruleset(rapid(), rapid(id="refused", match={"status": ["refused"]}, threshold=1)))

    assert ["rapid"] == [each.rule for each in await anomalies(mesh)]
    assert {} == found.state.calls


# --- woken by deliveries -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Hint:
    """A delivery, which here only says how far the stream is."""

    message: Message
    deliveries: int = 1

    async def ack(self) -> None:
        """Done."""

    async def nak(self, delay: float = 0.0) -> None:
        """Again."""

    async def in_progress(self) -> None:
        """Still working."""

    async def term(self) -> None:
        """Given up."""


async def last_call(mesh: MemoryTransport) -> Hint:
    """A delivery of the last message there is."""
    info = await mesh.stream_info("AF_AUDIT")
    assert info is not None
    message = await mesh.get("AF_AUDIT", info.last_seq)
    assert message is not None
    return Hint(message)


async def test_a_detector_that_was_frozen_takes_up_what_others_acknowledged(mesh: MemoryTransport) -> None:
    """It is handed the last message only, since another had the others: it folds them all the same."""
    frozen = await watch(mesh, RULES, allowed=("flag",))
    await burst(mesh, count=4)

    await frozen.handle(await last_call(mesh))

    assert 1 == len(await anomalies(mesh))


async def test_a_delivery_that_was_folded_before_changes_nothing(mesh: MemoryTransport) -> None:
    """Delivered again after the server forgot an acknowledgement, or late, behind newer ones."""
    await burst(mesh, count=2)
    hint = await last_call(mesh)
    found = await watch(mesh, RULES)
    await found.handle(hint)
    await found.handle(hint)
    before = plain(found.state)

    await burst(mesh, start=2, count=0)
    await found.handle(hint)

    assert before == plain(found.state)
    assert [] == await anomalies(mesh)


async def test_a_stream_that_reads_short_is_read_again_later(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lags: the delivery is given back, nothing is left out."""

    async def nothing(*_: object, **__: object) -> AsyncIterator[Message]:
        for each in list[Message]():
            yield each

    found = await watch(mesh, RULES)
    await burst(mesh)
    hint = await last_call(mesh)
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "read", nothing)
        with pytest.raises(MeshError) as caught:
            await found.handle(hint)

    assert "detector.stale_read" == caught.value.error_code
    await found.handle(hint)
    assert 1 == len(await anomalies(mesh))


async def test_who_takes_over_far_behind_takes_up_the_others_snapshot(
    mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a stand-by of days is at work at once."""
    monkeypatch.setattr("agentflow_detector.shell.BEHIND", 3)
    standby = await watch(mesh, RULES)
    await burst(mesh, count=2)
    await (await watch(mesh, RULES)).save()
    await burst(mesh, start=2, count=1)

    await standby.handle(await last_call(mesh))

    assert 4 == standby._saved
    assert 1 == len(await anomalies(mesh))


async def test_a_run_verifies_by_itself_where_calls_of_other_runs_made_the_finding(
    mesh: MemoryTransport, clock: FixedClock
) -> None:
    """Evidence that names another run was not read then: it is counted as not checked, and is no damage."""
    for number in range(3):
        await record(mesh, number, run=f"run-{number}")
    await watch(mesh, RULES)
    [anomaly] = await sealed_anomalies(mesh)
    assert "run-2" == anomaly.workflow_id

    found = await verify(mesh, now=clock.now(), workflow="run-2")

    assert () == found.damages
    assert found.unchecked > 0
