"""Ids: ULIDs new and derived, and the tokens that may stand in a subject."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow.errors import SubjectError
from agentflow.ids import check_token, derive_id, is_ulid, new_id
from tests.core.strategies import (
    CROCKFORD,
    EPOCH,
    crockford,
    moments,
    numbers,
    text_of,
    texts,
    token_of,
    tokens,
    ulid,
    ulids,
)
from tests.support.profiles import wire

TOKEN_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def value_of(id: str) -> int:
    """The 128 bits of a ULID, read without the library the code uses."""
    value = 0
    for letter in id:
        value = value * 32 + CROCKFORD.index(letter)
    return value


def time_bits(id: str) -> int:
    """The first 48 bits: milliseconds since 1970."""
    return value_of(id) >> 80


def derived(cause: str, producer: str, purpose: str, index: int) -> str:
    """The rule of architecture, section 4, once more."""
    digest = hashlib.sha256(f"{cause}|{producer}|{purpose}|{index}".encode()).digest()
    return crockford(time_bits(cause) << 80 | int.from_bytes(digest[:10], "big"))


# --- derived ids -----------------------------------------------------------------------------------------------------


@wire
@given(ulids, tokens, texts, st.integers(0, 9))
def test_a_derived_id_follows_from_what_made_it(cause: str, producer: str, purpose: str, index: int) -> None:
    """It is a valid ULID with the time bits of its cause and 80 bits of the documented hash; a pure function of its input."""
    id = derive_id(cause, producer, purpose, index)

    assert is_ulid(id)
    assert time_bits(cause) == time_bits(id)
    assert derived(cause, producer, purpose, index) == id


@wire
@given(numbers, numbers)
def test_another_producer_purpose_or_index_makes_another_id(one: int, other: int) -> None:
    """Two services that handle the same message never make the same id, and one makes as many as it needs."""
    cause = ulid(one)
    made, another = ((token_of(n % 97), text_of(n % 89), n % 3) for n in (one, other))

    assert (made == another) == (derive_id(cause, *made) == derive_id(cause, *another))


@given(numbers, numbers, tokens, texts)
def test_another_cause_makes_another_id(one: int, other: int, producer: str, purpose: str) -> None:
    """Handling two messages makes different ids, even where the messages have the same time."""
    assume(one != other)
    causes = [crockford(5 << 80 | value_of(ulid(seed)) % 2**80) for seed in (one, other)]

    assert derive_id(causes[0], producer, purpose) != derive_id(causes[1], producer, purpose)


def test_derived_ids_are_the_documented_ones() -> None:
    """Written down once: they are in stored histories."""
    assert "01KDVDNA0052M1JH6P0M9FE9GR" == derive_id("01KDVDNA0031GFVX1A47NTMKHK", "planner", "command", 3)
    assert "01KDVDNA00B8MY5M6HCP35MHB3" == derive_id("01KDVDNA0031GFVX1A47NTMKHK", "planner", "decision")


def test_derived_ids_sort_by_the_time_of_their_cause() -> None:
    """So that people find them in order."""
    early, late = (new_id(datetime(2026, 1, day, tzinfo=UTC), bytes) for day in (1, 2))

    assert derive_id(early, "z", "z", 9) < derive_id(late, "a", "a", 0)


@pytest.mark.parametrize("cause", ["", "x", "01kdvdna0031gfvx1a47ntmkhk", "81KDVDNA0031GFVX1A47NTMKHK", "0" * 27])
def test_a_cause_that_is_no_ulid_is_refused(cause: str) -> None:
    """A cause comes from outside; another spelling of the same bits would make another id."""
    with pytest.raises(SubjectError) as refused:
        derive_id(cause, "planner", "decision")

    assert "id.invalid" == refused.value.error_code


# --- new ids ---------------------------------------------------------------------------------------------------------


@wire
@given(moments, st.integers(0, 2**80 - 1))
def test_a_new_id_holds_the_time_and_the_randomness_it_was_given(now: datetime, drawn: int) -> None:
    """Milliseconds, never rounded up, then the ten bytes; nothing from the machine."""
    randomness = drawn.to_bytes(10, "big")
    asked: list[int] = []

    def draw(count: int) -> bytes:
        asked.append(count)
        return randomness

    id = new_id(now, draw)

    assert is_ulid(id)
    assert [10] == asked
    assert (now - EPOCH) // timedelta(milliseconds=1) == time_bits(id)
    assert int.from_bytes(randomness, "big") == value_of(id) % 2**80


def test_the_time_zone_of_a_moment_does_not_matter() -> None:
    """An id names a moment, not a place."""
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)

    assert new_id(noon, bytes) == new_id(noon.astimezone(timezone(timedelta(hours=-7))), bytes)


def test_milliseconds_are_exact_where_floats_are_not() -> None:
    """A moment whose float has less than its milliseconds keeps them."""
    moment = datetime(2004, 6, 22, 20, 34, 52, 600_000, tzinfo=UTC)

    assert 600 == time_bits(new_id(moment, bytes)) % 1000


# --- what an id looks like -------------------------------------------------------------------------------------------


@wire
@given(st.one_of(ulids, texts, st.text(CROCKFORD + "ILOUilou", min_size=25, max_size=27)))
def test_only_canonical_ulids_are_ulids(text: str) -> None:
    """26 letters of Crockford's alphabet in upper case, and no more than 128 bits."""
    expected = len(text) == 26 and set(text) <= set(CROCKFORD) and text[0] <= "7"

    assert expected == is_ulid(text)


HOSTILE = (
    "",
    " ",
    "a b",
    "*",
    ">",
    "a.b",
    ".",
    "a*",
    "a>",
    "$JS",
    "a/b",
    "a\n",
    "\na",
    "a\r\n",
    "a\r\nPUB x 0\r\n",
    "a\x00",
    "\x7f",
    "ä",
    "Ａ",
    "а",
    "٣",
    "a\u200b",
    "a\u2028",
    "🙂",
    "\ud800",
    "x" * 65,
    "x" * 3000,
)
"""Texts that must never become part of a subject: wildcards, dots, line ends, other alphabets, too long."""


@wire
@given(st.one_of(tokens, texts, st.text(max_size=70), st.sampled_from(HOSTILE)))
def test_a_token_is_one_to_64_of_the_allowed_letters(text: str) -> None:
    """Exactly those pass, unchanged; whatever else there is in Unicode is refused."""
    if 1 <= len(text) <= 64 and set(text) <= TOKEN_LETTERS:
        assert text == check_token(text)
    else:
        with pytest.raises(SubjectError):
            check_token(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_tokens_are_refused_with_a_bounded_message(text: str) -> None:
    """The refusal shows what was found, escaped and cut, what it was for, and what is allowed."""
    with pytest.raises(SubjectError) as refused:
        check_token(text, "workflow id")

    assert "id.invalid" == refused.value.error_code
    assert "workflow id" == refused.value.fields["what"]
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [None, 7, b"a", ["a"], True])
def test_what_is_no_text_is_no_token(value: Any) -> None:
    """JSON from a stranger may hold anything where an id is expected."""
    with pytest.raises(SubjectError):
        check_token(value)
