"""Every kind of damage to a recorded history is found, said to be of the right kind, and located.

Each test damages a generated history in one way at one place. "In place" leaves the other sequences as they were;
"recorded again" copies the damaged history, so that its sequences have no gap and only the hashes can tell.
"""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.chain import Link
from agentflow.envelope import ZERO_HASH, Envelope, Sealed, looks_sealed, seal, sha256_hex
from agentflow.payloads import TERMINAL
from agentflow.schemas import decode_payload
from agentflow_streams.continuity import Chains
from agentflow_streams.findings import Kind, Scope, StreamScope
from agentflow_streams.records import open_record
from agentflow_streams.verify import Verifier
from tests.streams.checking import at, check, kinds, scope_of, sealed_in
from tests.streams.histories import (
    START,
    Mesh,
    Recording,
    Stored,
    Story,
    altered,
    record,
    swapped,
    with_more,
    without,
)
from tests.streams.strategies import recordings

FULL = record(
    [
        Story("a", ("agent", "agent_with_tools", "tool", "failing", "signal"), junk=True),
        Story("b", ("agent_with_tools",), plain=True),
        Story("c", ("agent", "tool"), "cancelled"),
    ],
    [0, 1, 2, 0, 1] * 10,
)
"""A history with everything in it."""

ENDED = [Story("a", ("agent_with_tools", "tool", "agent"))]


def is_client(stored: Stored) -> bool:
    """Whether anyone may write there."""
    return stored.subject.endswith(".in")


def index_of(recording: Recording, schema: str, nth: int = 0) -> int:
    """Where the `nth` envelope of a schema is."""
    found = [index for index, sealed in sealed_in(recording).items() if sealed.envelope.schema == schema]
    return found[nth]


def resealed(sealed: Sealed, **changes: object) -> Sealed:
    """Somebody who may write everywhere changes members and seals again."""
    draft: Envelope = msgspec.structs.replace(sealed.envelope, **changes)
    return seal(draft)


# --- edited ----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_any_edited_byte_of_an_envelope_is_found(data: st.DataObject) -> None:
    """One byte, anywhere in any envelope, changed to anything else: edited, at that stream and sequence."""
    index = data.draw(st.sampled_from(sorted(sealed_in(FULL))))
    stored = FULL.messages[index]
    position = data.draw(st.integers(0, len(stored.body) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != stored.body[position]))
    body = stored.body[:position] + bytes([value]) + stored.body[position + 1 :]
    result = check(altered(FULL, index, body))

    assert not result.ok
    assert ["edited"] == [damage.kind for damage in at(result, stored.stream, stored.seq)]


@given(st.data())
def test_an_edited_payload_is_one_damage(data: st.DataObject) -> None:
    """What an edited envelope still says of its place is believed, so nothing else looks damaged because of it."""
    index = data.draw(st.sampled_from(sorted(sealed_in(FULL))))
    stored, sealed = FULL.messages[index], sealed_in(FULL)[index]
    payload = stored.body.index(bytes(sealed.envelope.payload))
    position = payload + data.draw(st.integers(0, len(bytes(sealed.envelope.payload)) - 1))
    body = stored.body[:position] + b"\x00" + stored.body[position + 1 :]
    (damage,) = check(altered(FULL, index, body)).damages

    assert ("edited", stored.stream, stored.seq) == (damage.kind, damage.stream, damage.seq)
    assert sealed.envelope.chain == damage.chain


def test_an_edited_hash_is_one_damage() -> None:
    """The next link tells which hash was the true one."""
    for index, sealed in sealed_in(FULL).items():
        stored = FULL.messages[index]
        flipped = "0" if sealed.hash[5] != "0" else "1"
        body = stored.body.replace(sealed.hash.encode(), (sealed.hash[:5] + flipped + sealed.hash[6:]).encode(), 1)
        result = check(altered(FULL, index, body))

        assert [("edited", stored.stream, stored.seq)] == [(d.kind, d.stream, d.seq) for d in result.damages]


