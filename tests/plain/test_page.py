"""The page "agentflow with the nats CLI" does what it says: every command is run, and prints what is shown."""

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.clock import SystemClock
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.mesh.connect import connect
from agentflow_detector import strays
from agentflow_planner import adoption
from agentflow_streams.verification import verify
from tests.plain import commands, desk
from tests.plain.page import PAGE, Shown, shown_in
from tests.plain.rawnats import RawNats

NATS = shutil.which("nats")
PATIENCE = 60.0
"""Seconds until what a command shows has come true."""


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[LocalMesh]:
    """The mesh of the page."""
    options = MeshOptions(watched=False, environment={"*": {"PYTHONPATH": str(Path(__file__).parents[2])}})
    async with LocalMesh.running(directory / "mesh", project=desk.lay_out(directory), options=options) as mesh:
        yield mesh


def test_the_page_has_commands_and_what_they_show_can_be_told_apart() -> None:
    """A pattern that would take anything proves nothing."""
    shown = list(shown_in(PAGE.read_text()))
    assert len(shown) > 20
    assert not [each.text for each in shown if each.promises("") or not each.output.strip("…\n")]


def test_an_output_is_compared_with_what_the_page_shows() -> None:
    """Space does not count, everything else does."""
    shown = Shown("x", '{"a":…,\n "b":2}\n')
    assert shown.promises('{"a": [1, 2], "b": 2}')
    assert not shown.promises('{"a": [1, 2], "b": 3}')
    assert not shown.promises('{"a": 1, "b": 2} and more')


def test_a_command_the_interpreter_does_not_know_fails() -> None:
    """So a page that grows is noticed."""
    nats = RawNats.__new__(RawNats)
    for line in (["nats", "account", "info"], ["nats", "stream", "ls", "--bogus"]):
        with pytest.raises(commands.Unknown):
            commands.run(nats, line)


def test_the_page_explains_every_code_a_plain_publisher_can_meet() -> None:
    """And no code that does not exist."""
    page = PAGE.read_text()
    codes = {*adoption.CODES, *strays.CODES}
    assert [] == sorted(code for code in codes if f"`{code}`" not in page)
    told = set(re.findall(r"`((?:plain|value|stray)\.[a-z_]+)`", page))
    assert [] == sorted(told - codes)


@pytest.mark.e2e
@pytest.mark.timeout(240)
async def test_every_command_of_the_page_does_what_it_says_in_raw_protocol(tmp_path: Path) -> None:
    """Each command line, as the bytes it stands for on a TCP connection; then everything stored verifies."""
    async with running(tmp_path) as mesh:
        await asyncio.to_thread(_walk, mesh.url)
        transport = await connect(mesh.url, name="witness")
        try:
            found = await verify(transport, now=SystemClock().now())
        finally:
            await transport.close()
        assert found.ok, found.damages


def _walk(url: str) -> None:
    """Run the commands of the page in order; one that subscribes is looked at after the next."""
    waiting: tuple[Shown, RawNats, object] | None = None
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(RawNats.to(url))
        for shown in shown_in(PAGE.read_text()):
            if shown.argv[1] == "sub":
                own = stack.enter_context(RawNats.to(url))
                collect = commands.subscribe(own, shown.argv[2:])
                if "--all" in shown.argv:
                    assert shown.promises(collect()), shown.text
                else:
                    waiting = (shown, own, collect)
                continue
            _until_shown(nats, shown)
            if waiting is not None:
                before, _, collect_it = waiting
                assert callable(collect_it)
                assert before.promises(printed := collect_it()), (before.text, printed)
                waiting = None


def _until_shown(nats: RawNats, shown: Shown) -> None:
    """Run a command; one that only looks is repeated until what it shows has come true."""
    deadline = time.monotonic() + PATIENCE
    while not shown.promises(printed := commands.run(nats, shown.argv)):
        writes = shown.argv[1] == "req"
        assert not writes, (shown.text, printed)
        assert time.monotonic() < deadline, (shown.text, printed[-3000:])
        nats.pump(0.1)


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.skipif(NATS is None, reason="the nats command is not installed")
async def test_every_command_of_the_page_does_what_it_says_with_the_nats_command(tmp_path: Path) -> None:
    """The same page, word for word."""
    async with running(tmp_path) as mesh:
        environment = {**os.environ, "NATS_URL": mesh.url}
        waiting: tuple[Shown, asyncio.Task[str]] | None = None
        for shown in shown_in(PAGE.read_text()):
            if shown.argv[1] == "sub" and "--all" not in shown.argv:
                waiting = shown, asyncio.create_task(_cli(shown, environment))
                await asyncio.sleep(2)  # the command does not say when it has subscribed
                continue
            async with asyncio.timeout(PATIENCE):
                while not shown.promises(printed := await _cli(shown, environment)):
                    assert shown.argv[1] != "req", (shown.text, printed)
            if waiting is not None:
                before, task = waiting
                assert before.promises(await asyncio.wait_for(task, PATIENCE)), before.text
                waiting = None


async def _cli(shown: Shown, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *shown.argv,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return out.decode()
