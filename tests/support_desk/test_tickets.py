"""CSV files are read as spreadsheets write them, and refused with file, line and what is allowed."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk import MATERIAL, Ticket, load_examples, load_tickets
from agentflow_support_desk.errors import MaterialError

texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property test."""
    return tmp_path_factory.mktemp("csv")


def written(path: Path, content: str | bytes) -> Path:
    """The path, with that content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tickets_or_error(path: Path) -> list[Ticket] | MaterialError:
    """What loading gives; any other exception passes."""
    try:
        return load_tickets(path)
    except MaterialError as error:
        return error


def refused(path: Path) -> tuple[str, int | None]:
    """The code and line with which tickets are refused; the message says all that the fields do."""
    with pytest.raises(MaterialError) as caught:
        load_tickets(path)
    error = caught.value
    assert path == error.path
    assert all(part in str(error) for part in (str(path), error.found, error.allowed))
    return error.error_code, error.line


def test_a_ticket_has_what_its_row_says(tmp_path: Path) -> None:
    """Columns are found by their name, in any order and case; others are ignored."""
    path = written(tmp_path / "t.csv", 'Tone,agent,TEXT,id,Category\nterse,Bo,"a, ""b""\nc",7,x\n')

    assert [Ticket(id="7", text='a, "b"\nc', category="x", tone="terse")] == load_tickets(path)


def test_text_is_the_only_column_needed(tmp_path: Path) -> None:
    """Tickets without an id are numbered by row; blank lines are no rows."""
    path = written(tmp_path / "t.csv", "text\nfirst\n\nsecond\n")

    assert [Ticket("row-1", "first"), Ticket("row-2", "second")] == load_tickets(path)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """Spreadsheets put one in front of UTF-8."""
    path = written(tmp_path / "t.csv", b"\xef\xbb\xbftext\r\ngr\xc3\xbc\xc3\x9fe\r\n")

    assert ["grüße"] == [ticket.text for ticket in load_tickets(path)]


def test_a_limit_takes_the_first_tickets() -> None:
    """The order is that of the file."""
    everything = load_tickets(MATERIAL / "tickets.csv")

    assert everything[:5] == load_tickets(MATERIAL / "tickets.csv", limit=5)
    assert everything == load_tickets(MATERIAL / "tickets.csv", limit=10_000)


def test_a_limit_below_one_is_refused() -> None:
    """No tickets at all is never what somebody meant."""
    with pytest.raises(ValueError, match="allowed: 1 or more"):
        load_tickets(MATERIAL / "tickets.csv", limit=0)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        pytest.param("", "material.missing_column", 1, id="empty file"),
        pytest.param("txt,category\na,b\n", "material.missing_column", 1, id="no text column"),
        pytest.param("text,Text\na,b\n", "material.repeated_column", 1, id="text column twice"),
        pytest.param("text\n", "material.no_rows", None, id="header only"),
        pytest.param("text,id\na,1\n\nb,2,3\n", "material.cells", 4, id="comma not quoted"),
        pytest.param('text,id\n"a\nb",1\nc\n', "material.cells", 4, id="too few cells"),
        pytest.param('text,id\na,1\n"b,2\n', "material.syntax", 3, id="quote not closed"),
        pytest.param("text\n" + "x" * 131_073 + "\n", "material.syntax", 2, id="endless cell"),
        pytest.param("text,id\na,1\nb,1\n", "material.repeated_id", 3, id="id twice"),
        pytest.param(b"text\na\nb\xe9\n", "material.encoding", 3, id="Latin-1"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, code: str, line: int | None
) -> None:
    """The line is where the record begins, so that it can be found in an editor."""
    assert (code, line) == refused(written(tmp_path / "t.csv", content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A wrong path and a folder are told apart from a wrong file."""
    assert ("material.unreadable", None) == refused(tmp_path / "missing.csv")
    assert ("material.unreadable", None) == refused(tmp_path)


def test_examples_are_pairs_of_text_and_category(tmp_path: Path) -> None:
    """White space around them does not count."""
    path = written(tmp_path / "e.csv", "category,text\n pin , my PIN \n")

    assert [("my PIN", "pin")] == load_examples(path)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        pytest.param("text\na\n", "material.missing_column", 1, id="no category column"),
        pytest.param("text,category\na,b\nc, \n", "material.empty_cell", 3, id="no category"),
        pytest.param("text,category\n ,b\n", "material.empty_cell", 2, id="no text"),
    ],
)
def test_examples_without_text_or_category_are_refused(tmp_path: Path, content: str, code: str, line: int) -> None:
    """Nothing can be learned from half an example."""
    with pytest.raises(MaterialError) as caught:
        load_examples(written(tmp_path / "e.csv", content))

    assert (code, line) == (caught.value.error_code, caught.value.line)


@given(rows=st.lists(st.tuples(texts, texts), min_size=1), marked=st.booleans())
def test_what_a_csv_writer_wrote_is_read_back(folder: Path, rows: list[tuple[str, str]], marked: bool) -> None:
    """Any text survives: quotes, commas, line breaks, control characters, with and without a byte order mark."""
    output = io.StringIO(newline="")
    writer = csv.writer(output)
    writer.writerow(("text", "category"))
    writer.writerows(rows)
    path = written(folder / "any.csv", output.getvalue().encode("utf-8-sig" if marked else "utf-8"))

    assert [(text, category.strip()) for text, category in rows] == [(t.text, t.category) for t in load_tickets(path)]


@given(content=st.binary() | st.binary().map(b"text,id\n".__add__))
def test_any_file_is_read_or_refused(folder: Path, content: bytes) -> None:
    """Whatever the bytes are, nothing but tickets or a `MaterialError` with a line of the file comes out."""
    path = written(folder / "bytes.csv", content)
    last = content.count(b"\n") + content.count(b"\r") + 1

    outcome = tickets_or_error(path)

    assert outcome
    assert not isinstance(outcome, MaterialError) or outcome.line is None or 1 <= outcome.line <= last
