"""Verification as a pure fold: undamaged histories raise no alarm, whatever was read of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.envelope import ChainPlace, Ref, sha256_hex, unseal
from agentflow.payloads import Consumed, InputRejected, StepCompleted
from agentflow.testing import envelope
from agentflow_streams.verification import DEFAULT_STREAMS
from tests.streams.checking import check, sealed_in
from tests.streams.histories import Mesh, Recording, Story, record
from tests.streams.strategies import busy_recordings, recordings


@given(recordings())
def test_an_undamaged_history_raises_no_alarm(recording: Recording) -> None:
    """Sealed and plain goals, refused junk, tools, signals, failures, open runs, in any interleaving."""
    result = check(recording)

    assert () == result.damages
    assert () == result.warnings
    assert result.ok
    assert len(sealed_in(recording)) == result.envelopes


@given(busy_recordings())
def test_what_else_happens_on_a_mesh_raises_no_alarm(recording: Recording) -> None:
    """Lifecycle events, refused goals and dead letters are part of a sound history."""
    assert () == check(recording).damages


@given(recordings(), st.data())
def test_a_history_may_be_cut_off_anywhere(recording: Recording, data: st.DataObject) -> None:
    """Whenever a mesh stops, what is stored by then is sound: a command that is not sent yet is a warning at most."""
    end = data.draw(st.integers(0, len(recording.messages)))
    result = check(Recording(recording.messages[:end]))

    assert () == result.damages


@given(recordings(), st.sets(st.sampled_from(DEFAULT_STREAMS), min_size=1))
def test_reading_some_streams_raises_no_alarm(recording: Recording, names: set[str]) -> None:
    """Places and causes on streams that were not read are not missing, they were not checked."""
    result = check(recording, sorted(names))

    assert () == result.damages


@given(recordings(), st.data())
def test_what_has_expired_raises_no_alarm(recording: Recording, data: st.DataObject) -> None:
    """Each stream forgets by age, at its own pace: chains lose their fronts, references what they refer to."""
    kept: list[int] = []
    for name in DEFAULT_STREAMS:
        stream = recording.of(name)
        gone = data.draw(st.integers(0, len(stream)), label=name)
        kept.extend(recording.messages.index(each) for each in stream[gone:])
    left = Recording([recording.messages[index] for index in sorted(kept)])
    result = check(left, horizon=recording.messages[-1].time)

    assert () == result.damages


@given(recordings(), st.data())
def test_a_mesh_at_work_raises_no_alarm(recording: Recording, data: st.DataObject) -> None:
    """The ends of the streams are noted one after the other; what was stored meanwhile settles what refers to it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(recording.messages)), min_size=5, max_size=5)))
    ends = dict(zip(DEFAULT_STREAMS, cuts, strict=True))
    judged = [each for index, each in enumerate(recording.messages) if index < ends[each.stream]]
    late = [each for index, each in enumerate(recording.messages) if ends[each.stream] <= index < cuts[-1]]
    result = check(Recording(judged), late=Recording(late))

    assert () == result.damages


def test_a_copy_with_other_sequences_verifies_too() -> None:
    """A (stream, sequence) pair is not an identity: hashes are."""
    recording = record([Story("a", ("agent_with_tools", "tool"), plain=True)])
    shifted = Recording()
    for stream in DEFAULT_STREAMS:
        shifted.add(stream, "x", b"", recording.messages[0].time)
    for each in recording.messages:
        shifted.add(each.stream, each.subject, each.body, each.time)
    shifted.messages = shifted.messages[len(DEFAULT_STREAMS) :]

    assert () == check(shifted).damages


def test_counts_what_it_saw() -> None:
    """Envelopes, chains and runs are numbers a person can compare with what the mesh did."""
    result = check(record([Story("a"), Story("b", plain=True)]))

    assert 2 == result.runs
    assert 1 == result.adopted
    # a: goal, accepted, request, result, completed; b: the same without the goal, which is plain
    assert 9 == result.envelopes
    # a: input, workflow, decision, handling; b: the same without input
    assert 7 == result.chains
    assert {"AF_MESSAGES": 8, "AF_AGENTS": 2, "AF_AUDIT": 0, "AF_PROTOCOLS": 0, "AF_DEAD": 0} == {
        stream.name: stream.messages for stream in result.streams
    }


def test_an_open_run_is_named_as_not_vouched_for() -> None:
    """A cut tail cannot be told from a run that goes on: that is said, with the run and its last envelope."""
    recording = record([Story("a", ("agent", "agent"))])
    result = check(Recording(recording.messages[:-1]))

    assert result.ok
    (run,) = result.open_runs
    assert ("a", "AF_MESSAGES") == (run.workflow, run.stream)
    assert any("Run a is open" in sentence and f"AF_MESSAGES {run.seq}" in sentence for sentence in result.not_vouched)


def test_what_is_not_proven_is_always_said() -> None:
    """Without signed heads nothing is complete, and a tail that was cut off leaves no trace."""
    sentences = " ".join(check(record([Story("a")])).not_vouched)

    assert "No signed head was checked" in sentences
    assert "AF_MESSAGES was read up to sequence 4: a tail cut off behind it leaves no trace" in sentences
    assert "leave no trace" in sentences


def test_a_rejected_goal_is_a_run_that_ended() -> None:
    """`goal.rejected` is terminal."""
    mesh = Mesh()
    list(mesh.rejected("nothing"))
    result = check(mesh.recording)

    assert (1, ()) == (result.runs, result.open_runs)


