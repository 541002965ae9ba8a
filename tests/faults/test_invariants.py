"""The checker itself: each invariant is violated on purpose, once in every way it knows, and the checker says so.

A history is lived in memory by the planner's own functions; what happened outside is made up.
"""

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentflow import subjects
from agentflow.errors import OutcomeUnknown
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Message
from agentflow.payloads import AuditIntent, GoalSubmitted, TimerSet
from agentflow.runs import RunState as SeenState
from agentflow.testing import envelope, memory_mesh
from agentflow_planner.histories import History
from agentflow_planner.runs import RunState
from agentflow_streams.findings import Damage, Verification
from tests.faults import history
from tests.faults.canaries import Places, canary, no_secret_appears
from tests.faults.footprint import Machine, Mesh, look_around, mesh_violations, nothing_stays
from tests.faults.health import Health, Observation, health_is_true
from tests.faults.invariants import RUNNING, Witness, check
from tests.faults.publishes import (
    PublishLog,
    RecordingTransport,
    StoredIndex,
    attempt,
    landed,
    nothing_acked_is_lost,
    unknown_stays_unknown,
)
from tests.faults.verdicts import Report, Verdict, judged, not_built

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IN = subjects.workflow_in("run-1")
SEALED = envelope(GoalSubmitted("greet", {}), IN, sender="client")
OTHER = envelope(GoalSubmitted("greet", {}), IN, index=1, sender="client")


@pytest.fixture
async def mesh() -> AsyncIterator[MemoryTransport]:
    """A provisioned broker in memory."""
    async with memory_mesh() as transport:
        yield transport


def message(body: bytes, subject: str = IN, seq: int = 1) -> Message:
    """A stored message."""
    return Message("AF_MESSAGES", seq, subject, body, NOW)


def violated(verdict: Verdict, *words: str) -> None:
    """It is violated, and says why."""
    assert verdict.outcome == "violated", verdict
    for word in words:
        assert word in str(verdict)


# --- the report ------------------------------------------------------------------------------------------------------


def test_a_report_that_examined_nothing_is_not_ok() -> None:
    """Looking away is no way to pass."""
    report = Report((not_built("I8", "no participants"), judged("I1", 0, [])))

    assert not report.ok
    with pytest.raises(AssertionError, match="nothing was examined"):
        report.require()


def test_a_report_misses_what_was_expected_and_not_examined() -> None:
    """A test names the invariants that it means to have shown."""
    report = Report((judged("I1", 3, []), judged("I2", 0, [])))
    report.require("I1")

    with pytest.raises(AssertionError, match="not examined: I2"):
        report.require("I1", "I2")


def test_one_violation_is_enough() -> None:
    """And it is shown with what was found."""
    report = Report((judged("I1", 3, []), judged("I2", 2, ["twice"])))

    with pytest.raises(AssertionError, match="violated: I2"):
        report.require("I1")
    assert "twice" in str(report)


# --- I1 and I3 -------------------------------------------------------------------------------------------------------


def test_an_acknowledged_message_that_is_gone_is_lost() -> None:
    """It is not at the place that was acknowledged."""
    acked = [attempt("client", "AF_MESSAGES", IN, SEALED.body, "stored", 1)]

    assert "held" == nothing_acked_is_lost(acked, StoredIndex.of([message(SEALED.body)])).outcome
    violated(nothing_acked_is_lost(acked, StoredIndex.of([])), "is not there")


def test_an_acknowledged_message_with_other_bytes_is_lost() -> None:
    """A sequence can be used again after damage; the bytes tell."""
    acked = [attempt("client", "AF_MESSAGES", IN, SEALED.body, "stored", 1)]

    violated(nothing_acked_is_lost(acked, StoredIndex.of([message(OTHER.body)])), "other bytes")


def test_no_acknowledgement_at_all_is_nothing_to_look_at() -> None:
    """A log that nobody wrote does not pass for a good one."""
    refused = [attempt("client", "AF_MESSAGES", IN, SEALED.body, "refused")]

    assert 0 == nothing_acked_is_lost(refused, StoredIndex.of([])).examined


