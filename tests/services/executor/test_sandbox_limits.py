"""The process sandbox against tools that fail, flood, hang, fork and hide: each ends, in time, and leaves nothing."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentflow.project import Grant
from agentflow_executor.execution import Verdict, judge
from agentflow_executor.profile import Limits
from agentflow_executor.sandbox import ProcessSandbox
from tests.services.executor import worlds
from tests.services.executor.worlds import AS_ROOT, children_of, job, output_of, running
from tests.support.waiting import eventually

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root's tools run as another user")


def code_of(verdict: Verdict) -> str:
    """The code a call failed with; fails where it did not."""
    assert verdict.failure is not None, verdict
    return verdict.failure.code


def marker() -> str:
    """A number of seconds nobody else sleeps, to find a process by."""
    return f"{600 + time.monotonic_ns() % 10**9 / 10**9:.9f}"


# --- failing -------------------------------------------------------------------------------------------------------


async def test_a_deliberate_failure_keeps_its_code_and_blame(sandbox: ProcessSandbox) -> None:
    """`StepError` passes through, with its word on whether to try again; the tool vouches that nothing happened."""
    verdict = judge(await sandbox.execute(job("refuse")))

    assert verdict.failure is not None
    assert ("card.blocked", "input", False) == (verdict.failure.code, verdict.failure.blame, verdict.failure.retryable)
    assert "the card is blocked" == verdict.failure.message
    assert verdict.certain


async def test_an_accident_is_the_tools_failure_and_says_nothing_about_the_effect(sandbox: ProcessSandbox) -> None:
    """Type and a bounded message are kept."""
    verdict = judge(await sandbox.execute(job("stumble", {"length": 100_000})))

    assert verdict.failure is not None
    assert ("tool.error", "KeyError", "tool") == (verdict.failure.code, verdict.failure.type, verdict.failure.blame)
    assert 2000 == len(verdict.failure.message)
    assert not verdict.certain


@pytest.mark.parametrize("code", [0, 7])
async def test_leaving_without_an_answer_is_a_crash(sandbox: ProcessSandbox, code: int) -> None:
    """The exit code is kept, and the last words are in the message."""
    execution = await sandbox.execute(job("leave", {"code": code}))
    verdict = judge(execution)

    assert "tool.crashed" == code_of(verdict)
    assert code == execution.exit_code
    assert verdict.failure is not None
    assert "nobody told me to answer" in verdict.failure.message
    assert not verdict.certain


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
async def test_a_death_by_signal_is_a_crash(sandbox: ProcessSandbox, signum: signal.Signals) -> None:
    """The signal is kept as a negative exit code and named in the message."""
    execution = await sandbox.execute(job("die", {"signum": int(signum)}))
    verdict = judge(execution)

    assert -signum == execution.exit_code
    assert verdict.failure is not None
    assert signum.name in verdict.failure.message


@pytest.mark.parametrize("what", ["nan", "object", "huge", "keys"])
async def test_an_output_json_cannot_carry_is_refused(sandbox: ProcessSandbox, what: str) -> None:
    """NaN, objects, numbers beyond 64 bits and keys that are not text."""
    assert "tool.output_invalid" == code_of(judge(await sandbox.execute(job("no_json", {"what": what}))))


async def test_what_msgspec_makes_plain_is_plain(sandbox: ProcessSandbox) -> None:
    """A set, a dataclass or a datetime has one obvious JSON form."""
    assert [1] == output_of(await sandbox.execute(job("no_json", {"what": "set"})))


async def test_a_result_has_a_limit(sandbox: ProcessSandbox) -> None:
    """Just below a mebibyte passes, above it fails with its own code."""
    limit = Limits().result_bytes

    fits = output_of(await sandbox.execute(job("big", {"size": limit - 100})))
    verdict = judge(await sandbox.execute(job("big", {"size": limit})))

    assert limit - 100 == len(fits["text"])
    assert "tool.result_too_large" == code_of(verdict)


async def test_a_large_input_arrives_whole(sandbox: ProcessSandbox) -> None:
    """Input travels by a pipe, while the child starts."""
    text = "ä" * 300_000
    execution = await sandbox.execute(job("echo", {"value": text}))

    assert text == output_of(execution)


async def test_a_module_that_is_gone_is_a_certain_failure(sandbox: ProcessSandbox) -> None:
    """Nothing was started, so nothing happened."""
    asked = job("add", {"a": 1})
    gone = type(asked)("no_such_module:add", "call", asked.call_id, asked.profile, asked.expires, asked.input)
    verdict = judge(await sandbox.execute(gone))

    assert "tool.load_failed" == code_of(verdict)
    assert verdict.certain


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_tool_that_never_ends_is_ended(sandbox: ProcessSandbox, stubborn: bool) -> None:
    """At its wall limit, also where it ignores every signal that can be ignored."""
    begun = time.monotonic()
    execution = await sandbox.execute(job("spin", {"stubborn": stubborn}))

    assert "tool.timeout" == code_of(judge(execution))
    assert 0.9 < time.monotonic() - begun < 4
    assert not judge(execution).certain


async def test_a_call_ends_when_it_expires(sandbox: ProcessSandbox) -> None:
    """`expires` counts although the wall limit is far away."""
    begun = time.monotonic()
    execution = await sandbox.execute(job("hang", {"marker": marker()}, seconds=1))

    assert "tool.timeout" == code_of(judge(execution))
    assert time.monotonic() - begun < 4


async def test_cpu_time_has_a_limit(sandbox: ProcessSandbox) -> None:
    """A tool that computes without end is ended by the kernel before its wall time is over."""
    limits = Limits(cpu_seconds=1)
    asked = job("hang", limits=limits)
    spin = type(asked)(asked.use.replace("hang", "spin"), "call", asked.call_id, asked.profile, asked.expires)
    begun = time.monotonic()
    execution = await sandbox.execute(spin)

    assert "tool.cpu" == code_of(judge(execution))
    assert -signal.SIGXCPU == execution.exit_code
    assert time.monotonic() - begun < 20


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["child", "stubborn", "daemon"])
async def test_what_a_tool_leaves_behind_ends_with_the_call(sandbox: ProcessSandbox, how: str) -> None:
    """A plain child, one in a session of its own that ignores signals, and a daemon that forked twice."""
    sleep = marker()
    execution = await sandbox.execute(job("leave_behind", {"how": how, "marker": sleep}))

    assert output_of(execution)["pid"] > 1
    assert 1 == execution.left
    assert [] == running(sleep)


async def test_a_hanging_tools_processes_end_with_it(sandbox: ProcessSandbox) -> None:
    """Three stubborn processes in sessions of their own."""
    sleep = marker()
    execution = await sandbox.execute(job("hang_with_children", {"marker": sleep}))

    assert "tool.timeout" == code_of(judge(execution))
    assert 3 == execution.left
    assert [] == running(sleep)


@needs_root
async def test_a_fork_bomb_runs_into_its_limit(sandbox: ProcessSandbox) -> None:
    """It gets a few processes, then none, and all of them end."""
    execution = await sandbox.execute(job("fork_bomb", limits=Limits(processes=20)))
    started = output_of(execution)["started"]

    assert 5 <= started <= 20
    assert started == execution.left


async def test_a_few_threads_are_fine(sandbox: ProcessSandbox) -> None:
    """The limit on processes counts threads too, and leaves room for what libraries start."""
    assert {"started": 16} == output_of(await sandbox.execute(job("threads", {"count": 16})))


# --- memory, files, output -----------------------------------------------------------------------------------------


async def test_memory_has_a_limit(sandbox: ProcessSandbox) -> None:
    """256 MiB are declared, 1 GiB is taken."""
    verdict = judge(await sandbox.execute(job("hog")))

    assert "tool.memory" == code_of(verdict)


async def test_open_files_have_a_limit(sandbox: ProcessSandbox) -> None:
    """A tool runs out of descriptors, not the machine."""
    opened = output_of(await sandbox.execute(job("many_files", limits=Limits(open_files=50))))["opened"]

    assert 40 <= opened <= 75


async def test_a_file_has_a_limit(sandbox: ProcessSandbox) -> None:
    """With `fs.tmp` a tool may write up to it."""
    limits = Limits(file_bytes=10_000)

    fits = output_of(await sandbox.execute(job("write_allowed", {"size": 10_000}, limits=limits)))
    verdict = judge(await sandbox.execute(job("write_allowed", {"size": 10_001}, limits=limits)))

    assert {"size": 10_000} == fits
    assert "tool.file_too_large" == code_of(verdict)


async def test_without_the_permission_nothing_can_be_written(sandbox: ProcessSandbox) -> None:
    """Default deny: the message says which permission would be needed."""
    verdict = judge(await sandbox.execute(job("write_file", {"size": 1})))

    assert "tool.file_too_large" == code_of(verdict)
    assert verdict.failure is not None
    assert "fs.tmp" in verdict.failure.message


@pytest.mark.parametrize("where", ["stdout", "stderr"])
async def test_a_flood_of_output_ends_the_call(sandbox: ProcessSandbox, where: str) -> None:
    """300 MB are not read to the end, and only 64 KiB are kept."""
    begun = time.monotonic()
    execution = await sandbox.execute(job("flood", {"megabytes": 300, "where": where}))

    assert "tool.output_too_large" == code_of(judge(execution))
    assert 64 * 1024 >= len(execution.stdout) + len(execution.stderr)
    assert Limits().output_bytes < execution.usage.output_bytes <= Limits().output_bytes + 65536
    assert time.monotonic() - begun < 10


async def test_output_within_the_limit_is_kept_in_part_and_counted_in_full(sandbox: ProcessSandbox) -> None:
    """The call succeeds."""
    execution = await sandbox.execute(
        job("flood", {"megabytes": 1, "where": "stdout"}, limits=Limits(output_bytes=2**21))
    )

    assert {"written": 1} == output_of(execution)
    assert b"x" * 64 * 1024 == execution.stdout
    assert 1024 * 1024 == execution.usage.output_bytes


async def test_junk_on_the_answers_pipe_does_not_hide_the_answer(sandbox: ProcessSandbox) -> None:
    """A tool may write whatever it likes on its own descriptors; the guard's pipe is not among them."""
    execution = await sandbox.execute(job("shout_on_every_pipe"))

    assert {"honest": 1} == output_of(execution)
    assert 0 == execution.exit_code
    assert execution.usage.cpu_ms > 0


