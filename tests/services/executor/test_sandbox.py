"""The process sandbox with real child processes: what a tool finds there, and what comes back."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow.project import Grant
from agentflow_executor.errors import SandboxUnavailable
from agentflow_executor.execution import judge, judge_check
from agentflow_executor.profile import Limits
from agentflow_executor.sandbox import ProcessSandbox, import_paths
from tests.services.executor import sample_tools
from tests.services.executor.worlds import AS_ROOT, CALL, NOBODY, job, output_of

needs_root = pytest.mark.skipif(not AS_ROOT, reason="a change of user needs root")


async def test_a_call_returns_its_output(sandbox: ProcessSandbox) -> None:
    """Input goes in as arguments, the return value comes back, and what it used was measured."""
    execution = await sandbox.execute(job("add", {"a": 2, "b": 40}))

    assert {"sum": 42} == output_of(execution)
    assert 0 == execution.exit_code
    assert execution.started
    assert 0 < execution.usage.cpu_ms < 10_000
    assert 1000 < execution.usage.max_rss_kib < 500_000
    assert execution.usage.wall_ms > 0


async def test_an_async_tool_is_awaited(sandbox: ProcessSandbox) -> None:
    """`async def` tools run in a loop of their own."""
    assert {"sum": 3} == output_of(await sandbox.execute(job("add_later", {"a": 1, "b": 2})))


async def test_calls_run_at_the_same_time(sandbox: ProcessSandbox) -> None:
    """Each gets its own answer."""
    executions = await asyncio.gather(*(sandbox.execute(job("add", {"a": n})) for n in range(6)))

    assert [{"sum": n + 1} for n in range(6)] == [output_of(each) for each in executions]


async def test_a_tool_finds_an_empty_private_place(sandbox: ProcessSandbox, workdirs: Path) -> None:
    """No environment but two harmless names, no inherited file, no input, a folder of its own, a group of its own."""
    found: dict[str, Any] = output_of(await sandbox.execute(job("look_around", settings={"colour": "red"})))

    assert {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"} == found["env"]
    assert [] == found["before"]
    assert ["note"] == found["after"]
    assert workdirs == Path(found["cwd"]).parent
    assert "0o700" == found["mode"]
    assert 0o077 == found["umask"]
    assert found["group"]
    assert os.getsid(0) != found["session"]
    assert "" == found["stdin"]
    assert CALL == found["call_id"]
    assert {"colour": "red"} == found["settings"]
    assert found["no_new_privs"]
    assert [0, 0] == found["core"]
    pipes = [target for target in found["fd_targets"] if target.startswith("pipe:")]
    assert 3 == len(pipes), f"standard output, error and the answer, found {found['fd_targets']}"
    assert [] == [target for target in found["fd_targets"] if target.startswith("socket:")]


@needs_root
async def test_a_tool_is_not_root(sandbox: ProcessSandbox) -> None:
    """Real, effective and saved user and group are the unprivileged one's, without other groups."""
    found = output_of(await sandbox.execute(job("look_around")))

    assert [NOBODY] * 3 == found["uid"]
    assert [NOBODY] * 3 == found["gid"]
    assert [] == found["groups"]


@needs_root
async def test_a_tool_cannot_become_root_again(sandbox: ProcessSandbox) -> None:
    """Neither by asking, nor through its guard, nor by raising its own limits."""
    assert {"worked": []} == output_of(await sandbox.execute(job("become_root")))


@needs_root
@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/1/environ", "/root/.profile"])
async def test_a_tool_cannot_read_what_is_not_for_everybody(sandbox: ProcessSandbox, path: str) -> None:
    """Files of the superuser stay closed."""
    execution = await sandbox.execute(job("steal", {"path": path}))

    assert execution.reply is not None
    assert execution.reply.type in ("PermissionError", "FileNotFoundError")


async def test_the_library_is_there_wherever_it_lives(sandbox: ProcessSandbox) -> None:
    """Extension modules, packages imported before the change of user, and codecs load.

    Also where the folders above the interpreter are closed to the unprivileged user.
    """
    found = output_of(await sandbox.execute(job("import_everything")))

    assert (42, '{"a":1}', "&lt;", "xn--bcher-kva.example") == tuple(
        found[k] for k in ("sqlite", "msgspec", "xml", "idna")
    )


