"""Definition files: what a sound one becomes, and how each kind of mistake is named."""

import pytest

from agentflow.errors import DefinitionError
from agentflow_planner.definition import RetryDef, StateDef, TransitionDef
from agentflow_planner.findings import Finding
from agentflow_planner.parsing import parse_definition
from tests.services.planner.definitions import SUPPORT, changed

SMALL = (
    b"name: a\nversion: 1.0.0\ninitial_state: go\nfinal_states: [done]\nstates: {go: {agent: x, on_success: done}}\n"
)


def findings(source: bytes | str) -> tuple[Finding, ...]:
    """Everything wrong with a file."""
    with pytest.raises(DefinitionError) as caught:
        parse_definition(source if isinstance(source, bytes) else source.encode(), "support.yaml")
    found = caught.value.fields["findings"]
    assert isinstance(found, tuple)
    return found


def only(source: bytes | str) -> Finding:
    """The one thing wrong with a file."""
    (found,) = findings(source)
    assert isinstance(found, Finding)
    return found


def test_a_sound_file_becomes_a_typed_definition() -> None:
    """Every key of the format, with durations in seconds and defaults filled in."""
    definition = parse_definition(SUPPORT.encode(), "support.yaml")
    assert (definition.name, definition.version, definition.planner) == ("support", "1.2.0", "fsm")
    assert (definition.max_steps, definition.timeout) == (25, 172800.0)
    assert definition.context == {"threshold": 0.55, "channels": ["mail", "chat"], "limits": {"words": 120}}
    assert definition.input_schema is not None
    assert definition.input_schema["required"] == ["text"]
    assert definition.final_states == ("answered", "escalated")
    assert definition.output == "${outputs.generate_response}"
    assert definition.states["classify"] == StateDef(
        name="classify",
        agent="classifier",
        input={"text": "${input.text}"},
        timeout=10.0,
        retry=RetryDef(max_attempts=3, backoff=0.5),
        transitions=(
            TransitionDef("knowledge_search", "output.confidence >= context.threshold"),
            TransitionDef("approve"),
        ),
        on_error="fallback_response",
    )
    assert definition.states["approve"].signal == "approve"
    assert definition.states["knowledge_search"].timeout == 60.0
    assert definition.states["knowledge_search"].retry == RetryDef(1, 1.0)


def test_final_states_need_not_be_spelled_out() -> None:
    """They stand in `final_states`; `states` may leave them out, or hold them empty."""
    definition = parse_definition(SMALL, "small.yaml")
    assert definition.is_final("done")
    assert not definition.is_final("go")
    assert definition.state("done") == StateDef("done")
    assert definition.state("done").action == "none"
    assert definition.state("go").action == "agent"
    assert definition.state_names == ("go", "done")
    with pytest.raises(KeyError):
        definition.state("nowhere")


def test_defaults_hold_where_nothing_is_said() -> None:
    """A minute for a state, an hour for a run, a hundred steps, one attempt."""
    definition = parse_definition(SMALL, "small.yaml")
    assert (definition.max_steps, definition.timeout, definition.planner) == (100, 3600.0, "fsm")
    assert definition.state("go").timeout == 60.0
    assert (definition.context, definition.input_schema, definition.output) == ({}, None, None)


def test_a_default_timeout_never_outlasts_the_run() -> None:
    """Only a timeout somebody wrote can be too long."""
    definition = parse_definition(SMALL + b"timeout: 5s\n", "small.yaml")
    assert definition.state("go").timeout == 5.0


def test_an_input_may_be_one_template() -> None:
    """One that yields the whole mapping."""
    definition = parse_definition(SMALL.replace(b"agent: x", b'agent: x, input: "${input}"'), "small.yaml")
    assert definition.state("go").input == "${input}"


