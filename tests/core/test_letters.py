"""What a retry of a dead letter is made of, and what became of each letter: functions of what is stored."""

import base64
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.envelope import ChainPlace, Sealed, sha256_hex
from agentflow.errors import EvidenceError, InputError
from agentflow.letters import (
    Letter,
    cases,
    original_body,
    read_letter,
    redelivered,
    redelivery_subject,
    seal_redelivered,
    seal_resolved,
    seal_retried,
)
from agentflow.payloads import DeadLetter
from agentflow.testing import START, envelope

LATER = START + timedelta(minutes=1)


def letter(
    subject: str = "agents.helper.in", *, stream: str = "AF_AGENTS", index: int = 0, retry_of: str = "", body: str = ""
) -> Letter:
    """A stored letter about a message on `subject`."""
    content = DeadLetter(
        stream=stream,
        consumer="agent-helper",
        seq=7,
        subject=subject,
        deliveries=9,
        code="delivery.exhausted",
        reason="too often",
        body_base64=body or base64.b64encode(b"hello").decode(),
        retry_of=retry_of,
    )
    at = subjects.dead(stream, "agent-helper")
    draft = envelope(content, at, index=index)
    sealed = envelope(content, at, index=index, place=ChainPlace(f"dead:{draft.envelope.id}"))
    return read_letter(sealed.body, at, index + 1, START)


def stored(*found: Letter | Sealed) -> list[tuple[bytes, str, int, datetime]]:
    """`AF_DEAD` with these messages."""
    sealed = [each.sealed if isinstance(each, Letter) else each for each in found]
    return [(each.body, each.envelope.subject, seq, START) for seq, each in enumerate(sealed, start=1)]


def test_a_letter_goes_from_open_to_resolved() -> None:
    """By the records of its case, each on the letter's chain and resting on the one before."""
    one = letter()
    retried = seal_retried(one, LATER)
    resolved = seal_resolved(one, retried, 1, LATER)

    assert ["open", "retried", "resolved"] == [
        cases(stored(*messages))[one.id].status for messages in ([one], [one, retried], [one, retried, resolved])
    ]
    chain = [one.sealed, retried, resolved]
    assert [0, 1, 2] == [each.envelope.chain_seq for each in chain]
    assert [one.sealed.hash, retried.hash] == [each.envelope.prev_hash for each in chain[1:]]
    assert 1 == len({each.envelope.chain for each in chain})
    assert {one.case} == {each.envelope.subject for each in chain[1:]}


def test_a_retry_that_was_given_up_names_the_letter_it_came_from() -> None:
    """The first is dealt with, the second is open."""
    one = letter()
    again = letter(index=1, retry_of=one.id)
    found = cases(stored(one, seal_retried(one, LATER), again))

    assert [("given up again", again.id), ("open", "")] == [(case.status, case.again) for case in found.values()]


def test_what_is_no_letter_changes_nothing() -> None:
    """Junk, a record about no letter, one on another letter's subject, one that rests on another letter."""
    one, two = letter(), letter(index=1)
    forged = seal_retried(two, LATER)
    other = msgspec.structs.replace(forged.envelope, subject=one.case)
    junk = [(b"junk", "dead.AF_AGENTS.agent-helper", 8, START), (forged.body, one.case, 9, START)]

    found = cases([*stored(one, seal_retried(two, LATER)), *junk])
    assert {one.id: "open"} == {id: case.status for id, case in found.items()}
    assert one.case == other.subject


def test_a_letter_on_a_foreign_subject_is_none() -> None:
    """Whoever may write there says nothing about another consumer."""
    one = letter()
    moved = envelope(one.content, "dead.AF_AGENTS.other")

    with pytest.raises(InputError):
        read_letter(moved.body, "dead.AF_AGENTS.other", 1, START)
    assert {} == cases(stored(moved))


