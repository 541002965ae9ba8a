"""The effect ledger's rules, one by one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import pytest

from agentflow.clock import format_time
from agentflow.envelope import encode_payload, sha256_hex
from agentflow.errors import EvidenceError
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, Failure, ToolCompleted, ToolFailed
from agentflow.registry import Effect
from agentflow_executor.ledger import (
    CLOCK_SLACK,
    Answer,
    Check,
    Conclude,
    Hand,
    Ledger,
    Record,
    Run,
    Situation,
    Wait,
    abandon,
    completed,
    decide,
    evolve,
    failed,
    refuse,
    result_sha256,
    unknown,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRES = NOW + timedelta(seconds=5)
PAST = EXPIRES + CLOCK_SLACK
ONCE: list[Effect] = ["compensable", "irreversible"]
OFTEN: list[Effect] = ["pure", "idempotent"]
FAILURE = Failure("tool.crashed", "Crashed", "gone", "tool")


def situation(effect: Effect = "irreversible", *, checkable: bool = True, seconds: float = 60) -> Situation:
    """A call whose deadline is `seconds` away."""
    return Situation("send", "ab" * 32, effect, checkable, NOW + timedelta(seconds=seconds))


def intent(execution: int = 1, effect: Effect = "irreversible") -> AuditIntent:
    """An intent that expires in five seconds."""
    return AuditIntent("send", "1.0.0", effect, "agent", "ab" * 32, "cd" * 32, execution, format_time(EXPIRES))


def said(happened: bool | None, **more: Any) -> AuditReconciled:
    """What a check said."""
    return AuditReconciled("send", happened, **more)


def fold(*records: Record) -> Ledger:
    """The ledger behind some records."""
    return reduce(evolve, records, Ledger())


DONE = completed(situation(), {"output": {"sent": True}})
BROKEN = failed(situation(), FAILURE)


# --- a call nothing was done about ---------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["idempotent", *ONCE])
def test_an_effect_begins_with_an_intent(effect: Effect) -> None:
    """Nothing with an effect runs before it is written down."""
    assert Run(1, intent=True) == decide(Ledger(), situation(effect), NOW)


def test_a_pure_call_needs_no_intent() -> None:
    """Its repetition changes nothing."""
    assert Run(1, intent=False) == decide(Ledger(), situation("pure"), NOW)


@pytest.mark.parametrize("effect", [*OFTEN, *ONCE])
def test_nothing_starts_after_the_deadline(effect: Effect) -> None:
    """The call is refused, and may be sent again with another deadline."""
    action = decide(Ledger(), situation(effect, seconds=0), NOW)

    assert isinstance(action, Conclude)
    assert "refused" == action.outcome.status
    assert action.outcome.error is not None
    assert ("tool.deadline_passed", True) == (action.outcome.error.code, action.outcome.error.retryable)


# --- an outcome is final -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [DONE, BROKEN, unknown(situation(), "lost")])
def test_a_recorded_outcome_is_the_answer_for_ever(outcome: AuditOutcome) -> None:
    """Whatever a process has in hand, and however late it is."""
    ledger = fold(intent(), outcome)
    hand = Hand(1, completed(situation(), {"output": 2}), certain=True)

    assert Answer(outcome) == decide(ledger, situation(), NOW)
    assert Answer(outcome) == decide(ledger, situation(seconds=-9), PAST, hand)


# --- an open intent ------------------------------------------------------------------------------------------------


def test_an_idempotent_call_runs_again() -> None:
    """At once, with a new intent."""
    assert Run(2, intent=True) == decide(fold(intent(effect="idempotent")), situation("idempotent"), NOW)


def test_an_idempotent_call_that_cannot_run_again_in_time_is_unknown() -> None:
    """What its first execution did is known to nobody, so it is no refusal; also behind an execution that never started."""
    for ledger in (
        fold(intent(effect="idempotent")),
        fold(intent(effect="idempotent"), intent(2, "idempotent"), said(False)),
    ):
        action = decide(ledger, situation("idempotent", seconds=0), NOW)

        assert isinstance(action, Conclude)
        assert "unknown" == action.outcome.status
        assert action.outcome.error is not None
        assert not action.outcome.error.retryable


def test_a_refusal_stands_where_nothing_can_have_happened() -> None:
    """Without an intent, or behind a check that said no."""
    for ledger in (Ledger(), fold(intent(), said(False))):
        assert Conclude(BROKEN) == refuse(ledger, situation(), BROKEN, NOW, PAST)


def test_a_refused_call_whose_effect_may_have_happened_waits_and_is_unknown_at_last() -> None:
    """Until the refusal ends, or nobody can act any more, but not beyond the deadline."""
    ledger, call = fold(intent(effect="idempotent")), situation("idempotent", seconds=30)
    block, deadline = NOW + timedelta(seconds=20), NOW + timedelta(seconds=30)

    assert Wait(block) == refuse(ledger, call, BROKEN, NOW, block)
    assert Wait(deadline) == refuse(ledger, call, BROKEN, NOW, deadline + timedelta(hours=1))
    assert Wait(PAST) == refuse(ledger, call, BROKEN, NOW)
    for late in (
        refuse(ledger, call, BROKEN, deadline, deadline + timedelta(hours=1)),
        refuse(ledger, call, BROKEN, PAST),
    ):
        assert isinstance(late, Conclude)
        assert "unknown" == late.outcome.status


@pytest.mark.parametrize("effect", ONCE)
def test_an_open_effect_is_left_alone_until_nobody_can_act(effect: Effect) -> None:
    """Until its intent has expired by more than clocks differ."""
    ledger = fold(intent(effect=effect))

    assert Wait(PAST) == decide(ledger, situation(effect), NOW)
    assert Wait(PAST) == decide(ledger, situation(effect), PAST - timedelta(microseconds=1))
    assert Check(1) == decide(ledger, situation(effect), PAST)


@pytest.mark.parametrize("effect", ONCE)
def test_without_a_check_an_open_effect_is_for_a_person(effect: Effect) -> None:
    """The outcome is `unknown`, and trying again is not offered."""
    action = decide(fold(intent(effect=effect)), situation(effect, checkable=False), PAST)

    assert isinstance(action, Conclude)
    assert "unknown" == action.outcome.status
    assert action.outcome.error is not None
    assert ("effect.outcome_unknown", False) == (action.outcome.error.code, action.outcome.error.retryable)


def test_the_intents_own_word_on_its_effect_counts() -> None:
    """A tool that calls itself idempotent since is still reconciled for what it was when it ran."""
    assert Check(1) == decide(fold(intent(effect="irreversible")), situation("idempotent"), PAST)


def test_the_deadline_does_not_excuse_from_finding_out() -> None:
    """An effect that may have happened is looked for, also when the caller waits no more."""
    assert Check(1) == decide(fold(intent()), situation(seconds=0), PAST)


# --- what the check said -------------------------------------------------------------------------------------------


def test_an_effect_that_happened_is_completed_with_the_checks_output() -> None:
    """The caller gets what the check found."""
    action = decide(fold(intent(), said(True, result={"output": {"sent": True}})), situation(), PAST)

    assert Conclude(DONE) == action


def test_an_effect_that_happened_with_a_useless_output_is_a_failure_that_is_not_retried() -> None:
    """It happened, so it must not happen again."""
    action = decide(fold(intent(), said(True, detail="no good", result={"error": "x"})), situation(), PAST)

    assert isinstance(action, Conclude)
    assert action.outcome.error is not None
    assert ("tool.output_invalid", False) == (action.outcome.error.code, action.outcome.error.retryable)


def test_an_effect_that_did_not_happen_runs_with_a_new_intent() -> None:
    """The second execution."""
    assert Run(2, intent=True) == decide(fold(intent(), said(False)), situation(), PAST)


def test_an_effect_that_did_not_happen_in_time_is_refused() -> None:
    """The deadline has passed meanwhile."""
    action = decide(fold(intent(), said(False)), situation(seconds=0), PAST)

    assert isinstance(action, Conclude)
    assert "refused" == action.outcome.status


def test_a_check_that_cannot_tell_leaves_it_to_a_person() -> None:
    """Its words are passed on."""
    action = decide(fold(intent(), said(None, detail="the bank is closed")), situation(), PAST)

    assert isinstance(action, Conclude)
    assert "unknown" == action.outcome.status
    assert action.outcome.error is not None
    assert "the bank is closed" in action.outcome.error.message


def test_the_second_intent_is_as_open_as_the_first_was() -> None:
    """What the check said about execution 1 says nothing about execution 2."""
    ledger = fold(intent(), said(False), intent(2))

    assert Wait(PAST) == decide(ledger, situation(), NOW)
    assert Check(2) == decide(ledger, situation(), PAST)


# --- with an execution in hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [*OFTEN, *ONCE])
def test_what_was_seen_is_recorded(effect: Effect) -> None:
    """An output becomes the outcome."""
    ledger = fold(intent(effect=effect)) if effect != "pure" else Ledger()

    assert Conclude(DONE) == decide(ledger, situation(effect), NOW, Hand(1, DONE, certain=True))


@pytest.mark.parametrize("effect", ONCE)
def test_a_failure_that_may_hide_an_effect_is_checked_at_once(effect: Effect) -> None:
    """The child is gone, so there is nobody to wait for."""
    hand = Hand(1, BROKEN, certain=False)

    assert Check(1) == decide(fold(intent(effect=effect)), situation(effect), NOW, hand)


@pytest.mark.parametrize("effect", OFTEN)
def test_a_failure_of_a_repeatable_call_is_just_a_failure(effect: Effect) -> None:
    """It may be tried again whatever happened."""
    ledger = fold(intent(effect=effect)) if effect != "pure" else Ledger()

    assert Conclude(BROKEN) == decide(ledger, situation(effect), NOW, Hand(1, BROKEN, certain=False))


def test_a_failure_the_tool_vouches_for_is_recorded() -> None:
    """It said itself that nothing happened."""
    assert Conclude(BROKEN) == decide(fold(intent()), situation(), NOW, Hand(1, BROKEN, certain=True))


def test_the_checks_no_makes_an_uncertain_failure_certain() -> None:
    """The original failure is given to the caller, who decides on another try."""
    hand = Hand(1, BROKEN, certain=False)

    assert Conclude(BROKEN) == decide(fold(intent(), said(False)), situation(), NOW, hand)


def test_without_a_check_an_uncertain_failure_is_unknown() -> None:
    """And says what was seen."""
    action = decide(fold(intent()), situation(checkable=False), NOW, Hand(1, BROKEN, certain=False))

    assert isinstance(action, Conclude)
    assert "unknown" == action.outcome.status
    assert action.outcome.error is not None
    assert "tool.crashed" in action.outcome.error.message


def test_an_output_in_hand_overrules_a_check_that_saw_nothing() -> None:
    """Who has the tool's own answer knows better, as long as nothing new was begun."""
    assert Conclude(DONE) == decide(fold(intent(), said(False)), situation(), NOW, Hand(1, DONE, certain=True))


