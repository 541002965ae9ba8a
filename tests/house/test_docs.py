"""The documentation: the site builds without a network, what it prints exists, and what it states in bytes holds."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from agentflow.cli.app import build
from agentflow.envelope import unseal
from tests.house.workspace import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
CONFIG = ROOT / "zensical.toml"

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(https?:)?//|<link[^>]*rel=["']?(?:stylesheet|preconnect|icon)["']?[^>]*href=["']?(https?:)?//|<link[^>]*href=["']?(https?:)?//[^>]*rel=["']?stylesheet""",
    re.IGNORECASE,
)


def commands_in(page: Path) -> Iterator[str]:
    """Every line of a page's code blocks that runs our command, without what is said beside it."""
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        text = line.strip().removeprefix("$ ")
        if (fenced or line.startswith("    ")) and text.startswith("agentflow "):
            ends = (each.start() for each in re.finditer(r"\s{3,}|\s# ", text))
            yield text[: next((end for end in ends if text[:end].count("'") % 2 == 0), None)]


def test_every_page_is_in_the_navigation() -> None:
    """A page nobody can reach is no page, and a link to one that is not there is broken."""
    named = re.findall(r'"([a-z-]+\.md)"', CONFIG.read_text())

    assert sorted(page.name for page in PAGES) == sorted(named)


@pytest.mark.slow
def test_the_site_builds_strictly_without_a_network(tmp_path: Path) -> None:
    """In a namespace without a network where one can be made; nothing a reader's browser fetches lies elsewhere."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(CONFIG, tmp_path)
    build = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    apart = ["unshare", "--net"]
    can = shutil.which("unshare") and subprocess.run([*apart, "true"], check=False, capture_output=True).returncode == 0

    subprocess.run([*(apart if can else []), *build], cwd=tmp_path, check=True, capture_output=True, timeout=100)

    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) >= len(PAGES)
    assert [] == [str(page.relative_to(tmp_path)) for page in built if _LOADED.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_command_that_is_printed_exists(page: Path) -> None:
    """Sub-commands and options: a page must not promise what the command line refuses."""
    root = typer.main.get_command(build())

    for line in commands_in(page):
        words = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)[1:]
        command, context = root, root.make_context("agentflow", [], resilient_parsing=True)
        while words and hasattr(command, "get_command") and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            if found is None:
                break
            command, words = found, words[1:]
        assert command is not root or line.split()[1].startswith("-"), f"{line}: no such command"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]
        assert [] == [option for option in unknown if option not in {*known, "--help"}], line


def test_the_vector_on_the_page_about_the_wire_verifies() -> None:
    """Whoever writes a verifier from the page alone tries it on these bytes."""
    page = (ROOT / "docs" / "wire.md").read_text("utf-8")
    (body,) = re.findall(r'^```json title="vector"\n(.*)\n```$', page, re.MULTILINE)

    assert "workflows.demo-1.in" == unseal(body.encode(), "workflows.demo-1.in").envelope.subject
