"""The subject grammar: builders and parser are inverse, and nothing outside the grammar ever passes."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.errors import SubjectError
from agentflow.subjects import Subject, matches, parse, stream_of
from tests.core.strategies import numbers, texts, tokens
from tests.core.test_ids import HOSTILE
from tests.support.profiles import wire

T = r"[A-Za-z0-9_-]{1,64}"
GRAMMAR = re.compile(
    rf"workflows\.{T}\.(in|out|results\.{T})|agents\.{T}\.(in|out)(\.{T})?|tools\.(calls|audit)\.{T}"
    rf"|tools\.results\.{T}\.{T}|tools\.anomaly(\.{T})?|protocols\.{T}\.{T}|timers\.(set|due)\.{T}\.{T}\.{T}|dead\.{T}\.{T}(\.{T})?"
)
"""The table of architecture, section 3.4, once more."""

ONE: dict[str, tuple[Callable[[str], str], str, Subject | None]] = {
    "workflow_in": (subjects.workflow_in, "workflows.{}.in", Subject("workflow.in", "A")),
    "workflow_out": (subjects.workflow_out, "workflows.{}.out", Subject("workflow.out", "A")),
    "workflow_all": (subjects.workflow_all, "workflows.{}.>", None),
    "stored_out": (subjects.stored_out, "stored.workflows.{}.out", None),
    "agent_out": (subjects.agent_out, "agents.{}.out", Subject("agent.out", "A")),
    "tool_call": (subjects.tool_call, "tools.calls.{}", Subject("tool.call", "A", "A")),
    "tool_audit": (subjects.tool_audit, "tools.audit.{}", Subject("tool.audit", "A", "A")),
    "stored_tool_results": (subjects.stored_tool_results, "stored.tools.results.{}.*", None),
}
"""Builders of one token: the form they make, and what it parses to (`A` for the token; None for a filter)."""

TWO: dict[str, tuple[Callable[[str, str], str], str, Subject]] = {
    "workflow_result": (subjects.workflow_result, "workflows.{}.results.{}", Subject("workflow.result", "A", "B")),
    "agent_in": (subjects.agent_in, "agents.{}.in.{}", Subject("agent.in", "A", "B")),
    "tool_result": (subjects.tool_result, "tools.results.{}.{}", Subject("tool.result", "A", "B")),
    "dead": (subjects.dead, "dead.{}.{}", Subject("dead", "A", "B")),
    "timer_set": (subjects.timer_set, "timers.set.{}.{}.0", Subject("timer.set", "B", "0")),
    "timer_due": (subjects.timer_due, "timers.due.{}.{}.0", Subject("timer.due", "B", "0")),
}
"""Builders of two tokens, likewise."""

WORDS = (
    *("workflows", "agents", "tools", "protocols", "timers", "dead"),
    *("in", "out", "results", "calls", "audit", "anomaly", "set", "due"),
    *("run-1", "x", "", "*", ">", "a b", "ä", "stored", "x" * 65),
)


def near_subject(number: int) -> str:
    """One to five words, the first and the others often the right ones."""
    words = [WORDS[number % 7]]
    for _ in range(number // 7 % 5):
        number //= 35
        words.append(WORDS[number % len(WORDS)])
    return ".".join(words)


anything = numbers.map(near_subject)
"""Subjects in and near the grammar."""


def expected(given_subject: Subject, one: str, other: str = "") -> Subject:
    """The parsed form with the tokens put in."""
    names = {"A": one, "B": other}
    return Subject(
        given_subject.kind,
        names.get(given_subject.owner, given_subject.owner),
        names.get(given_subject.item, given_subject.item),
    )


@wire
@given(st.sampled_from(sorted(ONE)), tokens)
def test_a_builder_of_one_token_makes_its_form_and_parses_back(name: str, token: str) -> None:
    """Whatever id is allowed: the subject of the table, which the parser takes apart into the same id."""
    build, form, parsed = ONE[name]
    subject = build(token)

    assert form.format(token) == subject
    if parsed is not None:
        assert expected(parsed, token) == parse(subject)


@wire
@given(st.sampled_from(sorted(TWO)), tokens, tokens)
def test_a_builder_of_two_tokens_makes_its_form_and_parses_back(name: str, one: str, other: str) -> None:
    """In the right order: a run's result is not another run's."""
    build, form, parsed = TWO[name]
    subject = build(one, other)

    assert form.format(one, other) == subject
    assert expected(parsed, one, other) == parse(subject)


@wire
@given(st.sampled_from(sorted(ONE) + sorted(TWO)), texts, tokens, st.booleans())
def test_no_builder_lets_a_text_outside_the_grammar_through(name: str, text: str, token: str, first: bool) -> None:
    """In no place of any subject."""
    if re.fullmatch(T, text):
        return
    pair = (text, token) if first else (token, text)
    build = functools.partial(ONE[name][0], text) if name in ONE else functools.partial(TWO[name][0], *pair)

    with pytest.raises(SubjectError):
        build()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_ids_reach_no_subject(text: str) -> None:
    """Wildcards (which JetStream would store), dots, protocol lines, other alphabets, trailing newlines."""
    for build, _, _ in ONE.values():
        with pytest.raises(SubjectError):
            build(text)
    for build_two, _, _ in TWO.values():
        for pair in ((text, "x"), ("x", text)):
            with pytest.raises(SubjectError):
                build_two(*pair)


@pytest.mark.parametrize("build", [subjects.timer_set, subjects.timer_due])
def test_timers_are_numbered_from_zero(build: Callable[[str, str, int], str]) -> None:
    """A number that would not fit a token is refused like any other id, even one too long to be written."""
    for index in (-1, 2**63, 10**100, 10**5000):
        with pytest.raises(SubjectError):
            build("workflow", "run-1", index)


def test_timers_of_one_owner_have_subjects_of_their_own() -> None:
    """What is set and what is due differ in one token."""
    assert "timers.set.workflow.run-1.12" == subjects.timer_set("workflow", "run-1", 12)
    assert "timers.due.workflow.run-1.12" == subjects.timer_due("workflow", "run-1", 12)
    assert Subject("timer.due", "run-1", "12") == parse("timers.due.workflow.run-1.12")


# --- the parser ------------------------------------------------------------------------------------------------------


@wire
@given(st.one_of(anything, texts))
def test_the_parser_takes_exactly_what_is_in_the_grammar(subject: str) -> None:
    """Compared with the grammar as one regular expression: no more, no less, and never another error."""
    if GRAMMAR.fullmatch(subject):
        assert parse(subject).kind
    else:
        with pytest.raises(SubjectError):
            parse(subject)


@pytest.mark.parametrize(
    ("subject", "parsed"),
    [
        ("workflows.run-1.in", Subject("workflow.in", "run-1")),
        ("workflows.in.in", Subject("workflow.in", "in")),
        ("agents.greeter.in", Subject("agent.in", "greeter")),
        ("agents.greeter.out.E1", Subject("agent.out", "greeter", "E1")),
        ("tools.anomaly", Subject("tool.anomaly")),
        ("tools.anomaly.A1", Subject("tool.anomaly", "A1", "A1")),
        ("tools.audit.c1", Subject("tool.audit", "c1", "c1")),
        ("protocols.contract_net.search", Subject("protocol", "contract_net", "search")),
        ("dead.AF_MESSAGES.planner", Subject("dead", "AF_MESSAGES", "planner")),
        ("dead.AF_MESSAGES.planner.L1", Subject("dead.case", "planner", "L1")),
    ],
)
def test_parsed_subjects_say_what_they_are(subject: str, parsed: Subject) -> None:
    """Kind, owner and item, also of the forms that have no builder here."""
    assert parsed == parse(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ".",
        "workflows",
        "workflows.run-1",
        "workflows.run-1.",
        "workflows..in",
        ".workflows.run-1.in",
        "workflows.run-1.in.x",
        "workflows.run-1.in\n",
        "workflows.run-1.in ",
        "workflows.*.in",
        "workflows.>",
        "workflows.run-1.results",
        "workflows.run-1.results.*",
        "agents.greeter.in.a.b",
        "tools.calls",
        "tools.anomaly.x.y",
        "stored.workflows.run-1.out",
        "$JS.API.STREAM.DELETE.AF_MESSAGES",
        "_INBOX.x.y",
        "timers.set.workflow.run-1",
        "Workflows.run-1.in",
        "workflows.run-1.IN",
        "workflows.rün.in",
        "workflows." + "x" * 65 + ".in",
    ],
)
def test_near_misses_are_refused(subject: str) -> None:
    """One token too few or too many, another case, a wildcard, a space, a reserved subject."""
    with pytest.raises(SubjectError):
        parse(subject)


def test_a_refused_subject_is_shown_cut() -> None:
    """A thousand tokens do not fill a log."""
    with pytest.raises(SubjectError) as refused:
        parse(".".join(["x"] * 1000))

    assert len(str(refused.value)) < 300


# --- patterns --------------------------------------------------------------------------------------------------------


def as_expression(pattern: str) -> re.Pattern[str]:
    """What a NATS pattern means, as a regular expression."""
    meaning = {"*": r"[^.]+", ">": r".+"}
    return re.compile(r"\.".join(meaning.get(token, re.escape(token)) for token in pattern.split(".")))


def lines(alphabet: str, longest: int) -> Iterator[str]:
    """Every subject of one to so many tokens from an alphabet."""
    for length in range(1, longest + 1):
        yield from map(".".join, itertools.product(alphabet, repeat=length))


def test_matching_agrees_with_an_independent_model() -> None:
    """`*` stands for one token, `>` for one or more at the end, everything else for itself.

    Exhaustive: each pattern of up to four tokens against each subject of up to four, some 20,000 pairs.
    """
    plain = list(lines("ab*", 4))
    subjects_of_four = list(lines("abc", 4))
    wrong = [
        (pattern, subject)
        for pattern in [">", *plain, *(f"{before}.>" for before in plain if before.count(".") < 3)]
        for model in [as_expression(pattern)]
        for subject in subjects_of_four
        if bool(model.fullmatch(subject)) != matches(pattern, subject)
    ]

    assert [] == wrong


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        (">", "a", True),
        ("a.>", "a", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*.b", "a.b", True),
        ("a*", "ab", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("A", "a", False),
    ],
)
def test_matching_follows_the_server(pattern: str, subject: str, covered: bool) -> None:
    """The corners, written out."""
    assert covered == matches(pattern, subject)


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        ("workflows.run-1.in", "AF_MESSAGES"),
        ("agents.greeter.out", "AF_AGENTS"),
        ("tools.audit.c1", "AF_AUDIT"),
        ("protocols.contract_net.search", "AF_PROTOCOLS"),
        ("timers.set.workflow.run-1.0", "AF_TIMERS"),
        ("dead.AF_MESSAGES.planner", "AF_DEAD"),
    ],
)
def test_every_subject_of_the_grammar_is_stored_in_one_stream(subject: str, stream: str) -> None:
    """The table of architecture, section 3.4."""
    assert parse(subject).kind
    assert stream == stream_of(subject)


@pytest.mark.parametrize("subject", ["", "stored.workflows.run-1.out", "x", "$KV.AF_CONFIG.a", "y" * 1000])
def test_other_subjects_are_stored_nowhere(subject: str) -> None:
    """And the refusal says which are, without repeating a long one."""
    with pytest.raises(SubjectError) as refused:
        stream_of(subject)

    assert "workflows" in str(refused.value.fields["allowed"])
    assert len(str(refused.value)) < 300
