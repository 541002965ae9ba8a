"""Sound envelopes that somebody else made: refused on record they are a warning, and hold no place; else they are damage."""

import base64

import pytest

from agentflow import subjects
from agentflow.chain import workflow_chain
from agentflow.envelope import ChainPlace, Sealed
from agentflow.errors import InputError
from agentflow.mesh.publishing import store
from agentflow.payloads import DeadLetter, RunSignalled, StepCompleted, ToolRequested
from agentflow.schemas import payload_as
from agentflow.testing import FixedClock, envelope, memory_mesh
from agentflow_detector.doorkeeping import Doorkeeper
from agentflow_detector.letters import Junk
from agentflow_streams.findings import Verification
from agentflow_streams.verification import verify
from tests.streams.checking import check, sealed_in
from tests.streams.histories import START, Mesh, Recording, Stored, with_more
from tests.streams.test_damage import FULL, index_of

RESULT = "workflows.a.results.zzz"


def told(found: Verification) -> list[tuple[str, str]]:
    """Kinds of damage, and their streams."""
    return [(damage.kind, damage.stream) for damage in found.damages]


def posing(subject: str) -> Sealed:
    """An envelope that claims the second place of a run's own chain."""
    first = sealed_in(FULL)[index_of(FULL, "goal.accepted/1")]
    place = ChainPlace(first.envelope.chain, 1, first.hash)
    return envelope(RunSignalled("go"), subject, sender="mallory", place=place)


def stored(recording: Recording, subject: str, body: bytes) -> tuple[Recording, Stored]:
    """The recording with one more message."""
    more = with_more(recording, subjects.stream_of(subject), subject, body)
    return more, more.messages[-1]


def letter(recording: Recording, about: Stored, code: str) -> Recording:
    """The recording with a dead letter about a message."""
    payload = DeadLetter(
        about.stream, "strays", about.seq, about.subject, 1, code, "no", base64.b64encode(about.body).decode()
    )
    sealed = envelope(payload, subjects.dead(about.stream, "strays"), sender="detector")
    assert payload_as(sealed, DeadLetter) == payload
    return stored(recording, sealed.envelope.subject, sealed.body)[0]


def refused(recording: Recording, about: Stored) -> Recording:
    """The recording with a refusal of the planner about a message, as a chain of another run's."""
    refusal = Mesh().refusal("elsewhere", about)
    return stored(recording, refusal.subject, refusal.body)[0]


def test_a_forged_result_that_was_refused_is_a_warning_and_does_not_branch_the_chain() -> None:
    """Unrefused it is damage: nobody has accounted for it."""
    forged = posing(RESULT)
    recording, junk = stored(FULL, RESULT, forged.body)
    assert ("branched", "AF_MESSAGES") in told(check(recording))
    found = check(refused(recording, junk))
    assert [] == told(found)
    assert [("AF_MESSAGES", junk.seq)] == [(each.stream, each.seq) for each in found.warnings]


@pytest.mark.parametrize(
    "code", ["call.misplaced", "call.reply_to", "stray.chain", "schema.unexpected", "audit.foreign"]
)
def test_a_forged_call_that_was_given_up_as_a_strangers_is_a_warning(code: str) -> None:
    """The letter has its bytes and its place."""
    recording, junk = stored(FULL, "tools.calls.zzz", posing("tools.calls.zzz").body)
    assert ("branched", "AF_AUDIT") in told(check(recording))
    assert [] == told(check(letter(recording, junk, code)))


@pytest.mark.parametrize("code", ["delivery.exhausted", "envelope.too_large", "artifact.missing", "result.taken"])
def test_a_letter_that_a_true_message_can_have_too_excuses_nothing(code: str) -> None:
    """A message of the mesh may be given up for these; its place in its chain is a place all the same."""
    recording, junk = stored(FULL, "tools.calls.zzz", posing("tools.calls.zzz").body)
    assert ("branched", "AF_AUDIT") in told(check(letter(recording, junk, code)))


def test_a_letter_about_other_bytes_or_another_place_excuses_nothing() -> None:
    """As for junk that is no envelope."""
    recording, junk = stored(FULL, "tools.calls.zzz", posing("tools.calls.zzz").body)
    for wrong in (
        Stored(junk.stream, junk.seq + 1, junk.subject, junk.body, START),
        Stored(junk.stream, junk.seq, junk.subject, posing("tools.calls.yyy").body, START),
    ):
        assert ("branched", "AF_AUDIT") in told(check(letter(recording, wrong, "stray.chain")))


def test_disowning_a_true_message_shows_as_a_gap() -> None:
    """A forged letter about a decision of the mesh does not make it go away unseen."""
    index = index_of(FULL, "run.advanced/1")
    found = check(letter(FULL, FULL.messages[index], "stray.chain"))
    assert ("missing", "AF_MESSAGES") in told(found)


def test_an_envelope_moved_where_the_mesh_writes_and_given_up_is_a_warning() -> None:
    """It was sealed for another subject: whoever put it there, nobody took it."""
    copied = FULL.messages[index_of(FULL, "step.requested/1")].body
    recording, junk = stored(FULL, "tools.calls.zzz", copied)
    assert [("moved", "AF_AUDIT")] == told(check(recording))
    assert [] == told(check(letter(recording, junk, "envelope.moved")))


@pytest.mark.parametrize("body", [b"junk", b'{"goal":"x"}'])
def test_foreign_bytes_among_a_runs_decisions_stay_damage(body: bytes) -> None:
    """No letter mends that: the run cannot be folded any more."""
    recording, junk = stored(FULL, "workflows.a.out", body)
    assert [("foreign", "AF_MESSAGES")] == told(check(recording))
    assert [("foreign", "AF_MESSAGES")] == told(check(letter(recording, junk, "envelope.not_sealed")))


def test_what_a_client_claims_is_no_run() -> None:
    """An envelope on a run's `in` that says it is a run's first decision opens none, and ends none."""
    place = workflow_chain("ghost", "01KE0000000000000000000009")
    forged = envelope(ToolRequested("x", {}, "never"), "workflows.ghost.in", place=place)
    before, after = check(FULL), check(stored(FULL, "workflows.ghost.in", forged.body)[0])
    assert (before.runs, before.open_runs) == (after.runs, after.open_runs)


async def test_a_run_that_is_nothing_but_a_refused_envelope_is_no_open_run() -> None:
    """A sound envelope of another schema among decisions, refused by a letter: verification ends with an answer."""
    clock = FixedClock()
    async with memory_mesh(clock=clock) as mesh:
        place = ChainPlace("workflow:run-1:01KDVDNA02631XNZQF8GB5RGHN")
        forged = envelope(StepCompleted({"x": 1}), "workflows.run-1.out", sender="planner", place=place)
        stored = await store(mesh, forged)
        message = await mesh.get("AF_MESSAGES", stored.seq)
        assert message is not None
        keeper, junk = Doorkeeper(mesh), Junk(message)
        with pytest.raises(InputError) as refused:
            await keeper.handle(junk)
        await keeper.give_up(junk, refused.value.error_code, refused.value.message)
        verified = await verify(mesh, now=clock.now())
    assert verified.open_runs == ()