@needs_root
async def test_modules_behind_a_closed_folder_are_reached_by_descriptor(workdirs: Path, tmp_path: Path) -> None:
    """A folder of `sys.path` below one that is 0700 is named `/proc/self/fd/N` for the tool."""
    closed = tmp_path / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    (inner / "hidden_tool.py").write_text(
        "from agentflow.tools import ToolContext, tool\n\n"
        '@tool(effect="pure")\ndef where(ctx: ToolContext) -> dict[str, str]:\n    return {"file": __file__}\n'
    )
    (inner / "hidden_package").mkdir()
    closed.chmod(0o700)
    hidden = ProcessSandbox(slots=1, uid=NOBODY, paths=[*import_paths(sys.path), str(inner)], tmp=str(workdirs))
    asked = job("add")
    asked = type(asked)("hidden_tool:where", "call", CALL, asked.profile, asked.expires)
    try:
        found = output_of(await hidden.execute(asked))
    finally:
        hidden.close()

    assert found["file"].startswith("/proc/self/fd/")
    assert found["file"].endswith("/hidden_tool.py")


# --- granted files -------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A folder only its owner may enter."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return folder


async def test_a_granted_file_can_be_read_and_nothing_else(sandbox: ProcessSandbox, closed_folder: Path) -> None:
    """The file is opened before the tool's rights are gone; the tool cannot reach it by name, nor write to it."""
    book = closed_folder / "book.txt"
    book.write_text("once upon a time")
    book.chmod(0o600)
    grants = {"book": Grant(str(book), "read")}

    found = output_of(await sandbox.execute(job("read_book", grants=grants)))
    by_name = await sandbox.execute(job("steal", {"path": str(book)}))

    assert {"text": "once upon a time", "write": "Bad file descriptor"} == found
    if AS_ROOT:
        assert by_name.reply is not None
        assert "PermissionError" == by_name.reply.type


async def test_a_granted_file_can_be_appended_to(sandbox: ProcessSandbox, closed_folder: Path) -> None:
    """Lines of two calls stand behind what was there, and are on disk when the call has ended."""
    outbox = closed_folder / "outbox.jsonl"
    outbox.write_text('{"call": "earlier", "text": ""}\n')
    grants = {"outbox": Grant(str(outbox), "append")}

    for call_id in ("one", "two"):
        output_of(await sandbox.execute(job("append_line", {"text": "hi"}, grants=grants, call_id=call_id)))

    assert ["earlier", "one", "two"] == [line.split('"')[3] for line in outbox.read_text().splitlines()]


async def test_a_file_granted_for_appending_is_made_for_its_owner_alone(
    sandbox: ProcessSandbox, closed_folder: Path
) -> None:
    """It need not exist; others may not read it."""
    outbox = closed_folder / "new.jsonl"

    output_of(
        await sandbox.execute(job("append_line", {"text": "hi"}, grants={"outbox": Grant(str(outbox), "append")}))
    )

    assert 1 == len(outbox.read_text().splitlines())
    assert 0o600 == outbox.stat().st_mode & 0o777


async def test_a_large_outbox_can_still_grow(sandbox: ProcessSandbox, closed_folder: Path) -> None:
    """The file size limit is for what a tool adds, not for what is there."""
    outbox = closed_folder / "outbox.jsonl"
    outbox.write_bytes(b'{"call": "", "text": ""}\n' * 1000)
    limits = Limits(file_bytes=2000)

    output_of(
        await sandbox.execute(
            job("append_line", {"text": "hi"}, grants={"outbox": Grant(str(outbox), "append")}, limits=limits)
        )
    )

    assert 1001 == len(outbox.read_text().splitlines())


async def test_a_check_sees_the_file_and_cannot_write_to_it(sandbox: ProcessSandbox, closed_folder: Path) -> None:
    """The same grant is for reading only while the tool is asked; a file that is not there yet is empty."""
    grants = {"outbox": Grant(str(closed_folder / "outbox.jsonl"), "append")}

    before = judge_check(await sandbox.execute(job("append_line", {"text": "hi"}, mode="check", grants=grants)))
    await sandbox.execute(job("append_line", {"text": "hi"}, grants=grants))
    after = judge_check(await sandbox.execute(job("append_line", {"text": "hi"}, mode="check", grants=grants)))

    assert (False, None) == (before.happened, before.output)
    assert (True, {"call": CALL}, "its line is there") == (after.happened, after.output, after.detail)


