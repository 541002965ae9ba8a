"""Whether processes are gone, and starting a parent that will be killed."""

import asyncio
import sys

import psutil


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has taken note of that yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def parent_of_one(code: str) -> tuple[asyncio.subprocess.Process, int]:
    """Run a program that prints the process id of a child it started; both ids' owner has to be killed."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    return parent, int(await asyncio.wait_for(parent.stdout.readline(), 20))
