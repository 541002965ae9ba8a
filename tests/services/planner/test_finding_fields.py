"""Every slip `agentflow apply` has to refuse is told with file, line, what was found and what is allowed."""

import pytest

from agentflow_planner.check import check_definition
from agentflow_planner.definition import Declared
from agentflow_planner.findings import render_finding
from agentflow_planner.yaml_problems import allowed_by, first_piece, hint_for
from tests.services.planner.definitions import GREET, NO_CEL, SLIPS
from tests.services.planner.engines import engine_or_skip

DECLARED = Declared(frozenset({"greeter"}), frozenset())


def test_the_file_without_a_slip_is_sound() -> None:
    """So that what is found below is about the slip."""
    assert check_definition(GREET.encode(), "flow.yaml", DECLARED, engine_or_skip("python"))[1] == ()


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("declared", [DECLARED, Declared()], ids=["declared", "none declared"])
def test_a_slip_has_a_place_what_was_found_and_what_is_allowed(slip: str, declared: Declared) -> None:
    """In the finding, and in the words people read; also on a mesh where nothing is declared."""
    code, source, line = SLIPS[slip]
    definition, findings = check_definition(source.encode(), "flow.yaml", declared, engine_or_skip("python"))
    finding = next(each for each in findings if each.code == f"definition.{code}")
    shown = render_finding(finding)

    assert definition is None
    assert (finding.file, finding.line) == ("flow.yaml", line)
    assert finding.found.strip()
    assert finding.allowed
    assert all(each.strip() for each in finding.allowed)
    assert shown.startswith(f"flow.yaml:{line}:{finding.column}: definition.{code}: ")
    assert f"\n  found:   {finding.found}\n" in shown
    assert f"\n  allowed: {', '.join(finding.allowed)}" in shown


@pytest.mark.parametrize("condition", [each for each in NO_CEL if each != "#"])
def test_a_syntax_error_says_more_than_that_cel_is_wanted(condition: str) -> None:
    """What is allowed fits the place; an addition to the parser without words of its own shows here."""
    _, source, _ = SLIPS[f"a CEL syntax error: {condition}"]
    [finding] = check_definition(source.encode(), "flow.yaml", DECLARED, None)[1]
    assert finding.allowed != ("a CEL expression",)


@pytest.mark.parametrize(
    ("condition", "found", "allowed"),
    [
        ("input.x = 1", "=", "=="),
        ("(input.x", "the end", ")"),
        ("{'a' 1}", "1", ":"),
        ("input.x >=", "the end", "a number"),
        ("input.", "the end", "['key']"),
        ("input.all(x)", "all", "2 arguments"),
        ("'text", "'", "the same quote at the end of the text"),
    ],
)
def test_what_cel_allows_is_what_the_parser_expected(condition: str, found: str, allowed: str) -> None:
    """At the place where it stopped."""
    _, source, _ = SLIPS[f"a CEL syntax error: {condition}"]
    [finding] = check_definition(source.encode(), "flow.yaml", DECLARED, None)[1]
    assert (finding.found, allowed in finding.allowed) == (found, True)


@pytest.mark.parametrize(
    ("problem", "allowed"),
    [
        ("mapping values are not allowed in this context", "text with ': ' in quotes"),
        ("mapping values are not allowed here", "text with ': ' in quotes"),
        ("did not find expected ',' or '}'", "',' or '}'"),
        ("expected ',' or '}', but got '<scalar>'", "',' or '}'"),
        ("could not find expected ':'", "':'"),
        ("expected <block end>, but found '-'", "'key: value', indented like the keys before it"),
        ("a problem of a parser to come", "YAML 1.1: 'key: value', '- item', or text in quotes"),
    ],
)
def test_what_yaml_allows_is_known_for_either_parser(problem: str, allowed: str) -> None:
    """Those of libyaml and PyYAML use other words for the same."""
    assert allowed in allowed_by(problem)


def test_a_hint_is_only_given_where_one_fits() -> None:
    """A wrong one would be worse than none."""
    assert hint_for("did not find expected <document start>") == "the file holds one definition"
    assert hint_for("a problem of a parser to come") == ""


@pytest.mark.parametrize(
    ("text", "piece"), [("  word: x", "word"), ("]x", "]"), ("\tx", "a tab"), ("\x01", "U+0001"), ("  ", ""), ("", "")]
)
def test_what_was_found_can_be_seen(text: str, piece: str) -> None:
    """Also where it is no character that shows."""
    assert first_piece(text) == piece
