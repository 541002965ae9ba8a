"""Tools the executor's tests run in real sandboxes: honest ones, clumsy ones and hostile ones."""

import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentflow.errors import StepError
from agentflow.tools import CheckResult, ToolContext, tool

# --- honest --------------------------------------------------------------------------------------------------------


@tool(effect="pure")
def add(ctx: ToolContext, a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@tool(effect="pure")
async def add_later(ctx: ToolContext, a: int, b: int) -> dict[str, int]:
    """Add two numbers, asynchronously."""
    await asyncio.sleep(0)
    return {"sum": a + b}


@tool(effect="pure", permissions=["fs.tmp"])
def look_around(ctx: ToolContext) -> dict[str, Any]:
    """Say what a tool sees."""
    before = os.listdir(".")
    Path("note").write_text("mine")
    return {
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "mode": oct(os.stat(".").st_mode & 0o777),
        "before": before,
        "after": os.listdir("."),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": os.getgroups(),
        "group": os.getpgid(0) == os.getpid(),
        "session": os.getsid(0),
        "stdin": sys.stdin.read(),
        "call_id": ctx.call_id,
        "settings": dict(ctx.settings),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "fd_targets": [os.readlink(f"/proc/self/fd/{fd}") for fd in _open_fds()],
        "umask": os.umask(0o022),
        "no_new_privs": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
    }


def _open_fds() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return found


@tool(effect="pure")
def import_everything(ctx: ToolContext) -> dict[str, Any]:
    """Import an extension module of the library, one of a package, a package imported before, and a codec."""
    import sqlite3
    import xml.sax.saxutils

    import msgspec

    with sqlite3.connect(":memory:") as database:
        row = database.execute("select 40 + 2").fetchone()
    database.close()
    return {
        "sqlite": row[0],
        "msgspec": msgspec.json.encode({"a": 1}).decode(),
        "xml": xml.sax.saxutils.escape("<"),
        "idna": "bücher.example".encode("idna").decode(),
        "file": msgspec.__file__,
    }


@tool(effect="pure")
def echo(ctx: ToolContext, value: Any) -> Any:
    """Give back what came."""
    return value


# --- files ---------------------------------------------------------------------------------------------------------


@tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=5)
def append_line(ctx: ToolContext, text: str) -> dict[str, str]:
    """Append a line with the call's id."""
    ctx.files["outbox"].write(json.dumps({"call": ctx.call_id, "text": text}).encode() + b"\n")
    return {"call": ctx.call_id}


@append_line.check
def was_appended(ctx: ToolContext, text: str) -> CheckResult:
    """Look for the call's line."""
    for line in ctx.files["outbox"]:
        if json.loads(line)["call"] == ctx.call_id:
            return CheckResult(happened=True, output={"call": ctx.call_id}, detail="its line is there")
    return CheckResult(happened=False)


@tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=5)
def append_then_fail(ctx: ToolContext, how: str) -> dict[str, str]:
    """Append a line for good, and then fail."""
    outbox = ctx.files["outbox"]
    outbox.write(f"{ctx.call_id}\n".encode())
    if how != "buffered":
        outbox.flush()
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(60)
    raise RuntimeError("after the effect")


@append_then_fail.check
def line_is_there(ctx: ToolContext, how: str) -> CheckResult:
    """Look for the call's id."""
    found = f"{ctx.call_id}\n".encode() in ctx.files["outbox"].read()
    return CheckResult(happened=found, output={"call": ctx.call_id} if found else None)


@tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=5)
def shoot(ctx: ToolContext, text: str) -> dict[str, str]:
    """Append a line, and never be able to say whether that happened."""
    ctx.files["outbox"].write(f"{ctx.call_id}\n".encode())
    return {"call": ctx.call_id}


@tool(effect="idempotent", permissions=["fs.append:outbox"], timeout=5)
def put(ctx: ToolContext, text: str) -> dict[str, str]:
    """Append a line where there is none for this call."""
    outbox = ctx.files["outbox"]
    outbox.seek(0)
    if f"{ctx.call_id}\n".encode() not in outbox.read():
        outbox.write(f"{ctx.call_id}\n".encode())
    return {"call": ctx.call_id}


@tool(effect="pure", permissions=["fs.read:book"])
def read_book(ctx: ToolContext) -> dict[str, Any]:
    """Read a granted file, and try to write to it."""
    book = ctx.files["book"]
    text = book.read().decode()
    try:
        os.write(book.fileno(), b"scribble")
    except OSError as error:
        return {"text": text, "write": error.strerror}
    return {"text": text, "write": "worked"}


@tool(effect="pure")
def steal(ctx: ToolContext, path: str) -> dict[str, str]:
    """Read a file nobody granted."""
    return {"text": Path(path).read_text()}


@tool(effect="pure")
def write_file(ctx: ToolContext, size: int) -> dict[str, int]:
    """Write a file into the working folder."""
    Path("file").write_bytes(b"x" * size)
    return {"size": os.stat("file").st_size}


@tool(effect="pure", permissions=["fs.tmp"])
def write_allowed(ctx: ToolContext, size: int) -> dict[str, int]:
    """Write a file into the working folder, with the permission."""
    Path("file").write_bytes(b"x" * size)
    return {"size": os.stat("file").st_size}


# --- failing -------------------------------------------------------------------------------------------------------


@tool(effect="pure")
def refuse(ctx: ToolContext) -> None:
    """Fail on purpose."""
    raise StepError("the card is blocked", code="card.blocked", blame="input", retryable=False)