def test_a_command_that_is_not_sent_yet_is_a_warning() -> None:
    """Only the last commands of an open run may be on their way."""
    recording = record([Story("a", ("agent", "agent"))])
    result = check(Recording(recording.messages[:2]))

    assert result.ok
    (warning,) = result.warnings
    assert "to be sent, or lost" in warning.detail
    assert ("AF_MESSAGES", 2) == (warning.stream, warning.seq)


def test_a_plain_message_nobody_accounts_for_is_a_warning() -> None:
    """On `workflows.<id>.in` anyone may write; what the planner has not handled yet is not damage."""
    mesh = Mesh()
    list(mesh.run(Story("a")))
    mesh.put_plain("workflows.a.in", b"hello?")
    result = check(mesh.recording)

    assert result.ok
    (warning,) = result.warnings
    assert ("AF_MESSAGES", 5) == (warning.stream, warning.seq)
    assert "no decision accounts for" in warning.detail


def test_a_message_given_up_accounts_for_itself() -> None:
    """A plain message to an agent that ended as a dead letter is explained by it."""
    mesh = Mesh()
    mesh.dead_letter(mesh.put_plain("agents.helper.in", b"hello?"))
    result = check(mesh.recording)

    assert result.ok
    assert () == result.warnings
    assert 1 == result.adopted


JUNK_SUBJECTS = ["tools.calls.abc", "agents.helper.in.1", "workflows.p6.results.zzz"]


@pytest.mark.parametrize("subject", JUNK_SUBJECTS)
@pytest.mark.parametrize("kept", ["inline", "artifact"])
def test_junk_that_was_given_up_is_a_warning(subject: str, kept: str) -> None:
    """One stray publish must not fail every verification as long as its stream keeps it."""
    mesh = Mesh()
    junk = mesh.put_plain(subject, b"hello")
    before = check(mesh.recording)
    mesh.dead_letter(junk, body=f"artifact:sha256-{sha256_hex(junk.body)}" if kept == "artifact" else "")
    result = check(mesh.recording)

    assert (False, True, 0) == (before.ok, result.ok, result.adopted)
    (warning,) = result.warnings
    assert (junk.stream, junk.seq) == (warning.stream, warning.seq)
    assert "was refused, and is accounted for" in warning.detail


def test_junk_that_a_decision_refused_is_a_warning() -> None:
    """A result that is none: the decision lists the hash of its raw bytes and where it was read."""
    mesh = Mesh()
    mesh.refusal("p6", mesh.put_plain("workflows.p6.results.zzz", b"hello"))
    result = check(mesh.recording)

    assert (True, 0) == (result.ok, result.adopted)
    assert ["was refused" in warning.detail for warning in result.warnings] == [True]


@pytest.mark.parametrize("by_decision", [True, False])
def test_junk_that_is_refused_while_it_is_read_is_a_warning(by_decision: bool) -> None:
    """What was stored behind the noted ends accounts for what is before them."""
    mesh = Mesh()
    junk = mesh.put_plain("workflows.p6.results.zzz", b"hello")
    late = mesh.refusal("p6", junk) if by_decision else mesh.dead_letter(junk)
    result = check(Recording([junk]), late=Recording([late]))

    assert result.ok
    assert 1 == len(result.warnings)


def test_a_goal_sent_twice_is_a_warning() -> None:
    """A client may repeat itself: the planner takes the first and no evidence rests on the second."""
    recording = record([Story("a")])
    goal = recording.messages[0]
    recording.add(goal.stream, goal.subject, goal.body, goal.time)
    result = check(recording)

    assert result.ok
    (warning,) = result.warnings
    assert "a client's own chain" in warning.detail


def test_an_event_told_twice_is_a_warning() -> None:
    """Events are published without an expected sequence, so one may land twice after an unknown outcome."""
    mesh = Mesh()
    *_, event = mesh.lifecycle("helper", 2)
    mesh.recording.add(event.stream, event.subject, event.body, event.time)
    result = check(mesh.recording)

    assert result.ok
    assert ["AF_AGENTS"] == [warning.stream for warning in result.warnings]


def test_a_refused_envelope_that_verifies_raises_no_alarm() -> None:
    """A sealed message that has no place where it was put is refused by the hash of its raw bytes, not by its own."""
    mesh = Mesh()
    playing = mesh.run(Story("a", ("agent", "agent")))
    stored = [next(playing), next(playing)]
    decision = unseal(stored[-1].body)
    misplaced = envelope(StepCompleted(None), subjects.workflow_in("a"))
    junk = mesh.put(misplaced)
    refused = Consumed("01KDVDNA0MT7Z1N0E9Q4W2E3R4", sha256_hex(junk.body), "unknown/0", junk.subject, junk.seq)
    refusal = InputRejected(consumed=(refused,), code="schema.unexpected", message="no")
    place = ChainPlace(decision.envelope.chain, 1, decision.hash)
    cause = Ref(refused.id, refused.hash)
    mesh.put(mesh.seal(refusal, subjects.workflow_out("a"), place, workflow="a", causes=(cause,)))

    assert () == check(mesh.recording).damages


@pytest.mark.parametrize("names", [("AF_AUDIT",), ("AF_AGENTS",), ("AF_MESSAGES",)])
def test_what_was_not_checked_is_counted(names: tuple[str, ...]) -> None:
    """A single stream rests on others, and the result says so."""
    result = check(record([Story("a", ("agent_with_tools", "tool"))]), names)

    assert result.ok
    assert result.unchecked > 0
    assert any("not checked here (other stream)" in sentence for sentence in result.not_vouched)


def test_a_whole_history_leaves_nothing_unchecked() -> None:
    """Every place and every reference has its stream."""
    assert 0 == check(record([Story("a", ("agent_with_tools", "tool"))])).unchecked