def test_an_old_execution_in_hand_counts_no_more() -> None:
    """Another executor went on to execution 2: that one decides."""
    ledger = fold(intent(), said(False), intent(2))

    assert Wait(PAST) == decide(ledger, situation(), NOW, Hand(1, DONE, certain=True))


def test_an_old_execution_of_an_idempotent_call_still_counts() -> None:
    """Two executors ran it; either's output is right, so they do not run it for ever."""
    ledger = fold(intent(effect="idempotent"), intent(2, "idempotent"))

    assert Conclude(DONE) == decide(ledger, situation("idempotent"), NOW, Hand(1, DONE, certain=True))


# --- giving up -----------------------------------------------------------------------------------------------------

EXHAUSTED = Failure("delivery.exhausted", "GivenUp", "9 deliveries", "mesh", retryable=False)


def test_a_call_given_up_before_anything_happened_failed() -> None:
    """With the reason it was given up for."""
    assert failed(situation(), EXHAUSTED) == abandon(Ledger(), situation(), EXHAUSTED)
    assert failed(situation(), EXHAUSTED) == abandon(fold(intent(), said(False)), situation(), EXHAUSTED)
    assert failed(situation(), EXHAUSTED) == abandon(
        fold(intent(effect="idempotent")), situation("idempotent"), EXHAUSTED
    )


