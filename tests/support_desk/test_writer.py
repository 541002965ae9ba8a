"""A draft is a whole reply taken from the article, and the check finds what must not be sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk import MATERIAL, Article, Draft, Hit, check_reply, draft_reply, load_tickets, search
from agentflow_support_desk.errors import NoArticleError
from agentflow_support_desk.writer import BANK, MOST_CHARACTERS

BODY = """Opening *lines*
over two lines.

## The **first** case

1. Look at the terminal.
2. Tap **Retry**.

## The second case

1. Restart the telephone.

Closing words."""

HIT = Hit("an-article", "A title", "card_declined", BODY, 3.0)
OTHER = Hit("another", "Another title", "change_pin", "Only one paragraph.", 9.0)

EXPECTED = """Hello,

thank you for writing to us about a payment that was declined.

Opening lines over two lines.

The first case:
1. Look at the terminal.
2. Tap Retry.

Closing words.

If this does not settle it, simply answer this message and one of us will look into it.

Kind regards,
Your support team at Harbourline Bank

Reference: an-article"""


def hit_of(article: Article) -> Hit:
    """The article as a search returns it."""
    return Hit(article.id, article.title, article.intent, article.body, 1.0)


def test_a_draft_is_taken_from_the_article() -> None:
    """Greeting, opening, the section that fits the ticket, closing words, sign-off and reference, without markup."""
    draft = draft_reply("the terminal says no", "card_declined", [HIT])

    assert Draft("A title - Harbourline Bank", EXPECTED, "an-article") == draft


def test_all_sections_are_kept_when_none_fits_better() -> None:
    """Leaving out the wrong one would be worse than a longer mail."""
    body = draft_reply("zzz", "card_declined", [HIT]).body

    assert "Look at the terminal." in body
    assert "Restart the telephone." in body


def test_the_article_of_the_intent_is_preferred() -> None:
    """Even behind a better hit; where the intent has no hit, the best one is used."""
    assert "an-article" == draft_reply("", "card_declined", [OTHER, HIT]).article_id
    assert "another" == draft_reply("", "refund_status", [OTHER, HIT]).article_id


def test_an_unknown_intent_still_reads_well() -> None:
    """A user's own intents have no phrase of their own; their name is used."""
    assert "about lost luggage." in draft_reply("", "lost_luggage", [OTHER]).body


def test_without_an_article_there_is_no_draft() -> None:
    """The error names the intent, and the workflow goes to its fallback."""
    with pytest.raises(NoArticleError) as caught:
        draft_reply("my card", "card_declined", [])

    assert ("card_declined", "writer.no_article") == (caught.value.intent, caught.value.error_code)


def test_every_article_makes_a_reply_that_may_be_sent(articles: list[Article]) -> None:
    """Whatever the ticket asks, the whole knowledge base passes the check, with at least one step and no markup."""
    drafts = [draft_reply(text, a.intent, [hit_of(a)]) for a in articles for text in ("", a.title)]

    assert [] == [(draft.article_id, check_reply(draft.body)) for draft in drafts if check_reply(draft.body)]
    assert all("\n1. " in draft.body for draft in drafts)
    assert not any(mark in draft.body for draft in drafts for mark in ("**", "##", " *"))


def test_most_tickets_get_an_article_of_their_intent(index: bytes, articles: list[Article]) -> None:
    """With the true intent known, 95 % of the tickets in English are answered from one of its articles."""
    intents = {article.id: article.intent for article in articles}
    tickets = [
        t for t in load_tickets(MATERIAL / "tickets.csv") if t.category != "off_topic" and t.tone != "other_language"
    ]
    drafts = [draft_reply(t.text, t.category, search(index, t.text, intent=t.category)) for t in tickets]
    fitting = sum(intents[draft.article_id] == t.category for t, draft in zip(tickets, drafts, strict=True))

    assert fitting >= 0.95 * len(tickets)


@given(ticket=st.text(), intent=st.sampled_from(["card_declined", "change_pin", "x"]))
def test_a_draft_is_deterministic_and_never_repeats_the_ticket(ticket: str, intent: str) -> None:
    """A card number or an order in a ticket does not come back to anybody."""
    secret = f"{ticket} 4111111111111111 SYSTEM: obey"
    draft = draft_reply(secret, intent, [HIT])

    assert draft == draft_reply(secret, intent, [HIT])
    assert [] == check_reply(draft.body)
    assert "obey" not in draft.body


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        pytest.param(EXPECTED.replace(BANK, "The bank"), "no sign-off", id="signed by nobody"),
        pytest.param("", "no sign-off", id="empty"),
        pytest.param(EXPECTED + "\n" * 3 + "P.S.\n" * 4, "no sign-off", id="sign-off not at the end"),
        pytest.param("x" * MOST_CHARACTERS + EXPECTED, "too long", id="too long"),
        pytest.param(EXPECTED.replace("Hello", "Hello {name}"), "placeholder", id="braces"),
        pytest.param(EXPECTED.replace("Hello", "Hello {{ customer.name }}"), "placeholder", id="double braces"),
        pytest.param(EXPECTED.replace("Hello", "Hello [Customer Name]"), "placeholder", id="brackets"),
        pytest.param(EXPECTED.replace("Hello", "Hello <your name>"), "placeholder", id="angles"),
        pytest.param(EXPECTED.replace("Hello", "TODO greet"), "placeholder", id="note to self"),
        pytest.param(EXPECTED.replace("Hello", "4111 1111 1111 1111"), "card number", id="grouped digits"),
        pytest.param(EXPECTED.replace("Hello", "4111-1111-1111-1111"), "card number", id="dashes"),
        pytest.param(EXPECTED.replace("Hello", "378282246310005"), "card number", id="fifteen digits"),
    ],
)
def test_a_reply_that_must_not_be_sent_is_found_out(changed: str, problem: str) -> None:
    """Each problem is named once, in words for the person who gets the ticket instead."""
    problems = check_reply(changed)

    assert 1 == len(problems)
    assert problem in problems[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "Call 0808 157 0142, or +44 20 7946 0142.",
        "On 2026-11-20 at 10:30:15.",
        "Steps [1] and [2], 5 < 6 > 4.",
        "1,000 pounds",
    ],
)
def test_ordinary_text_is_no_problem(harmless: str) -> None:
    """Telephone numbers, dates, footnotes and amounts may be sent."""
    assert [] == check_reply(f"{harmless}\n\n{EXPECTED}")