def test_an_unknown_publish_said_again_under_a_new_id_is_found() -> None:
    """The same words under another id could be two things that happened."""
    again = [
        attempt("client", "AF_MESSAGES", IN, SEALED.body, "unknown"),
        attempt("client", "AF_MESSAGES", IN, OTHER.body, "stored", 2),
    ]
    same = [again[0], attempt("client", "AF_MESSAGES", IN, SEALED.body, "stored", 1)]

    guarded = [dataclasses.replace(each, guarded=True) for each in again]
    both = StoredIndex.of([message(SEALED.body), message(OTHER.body, seq=2)])

    violated(unknown_stays_unknown(again, StoredIndex.of([])), "said again")
    violated(unknown_stays_unknown(guarded, both), "said again")
    assert "held" == unknown_stays_unknown(guarded, StoredIndex.of([message(OTHER.body, seq=2)])).outcome
    assert "held" == unknown_stays_unknown(same, StoredIndex.of([message(SEALED.body)])).outcome


@pytest.mark.parametrize(("told", "there"), [("refused", True), ("stored", False)])
def test_a_caller_that_was_told_the_opposite_is_found(told: str, there: bool) -> None:
    """`refused` means that it is not stored, `stored` that it is; `unknown` may be either."""
    made = [attempt("client", "AF_MESSAGES", IN, SEALED.body, "unknown")]
    index = StoredIndex.of([message(SEALED.body)] if there else [])

    violated(unknown_stays_unknown(made, index, [(IN, told)]), told)
    assert "held" == unknown_stays_unknown(made, index, [(IN, "unknown")]).outcome
    assert (int(there), int(not there)) == landed(made, index)


async def test_every_ending_of_a_publish_is_noted(mesh: MemoryTransport, tmp_path: Path) -> None:
    """Acknowledged, refused, without an answer: the log has a line for each, and survives half a line."""

    class Silent:
        async def publish(self, *_: Any, **__: Any) -> None:
            raise OutcomeUnknown("no answer")

    log = PublishLog(tmp_path / "log")
    await RecordingTransport(mesh, log).publish(IN, SEALED.body, stream="AF_MESSAGES", expect=0)
    with pytest.raises(Exception, match="sequence"):
        await RecordingTransport(mesh, log).publish(IN, OTHER.body, stream="AF_MESSAGES", expect=0)
    with pytest.raises(OutcomeUnknown):
        await RecordingTransport(Silent(), log).publish(IN, OTHER.body, stream="AF_MESSAGES")
    with log.path.open("a") as file:
        file.write('["client", "AF_MES')

    assert ["stored", "refused", "unknown"] == [made.ending for made in log.attempts()]
    assert (SEALED.envelope.id, 1) == (log.attempts()[0].id, log.attempts()[0].seq)


# --- I2, I4 to I7 ----------------------------------------------------------------------------------------------------


def run(**state: Any) -> history.Lived:
    """A run of which its planner and its clients think the same, unless a test says otherwise."""
    given = {"status": "running", "state": "a", **state}
    seen = SeenState("run-1", given["status"], state=given["state"], output=given.get("output"))
    return history.Lived("run-1", History(RunState("run-1", **given)), seen, "")


def test_an_effect_that_happened_twice_is_found() -> None:
    """The ledger outside counts."""
    lines = ['{"call_id": "A"}', '{"call_id": "B"}', "", '{"call_id": "A"}']

    violated(history.nothing_is_applied_twice(history.count_effects(lines), []), "effect A happened 2 times")
    assert "held" == history.nothing_is_applied_twice(history.count_effects(lines[:2]), []).outcome


async def test_a_head_that_was_seen_and_is_gone_is_found(mesh: MemoryTransport) -> None:
    """A cut end verifies by itself; who remembers the head sees it."""
    await mesh.publish(IN, SEALED.body, stream="AF_MESSAGES")
    heads = history.Heads()
    await heads.note(mesh)
    created, seq, body = heads.seen["AF_MESSAGES"]
    assert [] == await heads.violations(mesh)

    for planted, word in [
        ((created, seq + 1, body), "was seen"),
        ((created, seq, OTHER.body), "not the message"),
        ((created - timedelta(seconds=1), seq, body), "anew"),
    ]:
        heads.seen["AF_MESSAGES"] = planted
        [found] = await heads.violations(mesh)
        assert word in found