def test_a_call_given_up_with_an_open_effect_is_unknown() -> None:
    """Nobody may take it for a failure and try again."""
    outcome = abandon(fold(intent()), situation(), EXHAUSTED)

    assert "unknown" == outcome.status
    assert outcome.error is not None
    assert ("effect.outcome_unknown", False) == (outcome.error.code, outcome.error.retryable)
    assert "delivery.exhausted" in outcome.error.message


def test_a_call_given_up_keeps_the_truth_that_is_known() -> None:
    """An outcome, or a check that found the effect."""
    assert DONE == abandon(fold(intent(), DONE), situation(), EXHAUSTED)
    assert DONE == abandon(fold(intent(), said(True, result=DONE.result)), situation(), EXHAUSTED)


# --- the fold ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        (DONE, DONE),
        (DONE, intent()),
        (intent(), intent(1)),
        (intent(2),),
        (said(True),),
        (intent(), said(False), said(True)),
    ],
)
def test_a_chain_nobody_may_have_written_is_damaged(records: tuple[Record, ...]) -> None:
    """Behind an outcome, out of order, or without what it is about."""
    with pytest.raises(EvidenceError) as caught:
        fold(*records)

    assert "ledger.damaged" == caught.value.error_code


def test_an_intent_without_a_usable_expiry_is_damaged() -> None:
    """Waiting for it would never end."""
    with pytest.raises(EvidenceError):
        decide(fold(intent_at("tomorrow")), situation(), NOW)


def intent_at(expires: str) -> AuditIntent:
    """An intent with any text as its expiry."""
    return AuditIntent("send", "1.0.0", "irreversible", "agent", "ab" * 32, "cd" * 32, 1, expires)


# --- what is recorded ----------------------------------------------------------------------------------------------


def test_an_outcome_holds_the_answers_own_bytes() -> None:
    """The caller's payload can be made again from it, byte for byte, and its hash is of those bytes."""
    output = ToolCompleted({"sent": True, "ratio": 0.1, "text": "ünï"})
    outcome = completed(situation(), {"output": output.output})

    assert encode_payload(output) == encode_payload(outcome.result)
    assert sha256_hex(encode_payload(output)) == outcome.output_sha256
    assert encode_payload(ToolFailed(FAILURE)) == encode_payload(BROKEN.result)
    assert "" == BROKEN.output_sha256


def test_the_hash_of_a_large_output_is_that_of_the_payload_it_stands_for() -> None:
    """A claim check carries it."""
    assert "ef" * 32 == result_sha256({"artifact": "sha256-x", "sha256": "ef" * 32, "size": 9})


def test_a_situation_is_a_value() -> None:
    """Two executors that know the same decide the same."""
    assert decide(Ledger(), situation(), NOW) == decide(replace(Ledger()), replace(situation()), NOW)
