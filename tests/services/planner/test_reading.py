"""Typed fields out of a tree: every reader gives a value or reports why there is none, and goes on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.findings import Finding
from agentflow_planner.reading import (
    Fields,
    Report,
    at,
    described,
    is_null,
    json_of,
    mapping_of,
    place_of,
    text_of,
    token_of,
)
from agentflow_planner.yaml_tree import Mapping, Mark, Node, read_document


def fields(source: str, *allowed: str) -> Fields:
    """The fields of a mapping in YAML."""
    document = read_document(source.encode())
    assert isinstance(document.root, Mapping)
    return Fields(Report("x.yaml", document.lines), document.root, "a thing", allowed or ("a",))


def node(source: str) -> tuple[Report, Node]:
    """The value of `a`, and a report."""
    found = fields(f"a: {source}")
    value = found.node_of("a")
    assert value is not None
    return found.report, value


def codes(report: Report) -> list[str]:
    """What was reported."""
    return [finding.code.removeprefix("definition.") for finding in report.findings]


def test_unknown_keys_are_reported_with_those_there_are() -> None:
    """Each of them, with the one that was probably meant."""
    found = fields("colour: red\nsize: 1\n", "color", "size")
    (finding,) = found.report.findings
    assert (finding.code, finding.found, finding.allowed) == ("definition.unknown_key", "colour", ("color", "size"))
    assert (finding.suggestion, finding.message) == ("did you mean 'color'?", "a thing has no key 'colour'")


def test_a_missing_field_is_reported_only_if_it_is_needed() -> None:
    """At the place of the mapping that should have it."""
    found = fields("a: 1")
    assert found.text("b") == ""
    assert codes(found.report) == []
    assert found.text("b", required=True) == ""
    assert [(f.line, f.column, f.code, f.allowed) for f in found.report.findings] == [
        (1, 1, "definition.missing_key", ("b",))
    ]
    assert "a" in found
    assert "b" not in found


@pytest.mark.parametrize(
    ("source", "text", "code"),
    [
        ("words here", "words here", None),
        ("'no'", "no", None),
        ('""', "", "invalid_value"),
        ("no", "", "ambiguous"),
        ("5", "", "ambiguous"),
        ("2026-01-01", "", "ambiguous"),
        ("null", "", "wrong_type"),
        ("[x]", "", "wrong_type"),
        ("{x: 1}", "", "wrong_type"),
    ],
)
def test_texts(source: str, text: str, code: str | None) -> None:
    """Quoted or unmistakable."""
    report, value = node(source)
    assert text_of(report, value, "a") == text
    assert codes(report) == ([code] if code else [])


def test_a_text_may_be_empty_where_that_means_something() -> None:
    """Such as a description."""
    report, value = node('""')
    assert text_of(report, value, "a", empty=True) == ""
    assert codes(report) == []


@pytest.mark.parametrize(
    ("source", "token", "code"),
    [("kb-search_2", "kb-search_2", None), ("kb.search", "", "invalid_name"), ("a b", "", "invalid_name"),
     ("a*", "", "invalid_name"), ("x" * 65, "", "invalid_name"), ("x" * 64, "x" * 64, None), ("5", "", "ambiguous")],
)  # fmt: skip
def test_ids(source: str, token: str, code: str | None) -> None:
    """What may stand as a token of a subject."""
    report, value = node(source)
    assert token_of(report, value, "a") == token
    assert codes(report) == ([code] if code else [])


@pytest.mark.parametrize(("source", "number"), [("1", 1), ("10", 10), ("5", 5)])
def test_numbers_within_bounds(source: str, number: int) -> None:
    """Both ends included."""
    found = fields(f"a: {source}")
    assert found.number("a", 7, 1, 10) == number
    assert codes(found.report) == []


@pytest.mark.parametrize("source", ["0", "11", "1.0", "true", "'5'", "null", "[5]", "0x5", "1e1"])
def test_anything_else_is_no_number_and_the_default_stands_in(source: str) -> None:
    """So that reading goes on."""
    found = fields(f"a: {source}")
    assert found.number("a", 7, 1, 10) == 7
    assert codes(found.report) == ["invalid_value"]
    assert fields("b: 1", "a", "b").number("a", 7, 1, 10) == 7


def test_durations_are_read_with_their_default() -> None:
    """In seconds; a quoted one is one too."""
    assert fields("a: 10s").duration("a", 1.0) == 10.0
    assert fields("a: '10s'").duration("a", 1.0) == 10.0
    assert fields("a: 0.5").duration("a", 1.0) == 0.5
    assert fields("a: 0s").duration("a", 1.0, zero=True) == 0.0
    assert fields("b: 1", "a", "b").duration("a", 1.0) == 1.0
    found = fields("a: 0s")
    assert found.duration("a", 1.0) == 1.0
    assert codes(found.report) == ["invalid_value"]


def test_lists_are_read_item_by_item() -> None:
    """Null is no items, anything else that is no list is reported; items without a value are left out."""

    def even(item: Node, index: int) -> str | None:
        return f"{index}:{described(item)}" if index % 2 == 0 else None

    assert fields("a: [x, y, z]").items("a", even) == ("0:x", "2:z")
    assert fields("a:").items("a", even) == ()
    assert fields("b: 1", "a", "b").items("a", even) == ()
    found = fields("a: x")
    assert found.items("a", even) == ()
    assert codes(found.report) == ["wrong_type"]


def test_mappings_may_be_null() -> None:
    """`states: {done: }` is an empty state."""
    report, value = node("")
    assert mapping_of(report, value, "a") is None
    assert codes(report) == []
    assert is_null(value)
    report, value = node("x")
    assert mapping_of(report, value, "a") is None
    assert codes(report) == ["wrong_type"]


def test_json_values_name_the_path_of_what_is_unclear() -> None:
    """However deep it stands."""
    report, value = node("{b: [1, {c: yes}], d: 2026-01-01}")
    assert json_of(report, value, "a") == {"b": [1, {"c": "yes"}], "d": "2026-01-01"}
    assert [finding.message.split(":")[0] for finding in report.findings] == ["a.b[1].c", "a.d"]


def test_places_are_the_nearest_there_is() -> None:
    """A problem with something that is missing stands where it should be."""
    document = read_document(b"a:\n  b: [x, {c: 1}]\n")
    root = document.root
    assert place_of(root, ("a", "b", 1, "c")) == Mark(2, 14)
    assert place_of(root, ("a", "b", 1, "c"), key=True) == Mark(2, 11)
    assert place_of(root, ("a", "b", 7)) == Mark(2, 6)
    assert place_of(root, ("a", "z", "c")) == Mark(2, 3)
    assert place_of(root, ("nope",)) == Mark(1, 1)
    assert place_of(None, ("a",)) == Mark(1, 1)
    assert at(root, ("a", "b", 0)) is not None
    assert at(root, ("a", 0)) is None
    assert at(root, ("a", "b", "c")) is None


def test_a_finding_is_reported_once() -> None:
    """An alias brings the same value to many places; the mistake in it is one."""
    report = Report("x.yaml", ["a: no"])
    for _ in range(3):
        report.add(Mark(1, 4), "ambiguous", "no", found="no")
    assert len(report.findings) == 1


def test_findings_come_in_the_order_of_the_file() -> None:
    """Whatever order they were found in."""
    report = Report("x.yaml", ["a", "b", "c"])
    for line, column in ((3, 1), (1, 2), (1, 1), (2, 9)):
        report.add(Mark(line, column), "yaml", "x")
    assert [(f.line, f.column) for f in report.sorted()] == [(1, 1), (1, 2), (2, 9), (3, 1)]


@given(st.lists(st.text(max_size=20), max_size=3), st.integers(0, 9), st.integers(1, 99))
def test_any_place_can_be_reported(lines: list[str], line: int, column: int) -> None:
    """Also one outside of the file, as a broken file may have."""
    report = Report("x.yaml", lines)
    report.add(Mark(line, column), "yaml", "x")
    (finding,) = report.findings
    assert isinstance(finding, Finding)
    assert finding.caret <= len(finding.excerpt)


@pytest.mark.parametrize(
    ("source", "text"), [("x", "x"), ("''", "''"), ("null", "null"), ("[1]", "a list"), ("{}", "a mapping"), ("5", "5")]
)
def test_nodes_are_described_in_a_word(source: str, text: str) -> None:
    """As findings show them."""
    value: Any = node(source)[1]
    assert described(value) == text