@given(st.integers(0, 10**9), st.integers(0, 1000))
def test_the_same_letter_makes_the_same_retry(seconds: int, index: int) -> None:
    """Ids and subjects follow from the letter alone, whoever asks and when; the redelivery to the byte."""
    one, moment = letter(index=index), START + timedelta(seconds=seconds)
    mine, theirs = seal_retried(one, START), seal_retried(one, moment)

    assert (mine.envelope.id, mine.envelope.subject, mine.envelope.payload) == (
        theirs.envelope.id,
        theirs.envelope.subject,
        theirs.envelope.payload,
    )
    assert seal_redelivered(one, mine).body == seal_redelivered(one, mine).body


@pytest.mark.parametrize(
    ("stream", "subject", "pattern"),
    [
        ("AF_AGENTS", "agents.helper.in", "agents.helper.in.>"),
        ("AF_AGENTS", "agents.helper.in.step-1", "agents.helper.in.>"),
        ("AF_AUDIT", "tools.calls.call-1", "tools.calls.*"),
        ("AF_MESSAGES", "workflows.run-1.in", "workflows.*.results.*"),
        ("AF_MESSAGES", "workflows.run-1.results.step-1", "workflows.*.results.*"),
        ("AF_TIMERS", "timers.due.planner.run-1.3", "timers.due.planner.*.*"),
    ],
)
def test_a_redelivery_lies_where_the_consumer_looks(stream: str, subject: str, pattern: str) -> None:
    """On a subject of its own, that the filter covers which covered the original."""
    found = redelivery_subject(letter(subject, stream=stream))

    assert subjects.matches(pattern, found)
    assert subject != found
    assert stream == subjects.stream_of(found)


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        ("AF_MESSAGES", "workflows.*.in"),
        ("AF_MESSAGES", "workflows.run-1.out"),
        ("AF_AUDIT", "tools.audit.c"),
        ("AF_AGENTS", "workflows.run-1.in"),
        ("AF_AGENTS", "agents.\\udc80.in"),
        ("AF_DEAD", "dead.AF_AGENTS.x"),
    ],
)
def test_what_no_consumer_takes_cannot_be_retried(stream: str, subject: str) -> None:
    """Wildcards, foreign streams, subjects that only carry what was decided."""
    with pytest.raises(InputError) as refused:
        redelivery_subject(letter(subject, stream=stream))
    assert "dead.not_retryable" == refused.value.error_code


@pytest.mark.parametrize("consumer", ["strays", "detector"])
def test_a_letter_of_a_consumer_that_handles_nothing_cannot_be_retried(consumer: str) -> None:
    """A retry would be reported as done and nobody would do anything; the refusal says what to do instead."""
    given = letter("agents.ghost.in")
    by = replace(given, content=msgspec.structs.replace(given.content, consumer=consumer))

    with pytest.raises(InputError, match="publish it again") as refused:
        redelivery_subject(by)
    assert "dead.not_retryable" == refused.value.error_code


def test_the_original_is_checked() -> None:
    """Its bytes are in the letter, or an artifact whose name is their hash."""
    by_artifact = letter(body=f"artifact:sha256-{sha256_hex(b'large')}")

    assert b"hello" == original_body(letter())
    assert b"large" == original_body(by_artifact, b"large")
    for damaged, artifact in ((by_artifact, b"other"), (by_artifact, None), (letter(body="!!!"), None)):
        with pytest.raises(EvidenceError) as refused:
            original_body(damaged, artifact)
        assert "dead.body_damaged" == refused.value.error_code


def test_a_redelivery_is_told_from_everything_else() -> None:
    """By its schema, sealed and on its subject."""
    one = letter()
    telling = seal_redelivered(one, seal_retried(one, LATER))
    found = redelivered(telling.body, telling.envelope.subject)

    assert found is not None
    assert (one.id, one.sealed.hash) == (found[1].letter, found[1].hash)
    assert redelivered(telling.body, "agents.helper.in") is None
    assert redelivered(b'{"schema":"message.redelivered/1"}', telling.envelope.subject) is None
    assert redelivered(one.sealed.body, one.sealed.envelope.subject) is None
