"""The README's first page, executed: the commands it prints, in their order, as they are printed."""

import asyncio
import contextlib
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

PATIENCE = 60.0
"""Seconds one command gets."""


def section(title: str) -> str:
    """The text below a heading of the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no section {title!r}"
    return found.group(1)


def commands(text: str) -> list[list[str]]:
    """The indented blocks of a text, each as its lines."""
    blocks = re.findall(r"(?:^    .*\n)+", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return [[line.strip() for line in block.splitlines()] for block in blocks]


def environment(**more: str) -> dict[str, str]:
    """That of a reader who has activated what `make setup` made."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


async def shell(line: str, url: str) -> tuple[int, str]:
    """Run a line of the README; `url` stands in for the printed default port, which tests leave to others."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", line, stdout=PIPE, stderr=STDOUT, cwd=ROOT, env=environment(AF_NATS_URL=url)
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_sixty_seconds_go_as_printed() -> None:
    """A mesh starts from the printed line (on a free port), and every command printed beside it succeeds."""
    start, beside, *_ = commands(section("Sixty seconds"))
    (dev,) = [line for line in start if line.startswith("agentflow dev")]
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"exec {dev} --port 0", stdout=PIPE, cwd=ROOT, env=environment()
    )
    assert process.stdout is not None
    outputs: dict[str, str] = {}
    said = ""
    try:
        async with asyncio.timeout(PATIENCE):
            while "next  " not in said:
                more = await process.stdout.readline()
                assert more, f"agentflow dev ended before it was ready: {said}"
                said += more.decode()
        (url,) = re.findall(r"nats://\S+", said)
        for line in beside:
            code, outputs[line] = await shell(line, url)
            assert 0 == code, f"{line}\n{outputs[line]}"
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE)

    assert 0 == process.returncode
    assert any("hello mesh (2 words)" in out for line, out in outputs.items() if "submit" in line)
    assert len(beside) >= 5


def test_both_commands_of_the_first_page_are_targets_of_make() -> None:
    """`make demo` and `make test` are what a fresh machine is set up with."""
    text = section("Two commands")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    printed = re.findall(r"^    make ([a-z]+)", text, re.MULTILINE)
    assert {"demo", "test"} <= set(printed) <= set(targets)