@given(st.data())
def test_added_and_removed_bytes_are_found(data: st.DataObject) -> None:
    """Bytes put in or taken out, anywhere."""
    index = data.draw(st.sampled_from(sorted(sealed_in(FULL))))
    stored = FULL.messages[index]
    start = data.draw(st.integers(0, len(stored.body)))
    end = min(len(stored.body), start + data.draw(st.integers(0, 8)))
    more = data.draw(st.binary(max_size=4))
    body = stored.body[:start] + more + stored.body[end:]
    assume(body != stored.body)
    result = check(altered(FULL, index, body))

    assert at(result, stored.stream, stored.seq)


def test_a_plain_goal_that_was_edited_is_missing() -> None:
    """The decision that adopted it lists the hash of its raw bytes; what is there now, nobody accounts for."""
    recording = record([Story("a", plain=True)])
    goal = recording.messages[0]
    result = check(altered(recording, 0, goal.body.replace(b"support", b"payouts")))

    (damage,) = result.damages
    assert ("missing", "AF_MESSAGES", 2) == (damage.kind, damage.stream, damage.seq)
    assert "is not stored on workflows.a.in" in damage.detail
    assert ["no decision accounts for" in warning.detail for warning in result.warnings] == [True]


def test_a_command_that_is_not_the_one_decided_is_found() -> None:
    """A request that was sealed again with another input verifies by itself; the decision lists its payload's hash."""
    recording = record([Story("a", ("agent",), "open")])
    index = index_of(recording, "step.requested/1")
    sealed = sealed_in(recording)[index]
    payload = bytes(sealed.envelope.payload).replace(b'"text":"x"', b'"text":"y"')
    forged = resealed(sealed, payload=msgspec.Raw(payload))
    (damage,) = check(altered(recording, index, forged.body)).damages

    assert ("edited", "AF_AGENTS", 1) == (damage.kind, damage.stream, damage.seq)
    assert "its payload is not the one that decision" in damage.detail


# --- missing ---------------------------------------------------------------------------------------------------------


@given(recordings(), st.data())
def test_a_message_removed_in_place_is_found(recording: Recording, data: st.DataObject) -> None:
    """The sequence is named, unless it was the stream's last: that tail nobody vouches for."""
    index = data.draw(st.integers(0, len(recording.messages) - 1))
    stored = recording.messages[index]
    assume(stored != recording.of(stored.stream)[-1])
    assume(stored != recording.of(stored.stream)[0])
    result = check(without(recording, index))

    gap = [damage for damage in at(result, stored.stream, stored.seq) if damage.kind == "missing"]
    assert any(f"sequence {stored.seq} is not in the stream" in damage.detail for damage in gap)


def is_missed(recording: Recording, index: int) -> bool:
    """Whether anything refers to a message, or stands behind it in a chain that is not a client's own."""
    stored, sealed = recording.messages[index], sealed_in(recording).get(index)
    mine = sealed.envelope if sealed else None
    names = {sealed.envelope.id} if sealed else {sha256_hex(stored.body)}
    for other in (each.envelope for i, each in sealed_in(recording).items() if i != index):
        payload = decode_payload(other.schema, other.payload)
        consumed = getattr(payload, "consumed", ())
        named = {cause.id for cause in other.causes} | {each.hash for each in consumed} | {each.id for each in consumed}
        named |= {command.id for command in getattr(payload, "commands", ())}
        behind = mine is not None and other.chain == mine.chain and other.chain_seq > mine.chain_seq
        if (behind and not is_client(stored)) or names & named:
            return True
    return False


@given(recordings(), st.data())
def test_a_message_left_out_of_a_copy_is_found(recording: Recording, data: st.DataObject) -> None:
    """Without a gap in the sequences its chain, its effects or its decision miss it, exactly where anything can."""
    index = data.draw(st.integers(0, len(recording.messages) - 1))
    result = check(without(recording, index).renumbered())

    if any("it is still to be sent, or lost" in warning.detail for warning in result.warnings):
        assert result.ok
    elif is_missed(recording, index):
        assert {"missing"} == kinds(result)
    else:
        assert result.ok


