"""While a decision is made again, nothing reaches outside: the interpreter itself refuses.

The core that decides is pure, so nothing in it tries. This holds for what a planner may one day bring along: an audit
hook (PEP 578) refuses sockets, processes and files opened for writing in the thread that decides, for as long as it
does. A hook cannot be taken out again, so it is put in once and asks a flag.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentflow.errors import Denied

_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.system",
    "os.putenv",
    "http.client.",
)
"""Audit events by how they begin."""


class _Watch:
    """Which threads decide, and whether the hook is in."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.installed = False

    def install(self) -> None:
        """Put the hook in, once."""
        if not self.installed:
            sys.addaudithook(self.hook)
            self.installed = True

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse what reaches outside."""
        if not self.threads or threading.get_ident() not in self.threads:
            return
        writes = event == "open" and isinstance(arguments[1], str) and any(mode in arguments[1] for mode in "wax+")
        if writes or event.startswith(_FORBIDDEN):
            raise Denied(
                f"a replay reaches for {event}: it has recorded data only", code="replay.isolated", event=event
            )


_watch = _Watch()


@contextmanager
def isolated() -> Iterator[None]:
    """Refuse network, processes and written files in this thread for the time of a block; raises `Denied` there."""
    _watch.install()
    me = threading.get_ident()
    if me in _watch.threads:
        yield
        return
    _watch.threads.add(me)
    try:
        yield
    finally:
        _watch.threads.discard(me)