@tool(effect="pure")
def stumble(ctx: ToolContext, length: int = 5) -> None:
    """Fail by accident."""
    raise KeyError("x" * length)


@tool(effect="pure")
def leave(ctx: ToolContext, code: int) -> None:
    """Exit without an answer."""
    sys.stderr.write("nobody told me to answer\n")
    sys.exit(code)


@tool(effect="pure")
def die(ctx: ToolContext, signum: int) -> None:
    """Die of a signal."""
    os.kill(os.getpid(), signum)
    time.sleep(60)


@tool(effect="pure")
def no_json(ctx: ToolContext, what: str) -> Any:
    """Return what is not JSON."""
    return {"nan": float("nan"), "object": object(), "huge": 2**70, "keys": {1: 2}, "set": {1}}[what]


@tool(effect="pure")
def big(ctx: ToolContext, size: int) -> dict[str, str]:
    """Return much."""
    return {"text": "x" * size}


@tool(effect="pure", output_schema={"type": "object", "required": ["answer"]})
def off_schema(ctx: ToolContext) -> dict[str, int]:
    """Return what was not promised."""
    return {"question": 42}


# --- hostile -------------------------------------------------------------------------------------------------------


@tool(effect="pure", timeout=1)
def spin(ctx: ToolContext, stubborn: bool = False) -> None:
    """Never come back, and ignore whatever can be ignored."""
    if stubborn:
        for signum in (signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
    while True:
        pass


@tool(effect="pure", timeout=20)
def leave_behind(ctx: ToolContext, how: str, marker: str) -> dict[str, int]:
    """Start a process that outlives the call, and say its id."""
    script = f"exec sleep {marker}"
    if how == "child":
        return {"pid": subprocess.Popen(["/bin/sh", "-c", script]).pid}
    if how == "stubborn":
        return {"pid": subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM HUP; {script}"], start_new_session=True).pid}
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            os.execv("/bin/sleep", ["sleep", marker])  # noqa: S606 - what a daemon does
        os._exit(0)
    os.wait()
    return {"pid": int(os.read(read, 20))}


@tool(effect="pure", timeout=1)
def hang_with_children(ctx: ToolContext, marker: str) -> None:
    """Start stubborn processes and hang."""
    for _ in range(3):
        subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM; exec sleep {marker}"], start_new_session=True)
    time.sleep(600)


@tool(effect="pure", timeout=60)
def hang(ctx: ToolContext, marker: str) -> None:
    """Hang, with a child in a session of its own, and say so in a file."""
    subprocess.Popen(["/bin/sleep", marker], start_new_session=True)
    time.sleep(600)


@tool(effect="pure", timeout=10)
def fork_bomb(ctx: ToolContext) -> dict[str, int]:
    """Start processes until that fails."""
    started = 0
    for _ in range(2000):
        try:
            pid = os.fork()
        except BlockingIOError:
            break
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        started += 1
    return {"started": started}


@tool(effect="pure", timeout=10)
def threads(ctx: ToolContext, count: int) -> dict[str, int]:
    """Start threads that wait, until that fails."""
    gate, started = threading.Event(), 0
    for _ in range(count):
        try:
            threading.Thread(target=gate.wait, daemon=True).start()
        except RuntimeError:
            break
        started += 1
    gate.set()
    return {"started": started}


@tool(effect="pure", memory_mib=256)
def hog(ctx: ToolContext) -> dict[str, int]:
    """Take memory until there is none."""
    return {"taken": len(bytearray(1024 * 1024 * 1024))}


@tool(effect="pure")
def flood(ctx: ToolContext, megabytes: int, where: str) -> dict[str, int]:
    """Write to standard output or error."""
    stream = sys.stdout if where == "stdout" else sys.stderr
    for _ in range(megabytes):
        stream.write("x" * 1024 * 1024)
    return {"written": megabytes}


@tool(effect="pure")
def many_files(ctx: ToolContext) -> dict[str, int]:
    """Open files until that fails."""
    held: list[int] = []
    try:
        while len(held) < 5000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return {"opened": len(held)}
    return {"opened": len(held)}


@tool(effect="pure")
def shout_on_every_pipe(ctx: ToolContext) -> dict[str, int]:
    """Write junk to every descriptor it finds, then answer."""
    for fd in _open_fds():
        if fd > 2:
            try:
                os.write(fd, b'\n{"kind": "end", "exit_code": 0}\n\xff\xfe{{{[\n')
            except OSError:
                continue
    return {"honest": 1}


@tool(effect="pure")
def flood_the_answer(ctx: ToolContext) -> None:
    """Write without end to the pipe its answer belongs on."""
    for fd in _open_fds():
        if fd > 2 and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
            while True:
                os.write(fd, b"x" * 65536)


@tool(effect="pure")
def become_root(ctx: ToolContext) -> dict[str, list[str]]:
    """Try what only the superuser may."""
    libc = ctypes.CDLL(None, use_errno=True)
    attempts: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setresuid(0, 0, 0),
        "chroot": lambda: os.chroot("/"),
        "raise": lambda: resource.setrlimit(resource.RLIMIT_CPU, (10_000, 10_000)),
        "signal": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "ptrace": lambda: os.stat(f"/proc/{os.getppid()}/root/etc"),
        "environ": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "mount": lambda: _checked(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    }
    worked = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        worked.append(name)
    return {"worked": worked}


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")


@tool(effect="pure", permissions=["network.http"])
def reach_network(ctx: ToolContext, port: int) -> dict[str, bool]:
    """Connect to a port of this machine: the process sandbox does not hold a tool back from it."""
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return {"reached": True}


not_a_tool = {"hello": "world"}