@given(recordings(), st.data())
def test_a_last_word_left_out_leaves_a_run_open(recording: Recording, data: st.DataObject) -> None:
    """Nothing refers to the end of a run: without it the run is named as open, and as not vouched for."""
    ends = [index for index, sealed in sealed_in(recording).items() if sealed.envelope.schema in TERMINAL]
    assume(ends)
    index = data.draw(st.sampled_from(ends))
    workflow = sealed_in(recording)[index].workflow_id
    result = check(without(recording, index).renumbered())

    assert workflow not in {run.workflow for run in check(recording).open_runs}
    assert workflow in {run.workflow for run in result.open_runs}
    assert any(f"Run {workflow} is open" in sentence for sentence in result.not_vouched)


@pytest.mark.parametrize(
    ("schema", "chain", "words"),
    [
        ("goal.submitted/1", "workflow:a:", "its input"),
        ("goal.accepted/1", "workflow:a:", "not place 0"),
        ("run.advanced/1", "workflow:a:", "not place 1"),
        ("step.requested/1", "workflow:a:", "its command"),
        ("step.completed/1", "workflow:a:", "its input"),
        ("tool.requested/1", "handling:", "not place 0"),
        ("tool.intent/1", "audit:", "not place 0"),
        ("tool.outcome/1", "handling:", "its cause"),
        ("tool.completed/1", "handling:", "its cause"),
    ],
)
def test_whatever_is_left_out_of_a_run_is_missed(schema: str, chain: str, words: str) -> None:
    """Each kind of envelope is missed by its chain, by what it caused, or by the decision that lists it."""
    recording = record(ENDED)
    result = check(without(recording, index_of(recording, schema)).renumbered())

    assert {"missing"} == kinds(result)
    assert any(damage.chain.startswith(chain) and words in damage.detail for damage in result.damages)


def test_a_missing_message_is_told_once_for_all_that_refer_to_it() -> None:
    """A request that is gone is missed by its decision and by its result; one of them tells."""
    recording = record([Story("a")])
    result = check(without(recording, index_of(recording, "step.requested/1")).renumbered())

    assert 1 <= len(result.damages) <= 2
    assert {"missing"} == kinds(result)


def test_the_end_of_a_stream_that_was_not_delivered_is_missing() -> None:
    """The broker said where the stream ends; a last message it cannot read back is damage, not a shorter stream."""
    recording = record([Story("a")])
    scope = Scope(tuple(scope_of(recording, name) for name in ("AF_MESSAGES", "AF_AGENTS")))
    verifier = Verifier(scope)
    last = recording.of("AF_MESSAGES")[-1]
    for each in recording.messages:
        if each is not last:
            verifier.add(open_record(each.stream, each.seq, each.subject, each.body))

    assert [("missing", last.seq)] == [(damage.kind, damage.seq) for damage in verifier.finish().damages]


def test_what_expired_while_it_was_read_is_not_missing() -> None:
    """The front of a stream may go while it is read; what is behind the front must be there."""
    recording = record([Story("a", ("agent", "agent"))])
    scope = Scope((scope_of(recording, "AF_AGENTS"),))
    verifier = Verifier(scope)
    (_, second) = recording.of("AF_AGENTS")
    verifier.add(open_record(second.stream, second.seq, second.subject, second.body))

    assert () == verifier.finish({"AF_AGENTS": 2}).damages
    assert {"missing"} == kinds(verifier.finish({"AF_AGENTS": 1}))


