"""Definition files of any kind: only `DefinitionError` comes out, and the same file always means the same."""

from typing import Any

import msgspec
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow.errors import DefinitionError
from agentflow_planner.check import check_definition
from agentflow_planner.definition import Declared, Definition
from agentflow_planner.findings import Finding, render_findings
from agentflow_planner.parsing import parse_definition
from agentflow_planner.validation import validate
from tests.services.planner.definitions import SUPPORT, as_yaml, chain_of, graphs

LINES = SUPPORT.splitlines(keepends=True)
TOKENS = [
    ": ", "- ", "[", "]", "{", "}", "'", '"', "|", ">", "&a ", "*a", "!x ", "#", "\n", "\t", "  ", "no", "1.0", "null",
    "~", "${", "}}", "<<: ", "---\n", "é", "\x00", "%", "@", "`", "2026-01-01", "&&", "output.", "size(", "1e999", "\u2028",
]  # fmt: skip


def parsed(source: bytes) -> Definition | tuple[Finding, ...]:
    """What comes of a file; anything but a definition or its findings fails the test."""
    try:
        return parse_definition(source, "any.yaml")
    except DefinitionError as error:
        findings = error.fields["findings"]
        assert isinstance(findings, tuple)
        assert findings
        return findings


def check_places(findings: tuple[Finding, ...], source: bytes) -> None:
    """Every finding stands in the file, has a code, and can be shown."""
    count = len(source.decode("utf-8", "replace").splitlines()) + 1
    for finding in findings:
        assert 1 <= finding.line <= count + 1
        assert finding.column >= 1
        assert finding.code.startswith("definition.")
    assert render_findings(findings)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """The sound file after a few random edits: tokens inserted, stretches cut, lines moved, doubled or indented."""
    text = SUPPORT
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["insert", "cut", "double", "swap", "indent"])):
            case "insert":
                text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at:]
            case "cut":
                text = text[:at] + text[at + draw(st.integers(1, 40)) :]
            case "double":
                text = text[:at] + text[at : at + draw(st.integers(1, 60))] + text[at:]
            case "swap":
                lines = text.splitlines(keepends=True)
                if len(lines) > 1:
                    i, j = draw(st.tuples(*[st.integers(0, len(lines) - 1)] * 2))
                    lines[i], lines[j] = lines[j], lines[i]
                    text = "".join(lines)
            case _:
                lines = text.splitlines(keepends=True)
                if lines:
                    i = draw(st.integers(0, len(lines) - 1))
                    lines[i] = draw(st.sampled_from([" ", "    "])) + lines[i]
                    text = "".join(lines)
    return text.encode()


@given(mutations())
def test_a_mutated_file_is_a_definition_or_a_list_of_findings(source: bytes) -> None:
    """Whatever happens to a file in an editor, nothing but `DefinitionError` is raised, with places in the file."""
    result = parsed(source)
    if isinstance(result, tuple):
        check_places(result, source)


@given(mutations())
def test_the_one_entry_never_raises(source: bytes) -> None:
    """`check_definition` finds at least what parsing finds, and expressions and names besides."""
    definition, findings = check_definition(source, "any.yaml", Declared(), None)
    assert (definition is None) == bool(findings)
    result = parsed(source)
    if isinstance(result, tuple):
        assert set(result) <= set(findings)
    if findings:
        check_places(findings, source)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_definition_or_a_list_of_findings(source: bytes) -> None:
    """The same for files that were never meant to be one."""
    check_definition(source, "any.yaml", None, None)
    parsed(source)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=8), st.dates()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(list(yaml.safe_load(SUPPORT))), VALUES)
def test_any_value_for_any_key_is_taken_or_refused(key: str, value: Any) -> None:
    """Each key of a definition with each kind of value YAML can hold."""
    content = yaml.safe_load(SUPPORT)
    content[key] = value
    parsed(yaml.safe_dump(content, allow_unicode=True).encode())


@given(st.sampled_from(["agent", "tool", "signal", "input", "timeout", "retry", "transitions", "on_success"]), VALUES)
def test_any_value_for_any_key_of_a_state_is_taken_or_refused(key: str, value: Any) -> None:
    """The same for the keys of a state."""
    content = yaml.safe_load(SUPPORT)
    content["states"]["classify"][key] = value
    check_definition(yaml.safe_dump(content, allow_unicode=True).encode(), "any.yaml", None, None)


@given(graphs())
def test_parsing_refuses_exactly_the_graphs_validation_refuses(definition: Definition) -> None:
    """The way through YAML adds nothing and loses nothing."""
    result = parsed(as_yaml(definition))
    problems = validate(definition)
    if isinstance(result, Definition):
        assert problems == ()
        assert result == definition
    else:
        assert {f.code.removeprefix("definition.") for f in result} == {p.code for p in problems}


def test_a_sound_definition_is_the_same_however_it_is_written() -> None:
    """Another style, another order of keys, the same meaning; and twice the same file is twice the same value."""
    first = parse_definition(SUPPORT.encode(), "a.yaml")
    assert parse_definition(SUPPORT.encode(), "b.yaml") == first
    content = yaml.safe_load(SUPPORT)
    assert parse_definition(yaml.safe_dump(content, sort_keys=False).encode(), "c.yaml") == first
    assert parse_definition(yaml.safe_dump(content, default_flow_style=True).encode(), "d.yaml") == first
    assert parse_definition(msgspec.json.encode(content), "e.json") == first


@given(st.integers(0, len(LINES)), st.sampled_from(["# a comment\n", "\n", "   \n", "# é: [\n"]))
def test_comments_and_empty_lines_change_nothing(at: int, line: str) -> None:
    """Nothing that people add for people matters."""
    source = "".join([*LINES[:at], line, *LINES[at:]]).encode()
    assert parse_definition(source, "a.yaml") == parse_definition(SUPPORT.encode(), "a.yaml")


@given(st.integers(1, 25))
def test_definitions_of_any_length_are_sound(states: int) -> None:
    """Long ones are read as reliably as short ones."""
    definition = parse_definition(chain_of(states), "long.yaml")
    assume(isinstance(definition, Definition))
    assert len(definition.states) == states
    assert msgspec.json.decode(msgspec.json.encode(definition), type=Definition) == definition
