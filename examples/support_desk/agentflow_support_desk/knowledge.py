"""The knowledge base: articles in Markdown, and full-text search over them with SQLite's FTS5.

`build_index` puts the articles into a database in memory and returns its bytes; `search` opens such bytes again, in
memory too. A search therefore needs no path and writes nothing: it can run in a sandbox that is handed one open file.

Hits are ranked by bm25 with weights: a word in the title says more than one in the text. The intent a ticket was
classified as is one more thing to look for, in a column of its own. So it raises its articles, more than any single
word can and less than several words together, and an article of another intent that fits the words better still wins.

What customers write never reaches FTS5 as a query: words are taken out of it one by one and quoted (`match_query`).

An article begins with four lines between `---`; they are plain `name: value`, not YAML, so a colon needs no care:

    ---
    id: change-pin
    title: Change the PIN of your card
    intent: change_pin
    keywords: PIN, change, new PIN
    ---
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agentflow_support_desk.errors import KnowledgeIndexError, MaterialError
from agentflow_support_desk.reading import read_text
from agentflow_support_desk.words import COMMON_WORDS, split_words

_FIELDS = ("id", "title", "intent", "keywords")
_FENCE = "---"

_TITLE, _KEYWORDS, _INTENT, _BODY = 4.0, 3.0, 4.0, 1.0
"""How much a word counts by the column it is found in; chosen with the labelled examples as queries."""

_MOST_WORDS = 64
"""Different words of a query that are looked for; a longer ticket has said it by then."""

_LONGEST_WORD = 40
"""Characters; anything longer is a link or noise."""

_CREATE = """
CREATE VIRTUAL TABLE article
USING fts5(title, keywords, intent, body, id UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')
"""

_SEARCH = """
SELECT id, title, intent, body, -bm25(article, ?, ?, ?, ?) AS score
FROM article WHERE article MATCH ? ORDER BY score DESC, id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Article:
    """One article of the knowledge base."""

    id: str
    """Its file's name without the ending."""

    title: str
    """One line, for people."""

    intent: str
    """The one intent it answers."""

    keywords: tuple[str, ...]
    """What customers call it, where the text does not."""

    body: str
    """Markdown without the lines between the fences."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An article that was found; it holds all that a reply is written from."""

    article_id: str
    """The article's id."""

    title: str
    """The article's title."""

    intent: str
    """The article's intent, not that of the ticket."""

    body: str
    """The article's Markdown."""

    score: float
    """Positive; larger is better. Comparable within one search only."""


def load_articles(folder: Path) -> list[Article]:
    """Read every `*.md` file of a folder, in the order of their names.

    Raises `MaterialError` where there is none, or where one lacks its fields or its text.
    """
    articles = [_article(path) for path in sorted(folder.glob("*.md"))]
    if not articles:
        raise MaterialError("no_articles", folder, None, "no article", "a folder with at least one *.md file")
    return articles


def build_index(articles: list[Article]) -> bytes:
    """Put articles into a full-text database and return its bytes; equal articles give equal bytes."""
    rows = [(a.title, ", ".join(a.keywords), a.intent, a.body, a.id) for a in articles]
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(_CREATE)
        database.executemany("INSERT INTO article (title, keywords, intent, body, id) VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("INSERT INTO article (article) VALUES ('optimize')")
        database.commit()
        return database.serialize()


def search(index: bytes, query: str, *, intent: str | None, limit: int = 3) -> list[Hit]:
    """Find the articles that fit a customer's words best, the best one first.

    `index` is what `build_index` returned; `intent` raises the articles of that intent and hides none. A query without
    words that can be looked for finds nothing. Takes about a millisecond. Raises `KnowledgeIndexError` for other bytes
    and `ValueError` for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}; allowed: 1 or more")
    if not index:
        raise KnowledgeIndexError("no bytes")
    match = match_query(query, intent)
    if not match:
        return []
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(index)
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA temp_store = MEMORY")
            rows = database.execute(_SEARCH, (_TITLE, _KEYWORDS, _INTENT, _BODY, match, limit)).fetchall()
    except (sqlite3.Error, OverflowError) as error:
        raise KnowledgeIndexError(str(error)) from error
    return [Hit(*row) for row in rows]


def match_query(query: str, intent: str | None = None) -> str:
    """Turn any text into an FTS5 query that looks for each of its words, or into `""` where it has none.

    Every word is quoted, so that nothing in it is an operator; common words are left out. An intent is looked for as
    well.
    """
    words = search_words(query)
    if not words:
        return ""
    terms = [f'"{word}"' for word in words]
    if intent is not None and (phrase := " ".join(split_words(intent))):
        terms.append(f'intent : "{phrase}"')
    return " OR ".join(terms)


def search_words(text: str) -> list[str]:
    """The words of a text worth looking for: lower case, each once, in order, at most 64 of them."""
    seen: dict[str, None] = {}
    for word in split_words(text.lower()):
        if len(word) <= _LONGEST_WORD and word not in COMMON_WORDS:
            seen[word] = None
            if len(seen) == _MOST_WORDS:
                break
    return list(seen)


def _article(path: Path) -> Article:
    lines = read_text(path).splitlines()
    allowed = f"{len(_FIELDS)} lines ({', '.join(_FIELDS)}) between lines of {_FENCE!r}"
    if not lines or lines[0] != _FENCE or _FENCE not in lines[1:]:
        raise MaterialError("front_matter", path, 1, "no fields at the top", allowed)
    end = lines.index(_FENCE, 1)
    fields: dict[str, str] = {}
    for number, line in enumerate(lines[1:end], start=2):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not value or name not in _FIELDS or name in fields:
            raise MaterialError("front_matter", path, number, repr(line), allowed)
        fields[name] = value
    if missing := [name for name in _FIELDS if name not in fields]:
        raise MaterialError("front_matter", path, 1, f"no {missing[0]!r}", allowed)
    if fields["id"] != path.stem:
        raise MaterialError("article_id", path, None, f"id {fields['id']!r}", f"the file's own name, {path.stem!r}")
    body = "\n".join(lines[end + 1 :]).strip()
    if not body:
        raise MaterialError("empty_article", path, end + 1, "nothing below the fields", "the article's text")
    keywords = tuple(word.strip() for word in fields["keywords"].split(",") if word.strip())
    return Article(fields["id"], fields["title"], fields["intent"], keywords, body)
