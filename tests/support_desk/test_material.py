"""The shipped material is what its README says, and the tickets are an honest test for the examples."""

import re
from collections import Counter

from agentflow_support_desk import MATERIAL, Article, check_reply, load_examples, load_tickets

_TONES = {
    "angry",
    "empty",
    "injection",
    "off_topic",
    "other_language",
    "polite",
    "rambling",
    "symbols",
    "terse",
    "two_questions",
    "typos",
}
_ARTICLE_WORDS = range(120, 221)


def bare(text: str) -> str:
    """A text without what does not make it another sentence: case, punctuation, spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def intents() -> set[str]:
    """The intents of the examples, which are the intents of the desk."""
    return {category for _, category in load_examples(MATERIAL / "examples.csv")}


def test_there_are_twelve_intents_with_fifteen_examples_each() -> None:
    """The classifier learns from a balanced set, and each intent's name can stand in a subject or a file name."""
    counts = Counter(category for _, category in load_examples(MATERIAL / "examples.csv"))

    assert 12 == len(counts)
    assert {15} == set(counts.values())
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", intent) for intent in counts)


def test_no_example_is_given_twice() -> None:
    """Fifteen examples of an intent are fifteen different sentences."""
    examples = [bare(text) for text, _ in load_examples(MATERIAL / "examples.csv")]

    assert len(examples) == len(set(examples))


def test_there_are_at_least_150_tickets_of_known_intents() -> None:
    """Every ticket has a true intent, which is one of the twelve or off topic, and an id of its own."""
    tickets = load_tickets(MATERIAL / "tickets.csv")

    assert len(tickets) >= 150
    assert intents() | {"off_topic"} == {ticket.category for ticket in tickets}
    assert len(tickets) == len({ticket.id for ticket in tickets})


def test_the_tickets_are_spread_evenly_over_the_intents() -> None:
    """No intent decides the accuracy by its number of tickets."""
    counts = Counter(ticket.category for ticket in load_tickets(MATERIAL / "tickets.csv"))
    del counts["off_topic"]

    assert max(counts.values()) <= 1.25 * min(counts.values())


def test_there_are_tickets_of_every_tone() -> None:
    """Also those that a demo likes to leave out: empty ones, symbols only, orders to the agent, other languages."""
    tickets = load_tickets(MATERIAL / "tickets.csv")

    assert _TONES == {ticket.tone for ticket in tickets}
    assert [""] == [ticket.text for ticket in tickets if ticket.tone == "empty"]
    assert len([ticket for ticket in tickets if ticket.tone == "other_language"]) >= 8


def test_some_tickets_need_a_real_csv_reader() -> None:
    """Commas, quotes and line breaks inside a text are part of the material."""
    texts = [ticket.text for ticket in load_tickets(MATERIAL / "tickets.csv")]

    assert all(any(mark in text for text in texts) for mark in (",", '"', "\n"))


def test_no_ticket_is_an_example() -> None:
    """What the classifier is measured with, it has not seen."""
    examples = {bare(text) for text, _ in load_examples(MATERIAL / "examples.csv")}
    tickets = {bare(ticket.text) for ticket in load_tickets(MATERIAL / "tickets.csv")}

    assert set() == examples & tickets


def test_every_intent_has_articles(articles: list[Article]) -> None:
    """Two at least, and no article answers an intent that does not exist."""
    counts = Counter(article.intent for article in articles)

    assert intents() == set(counts)
    assert min(counts.values()) >= 2


def test_articles_are_short_and_have_steps(articles: list[Article]) -> None:
    """Each can be sent as an answer: 120 to 220 words, with at least three things to do."""
    wrong_length = [article.id for article in articles if len(article.body.split()) not in _ARTICLE_WORDS]
    without_steps = [article.id for article in articles if len(re.findall(r"(?m)^\d+\. ", article.body)) < 3]

    assert [] == wrong_length
    assert [] == without_steps


def test_no_article_holds_what_a_reply_must_not(articles: list[Article]) -> None:
    """Of all that is checked in a reply, an article lacks the sign-off only."""
    problems = {article.id: check_reply(article.body)[1:] for article in articles}

    assert {article.id: [] for article in articles} == problems