async def test_a_flood_on_the_answers_pipe_ends_the_call(sandbox: ProcessSandbox) -> None:
    """What is read of it is bounded too."""
    assert "tool.result_too_large" == code_of(judge(await sandbox.execute(job("flood_the_answer"))))


# --- ending from outside -------------------------------------------------------------------------------------------


async def test_cancelling_ends_the_call_and_all_it_started(sandbox: ProcessSandbox) -> None:
    """The executor stops: the tool does too."""
    sleep = marker()
    task = asyncio.create_task(sandbox.execute(job("hang", {"marker": sleep})))
    await eventually(lambda: running(sleep), "the tool's child")
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not running(sleep), "the end of the tool's child", within=4)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_call_without_its_guard_is_ended_by_the_executor(
    sandbox: ProcessSandbox, signum: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard was killed, or does nothing: tool and folder go all the same, and what happened is not known."""
    monkeypatch.setattr("agentflow_executor.launch.GRACE", 0.3)
    asked = job("spin", {"stubborn": True})
    task = asyncio.create_task(sandbox.execute(asked))
    [guard] = await eventually(lambda: [pid for pid in children_of(os.getpid()) if children_of(pid)], "a guard")
    [tool] = children_of(guard)
    os.kill(guard, signum)
    execution = await task

    assert code_of(judge(execution)) in ("tool.crashed", "tool.timeout")
    assert not judge(execution).certain or not execution.started
    assert execution.exit_code is None
    await eventually(lambda: not os.path.exists(f"/proc/{tool}"), "the end of the tool")


async def test_closing_ends_whatever_runs(workdirs: Path) -> None:
    """The call ends as stopped, and its effect is not known."""
    closing, sleep = worlds.sandbox(workdirs), marker()
    task = asyncio.create_task(closing.execute(job("hang", {"marker": sleep})))
    await eventually(lambda: running(sleep), "the tool's child")
    closing.close()
    verdict = judge(await task)

    assert "tool.stopped" == code_of(verdict)
    assert not verdict.certain
    assert [] == running(sleep)


_EXECUTOR = """
import asyncio, os, sys
from tests.services.executor.worlds import job, sandbox
from pathlib import Path

async def main():
    await sandbox(Path(sys.argv[1])).execute(job("hang", {"marker": os.environ["MARKER"]}, seconds=float(sys.argv[2])))

asyncio.run(main())
"""


def start_executor(arguments: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A process that runs one call in a sandbox."""
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen([sys.executable, "-c", _EXECUTOR, *arguments], env={**environment, "PYTHONPATH": path})


@pytest.mark.parametrize(("signum", "seconds"), [(signal.SIGKILL, 60), (signal.SIGSTOP, 3)])
async def test_nothing_outlives_a_killed_or_frozen_executor(
    workdirs: Path, signum: signal.Signals, seconds: float
) -> None:
    """Killed: guard, tool and the tool's child are gone at once, and the folder with them.

    Frozen: when the call expires, though nobody is there to end it.
    """
    sleep = marker()
    executor = start_executor([str(workdirs), str(seconds)], {"MARKER": sleep})
    try:
        await eventually(lambda: running(sleep), "the tool's child")
        [guard] = children_of(executor.pid)
        [tool] = children_of(guard)
        assert running(sleep) == children_of(tool)
        executor.send_signal(signum)
        await eventually(lambda: not running(sleep), "the end of the tool's child", within=8)
        await eventually(lambda: not list(workdirs.iterdir()), "the end of the working folder")
        assert [] == children_of(tool)
    finally:
        executor.kill()
        executor.wait()


# --- what it does not hold -----------------------------------------------------------------------------------------


async def test_the_network_is_not_held_back(sandbox: ProcessSandbox) -> None:
    """As the docstring of the sandbox says: a change here would be news."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert {"reached": True} == output_of(await sandbox.execute(job("reach_network", {"port": port})))


async def test_files_for_everybody_can_be_read(sandbox: ProcessSandbox) -> None:
    """As the docstring says."""
    assert "root" in output_of(await sandbox.execute(job("steal", {"path": "/etc/passwd"})))["text"]


async def test_an_effect_before_a_crash_is_seen_by_the_check(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    """What the ledger rests on: after a death behind the effect, the tool's check tells the truth."""
    grants = {"outbox": Grant(str(tmp_path / "outbox"), "append")}

    execution = await sandbox.execute(job("append_then_fail", {"how": "crash"}, grants=grants))
    check = await sandbox.execute(job("append_then_fail", {"how": "crash"}, mode="check", grants=grants))

    assert "tool.crashed" == code_of(judge(execution))
    assert check.reply is not None
    assert check.reply.happened is True
