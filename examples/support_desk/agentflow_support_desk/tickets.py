"""Reads tickets and labelled examples from CSV files: the desk's own material or a file a user brings along.

A file needs a header with a `text` column; `category`, `id` and `tone` are optional, other columns are ignored and
upper or lower case does not matter. Everything wrong with a file is a `MaterialError` that names file, line and what is
allowed, because the person who reads it is looking at a spreadsheet and not at this code.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentflow_support_desk.errors import MaterialError
from agentflow_support_desk.reading import read_text

MATERIAL = Path(__file__).parent / "material"
"""The folder with the articles, examples and tickets of the demo."""

_FIELD_CHARACTERS = 131_072
"""The longest cell that is read: the csv module's own limit, named here so that the message can say it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One customer's message."""

    id: str
    """The file's own id, or `row-<n>` (counting from 1) where it gives none; unique in the file."""

    text: str
    """What the customer wrote, as it stands in the file; may be empty."""

    category: str = ""
    """The true intent, for measuring; empty when the file does not say."""

    tone: str = ""
    """How it is written (`terse`, `angry` …), for measuring by kind; empty when the file does not say."""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    line: int
    cells: dict[str, str]


def load_tickets(path: Path, limit: int | None = None) -> list[Ticket]:
    """Read the tickets of a CSV file, in the file's order, at most `limit` of them.

    Raises `MaterialError` for a file that is not such a CSV file and `ValueError` for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; allowed: 1 or more, or None for all")
    tickets: list[Ticket] = []
    lines: dict[str, int] = {}
    for row in _rows(path, required=("text",)):
        ticket = _ticket(row)
        if ticket.id in lines:
            found = f"id {ticket.id!r} again, first used in line {lines[ticket.id]}"
            raise MaterialError("repeated_id", path, row.line, found, "every id once")
        lines[ticket.id] = row.line
        tickets.append(ticket)
        if len(tickets) == limit:
            break
    return tickets


def load_examples(path: Path) -> list[tuple[str, str]]:
    """Read labelled examples as (text, category) pairs, in the file's order.

    Raises `MaterialError` for a file that is not such a CSV file, and for an example without text or category.
    """
    examples = []
    for row in _rows(path, required=("text", "category")):
        text, category = row.cells["text"].strip(), row.cells["category"].strip()
        for column, value in (("text", text), ("category", category)):
            if not value:
                raise MaterialError("empty_cell", path, row.line, f"an empty {column!r}", "text in every example")
        examples.append((text, category))
    return examples


def _ticket(row: _Row) -> Ticket:
    cells = row.cells
    return Ticket(
        id=cells.get("id", "").strip() or f"row-{row.number}",
        text=cells["text"],
        category=cells.get("category", "").strip(),
        tone=cells.get("tone", "").strip(),
    )


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[_Row]:
    """Every row after the header, with the line it starts in; a file without rows is an error."""
    records = _records(path, read_text(path))
    line, header = next(records, (1, []))
    columns = _columns(path, line, header, required)
    number = 0
    for number, (line, record) in enumerate(records, start=1):
        if len(record) != len(columns):
            raise MaterialError("cells", path, line, _count(len(record), "cell"), f"{len(columns)}, as in the header")
        yield _Row(number, line, dict(zip(columns, record, strict=True)))
    if number == 0:
        raise MaterialError("no_rows", path, None, "no row below the header", "at least one row")


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not a blank line, with the line it starts in."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            allowed = f'cells of up to {_FIELD_CHARACTERS:,} characters, quoted with " and quotes inside doubled'
            raise MaterialError("syntax", path, line, str(error), allowed) from error
        if record is None:
            return
        if record:
            yield line, record


def _columns(path: Path, line: int, header: Iterable[str], required: tuple[str, ...]) -> list[str]:
    columns = [name.strip().casefold() for name in header]
    allowed = "a header with " + " and ".join(repr(name) for name in required)
    found = "the columns " + ", ".join(repr(name) for name in columns) if columns else "an empty file"
    if missing := [name for name in required if name not in columns]:
        raise MaterialError("missing_column", path, line, f"{found} (no {missing[0]!r})", allowed)
    if repeated := [name for name in columns if name and columns.count(name) > 1]:
        raise MaterialError("repeated_column", path, line, f"{repeated[0]!r} twice", "every column once")
    return columns


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
