"""The one entry for definitions: expressions, names, schema, declarations — with places, and fast."""

import time

import pytest

from agentflow_planner.check import check_definition, render_findings
from agentflow_planner.conditions import Choice
from agentflow_planner.definition import Declared
from agentflow_planner.findings import Finding
from tests.services.planner.definitions import SUPPORT, chain_of, changed
from tests.services.planner.engines import each_engine, engine_or_skip

CONDITION = '"output.confidence >= context.threshold"'
DECLARED = Declared(frozenset({"classifier", "writer", "apologiser"}), frozenset({"kb_search"}))


def findings(source: bytes, declared: Declared | None = None, choice: Choice | None = None) -> tuple[Finding, ...]:
    """Everything wrong with a file."""
    definition, found = check_definition(source, "support.yaml", declared, engine_or_skip(choice) if choice else None)
    assert (definition is None) == bool(found)
    return found


def marked(new: str, old: str = CONDITION) -> tuple[bytes, int, int]:
    """The sound file with one thing changed, and the line and column of the bar in it."""
    source = changed(old, new).decode()
    before = source[: source.index("¦")].split("\n")
    return source.replace("¦", "").encode(), len(before), len(before[-1]) + 1


@each_engine
def test_a_sound_file_passes(choice: Choice) -> None:
    """With every agent and tool declared, and every expression compiled by either engine."""
    definition, found = check_definition(SUPPORT.encode(), "support.yaml", DECLARED, engine_or_skip(choice))
    assert found == ()
    assert definition is not None
    assert definition.name == "support"


@pytest.mark.parametrize(
    ("new", "code", "found"),
    [
        ('"output.confidence >= ¦"', "cel_syntax", "the end"),
        ('"output.confidence ¦=> 1"', "cel_syntax", "="),
        ('"(output.a ¦"', "cel_syntax", "the end"),
        ('"output.a == ¦\'b"', "cel_syntax", "'"),
        ('"output.a ¦& output.b"', "cel_syntax", "&"),
        ('"output.a == 1 ¦output.b"', "cel_syntax", "output"),
        ('"output.¦in == 1"', "cel_syntax", "in"),
        ('"¦while"', "cel_syntax", "while"),
        ("'output.it == ''x'' && ¦)'", "cel_syntax", ")"),
        ('"output.a == \\"x\\" && ¦)"', "cel_syntax", ")"),
        ('"¦${output.done}"', "cel_syntax", "${"),
        (
            "\"output.a ¦+ 1 == 2 ? 1 + 'a' : 2\"".replace("¦", "").replace("1 + 'a'", "1 ¦+ 'a'"),
            "cel_type",
            "int + string",
        ),
        ("\"output.text.¦lower() == 'a'\"", "cel_unknown_function", "lower"),
        ('"¦sizeof(output) > 1"', "cel_unknown_function", "sizeof"),
        ('"¦outptu.confidence > 1"', "cel_unknown_variable", "outptu.confidence"),
        ('"output.all(x, ¦y.ok)"', "cel_unknown_variable", "y.ok"),
        ('"has(¦outputs.clasify.intent)"', "unknown_output", "outputs.clasify.intent"),
        ('"¦outputs.answered == 1"', "unknown_output", "outputs.answered"),
        ('"output.x > ¦context.treshold"', "unknown_context", "context.treshold"),
        ("\"¦context['lim'].words > 1\"", "unknown_context", "context.lim.words"),
        ("\"¦output.a + 'b'\"".replace("¦output", "output").replace(" + ", " ¦+ "), "not_a_condition", "string"),
        ('"¦size(output.items)"', "not_a_condition", "int"),
        ('"' + "¦(" * 1 + "(" * 24 + "1" + ")" * 25 + ' == 1"', "cel_too_large", ""),
    ],
)
def test_every_mistake_in_a_condition_has_its_place(new: str, code: str, found: str) -> None:
    """The caret is on the character in the file, whatever quotes are around the expression."""
    source, line, column = marked(new)
    (finding,) = findings(source)
    assert (finding.code, finding.found) == (f"definition.{code}", found)
    assert finding.line == line
    if code not in {"not_a_condition", "cel_too_large"}:
        assert finding.column == column


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('query: "${input.text}"', 'query: "${¦inptu.text}"', "cel_unknown_variable"),
        ('query: "${input.text}"', 'query: "all of it: ${input.text +¦}"', "cel_syntax"),
        ('query: "${input.text}"', 'query: "${input.text¦"', "cel_syntax"),
        ('query: "${input.text}"', 'query: "${¦}"', "cel_syntax"),
        ('query: "${input.text}"', 'query: "$${x} ${¦foo(input)}"', "cel_unknown_function"),
        ('query: "${input.text}"', 'query: {deep: [1, "${¦outputs.x}"]}', "unknown_output"),
        ('output: "${outputs.generate_response}"', 'output: {a: "${¦outputs.generate_respons}"}', "unknown_output"),
    ],
)
def test_every_mistake_in_a_template_has_its_place(old: str, new: str, code: str) -> None:
    """Wherever in an input or the output it stands."""
    source, line, column = marked(new, old)
    (finding,) = findings(source)
    assert finding.code == f"definition.{code}"
    assert (finding.line, finding.column) == (line, column)