def test_damage_and_a_head_nobody_noted_violate_the_chains() -> None:
    """What verification finds counts, and so does a test that forgot to look at the head."""
    nothing: dict[str, Any] = {
        "chains": 1,
        "runs": 0,
        "open_runs": (),
        "warnings": (),
        "not_vouched": (),
        "streams": (),
    }
    sound = Verification(True, 5, 0, damages=(), **nothing)
    damaged = Verification(False, 5, 0, damages=(Damage("AF_MESSAGES", 3, "edited", "c", "no"),), **nothing)

    assert "held" == history.chains_verify(sound, [], 1).outcome
    violated(history.chains_verify(damaged, [], 1), "edited AF_MESSAGES:3")
    violated(history.chains_verify(sound, ["ends at 1"], 1), "ends at 1")
    violated(history.chains_verify(sound, [], 0), "no head")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"status": "failed"}, "clients failed"),
        ({"state": "b"}, "clients 'b'"),
        ({"output": 2}, "output 1"),
    ],
)
def test_folds_that_differ_are_found(changed: dict[str, Any], word: str) -> None:
    """Planner and clients fold the same history by different code."""
    agreed = run(status="completed", output=1)
    differs = dataclasses.replace(agreed, seen=msgspec.structs.replace(agreed.seen, **changed))

    assert "held" == history.folding_agrees([agreed], {"run-1": 1}).outcome
    violated(history.folding_agrees([differs], {}), word)


def test_a_caller_and_a_snapshot_and_the_leader_have_a_say() -> None:
    """What somebody was told, what a service keeps, and what the leader has last."""
    agreed = run(status="completed", output=1)

    violated(history.folding_agrees([agreed], {"run-1": 2}), "was told 2")
    violated(history.folding_agrees([agreed], {}, ["detector: 3 is not 4"]), "3 is not 4")
    violated(history.folding_agrees([dataclasses.replace(agreed, head="f" * 64)], {}), "leader's last decision")


def test_replay_that_differs_or_does_something_is_found() -> None:
    """Neither other bytes nor an effect."""
    before = {"A": 1}

    assert "held" == history.replay_changes_nothing(history.Replayed(1, ()), before, before).outcome
    violated(history.replay_changes_nothing(history.Replayed(1, ("other bytes",)), before, before), "other bytes")
    violated(history.replay_changes_nothing(history.Replayed(1, ()), before, {"A": 2}), "while deciding again")


async def test_replay_cannot_publish(mesh: MemoryTransport) -> None:
    """What it is given can only be read."""
    reader: Any = history.ReadOnly(mesh)

    assert await reader.last("AF_MESSAGES", IN) is None
    for change in ("publish", "consume", "create_stream", "request"):
        with pytest.raises(AssertionError, match=change):
            getattr(reader, change)


def test_a_run_that_neither_ends_nor_waits_for_a_reason_is_found() -> None:
    """A step is no reason for ever; a signal is one, while a timer looks after the run."""
    violated(history.every_run_ends([run(waiting="step")], [], NOW), "waiting for nothing", "no timer")
    violated(history.every_run_ends([run(waiting="signal")], [], NOW), "no timer")
    violated(history.every_run_ends([run(status="absent")], [], NOW), "answered its goal")
    assert "held" == history.every_run_ends([run(status="absent")], [], NOW, ["run-1"]).outcome
    assert "held" == history.every_run_ends([run(status="completed")], [], NOW).outcome


def test_a_run_behind_its_own_timer_is_found() -> None:
    """Even one that is meant to be open: its timer must have fired."""
    timer = TimerSet("T", "timers.set.planner.run-1.0", "0" * 64, "2025-12-31T23:00:00.000000Z")

    violated(history.every_run_ends([run(waiting="signal", timer=timer)], [], NOW, ["run-1"]), "was due at 2025")


def test_an_intent_without_an_outcome_is_found() -> None:
    """Nobody knows whether the effect happened, and nobody is asking."""
    subject = subjects.tool_audit("call-1")
    made = AuditIntent("book", "1", "irreversible", "clerk", "0" * 64, "0" * 64, 1, "2026-01-01T00:00:00.000000Z")
    intent = envelope(made, subject, sender="executor")

    violated(history.every_run_ends([], [message(intent.body, subject)], NOW), "call-1 has an intent and no outcome")


