"""Inside the sandbox, confined: load the tool, run the call or its check, and say what came of it.

First `started` goes out on the pipe `result`: whatever ends the process before it has certainly done nothing. Then comes
one line: `output`, `check` or `error`. This module is imported when the confinement is in force, so all it imports, and
all the tool's module does while it is loaded, is confined too.
"""

import errno
import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import msgspec

from agentflow.errors import SchemaError, StepError
from agentflow.plain import check_plain
from agentflow.tools import CheckResult, FunctionTool, ToolContext
from agentflow_executor.confinement import Request
from agentflow_executor.pipes import MESSAGE, say

_files: dict[str, BinaryIO] = {}
"""Granted files, held to the very end: a tool that fails must not have its buffers written by a finalizer."""


def run_call(request: Request) -> bytes:
    """Load the tool, run it or its check, and return the line to answer with."""
    try:
        run = _load(request)
    except Exception as error:  # noqa: BLE001 - whatever a tool's module raises is the tool's failure
        return _line(**_not_loaded(error, request))
    if request["mode"] == "probe":
        return run()
    say(request["result_fd"], kind="started")
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is the tool's failure
        return _line(**error_of(error))


def error_of(error: BaseException) -> dict[str, Any]:
    """An error as the answer; `certain` says that the tool itself vouches for having done nothing."""
    found: dict[str, Any] = {
        "kind": "error",
        "code": "tool.error",
        "type": type(error).__name__,
        "message": str(error)[:MESSAGE],
        "blame": "tool",
        "retryable": True,
        "certain": False,
    }
    if isinstance(error, StepError):
        found.update(code=error.error_code, blame=error.blame, certain=error.fields.get("certain") is not False)
        found["retryable"] = error.fields.get("retryable") is not False
    elif isinstance(error, MemoryError):
        found.update(code="tool.memory", message=f"out of memory {error}".strip()[:MESSAGE])
    elif isinstance(error, OSError) and error.errno == errno.EFBIG:
        found.update(
            code="tool.file_too_large", message=f"{error}; writing files needs the permission fs.tmp"[:MESSAGE]
        )
    return found


def _not_loaded(error: Exception, request: Request) -> dict[str, Any]:
    """Why a tool could not be loaded; a folder that is closed to its user is the likely reason."""
    found = {**error_of(error), "code": "tool.load_failed"}
    if isinstance(error, ImportError) and request["closed"]:
        found["message"] += (
            f" (not searched, for they are closed to user {os.getuid()}: {', '.join(request['closed'])})"
        )
    return found


def _line(**message: Any) -> bytes:
    return json.dumps(message).encode()


def _load(request: Request) -> Callable[[], bytes]:
    """The call, the check or the probe, ready to run."""
    if request["mode"] == "probe":
        loaded = [_import(use).id() for use in request["input"]["uses"]]
        return lambda: _line(kind="output", output={"uid": os.getuid(), "cwd": os.getcwd(), "loaded": loaded})
    tool = _import(request["use"])
    _files.update({name: _open_grant(grant) for name, grant in request["grants"].items()})
    ctx = ToolContext(request["call_id"], request["settings"], dict(_files))
    if request["mode"] == "check":
        return lambda: _check(tool, ctx, request)
    return lambda: _call(tool, ctx, request)


def _import(use: str) -> FunctionTool:
    module, _, name = use.partition(":")
    tool = getattr(importlib.import_module(module), name)
    if not isinstance(tool, FunctionTool):
        raise TypeError(f"{use} is {type(tool).__name__}, not a tool")
    return tool


def _open_grant(grant: Mapping[str, Any]) -> BinaryIO:
    """A granted file; its buffer is large, so that what a tool writes at once reaches the file at once."""
    mode = "a+b" if grant["mode"] == "append" else "rb"
    return cast("BinaryIO", open(grant["fd"], mode, buffering=1024 * 1024, closefd=False))


def _call(tool: FunctionTool, ctx: ToolContext, request: Request) -> bytes:
    """Run the tool; its output counts once everything it wrote to granted files is on disk."""
    data = _plain(_finished(tool.call(ctx, request["input"])), request)
    for name, grant in request["grants"].items():
        if grant["mode"] == "append":
            _files[name].close()
            os.fsync(grant["fd"])
    return b'{"kind":"output","output":' + data + b"}"


def _check(tool: FunctionTool, ctx: ToolContext, request: Request) -> bytes:
    """Ask the tool whether the call happened."""
    found = _finished(tool.checker(ctx, **request["input"])) if tool.checker else None
    if not isinstance(found, CheckResult):
        raise TypeError(f"the check of {tool.id()} returned {type(found).__name__}, not CheckResult")
    output = json.loads(_plain(found.output, request))
    return _line(kind="check", happened=found.happened, output=output, detail=found.detail[:MESSAGE])


def _finished(value: Any) -> Any:
    """What a function returned, after the loop ran where it was `async def`."""
    if not inspect.isawaitable(value):
        return value

    async def waited() -> Any:
        return await value

    import asyncio  # put off: most tools are blocking, and it takes 30 ms

    return asyncio.run(waited())


def _plain(value: Any, request: Request) -> bytes:
    """JSON of a value the tool returned; raises `StepError` for one that is not JSON or is too large."""
    try:
        plain = msgspec.to_builtins(value)
        check_plain(plain, "output")
        data = msgspec.json.encode(plain)
    except (SchemaError, TypeError, ValueError, RecursionError) as error:
        raise StepError(f"output: {error}", blame="tool", code="tool.output_invalid", certain=False) from error
    if len(data) > request["result_bytes"]:
        message = f"the output has {len(data)} bytes of JSON; allowed are {request['result_bytes']}"
        raise StepError(message, blame="tool", code="tool.result_too_large", certain=False)
    return data
