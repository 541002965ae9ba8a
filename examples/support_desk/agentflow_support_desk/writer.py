"""Writes the reply to a ticket from the article that was found, and checks a reply before it leaves.

No model is needed: a draft is the article's opening, those of its sections that share the most words with the ticket,
and its closing remarks, with greeting, sign-off and reference around them. A draft never repeats what the customer
wrote: a ticket may hold a card number, or words meant for the next reader.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow_support_desk.errors import NoArticleError
from agentflow_support_desk.knowledge import Hit, search_words

BANK = "Harbourline Bank"
"""The bank of the demo; there is no such bank."""

MOST_CHARACTERS = 2_500
"""A longer reply is not read by anybody."""

_TOPICS = {
    "account_locked": "getting into your account",
    "card_arrival": "the delivery of your card",
    "card_declined": "a payment that was declined",
    "change_pin": "the PIN of your card",
    "close_account": "closing your account",
    "exchange_rate_fees": "rates and fees abroad",
    "lost_or_stolen_card": "a card that is missing",
    "refund_status": "your refund",
    "top_up_failed": "adding money to your account",
    "transfer_delayed": "your transfer",
    "unrecognised_charge": "a charge you do not recognise",
    "verify_identity": "proving your identity",
}

_GREETING = "Hello,"
_OFFER = "If this does not settle it, simply answer this message and one of us will look into it."
_SIGN_OFF = f"Kind regards,\nYour support team at {BANK}"

_STEP = re.compile(r"\d+\. ")
_EMPHASIS = re.compile(r"\*+")
_PLACEHOLDER = re.compile(
    r"\{[^{}]*\}|\[[A-Z][^\[\]\n]{0,40}\]|<[a-z][^<>\n]{0,40}>|\b(?:TODO|TBD|XXX+|[Ll]orem ipsum)\b"
)
_CARD_NUMBER = re.compile(r"(?<!\d)\d(?:[ \-.]?\d){12,18}(?!\d)")


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply that has not been sent."""

    subject: str
    """One line."""

    body: str
    """Plain text with greeting, sign-off and reference."""

    article_id: str
    """The article it was written from."""


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    lines: tuple[str, ...]


def draft_reply(ticket_text: str, intent: str, hits: Sequence[Hit]) -> Draft:
    """Write a reply from the best of the articles found, without a model; equal input gives an equal reply.

    Raises `NoArticleError` where nothing was found.
    """
    hit = choose(intent, hits)
    opening, sections, closing = _parts(hit.body)
    middle = [*opening]
    for section in _relevant(sections, ticket_text):
        middle.append("\n".join((f"{section.heading}:", *section.lines)))
    return compose([*middle, *closing], intent, hit)


def check_reply(body: str) -> list[str]:
    """The reasons why a reply must not be sent as it is; none for a good one."""
    problems = []
    if len(body) > MOST_CHARACTERS:
        problems.append(f"too long: {len(body)} characters, at most {MOST_CHARACTERS}")
    if found := _PLACEHOLDER.search(body):
        problems.append(f"a placeholder was left over: {found[0]!r}")
    if BANK not in "\n".join(body.rstrip().splitlines()[-4:]):
        problems.append(f"no sign-off: {BANK!r} is missing from the last lines")
    if _CARD_NUMBER.search(body):
        problems.append("digits that look like a full card number")
    return problems


def choose(intent: str, hits: Sequence[Hit]) -> Hit:
    """The best hit of the ticket's intent, or the best of all where the intent has none."""
    if not hits:
        raise NoArticleError(intent)
    return next((hit for hit in hits if hit.intent == intent), hits[0])


def compose(middle: Sequence[str], intent: str, hit: Hit) -> Draft:
    """Put greeting, sign-off and reference around the paragraphs of a reply."""
    topic = _TOPICS.get(intent) or intent.replace("_", " ")
    paragraphs = [_GREETING, f"thank you for writing to us about {topic}.", *middle, _OFFER, _SIGN_OFF]
    body = "\n\n".join([*paragraphs, f"Reference: {hit.article_id}"])
    return Draft(f"{hit.title} - {BANK}", body, hit.article_id)


def _parts(markdown: str) -> tuple[list[str], list[_Section], list[str]]:
    """An article's opening paragraphs, its sections and the paragraphs after the last step, as plain text."""
    opening: list[str] = []
    sections: list[_Section] = []
    closing: list[str] = []
    for block in _EMPHASIS.sub("", markdown).split("\n\n"):
        lines = tuple(line.strip() for line in block.strip().splitlines())
        if not lines:
            continue
        if lines[0].startswith("## "):
            sections.append(_Section(lines[0].removeprefix("## "), lines[1:]))
        elif not sections:
            opening.append(" ".join(lines))
        elif _STEP.match(lines[0]):
            sections[-1] = _Section(sections[-1].heading, (*sections[-1].lines, *lines))
        else:
            closing.append(" ".join(lines))
    return opening, sections, closing


def _relevant(sections: Sequence[_Section], ticket_text: str) -> list[_Section]:
    """The sections that share at least half as many words with the ticket as the one that shares the most."""
    words = {_stem(word) for word in search_words(ticket_text)}
    shared = [len(words & {_stem(w) for w in search_words(" ".join((s.heading, *s.lines)))}) for s in sections]
    most = max(shared, default=0)
    return [section for section, count in zip(sections, shared, strict=True) if count * 2 >= most]


def _stem(word: str) -> str:
    """So much of a word that `declined` and `declines` are one; good enough to choose between two sections."""
    return word[:5]
