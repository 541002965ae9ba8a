"""Files that are wrong on purpose, and word for word what is said about them.

Each `refused/NAME.yaml` has its findings beside it in `NAME.txt`, as `agentflow apply` prints them. A wording that
changes is seen here as a whole; `AF_UPDATE_REFUSED=1` writes the texts anew.
"""

import os
from pathlib import Path

import pytest

from agentflow_planner.check import check_definition, render_findings
from agentflow_planner.conditions import Choice
from agentflow_planner.definition import Declared
from agentflow_planner.findings import CODES, Finding
from tests.services.planner.engines import each_engine, engine_or_skip

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(__file__).parent / "refused"
FILES = sorted(FOLDER.glob("*.yaml"))
UPDATE = bool(os.environ.get("AF_UPDATE_REFUSED"))
DECLARED = Declared(frozenset({"writer"}), frozenset({"search", "kb_search"}))


def findings(path: Path, choice: Choice = "python") -> tuple[Finding, ...]:
    """What is wrong with a file, which is named without its folders."""
    return check_definition(path.read_bytes(), path.name, DECLARED, engine_or_skip(choice))[1]


@each_engine
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_refused_file_is_told_what_is_wrong_with_it(choice: Choice, path: Path) -> None:
    """The same words with either engine."""
    text = render_findings(findings(path, choice)) + "\n"
    told = path.with_suffix(".txt")
    if UPDATE:
        told.write_text(text, "utf-8")
    assert text == told.read_text("utf-8")


def test_every_code_is_documented_and_shown_by_an_example() -> None:
    """No finding has a code that nobody explained, and for each explained one there is a file that has it."""
    shown = {finding.code for path in FILES for finding in findings(path)}
    assert shown == set(CODES)


def test_every_finding_stands_where_its_excerpt_says() -> None:
    """The line, the column and the caret agree with the file."""
    for path in FILES:
        lines = path.read_text("utf-8").split("\n")
        for finding in findings(path):
            line = lines[finding.line - 1]
            assert finding.column <= len(line) + 1
            assert finding.excerpt[finding.caret : finding.caret + 1] == line[finding.column - 1 : finding.column]


def shipped() -> list[Path]:
    """Every definition in the repository's examples."""
    files = [*(ROOT / "examples").rglob("*.yaml")]
    return sorted(path for path in files if "initial_state:" in path.read_text("utf-8"))


@each_engine
def test_every_definition_the_repository_ships_is_sound(choice: Choice) -> None:
    """What people copy first has nothing wrong with it."""
    assert shipped()
    for path in shipped():
        definition, found = check_definition(path.read_bytes(), path.name, None, engine_or_skip(choice))
        assert render_findings(found) == ""
        assert definition is not None
