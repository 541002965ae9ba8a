"""What is wrong with a definition, as people see it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import DefinitionError
from agentflow_planner.findings import (
    MAX_EXCERPT,
    MAX_FOUND,
    Finding,
    did_you_mean,
    excerpt,
    refusal,
    render_findings,
    shorten,
)


def finding(**more: Any) -> Finding:
    """A finding at a place."""
    return Finding(file="flow.yaml", line=3, column=5, code="definition.unknown_state", message="no such state", **more)


def test_a_finding_is_shown_with_its_place_and_everything_that_helps() -> None:
    """The first line is one editors and terminals turn into a link."""
    shown = finding(
        found="anwsered",
        allowed=("answered", "escalated"),
        excerpt="- to: anwsered",
        caret=6,
        suggestion="did you mean 'answered'?",
    )
    assert render_findings([shown]) == (
        "flow.yaml:3:5: definition.unknown_state: no such state\n"
        "    - to: anwsered\n"
        "          ^\n"
        "  found:   anwsered\n"
        "  allowed: answered, escalated\n"
        "  hint:    did you mean 'answered'?\n"
        "\n"
        "1 finding"
    )


def test_only_what_is_known_is_shown() -> None:
    """A finding without an excerpt, a found value and a hint is one line."""
    assert render_findings([finding(), finding()]).splitlines() == [
        "flow.yaml:3:5: definition.unknown_state: no such state",
        "",
        "flow.yaml:3:5: definition.unknown_state: no such state",
        "",
        "2 findings",
    ]


def test_nothing_is_shown_for_no_findings() -> None:
    """A caller may print the result as it is."""
    assert render_findings([]) == ""


def test_findings_travel_as_json() -> None:
    """`agentflow apply --json` prints them, and readers find every field by name."""
    first = finding(allowed=("a",), excerpt="x", caret=0)
    assert msgspec.json.decode(msgspec.json.encode(first), type=Finding) == first


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.integers(1, 450))
def test_the_caret_points_at_the_column(line: str, column: int) -> None:
    """However long a line is, the excerpt is bounded, printable, and the caret is under the character it is about."""
    shown, caret = excerpt(line, column)
    assert len(shown) <= MAX_EXCERPT + 1
    assert 0 <= caret <= len(shown)
    assert shown.isprintable()
    at = min(column - 1, len(line))
    if at < len(line) and line[at].isprintable():
        assert shown[caret] == line[at]


def test_what_was_found_is_bounded() -> None:
    """A finding never repeats a whole file."""
    assert len(shorten("x" * 1000)) == MAX_FOUND
    assert shorten("short") == "short"
    assert shorten(1.5) == "1.5"


def test_the_nearest_name_is_suggested() -> None:
    """A slip of the finger is recognised, and something else is not forced into one."""
    names = ("classify", "knowledge_search", "answered")
    assert did_you_mean("clasify", names) == "did you mean 'classify'?"
    assert did_you_mean("knowlege_search", names) == "did you mean 'knowledge_search'?"
    assert did_you_mean("zebra", names) == ""
    assert did_you_mean("anything", ()) == ""


def test_a_refusal_carries_all_findings_and_names_the_first() -> None:
    """Callers that only print the error see a place; callers that look see everything."""
    error = refusal("flow.yaml", [finding(found="x", allowed=("y",)), finding()])
    assert isinstance(error, DefinitionError)
    assert str(error) == "flow.yaml:3:5: no such state (and 1 more)"
    assert error.error_code == "definition.unknown_state"
    assert error.fields["findings"] == (finding(found="x", allowed=("y",)), finding())
    assert error.exit_code == 2


def test_findings_are_immutable() -> None:
    """They are kept, compared and sent around."""
    with pytest.raises(AttributeError):
        finding().line = 4  # type: ignore[misc]  # the point of the test
