"""What came of one execution in a sandbox, and what that means. Pure.

`Execution` is what was seen from outside; `judge` turns it into a `Verdict`: an output, or a failure with a stable code.
A verdict is *certain* where nothing can have happened: the tool was never started, or it said so itself by raising
`StepError`. An effect that must not be repeated is only reported as failed where that is certain, or its check says so.
"""

import signal
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from agentflow.errors import Blame
from agentflow.payloads import Failure, Usage

Reason = Literal["", "timeout", "stopped", "output", "result", "silent"]
"""Why it was ended early: its time was over, the executor stops, too much output, too large a result, no guard."""


_OVERRULES = frozenset({"output", "result"})
"""Reasons that count although the tool answered; an answer that came before any other end is an answer."""


class Reply(msgspec.Struct, frozen=True):
    """One thing the tool process said; what it says behind `started` is its answer."""

    kind: Literal["started", "output", "check", "error", "expired", "unavailable"]
    output: Any = None
    happened: bool | None = None
    detail: str = ""
    code: str = ""
    type: str = ""
    message: str = ""
    blame: Blame = "tool"
    retryable: bool = True
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """What a sandbox saw of one execution."""

    reply: Reply | None
    started: bool
    """Whether the tool's own code was reached."""
    exit_code: int | None
    """Of the tool process; a signal is negative. None where it is not known."""
    reason: Reason
    usage: Usage
    stdout: bytes = b""
    stderr: bytes = b""
    """The first bytes of what it wrote; the rest is counted in `usage.output_bytes`."""
    left: int = 0
    """Processes the tool left behind, which were killed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An output, or why there is none."""

    output: Any = None
    failure: Failure | None = None
    certain: bool = True
    """Of a failure: whether it is known that nothing happened."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a tool's check says about a call."""

    happened: bool | None
    output: Any = None
    detail: str = ""
    answered: bool = True
    """Whether the check answered at all; one that did not may be asked again."""


def judge(execution: Execution) -> Verdict:
    """What came of a call."""
    reply = execution.reply
    if reply is not None and execution.reason not in _OVERRULES:
        if reply.kind == "output":
            return Verdict(output=reply.output)
        if reply.kind == "error":
            failure = Failure(reply.code, reply.type, reply.message, reply.blame, reply.retryable)
            return Verdict(failure=failure, certain=reply.certain or not execution.started)
    return Verdict(failure=_failure(execution), certain=not execution.started)


def judge_check(execution: Execution) -> Finding:
    """What came of asking a check."""
    reply = execution.reply
    if reply is not None and reply.kind == "check" and execution.reason not in _OVERRULES:
        return Finding(reply.happened, reply.output, reply.detail)
    failure = judge(execution).failure
    why = f"{failure.code}: {failure.message}" if failure else "it answered like a call"
    return Finding(None, detail=f"the check did not answer: {why}", answered=False)


def _failure(execution: Execution) -> Failure:
    """Why an execution ended without an answer that counts."""
    reply = execution.reply
    if reply is not None and reply.kind == "unavailable":
        return Failure("sandbox.unavailable", "SandboxUnavailable", reply.message, "mesh")
    if reply is not None and reply.kind == "expired":
        return Failure("tool.deadline_passed", "DeadlinePassed", "its time was over before it could start", "mesh")
    wall = f"{execution.usage.wall_ms:.0f} ms"
    match execution.reason or _signal(execution):
        case "timeout" | "SIGALRM":
            return Failure("tool.timeout", "TimeoutError", f"ended after {wall}", "tool")
        case "output":
            message = f"ended after it had written {execution.usage.output_bytes} bytes"
            return Failure("tool.output_too_large", "OutputTooLarge", message, "tool", retryable=False)
        case "result":
            return Failure(
                "tool.result_too_large", "ResultTooLarge", "the result is too large", "tool", retryable=False
            )
        case "stopped":
            return Failure("tool.stopped", "Stopped", f"ended after {wall}, because the executor stops", "mesh")
        case "SIGXCPU":
            return Failure("tool.cpu", "CpuLimit", f"used up its CPU time ({execution.usage.cpu_ms:.0f} ms)", "tool")
    return Failure("tool.crashed", "Crashed", _crash(execution), "tool")


def _signal(execution: Execution) -> str:
    code = execution.exit_code
    try:
        return signal.Signals(-code).name if code is not None and code < 0 else ""
    except ValueError:
        return ""


def _crash(execution: Execution) -> str:
    ended = _signal(execution) or (f"exit code {execution.exit_code}" if execution.exit_code is not None else "unseen")
    last = execution.stderr[-400:].decode(errors="replace").strip()
    return f"ended without a result ({ended})" + (f"; its last words: {last}" if last else "")