def test_places_in_block_scalars_are_found() -> None:
    """Long conditions are written over several lines."""
    old = "- to: generate_response\n        condition: size(output.articles) > 0\n"
    new = (
        "- to: generate_response\n        condition: |\n          output.confidence >= 1 &&\n"
        "            size(output.x) > ¦outputs.nope\n"
    )
    source, line, column = marked(new, old)
    (finding,) = findings(source)
    assert (finding.code, finding.line, finding.column) == ("definition.unknown_output", line, column)


def test_names_are_suggested() -> None:
    """Variables, functions, states and constants alike."""
    for old, hint in [
        ("outptu.a", "output"),
        ("outputs.clasify", "classify"),
        ("context.threshhold", "threshold"),
        ("sise(output)", "size"),
    ]:
        (finding,) = findings(changed(CONDITION, f'"{old} == 1"'))
        assert finding.suggestion == f"did you mean {hint!r}?"
        assert hint in finding.allowed


def test_what_a_run_says_about_itself_can_be_read() -> None:
    """Beside its constants, `context` holds the run's own facts."""
    for name in ("workflow_id", "state", "attempt", "steps", "signals.approve"):
        assert findings(changed(CONDITION, f'"context.{name} == 1"')) == ()


@pytest.mark.parametrize("new", ["text", "${a", "a ${input} b", "${input} and more", "${input}${output}"])
def test_an_input_that_is_one_text_is_one_template(new: str) -> None:
    """Anything else could not yield a mapping."""
    found = findings(changed('input: {error: "${error}"}', f'input: "{new}"'))
    assert {f.code for f in found} <= {
        "definition.wrong_type",
        "definition.cel_syntax",
        "definition.cel_unknown_variable",
    }
    assert found


def test_agents_and_tools_are_looked_up() -> None:
    """Both the undeclared one and those there are are named, at the place where it stands."""
    found = findings(SUPPORT.encode(), Declared(frozenset({"classifier", "writer"}), frozenset({"search"})))
    assert [(f.code, f.found, f.allowed) for f in found] == [
        ("definition.undeclared_tool", "kb_search", ("search",)),
        ("definition.undeclared_agent", "apologiser", ("classifier", "writer")),
    ]
    lines = SUPPORT.splitlines()
    assert [lines[f.line - 1][f.column - 1 :] for f in found] == ["kb_search", "apologiser"]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("  type: object", "  type: objekt", "input_schema.type"),
        ("maxLength: 4000", "pattern: '('", "input_schema.properties.text.pattern"),
        ("{type: string, maxLength: 4000}", "{$ref: 'http://127.0.0.1:1/x.json'}", "127.0.0.1"),
        ("{type: string, maxLength: 4000}", "{$ref: '#/$defs/no'}", "$defs"),
    ],
)
def test_an_input_schema_that_is_none_is_refused(old: str, new: str, part: str) -> None:
    """And nothing it refers to is fetched."""
    (finding,) = findings(changed(old, new))
    assert finding.code == "definition.input_schema"
    assert part in finding.message


def test_structure_graph_and_expressions_are_reported_together() -> None:
    """One mistake of each kind, all found in one go, in the order of the file."""
    source = changed(CONDITION, '"output.confidence >="').decode()
    source = source.replace("max_steps: 25", "max_steps: x").replace("on_success: answered", "on_success: done")
    found = findings(source.encode(), DECLARED)
    assert [f.code.removeprefix("definition.") for f in found] == [
        "invalid_value",
        "cel_syntax",
        "unknown_state",
        "unreachable_state",
    ]
    assert "4 findings" in render_findings(found)


def test_findings_for_terminals_are_complete() -> None:
    """The text people see, in full, once."""
    source, _, _ = marked('"output.confidence >= ¦context.treshold"')
    assert render_findings(findings(source)) == (
        "support.yaml:22:65: definition.unknown_context: there is no constant 'treshold'\n"
        '          - {to: knowledge_search, condition: "output.confidence >= context.treshold"}\n'
        "                                                                    ^\n"
        "  found:   context.treshold\n"
        "  allowed: attempt, channels, limits, signals, state, steps, threshold, workflow_id\n"
        "  hint:    did you mean 'threshold'?\n"
        "\n"
        "1 finding"
    )


@each_engine
def test_a_definition_of_twenty_states_is_checked_in_fifty_milliseconds(choice: Choice) -> None:
    """Parsing, validation and compiling every expression for the first time; the best of three, in the process's own time."""
    engine = engine_or_skip(choice)
    source = chain_of(20)
    taken = []
    for attempt in range(3):
        fresh = source.replace(b"0.5 &&", f"0.{attempt + 1}5 &&".encode())
        start = time.process_time()
        _, found = check_definition(fresh, "long.yaml", None, engine)
        taken.append(time.process_time() - start)
        assert found == ()
    assert min(taken) < 0.05
