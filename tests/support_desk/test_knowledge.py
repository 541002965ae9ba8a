"""Articles are found by what customers write, whatever they write, in a process that may open no file."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk import MATERIAL, Article, Hit, build_index, load_articles, load_examples, search
from agentflow_support_desk.errors import KnowledgeIndexError, MaterialError
from agentflow_support_desk.knowledge import match_query, search_words

_FIELDS = "id: a\ntitle: A: b\nintent: x\nkeywords: one, two\n"

_CHILD = """
import resource, sys
from agentflow_support_desk.knowledge import search
with open(0, "rb") as file:
    index = file.read()
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
hits = search(index, "my card was stolen", intent=None)
print(hits[0].article_id)
"""


def ids(hits: list[Hit]) -> list[str]:
    """The articles found, the best first."""
    return [hit.article_id for hit in hits]


def test_an_article_has_its_fields_and_its_text(tmp_path: Path) -> None:
    """A colon in a title needs no quotes; a file that is not Markdown is not looked at."""
    (tmp_path / "a.md").write_text(f"---\n{_FIELDS}---\n\nThe text.\n")
    (tmp_path / "notes.txt").write_text("no article")

    assert [Article("a", "A: b", "x", ("one", "two"), "The text.")] == load_articles(tmp_path)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        pytest.param(b"", "material.front_matter", 1, id="empty file"),
        pytest.param(b"The text.\n", "material.front_matter", 1, id="no fields"),
        pytest.param(f"---\n{_FIELDS}The text.\n".encode(), "material.front_matter", 1, id="fence not closed"),
        pytest.param(b"---\nid: a\nauthor: b\n---\nText\n", "material.front_matter", 3, id="unknown field"),
        pytest.param(b"---\nid: a\nid: a\n---\nText\n", "material.front_matter", 3, id="field twice"),
        pytest.param(b"---\nid: a\ntitle:\n---\nText\n", "material.front_matter", 3, id="field without value"),
        pytest.param(b"---\nid: a\n---\nText\n", "material.front_matter", 1, id="fields missing"),
        pytest.param(f"---\n{_FIELDS}---\n\n".encode(), "material.empty_article", 6, id="no text"),
        pytest.param(
            f"---\n{_FIELDS}---\nText\n".replace("id: a", "id: b").encode(), "material.article_id", None, id="id"
        ),
        pytest.param(b"---\nid: a\xff\n", "material.encoding", 2, id="not UTF-8"),
    ],
)
def test_an_article_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, code: str, line: int | None) -> None:
    """With the file and, where there is one, the line."""
    (tmp_path / "a.md").write_bytes(content)

    with pytest.raises(MaterialError) as caught:
        load_articles(tmp_path)

    assert (code, line, tmp_path / "a.md") == (caught.value.error_code, caught.value.line, caught.value.path)


def test_a_folder_without_articles_is_refused(tmp_path: Path) -> None:
    """An empty knowledge base is a wrong path, not a quiet one."""
    with pytest.raises(MaterialError) as caught:
        load_articles(tmp_path)

    assert "material.no_articles" == caught.value.error_code


def test_equal_articles_give_equal_bytes(articles: list[Article], index: bytes) -> None:
    """The index can be stored by its hash."""
    assert index == build_index(articles)


def test_the_examples_find_articles_of_their_intent(index: bytes) -> None:
    """Used as queries, four in five put an article of their intent first, and nearly all when the intent is known."""
    examples = load_examples(MATERIAL / "examples.csv")
    alone = [search(index, text, intent=None, limit=1) for text, _ in examples]
    helped = [search(index, text, intent=intent, limit=1) for text, intent in examples]

    def first(found: list[list[Hit]]) -> int:
        return sum(bool(hits) and hits[0].intent == intent for hits, (_, intent) in zip(found, examples, strict=True))

    assert first(alone) >= 0.8 * len(examples)
    assert first(helped) >= 0.97 * len(examples)


def test_an_intent_raises_its_articles_and_hides_none(index: bytes) -> None:
    """With a wrong intent the right article is still found; with the right one it scores higher."""
    words = "the hotel charged a deposit and it is pending"
    alone = {hit.article_id: hit.score for hit in search(index, words, intent=None, limit=30)}
    wrong = search(index, words, intent="change_pin", limit=30)
    helped = {hit.article_id: hit.score for hit in search(index, words, intent="unrecognised_charge", limit=30)}

    assert "holds-and-double-charges" == ids(wrong)[0]
    assert set(alone) <= set(ids(wrong))
    assert {"change-pin", "forgotten-or-blocked-pin"} <= set(ids(wrong))
    assert helped["holds-and-double-charges"] > alone["holds-and-double-charges"]


def test_hits_come_best_first_and_not_more_than_asked_for(index: bytes) -> None:
    """A hit is complete: a reply can be written from it without the article's file."""
    hits = search(index, "change my PIN at a cash machine", intent=None, limit=2)

    assert ["change-pin", "forgotten-or-blocked-pin"] == ids(hits)
    assert hits[0].score > hits[1].score > 0
    assert "blue anchor" in hits[0].body
    assert ("Change the PIN of your card", "change_pin") == (hits[0].title, hits[0].intent)


