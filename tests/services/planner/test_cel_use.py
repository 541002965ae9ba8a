"""Engines in long-lived processes: used from threads, for a long time, with other libraries' engines beside them."""

import gc
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import psutil
import pytest

from agentflow_planner.check import check_definition
from agentflow_planner.conditions import Choice, Conditions, Engine, Program, engine_for, read_values
from agentflow_planner.definition import VARIABLES, Definition
from agentflow_planner.findings import Finding
from agentflow_planner.templates import Template, compile_template
from tests.services.planner.definitions import SUPPORT
from tests.services.planner.engines import each_engine, engine_or_skip

EXPRESSIONS = [
    "output.n > {n} && output.items.exists(i, i.score >= 0.{n})",
    "output.items.filter(i, i.score > 0.{n}).map(i, i.name + '{n}')",
    "{{'n': output.n + {n}, 'all': output.items.all(i, has(i.name))}}",
    "output.text.matches('^.{{{n},}}$') ? size(output.text) : -{n}",
]
OUTPUT = {"n": 5, "text": "card lost", "items": [{"score": s / 10, "name": f"k{s}"} for s in range(10)]}


def evaluate_all(engine: Conditions, rounds: int) -> list[Any]:
    """Compile and evaluate a number of expressions."""
    results: list[Any] = []
    for n in range(rounds):
        for expression in EXPRESSIONS:
            results.append(engine.compile(expression.format(n=n % 9)).evaluate({"output": OUTPUT}))
    return results


@each_engine
def test_threads_do_not_disturb_each_other(choice: Choice) -> None:
    """Eight threads compile and evaluate with one engine; each gets what one alone gets."""
    expected = evaluate_all(engine_for(choice), 9)
    shared = engine_for(choice)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: evaluate_all(shared, 9), range(8)))
    assert all(result == expected for result in results)


@each_engine
def test_engines_do_not_disturb_each_other(choice: Choice) -> None:
    """Two engines of a kind have their own programs and the same results."""
    first, second = engine_for(choice), engine_for(choice)
    assert first.compile("1 + 1") is not second.compile("1 + 1")
    assert evaluate_all(first, 3) == evaluate_all(second, 3)


COMPILED = """
import celpy
environment = celpy.Environment(runner_class=celpy.CompiledRunner)
assert environment.program(environment.compile("1 + 1")).evaluate({}) == 2
"""
OURS = """
from agentflow_planner.conditions import engine_for
assert engine_for("python").compile("output.n + 1").evaluate({"output": {"n": 5}}) == 6
"""


@pytest.mark.parametrize("order", [OURS + COMPILED, COMPILED + OURS, COMPILED + OURS + COMPILED + OURS])
def test_other_users_of_cel_python_and_we_do_not_disturb_each_other(order: str) -> None:
    """Its parser is shared by the whole process, and makes trees for whoever comes first: we keep our own."""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", order], check=True, capture_output=True, env=environment)


@each_engine
def test_memory_does_not_grow_with_evaluations(choice: Choice) -> None:
    """Thousands of evaluations later the process is as large as before, give or take a few megabytes."""
    engine, process = engine_or_skip(choice), psutil.Process()
    big = {"output": {**OUTPUT, "text": "x" * 20_000}}
    programs = [engine.compile(e.format(n=1)) for e in EXPRESSIONS] + [engine.compile("output.text + 'x' != ''")]

    def evaluate(rounds: int) -> None:
        for _ in range(rounds):
            for program in programs:
                program.evaluate(big)

    evaluate(100)
    gc.collect()
    before = process.memory_info().rss
    evaluate(1000 if choice == "cpp" else 200)
    gc.collect()
    assert process.memory_info().rss - before < 8 * 2**20


@each_engine
def test_failures_do_not_leave_anything_behind(choice: Choice) -> None:
    """An evaluation after a thousand failed ones is like the first."""
    engine = engine_or_skip(choice)
    failing, good = engine.compile("output.items[99].name == 'x'"), engine.compile("output.n == 5")
    for _ in range(1000):
        with pytest.raises(Exception, match="index out of range"):
            failing.evaluate({"output": OUTPUT})
        assert good.holds({"output": OUTPUT})


@each_engine
def test_engines_are_silent(
    choice: Choice, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither library writes about values or patterns to the terminal or the log."""
    caplog.set_level(logging.DEBUG)
    engine = engine_or_skip(choice)
    caplog.clear()
    for expression in ("output.text.matches('(')", "output.missing", "1 / 0 == output.n", "output.n > 'a'"):
        with pytest.raises(Exception, match=r"."):
            engine.compile(expression).evaluate({"output": OUTPUT})
    written = capfd.readouterr()
    assert written.out == ""
    assert "card lost" not in written.err + caplog.text
    assert "Error parsing" not in written.err


@each_engine
def test_variables_are_not_changed_by_an_evaluation(choice: Choice) -> None:
    """A state is handed to many conditions, one after the other."""
    variables: dict[str, Any] = {"output": {"items": [{"a": 1}], "n": 1}}
    copy: dict[str, Any] = {"output": {"items": [{"a": 1}], "n": 1}}
    engine = engine_or_skip(choice)
    for expression in ("output.items + [2]", "output.items.map(i, {'b': i})", "{'x': output}", "output.items[0]"):
        engine.compile(expression).evaluate(variables)
        assert variables == copy


@each_engine
def test_every_expression_of_a_definition_reads_what_there_is(choice: Choice) -> None:
    """The templates and conditions of a sound definition mention nothing but the variables of a run."""
    engine = engine_or_skip(choice)
    definition, _ = check_definition(SUPPORT.encode(), "support.yaml", None, engine)
    assert definition is not None
    templates = [compile_template(state.input, engine) for state in definition.states.values() if state.input]
    conditions = [
        engine.compile(way.condition)
        for state in definition.states.values()
        for way in state.transitions
        if way.condition is not None
    ]
    reads = [path for template in templates for path in template.reads] + [p for c in conditions for p in c.reads]
    assert {path.split(".")[0] for path in reads} <= set(VARIABLES)
    assert "outputs.knowledge_search.articles" in reads
    assert "context.threshold" in reads


def test_the_types_callers_rely_on() -> None:
    """What a checker infers for the public functions is part of the interface."""
    engine = engine_for("python")
    assert_type(engine, Engine)
    program = engine.compile("output.n > 1")
    assert_type(program, Program)
    assert_type(program.holds({"output": OUTPUT}), bool)
    assert_type(program.reads, tuple[str, ...])
    assert_type(read_values(program, {"output": OUTPUT}), dict[str, Any])
    assert_type(compile_template("${output}", engine), Template)
    definition, findings = check_definition(b"", "x", None, engine)
    assert_type(definition, Definition | None)
    assert_type(findings, tuple[Finding, ...])
    conditions: Conditions = engine
    assert conditions.name == "cel-python"