# --- moved, foreign --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", sorted(sealed_in(FULL)))
def test_a_moved_envelope_is_one_damage(index: int) -> None:
    """Stored under another subject of its stream it is moved, and holds its place all the same."""
    stored = FULL.messages[index]
    elsewhere = {
        "AF_MESSAGES": "workflows.other.results.1",
        "AF_AGENTS": "agents.other.in.1",
        "AF_AUDIT": "tools.calls.1",
    }
    result = check(altered(FULL, index, stored.body, elsewhere[stored.stream]))

    assert [("moved", stored.stream, stored.seq)] == [(d.kind, d.stream, d.seq) for d in result.damages]
    assert f"was sealed for {stored.subject}" in result.damages[0].detail


@pytest.mark.parametrize("index", sorted(sealed_in(FULL)))
def test_a_copy_of_an_envelope_elsewhere_is_moved(index: int) -> None:
    """A replayed envelope is told as moved; the original is not suspected."""
    stored = FULL.messages[index]
    result = check(with_more(FULL, "AF_PROTOCOLS", "protocols.cnp.x", stored.body))

    assert [("moved", "AF_PROTOCOLS", 1)] == [(d.kind, d.stream, d.seq) for d in result.damages]


@given(st.sampled_from(["workflows.a.out", "agents.helper.in.1", "tools.audit.1", "dead.X.y"]), st.binary(max_size=200))
def test_what_the_mesh_did_not_write_is_foreign(subject: str, body: bytes) -> None:
    """Bytes of any kind, where only the mesh may write; what looks like an envelope is told as an edited one."""
    assume(not looks_sealed(body))
    stream = subjects.stream_of(subject)
    recording = with_more(FULL, stream, subject, body)
    added = recording.messages[-1]
    (damage,) = check(recording).damages

    assert ("foreign", stream, added.seq, "") == (damage.kind, damage.stream, damage.seq, damage.chain)


def test_a_payload_that_breaks_its_schema_is_foreign() -> None:
    """Nothing the mesh writes: compose refuses it before it is sealed."""
    index = index_of(FULL, "tool.intent/1")
    forged = resealed(sealed_in(FULL)[index], payload=msgspec.Raw(b'{"tool":7}'))
    result = check(altered(FULL, index, forged.body))

    (damage,) = at(result, FULL.messages[index].stream, FULL.messages[index].seq)
    assert "foreign" == damage.kind
    assert "breaks tool.intent/1" in damage.detail


def test_an_unknown_schema_is_a_warning() -> None:
    """A newer mesh may write it; its hash, subject and place are checked, its payload cannot be."""
    mesh = Mesh()
    *_, _ = mesh.lifecycle("helper", 1)
    newer = resealed(sealed_in(mesh.recording)[0], schema="component.lifecycle/9", payload=msgspec.Raw(b"{}"))
    result = check(altered(mesh.recording, 0, newer.body))

    assert result.ok
    assert ["component.lifecycle/9 is not known here" in warning.detail for warning in result.warnings] == [True]


# --- accounted for, or not ---------------------------------------------------------------------------------------------


def letters(junk: Stored, wrong: str) -> list[Stored]:
    """Letters and decisions that nearly account for some junk."""
    mesh = Mesh()
    about = {
        "bytes": replace(junk, body=b"other"),
        "sequence": replace(junk, seq=junk.seq + 1),
        "stream": replace(junk, stream="AF_PROTOCOLS"),
        "subject": replace(junk, subject="workflows.p7.results.zzz"),
    }.get(wrong, junk)
    if wrong == "subject":
        return [mesh.refusal("p6", about)]
    if wrong == "writer":
        return [mesh.dead_letter(junk, subject="workflows.p6.in"), mesh.dead_letter(junk, subject="agents.x.out")]
    if wrong == "hash":
        return [mesh.refusal("p6", replace(junk, body=b"other"))]
    return [mesh.dead_letter(about)]


@pytest.mark.parametrize("wrong", ["bytes", "sequence", "stream", "subject", "writer", "hash"])
def test_junk_that_nothing_accounts_for_exactly_is_foreign(wrong: str) -> None:
    """The same bytes, the same place, and a letter or a decision where only the mesh may write one."""
    recording = Recording()
    junk = recording.add("AF_MESSAGES", "workflows.p6.results.zzz", b"hello", START)
    for letter in letters(junk, wrong):
        recording.add(subjects.stream_of(letter.subject), letter.subject, letter.body, letter.time)
    found = [damage.kind for damage in at(check(recording), junk.stream, junk.seq)]

    assert ["foreign"] == found