@pytest.mark.parametrize("query", ["", "   ", "?!", "😡🔥", '""', "the of and is it", "\x00", "_" * 50])
def test_a_query_without_words_finds_nothing(index: bytes, query: str) -> None:
    """Not even the articles of a known intent."""
    assert [] == search(index, query, intent=None)
    assert [] == search(index, query, intent="change_pin")


@pytest.mark.parametrize(
    "query",
    [
        'PIN" OR "card',
        "PIN AND NOT card",
        "NEAR(PIN card, 2)",
        "title : PIN *",
        "{title body} : PIN ^ -",
        "PIN'; DROP TABLE article; --",
        "PIN\x00\x01 \ud800",
        "PIN " * 10_000,
        "P" * 100_000 + " PIN",
    ],
)
def test_operators_in_a_query_are_words_like_any_other(index: bytes, query: str) -> None:
    """Nothing that FTS5 or SQL knows has a meaning in a ticket."""
    hits = search(index, query, intent=None, limit=30)

    assert "change-pin" in ids(hits)
    assert hits == search(index, query, intent=None, limit=30)


@given(query=st.text(), intent=st.none() | st.text())
def test_any_text_can_be_looked_for(index: bytes, query: str, intent: str | None) -> None:
    """No query and no intent breaks the search; what comes out is ranked and limited."""
    hits = search(index, query, intent=intent, limit=3)

    assert len(hits) <= 3
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
    assert not hits or search_words(query)


@given(st.text())
def test_a_query_is_nothing_but_quoted_words(text: str) -> None:
    """Between the quotes there is no quote, space or other sign, so no text can end the quotes."""
    parts = match_query(text).split(" OR ") if match_query(text) else []

    assert [f'"{word}"' for word in search_words(text)] == parts
    assert all(word.isalnum() for word in search_words(text))
    assert len(parts) <= 64


@given(noise=st.text())
def test_an_article_is_found_by_its_title_whatever_follows(index: bytes, articles: list[Article], noise: str) -> None:
    """Noise after the words that matter does not hide the article."""
    hits = search(index, f"{articles[0].title} {noise}", intent=None, limit=len(articles))

    assert articles[0].id in ids(hits)


@pytest.mark.parametrize("junk", [b"", b"junk", b"SQLite format 3\x00" + bytes(84), bytes(4096)])
def test_bytes_that_are_no_index_are_refused(junk: bytes) -> None:
    """An error of this package, never one of the database."""
    with pytest.raises(KnowledgeIndexError, match="build_index"):
        search(junk, "card", intent=None)


def test_a_truncated_index_is_refused(index: bytes) -> None:
    """A file that was cut off is noticed."""
    with pytest.raises(KnowledgeIndexError):
        search(index[:4096], "card", intent=None)


def test_an_index_without_articles_finds_nothing() -> None:
    """It is an index all the same."""
    assert [] == search(build_index([]), "card", intent="card_arrival")


def test_a_limit_below_one_is_refused(index: bytes) -> None:
    """A search for nothing is a mistake of the caller."""
    with pytest.raises(ValueError, match="allowed: 1 or more"):
        search(index, "card", intent=None, limit=0)


def test_a_search_opens_no_file_and_writes_none(index: bytes) -> None:
    """A child that may open not one file more, nor write a byte, still finds the article."""
    child = subprocess.run([sys.executable, "-c", _CHILD], input=index, capture_output=True, check=False, timeout=60)

    assert (0, b"report-a-stolen-card") == (child.returncode, child.stdout.strip()), child.stderr