# --- I10 to I12 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["processes", "files", "mounts", "groups", "namespaces", "tasks"])
def test_whatever_stays_on_the_machine_is_found(kind: str) -> None:
    """And what was there before is not ours to remove."""
    before = Machine(**{kind: frozenset({"old"})})
    after = Machine(**{kind: frozenset({"old", "new"})})

    assert [f"{kind}: new stayed behind"] == after.left_behind(before)
    assert [] == before.left_behind(after)


def test_a_file_in_the_temporary_folder_is_seen(tmp_path: Path) -> None:
    """The look around really looks."""
    before = look_around(tmp_path)
    (tmp_path / "workdir-1").mkdir()

    assert [f"files: {tmp_path / 'workdir-1'} stayed behind"] == look_around(tmp_path).left_behind(before)


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (Mesh({"A/x": 1, "A/y": 0}, {"planner": 10}), "A/y stayed"),
        (Mesh({}, {"planner": 10}), "A/x is gone"),
        (Mesh({"A/x": 9}, {"planner": 10}), "9 pulls"),
        (Mesh({"A/x": 1}, {"planner": 99}), "99 files"),
        (Mesh({"A/x": 1}, {"planner": 10}, {"executor": 1}), "1 children"),
    ],
)
def test_whatever_stays_on_the_mesh_is_found(now: Mesh, word: str) -> None:
    """Consumers, pull requests, open files, sandboxes."""
    before = Mesh({"A/x": 1}, {"planner": 10})

    assert [] == mesh_violations(before, before, 1)
    violated(nothing_stays(before, now, 1), word)
    assert "held" == nothing_stays(before, before, 1).outcome
    violated(nothing_stays(before, before, 1, ["mounts: x"]), "mounts")


def test_a_secret_anywhere_is_found() -> None:
    """In a stream, in a log; one that is an input may be in a stream and nowhere else."""
    secret, memo = canary("env"), canary("input", payload=True)
    clean = Places({"AF_MESSAGES": memo.value.encode()}, {"planner.log": b"fine"})
    leaky = Places({"AF_MESSAGES": secret.value.encode()}, {"planner.log": memo.value.encode()})

    assert "held" == no_secret_appears([secret, memo], clean).outcome
    violated(no_secret_appears([secret], leaky), "env is in AF_MESSAGES")
    violated(no_secret_appears([memo], leaky), "input is in planner.log")
    violated(no_secret_appears([secret], Places()), "not searched")


@pytest.mark.parametrize("expected", [True, False])
def test_health_that_lies_is_found(expected: bool) -> None:
    """Both ways round."""
    said = Observation("a fault", "planner", expected, expected, "readyz")

    assert "held" == health_is_true([said]).outcome
    violated(health_is_true([said, dataclasses.replace(said, ready=not expected)]), "a fault: planner says")


async def test_a_service_that_is_not_in_the_registry_is_not_ready(mesh: MemoryTransport) -> None:
    """Where nothing is announced, the registry is asked, and silence is no."""
    health = Health()
    await health.observe("now", True, {"planner": 1}, mesh)

    violated(health_is_true(health.observations), "not ready (registry)")


# --- all of it -------------------------------------------------------------------------------------------------------


async def test_an_empty_mesh_does_not_pass(mesh: MemoryTransport, tmp_path: Path) -> None:
    """Nothing happened, so nothing was shown."""
    report = await check(Witness(mesh, PublishLog(tmp_path / "log")))

    assert frozenset() == report.examined
    with pytest.raises(AssertionError):
        report.require(*RUNNING)


async def test_a_goal_nobody_answers_is_no_end(mesh: MemoryTransport, tmp_path: Path) -> None:
    """The whole checker, on a mesh where something is wrong."""
    log = PublishLog(tmp_path / "log")
    await RecordingTransport(mesh, log).publish(IN, SEALED.body, stream="AF_MESSAGES", expect=0)
    witness = Witness(mesh, log)
    await witness.heads.note(mesh)
    report = await check(witness)

    assert ("I7",) == report.violated
    assert {"I1", "I3", "I4", "I5", "I7"} == report.examined


async def test_a_protocol_it_cannot_judge_does_not_pass(mesh: MemoryTransport, tmp_path: Path) -> None:
    """When participants begin to speak, this checker has to learn to listen."""
    await mesh.publish("protocols.twophase.topic", b"{}", stream="AF_PROTOCOLS")
    report = await check(Witness(mesh, PublishLog(tmp_path / "log")))

    violated(report.verdict("I8"), "participants")