def with_letter(recording: Recording, about: Stored) -> Recording:
    """A consumer gave a message up, as it was then."""
    letter = Mesh().dead_letter(about)
    return with_more(recording, letter.stream, letter.subject, letter.body)


@pytest.mark.parametrize("index", sorted(sealed_in(FULL)))
def test_a_letter_about_the_true_bytes_does_not_excuse_an_edit(index: int) -> None:
    """Somebody edits an envelope that a consumer had given up: its bytes are not the letter's."""
    stored = FULL.messages[index]
    edited = altered(FULL, index, stored.body.replace(b'"trace_id":"', b'"trace_id":"x', 1))

    assert check(with_letter(FULL, stored)).ok
    assert ["edited"] == [each.kind for each in at(check(with_letter(edited, stored)), stored.stream, stored.seq)]


@pytest.mark.parametrize(
    "index", [i for i in sorted(sealed_in(FULL)) if is_missed(FULL, i) and not is_client(FULL.messages[i])]
)
def test_a_letter_about_the_edited_bytes_does_not_hide_what_they_replaced(index: int) -> None:
    """The edit was given up, and is accounted for; the envelope that it was is missing all the same."""
    stored = FULL.messages[index]
    edited = altered(FULL, index, stored.body.replace(b'"trace_id":"', b'"trace_id":"x', 1))
    result = check(with_letter(edited, edited.messages[index]))

    assert "missing" in kinds(result)
    assert not at(result, stored.stream, stored.seq)


@pytest.mark.parametrize("schema", ["tool.requested/1", "step.requested/1"])
def test_refused_junk_with_an_id_does_not_cover_a_forged_foundation(schema: str) -> None:
    """Junk that names an envelope and was given up must not keep that envelope's chains from being compared with it."""
    index = index_of(FULL, schema)
    stored, sealed = FULL.messages[index], sealed_in(FULL)[index]
    forged = altered(FULL, index, resealed(sealed, to="somebody-else").body)
    posed = with_more(forged, "AF_AUDIT", "tools.calls.zzz", stored.body[:-1] + b" }")
    told = [damage for damage in check(forged).damages if "the chain rests on" in damage.detail]

    assert told
    assert set(told) <= set(check(with_letter(posed, posed.messages[-1])).damages)


def test_what_a_client_writes_does_not_stand_for_what_is_missing() -> None:
    """A sealed message that breaks its schema, under the id of a request that is gone: anyone may write it there."""
    index = index_of(FULL, "step.requested/1")
    gone = without(FULL, index).renumbered()
    posed = resealed(sealed_in(FULL)[index], subject="workflows.a.in", payload=msgspec.Raw(b'{"x":1}'))
    result = check(with_more(gone, "AF_MESSAGES", "workflows.a.in", posed.body))

    assert set(check(gone).damages) <= set(result.damages)


# --- duplicated, reordered, branched, unlinked -----------------------------------------------------------------------


@given(recordings(), st.data())
def test_a_message_stored_twice_is_found(recording: Recording, data: st.DataObject) -> None:
    """Where only the mesh writes, every message is stored once."""
    guarded = [index for index in sealed_in(recording) if not is_client(recording.messages[index])]
    stored = recording.messages[data.draw(st.sampled_from(guarded))]
    again = with_more(recording, stored.stream, stored.subject, stored.body)
    added = again.messages[-1]
    (damage,) = check(again).damages

    assert ("duplicated", added.stream, added.seq) == (damage.kind, damage.stream, damage.seq)
    assert f"{stored.stream}:{stored.seq}" in damage.detail


