"""Templates: values with expressions in them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.conditions import Choice
from agentflow_planner.errors import ConditionError, ExpressionError
from agentflow_planner.templates import MAX_LEVELS, MAX_TEXT, Part, as_text, compile_template, split_text
from tests.services.planner.engines import each_engine, engine_or_skip, made
from tests.services.planner.expressions import JSON

VARIABLES: dict[str, Any] = {
    "input": {"id": 7, "text": "my card", "score": 1.0, "tags": ["a", "b"], "flag": True, "none": None, "nul": "a\0b"},
    "outputs": {"classify": {"intent": "card_lost", "z": 1, "a": 2}},
}


def render(value: Any, choice: Choice = "python", variables: dict[str, Any] | None = None) -> Any:
    """A template compiled and rendered."""
    return compile_template(value, engine_or_skip(choice)).render(VARIABLES if variables is None else variables)


@each_engine
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${input.id}", 7),
        ("${input.score}", 1.0),
        ("${input.flag}", True),
        ("${input.none}", None),
        ("${input.tags}", ["a", "b"]),
        ("${outputs.classify}", {"intent": "card_lost", "z": 1, "a": 2}),
        ("${ input.id + 1 }", 8),
        ("${input.text + '!'}", "my card!"),
        ("${input.tags.map(t, {'tag': t})}", [{"tag": "a"}, {"tag": "b"}]),
        ("${ {'id': input.id} }", {"id": 7}),
        ("${'}'}", "}"),
        ("${input['text']}", "my card"),
        ("Ticket ${input.id}: ${outputs.classify.intent}", "Ticket 7: card_lost"),
        ("${input.id}${input.id}", "77"),
        (" ${input.id}", " 7"),
        ("${input.id}.", "7."),
        ("${input.flag} ${input.none} ${input.score}", "true null 1.0"),
        ("tags: ${input.tags}", 'tags: ["a","b"]'),
        ("all: ${outputs.classify}", 'all: {"a":2,"intent":"card_lost","z":1}'),
        ("é ${'ü'}", "é ü"),
        ("$${input.id}", "${input.id}"),
        ("$${a} ${input.id} $${b}", "${a} 7 ${b}"),
        ("$$${input.id}", "$${input.id}"),
        ("$ {input.id} $5 } {", "$ {input.id} $5 } {"),
        ("", ""),
        (5, 5),
        (None, None),
        ([1, "${input.id}", {"a": ["${input.text}"]}], [1, 7, {"a": ["my card"]}]),
        ({"${input.id}": "key"}, {"${input.id}": "key"}),
    ],
)
def test_templates_render(choice: Choice, template: Any, expected: Any) -> None:
    """One expression keeps its kind, text around it makes text, everything else is as it was written."""
    value = render(template, choice)
    assert (value, type(value)) == (expected, type(expected))


def test_values_pass_through_untouched() -> None:
    """A template that is one path hands on what is there, even what no engine could carry."""
    assert render("${input.nul}") == "a\0b"
    assert render({"text": "${input.nul}"})["text"] == "a\0b"
    assert render("said: ${input.nul}") == "said: a\0b"


@each_engine
def test_reads_are_those_of_all_expressions(choice: Choice) -> None:
    """In the order they are written, each once."""
    template = compile_template(
        {"a": "${input.id} ${input.text}", "b": ["${outputs.classify.intent}", "${input.id}", "none"]},
        engine_or_skip(choice),
    )
    assert template.reads == ("input.id", "input.text", "outputs.classify.intent")


@each_engine
def test_a_failure_names_the_field(choice: Choice) -> None:
    """The path of the field, the expression and the reason: people find it in the file."""
    template = compile_template(
        {"rows": [{"ok": 1}, {"text": "for ${input.missing}"}]}, engine_or_skip(choice), "input"
    )
    with pytest.raises(ConditionError) as caught:
        template.render(VARIABLES)
    error = caught.value
    assert (error.error_code, error.fields["path"], error.expression) == (
        "condition.failed", "input.rows[1].text", "input.missing",
    )  # fmt: skip
    assert str(error) == "input.rows[1].text: no such key: 'missing', in 'input.missing'"


@pytest.mark.parametrize(
    ("template", "offset"),
    [("${", 2), ("${}", 2), ("a ${input.id", 12), ("a ${input.id b}", 13), ("${a} ${'x}", 7), ("${input.id +}", 12)],
)
def test_an_expression_that_does_not_end_is_refused(template: str, offset: int) -> None:
    """When the template is compiled, with the place in the text."""
    with pytest.raises(ExpressionError) as caught:
        compile_template(template, made("python"))
    assert caught.value.offset == offset


def test_nesting_is_bounded() -> None:
    """As deep as a definition may be, and no deeper."""
    value: Any = "${input.id}"
    for _ in range(MAX_LEVELS):
        value = [value]
    assert render(value) is not None
    with pytest.raises(ExpressionError) as caught:
        render([value])
    assert caught.value.error_code == "condition.too_large"


def test_the_text_values_write_is_bounded() -> None:
    """A hundred mentions of a long text do not become an envelope of a hundred megabytes."""
    big = {"input": {"text": "x" * (MAX_TEXT // 4)}}
    assert len(render("${input.text}!" * 4, variables=big)) == MAX_TEXT + 4
    with pytest.raises(ConditionError) as caught:
        render({"a": "${input.text}!" * 3, "b": "${input.text}!" * 3}, variables=big)
    assert caught.value.error_code == "condition.too_large"


@given(JSON)
def test_a_value_without_expressions_is_itself(value: Any) -> None:
    """Literals are literals."""
    template = compile_template(value, made("python"))
    assert template.reads == ()
    assert template.render({}) == value


@given(st.text(max_size=30))
def test_any_text_can_be_written(text: str) -> None:
    """With `$${` for `${` there is a template for every text."""
    assert render(text.replace("${", "$${")) == text


@given(
    st.lists(
        st.one_of(st.text(st.sampled_from("ab ${}'\"\\"), max_size=6), st.integers(0, 9).map(lambda n: (n,))),
        max_size=6,
    )
)
def test_texts_and_values_alternate_as_written(parts: list[str | tuple[int]]) -> None:
    """Whatever stands between expressions, each value is where its expression was."""
    template = "".join(
        part.replace("$", "_").replace("${", "$${") if isinstance(part, str) else f"${{v{part[0]}}}" for part in parts
    )
    expected = "".join(part.replace("$", "_") if isinstance(part, str) else str(part[0]) for part in parts)
    value = render(template, variables={f"v{n}": n for n in range(10)})
    assert str(value) == expected


@given(JSON)
def test_a_value_in_text_is_the_same_every_time(value: Any) -> None:
    """Whatever order its keys came in."""

    def reversed_keys(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: reversed_keys(item[key]) for key in reversed(list(item))}
        return [reversed_keys(each) for each in item] if isinstance(item, list) else item

    assert as_text(value) == as_text(reversed_keys(value))
    assert render("<${v}>", variables={"v": value}) == f"<{as_text(value)}>"


def test_the_parts_of_a_text_know_their_places() -> None:
    """So that a mistake in the third expression is shown in the third."""
    text = "a ${x.y} $${z} ${ 'q' }"
    parts = list(split_text(text))
    assert parts == ["a ", Part("x.y", 4), " ${z} ", Part(" 'q' ", 17)]
    assert all(text[p.offset :].startswith(p.source) for p in parts if isinstance(p, Part))


@each_engine
def test_rendering_twice_gives_equal_values_that_share_nothing_of_the_engine(choice: Choice) -> None:
    """A retry sends the same bytes; changing one result changes no other."""
    template = compile_template({"a": "${input.tags + ['c']}", "n": "${input.id}"}, engine_or_skip(choice))
    first, second = template.render(VARIABLES), template.render(VARIABLES)
    assert first == second
    first["a"].append("d")
    assert second["a"] == ["a", "b", "c"]
    assert template.render(VARIABLES) == second