async def test_what_a_failing_tool_left_in_a_buffer_is_not_written(
    sandbox: ProcessSandbox, closed_folder: Path
) -> None:
    """A tool that raised has not had its effect by way of a finalizer."""
    outbox = closed_folder / "outbox"
    grants = {"outbox": Grant(str(outbox), "append")}

    execution = await sandbox.execute(job("append_then_fail", {"how": "buffered"}, grants=grants))

    assert execution.reply is not None
    assert "RuntimeError" == execution.reply.type
    assert b"" == outbox.read_bytes()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing"])
async def test_only_regular_files_are_granted(sandbox: ProcessSandbox, tmp_path: Path, kind: str) -> None:
    """A link, a folder, a pipe or nothing at the path of a grant: the tool does not run."""
    path = tmp_path / "thing"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)

    execution = await sandbox.execute(job("read_book", grants={"book": Grant(str(path), "read")}))
    verdict = judge(execution)

    assert verdict.failure is not None
    assert "sandbox.unavailable" == verdict.failure.code
    assert verdict.certain
    assert not execution.started


# --- failing closed ------------------------------------------------------------------------------------------------


async def test_the_probe_passes_where_the_sandbox_can_be_set_up(sandbox: ProcessSandbox) -> None:
    """It raises nothing here."""
    await sandbox.probe()


async def test_a_probe_loads_the_tools_it_is_given(sandbox: ProcessSandbox) -> None:
    """One that does not load there is found at the start, not at its first call."""
    module = sample_tools.__name__
    await sandbox.probe([f"{module}:add", f"{module}:echo"])

    with pytest.raises(SandboxUnavailable, match=r"AttributeError.*no_such_tool"):
        await sandbox.probe([f"{module}:add", f"{module}:no_such_tool"])


@needs_root
async def test_a_folder_that_is_closed_itself_is_left_out_and_named(workdirs: Path, tmp_path: Path) -> None:
    """Tools elsewhere still run; one that lives there is refused, with the folder that is closed."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "closed_tool.py").write_text("")
    closed.chmod(0o700)
    partly = ProcessSandbox(slots=1, uid=NOBODY, paths=[str(closed), *import_paths(sys.path)], tmp=str(workdirs))
    try:
        assert {"sum": 2} == output_of(await partly.execute(job("add", {"a": 1})))
        with pytest.raises(SandboxUnavailable, match=f"not searched, for they are closed to user {NOBODY}: {closed}"):
            await partly.probe(["closed_tool:thing"])
    finally:
        partly.close()


async def test_a_sandbox_that_cannot_be_set_up_runs_no_tool(tmp_path: Path) -> None:
    """Where the working folder cannot be made, the tool does not run and the reason is said."""
    broken = ProcessSandbox(slots=1, uid=NOBODY, tmp=str(tmp_path / "nowhere"))
    try:
        execution = await broken.execute(job("add", {"a": 1}))
    finally:
        broken.close()
    verdict = judge(execution)

    assert verdict.failure is not None
    assert "sandbox.unavailable" == verdict.failure.code
    assert "nowhere" in verdict.failure.message or "No such file" in verdict.failure.message
    assert verdict.certain


async def test_a_probe_says_why_the_sandbox_is_unavailable(tmp_path: Path) -> None:
    """`SandboxUnavailable` carries what the child said."""
    broken = ProcessSandbox(slots=1, uid=NOBODY, tmp=str(tmp_path / "nowhere"))
    try:
        with pytest.raises(SandboxUnavailable, match=r"cannot be set up here.*No such file") as caught:
            await broken.probe()
    finally:
        broken.close()

    assert "sandbox.unavailable" == caught.value.error_code


async def test_nothing_starts_after_the_call_expired(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    """A child that is started too late, by an executor that was frozen, does nothing."""
    outbox = tmp_path / "outbox"
    grants = {"outbox": Grant(str(outbox), "append")}

    execution = await sandbox.execute(job("append_line", {"text": "late"}, grants=grants, seconds=-1))
    verdict = judge(execution)

    assert verdict.failure is not None
    assert verdict.failure.code in ("tool.deadline_passed", "tool.timeout")
    assert verdict.certain
    assert b"" == outbox.read_bytes()