@given(recordings(), st.data())
def test_two_swapped_messages_of_a_chain_are_found(recording: Recording, data: st.DataObject) -> None:
    """Places of a chain in the wrong order, told at the one that now stands behind what came after it."""
    envelopes = sealed_in(recording)
    pairs = [
        (one, other)
        for one, first in envelopes.items()
        for other, second in envelopes.items()
        if (first.envelope.chain, recording.messages[one].stream)
        == (second.envelope.chain, recording.messages[other].stream)
        and first.envelope.chain_seq < second.envelope.chain_seq
        and not is_client(recording.messages[one])
    ]
    assume(pairs)
    one, other = data.draw(st.sampled_from(pairs))
    result = check(swapped(recording, one, other))

    assert kinds(result) == {"reordered"}
    place = recording.messages[other]
    chain = envelopes[one].envelope.chain
    assert chain in {damage.chain for damage in at(result, place.stream, place.seq)}


@given(recordings(), st.data())
def test_a_cause_stored_behind_its_effect_is_found(recording: Recording, data: st.DataObject) -> None:
    """An input swapped with the decision that consumed it, a call with its audit."""
    envelopes = sealed_in(recording)
    by_id = {sealed.envelope.id: index for index, sealed in envelopes.items()}
    pairs = [
        (by_id[cause.id], index)
        for index, sealed in envelopes.items()
        for cause in sealed.envelope.causes
        if cause.id in by_id and recording.messages[by_id[cause.id]].stream == recording.messages[index].stream
    ]
    assume(pairs)
    one, other = data.draw(st.sampled_from(pairs))
    result = check(swapped(recording, one, other))

    assert "reordered" in kinds(result)


def test_two_swapped_inputs_of_different_runs_are_found() -> None:
    """No chain and no cause ties them, but the decisions say at which sequence each was read."""
    recording = record([Story("a"), Story("b", plain=True)], [0, 1])
    result = check(swapped(recording, 0, 1))

    (damage,) = result.damages
    assert ("reordered", "AF_MESSAGES", 2) == (damage.kind, damage.stream, damage.seq)


@given(st.data())
def test_a_second_envelope_at_one_place_is_a_branch(data: st.DataObject) -> None:
    """Two writers on one chain, both sealed properly."""
    guarded = [index for index in sealed_in(FULL) if not is_client(FULL.messages[index])]
    index = data.draw(st.sampled_from(guarded))
    sealed, stored = sealed_in(FULL)[index], FULL.messages[index]
    other = resealed(sealed, to="somebody-else")
    recording = with_more(FULL, stored.stream, stored.subject, other.body)
    added = recording.messages[-1]
    (damage,) = [each for each in check(recording).damages if each.seq == added.seq and each.stream == added.stream]

    assert ("branched", sealed.envelope.chain) == (damage.kind, damage.chain)


@given(st.data())
def test_an_envelope_that_was_changed_and_sealed_again_is_unlinked(data: st.DataObject) -> None:
    """It verifies by itself; whatever rests on it does not rest on it any more."""
    envelopes = sealed_in(FULL)
    named = {cause.id for sealed in envelopes.values() for cause in sealed.envelope.causes}
    index = data.draw(st.sampled_from([i for i, s in envelopes.items() if s.envelope.id in named]))
    forged = resealed(envelopes[index], to="somebody-else")
    result = check(altered(FULL, index, forged.body))

    assert kinds(result) == {"unlinked"}
    assert all(damage.chain for damage in result.damages)


@pytest.mark.parametrize("kind", ["decision:", "handling:", "audit:"])
def test_a_chain_rests_on_the_envelope_it_is_named_after(kind: str) -> None:
    """Place 0 carries that envelope's hash; another hash is told even where the causes are right."""
    envelopes = sealed_in(FULL)
    index = next(i for i, s in envelopes.items() if s.envelope.chain.startswith(kind) and s.envelope.chain_seq == 0)
    forged = resealed(envelopes[index], prev_hash="1" * 64)
    stored = FULL.messages[index]
    result = check(altered(FULL, index, forged.body))

    assert any("the chain rests on" in damage.detail for damage in at(result, stored.stream, stored.seq))
    assert "unlinked" in kinds(result)