@pytest.mark.parametrize(
    ("old", "new", "code", "found", "allowed"),
    [
        ("name: support", "¦nam: support", "missing_key", "", "name"),
        ("name: support", "name: ¦sup port", "invalid_name", "sup port", "1 to 64 of A-Z a-z 0-9 _ -"),
        ("name: support", "name: ¦no", "ambiguous", "no", "text in quotes"),
        ("name: support", "name: ¦[a]", "wrong_type", "a list", "text in quotes"),
        ("name: support", "name: ¦''", "invalid_value", "''", "text in quotes"),
        ("version: 1.2.0", "version: ¦1.2", "ambiguous", "1.2", "1.0.0"),
        ("version: 1.2.0", "version: ¦1.2.x", "invalid_value", "1.2.x", "1.0.0"),
        ("version: 1.2.0", "version: ¦01.2.0", "invalid_value", "01.2.0", "1.0.0"),
        ("version: 1.2.0", "version: ¦1.2.0+build", "invalid_value", "1.2.0+build", "1.0.0"),
        ("planner: fsm", "planner: ¦fms", "unknown_planner", "fms", "fsm"),
        ("description: Answers tickets.", "description: ¦5", "ambiguous", "5", "text in quotes"),
        ("max_steps: 25", "max_steps: ¦0", "invalid_value", "0", "1..10000"),
        ("max_steps: 25", "max_steps: ¦10001", "invalid_value", "10001", "1..10000"),
        ("max_steps: 25", "max_steps: ¦many", "invalid_value", "many", "1..10000"),
        ("max_steps: 25", "max_steps: ¦2.5", "invalid_value", "2.5", "1..10000"),
        ("max_steps: 25", "max_steps: ¦true", "invalid_value", "true", "1..10000"),
        ("timeout: 2d", "timeout: ¦2 days", "invalid_value", "2 days", "500ms"),
        ("timeout: 2d", "timeout: ¦4d", "invalid_value", "4d", "500ms"),
        ("timeout: 2d", "timeout: ¦1:30", "invalid_value", "1:30", "500ms"),
        ("timeout: 2d", "timeout: ¦{s: 1}", "invalid_value", "a mapping", "500ms"),
        ("channels: [mail, chat]", "channels: [mail, ¦no]", "ambiguous", "no", ""),
        ("threshold: 0.55,", "¦thres-hold: 0.55,", "invalid_name", "thres-hold", "letters, digits"),
        ("threshold: 0.55,", "¦in: 0.55,", "invalid_name", "in", "letters, digits"),
        ("threshold: 0.55,", "¦signals: 0.55,", "reserved_name", "signals", ""),
        ("threshold: 0.55,", "day: ¦2026-01-01,", "ambiguous", "2026-01-01", ""),
        ("initial_state: classify", "initial_state:¦", "wrong_type", "null", "text in quotes"),
        ("[answered, escalated]", "[answered, ¦9lives]", "invalid_name", "9lives", "letters, digits"),
        ("[answered, escalated]", "¦[]", "missing_key", "a list", "[done]"),
        ("[answered, escalated]", "¦answered", "wrong_type", "answered", "[…]"),
        ("  approve:\n", "  ¦in:\n", "invalid_name", "in", "letters, digits"),
        ("  approve:\n", "  ¦wait-here:\n", "invalid_name", "wait-here", "letters, digits"),
        ("    agent: writer\n", "    ¦agnet: writer\n", "unknown_key", "agnet", "agent"),
        ("    agent: writer\n", "    agent: ¦the.writer\n", "invalid_name", "the.writer", "1 to 64"),
        ("    timeout: 10s\n", "    timeout: ¦soon\n", "invalid_value", "soon", "500ms"),
        ("max_attempts: 3", "max_attempts: ¦101", "invalid_value", "101", "1..100"),
        ("backoff: 500ms", "¦backof: 500ms", "unknown_key", "backof", "max_attempts"),
        ("retry: {max_attempts: 3, backoff: 500ms}", "retry: ¦3", "wrong_type", "3", "key: value"),
        ("- {to: approve}", "- {¦too: approve}", "unknown_key", "too", "to"),
        ("- {to: approve}", "- ¦approve", "wrong_type", "approve", "key: value"),
        ("- {to: approve}", "-¦", "wrong_type", "null", "to: …"),
        ("- {to: approve}", '- {to: approve, condition: ¦""}', "invalid_value", "''", "text in quotes"),
        ("- {to: approve}", "- {to: approve, condition: ¦true}", "ambiguous", "true", "text in quotes"),
        ('input: {error: "${error}"}', "input: ¦everything", "wrong_type", "everything", "key: value"),
        ('input: {error: "${error}"}', "input: ¦[1]", "wrong_type", "a list", "key: value"),
        ("      limit: 3\n", "      limit: ¦0x3\n", "ambiguous", "0x3", ""),
        ("    on_success: escalated", "    on_success: ¦[escalated]", "wrong_type", "a list", "text in quotes"),
        ("  escalated: {}", "  escalated: ¦end", "wrong_type", "end", "key: value"),
        ("  type: object\n", "  type: object\n  default: ¦1_0\n", "ambiguous", "1_0", ""),
    ],
)
def test_every_mistake_has_its_place_its_code_and_what_is_allowed(
    old: str, new: str, code: str, found: str, allowed: str
) -> None:
    """One thing is changed in a sound file, and that is what is reported, where it is: at the bar."""
    source = changed(old, new).decode()
    before = source[: source.index("¦")].split("\n")
    reported = [f for f in findings(source.replace("¦", "")) if f.code == f"definition.{code}"]
    finding = reported[0]
    assert (finding.file, finding.line, finding.column) == ("support.yaml", len(before), len(before[-1]) + 1)
    assert finding.found == found
    assert allowed in ", ".join(finding.allowed)
    line = source.replace("¦", "").split("\n")[finding.line - 1]
    assert (finding.excerpt, finding.caret) == (line, len(before[-1]))


