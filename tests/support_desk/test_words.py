"""Words are found in any text, and mistyped ones are corrected towards those that are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk.words import COMMON_WORDS, Vocabulary, plain, split_words

VOCABULARY = Vocabulary(["My card was declined", "my transfer is pending", "a card", "a cart", "überweisung"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        pytest.param("trasfer", "transfer", id="letter left out"),
        pytest.param("transsfer", "transfer", id="letter added"),
        pytest.param("trensfer", "transfer", id="letter replaced"),
        pytest.param("tarnsfer", "transfer", id="letters swapped"),
        pytest.param("trnsfr", "trnsfr", id="two steps away"),
        pytest.param("carx", "card", id="the more frequent of two"),
        pytest.param("crd", "crd", id="too short to tell"),
        pytest.param("want", "want", id="common word"),
        pytest.param("DECLINED!", "declined!", id="known, in capitals"),
        pytest.param("Uberweisung", "uberweisung", id="known, without accent"),
    ],
)
def test_a_word_one_step_from_a_known_one_is_corrected(typed: str, meant: str) -> None:
    """One letter too few, too many, wrong or in the wrong place; everything else stays, in plain lower case."""
    assert meant == VOCABULARY.correct(typed)


def test_the_share_of_known_words_leaves_common_ones_out() -> None:
    """`my` tells nothing; `card` is known and `umbrella` is not."""
    assert 0.5 == VOCABULARY.known("my card and my umbrella")
    assert 0.0 == VOCABULARY.known("my my !")


@given(st.text())
def test_correcting_keeps_words_apart_and_known_ones_as_they_are(text: str) -> None:
    """No word is joined, split or lost, whatever the text; what was known before is known after."""
    before, after = split_words(plain(text)), split_words(VOCABULARY.correct(text))

    assert len(before) == len(after)
    assert all(
        new == old for old, new in zip(before, after, strict=True) if VOCABULARY.known(old) or old in COMMON_WORDS
    )


@given(st.text())
def test_plain_text_stays_as_it_is(text: str) -> None:
    """Making it plain twice is making it plain once."""
    assert plain(text) == plain(plain(text))