# --- partial reads ---------------------------------------------------------------------------------------------------


def damaged_audit() -> Recording:
    """An intent was left out; its whole chain is on AF_AUDIT."""
    return without(FULL, index_of(FULL, "tool.intent/1")).renumbered()


def test_a_gap_that_must_be_in_the_stream_read_is_damage() -> None:
    """An audit chain lives on AF_AUDIT alone."""
    result = check(damaged_audit(), ["AF_AUDIT"])

    assert {"missing"} == kinds(result)
    assert all(damage.chain.startswith("audit:") for damage in result.damages)


@given(recordings(), st.data())
def test_a_gap_in_a_copy_under_another_name_is_damage(recording: Recording, data: st.DataObject) -> None:
    """Whatever a stream is called: where it has a chain that lives on one stream, it must have every place."""
    envelopes = sealed_in(recording)
    behind = [
        index
        for index, sealed in envelopes.items()
        if sealed.envelope.chain.startswith(("workflow:", "audit:"))
        and any(
            other.envelope.chain == sealed.envelope.chain and other.envelope.chain_seq > sealed.envelope.chain_seq
            for other in envelopes.values()
        )
    ]
    assume(behind)
    index = data.draw(st.sampled_from(behind))
    home = recording.messages[index].stream
    result = check(copied(without(recording, index), home), ["COPY"])

    assert check(copied(recording, home), ["COPY"]).ok
    assert envelopes[index].envelope.chain in {each.chain for each in result.damages if each.kind == "missing"}


def test_a_chain_of_one_stream_lives_where_it_is_found() -> None:
    """Even where nothing says what the stream is a copy of."""
    chains, place = Chains(), Link("COPY", 1, "x", "a" * 64, "workflow:r1:x", 0, ZERO_HASH)
    chains.add(place)
    chains.add(msgspec.structs.replace(place, seq=2, id="y", place=2, prev_hash="b" * 64))
    (damage,) = chains.judge(Scope((StreamScope("COPY", (), 1, 2),)), {})

    assert ("missing", "COPY", 2, 0) == (damage.kind, damage.stream, damage.seq, chains.elsewhere)


def copied(recording: Recording, stream: str) -> Recording:
    """What a stream has, in one of another name, with sequences of its own."""
    return Recording([replace(each, stream="COPY") for each in recording.of(stream)]).renumbered()


def test_a_gap_that_another_stream_may_fill_is_not_damage() -> None:
    """The step's result is behind its tool calls, which are on AF_AUDIT."""
    recording = without(FULL, index_of(FULL, "tool.requested/1")).renumbered()

    assert check(recording, ["AF_MESSAGES"]).ok
    assert not check(recording).ok


DECISION, REQUEST = index_of(FULL, "run.advanced/1"), index_of(FULL, "step.requested/1")
DAMAGES: list[tuple[Callable[[Recording], Recording], Kind]] = [
    (lambda whole: altered(whole, REQUEST, whole.messages[REQUEST].body.replace(b"somebody", b"nobodies")), "edited"),
    (lambda whole: without(whole, REQUEST), "missing"),
    (lambda whole: without(whole, DECISION).renumbered(), "missing"),
    (lambda whole: altered(whole, DECISION, whole.messages[DECISION].body, "workflows.z.out"), "moved"),
    (lambda whole: with_more(whole, "AF_AUDIT", "tools.audit.x", b"{}"), "foreign"),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGES)
def test_every_damage_says_where_it_is(damage: Callable[[Recording], Recording], kind: Kind) -> None:
    """Stream, sequence, kind and a sentence; the chain wherever it is known."""
    result = check(damage(FULL))
    assert kind in kinds(result)
    for each in result.damages:
        assert each.stream.startswith("AF_")
        assert each.seq > 0
        assert each.detail
        assert each.chain or each.kind in ("foreign", "missing")