def test_a_number_as_version_says_what_to_write() -> None:
    """`version: 1.0` is a float to YAML, and two parts are no SemVer either."""
    found = only(changed("version: 1.2.0", "version: 1.0"))
    assert found.suggestion == 'write version: "1.0.0"'
    assert only(changed("version: 1.2.0", "version: 2")).suggestion == 'write version: "2.0.0"'


def test_misspelled_keys_are_recognised() -> None:
    """With the key that was probably meant, and all there are."""
    found = only(changed("max_steps: 25", "max_step: 25"))
    assert (found.code, found.suggestion) == ("definition.unknown_key", "did you mean 'max_steps'?")
    assert "initial_state" in found.allowed


def test_everything_wrong_is_reported_at_once() -> None:
    """In the order of the file, so that one run of `agentflow apply` is enough to mend it."""
    source = changed("name: support", "name: no").decode()
    source = source.replace("max_steps: 25", "max_steps: 0").replace("timeout: 10s", "timeout: soon")
    source = source.replace("on_success: escalated", "on_succes: escalated")
    found = findings(source)
    assert [f.code.removeprefix("definition.") for f in found] == [
        "ambiguous",
        "invalid_value",
        "invalid_value",
        "unknown_key",
    ]
    assert [f.line for f in found] == sorted(f.line for f in found)


def test_a_state_that_could_not_be_read_starts_no_false_alarms() -> None:
    """Nothing is said about what depends on the part that is broken."""
    only(changed("    on_success: answered\n", "    on_success: [answered]\n"))
    only(changed("  - {to: knowledge_search", "  - {tu: knowledge_search").replace(b"- {tu", b"- {to: approve, tu"))


@pytest.mark.parametrize(
    ("source", "found"),
    [("", "nothing"), ("# only words\n", "nothing"), ("[a]", "a list"), ("hello", "hello"), ("5", "5")],
)
def test_a_file_that_holds_no_mapping_is_refused(source: str, found: str) -> None:
    """With the keys a definition has."""
    finding = only(source)
    assert (finding.code, finding.found) == ("definition.wrong_type", found)
    assert "states" in finding.allowed


@pytest.mark.parametrize("key", ["name", "version", "initial_state", "final_states", "states"])
def test_what_a_definition_needs_is_named_when_it_is_missing(key: str) -> None:
    """Every required key."""
    source = "\n".join(line for line in SMALL.decode().splitlines() if not line.startswith(f"{key}:"))
    assert ("definition.missing_key", (key,)) in [(f.code, f.allowed) for f in findings(source)]


@pytest.mark.parametrize("empty", ["states:", "states: {}"])
def test_a_definition_without_states_is_refused(empty: str) -> None:
    """There would be nothing to do."""
    source = SMALL.decode().replace("states: {go: {agent: x, on_success: done}}", empty)
    assert "states holds at least one state" in [f.message for f in findings(source)]


def test_yaml_that_cannot_be_read_is_one_finding() -> None:
    """With the line the parser stopped at, shown with a caret."""
    found = only(changed("name: support", "name: support: x"))
    assert (found.code, found.line) == ("definition.yaml", 1)
    assert found.excerpt == "name: support: x"
    assert found.suggestion == "put text that contains ': ' in quotes"


def test_the_error_names_the_first_finding() -> None:
    """For callers that print nothing else."""
    with pytest.raises(DefinitionError, match=r"support.yaml:5:12: max_steps is a whole number from 1 to 10000"):
        parse_definition(changed("max_steps: 25", "max_steps: 0"), "support.yaml")


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3", "10.20.30", "1.0.0-rc.1", "1.0.0-alpha-1.x"])
def test_semantic_versions_are_taken(version: str) -> None:
    """With or without a pre-release part."""
    assert parse_definition(changed("version: 1.2.0", f"version: {version}"), "x").version == version


@pytest.mark.parametrize(
    "version", ["1", "v1.0.0", "1.0", "1.0.0.0", "1.0.0-", "1.0.0-01", "1.0.0 ", "latest", "a" * 80]
)
def test_anything_else_is_no_version(version: str) -> None:
    """It becomes a part of a key and has to be compared."""
    assert only(changed("version: 1.2.0", f"version: '{version}'")).code == "definition.invalid_value"
