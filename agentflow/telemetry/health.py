"""The health of one process: observations go in from its event loop, questions come from the threads of the server.

Answering reads what is known and asks nobody, so that it takes no longer while the broker is away. How the event loop
fares is seen from outside: `turned` is called by the loop again and again, and its absence is what tells.
"""

import threading
import time
from collections.abc import Callable

from agentflow.clock import Clock, SystemClock
from agentflow.telemetry.readiness import STUCK_AFTER, Check, Report, loop_check, observed, report

LIFE = "lifecycle"
LOOP = "loop"


class Health:
    """What is known about this process."""

    def __init__(self, clock: Clock | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._monotonic = clock or SystemClock(), monotonic
        self._lock = threading.Lock()
        self._checks: dict[str, Check] = {}
        self._loop: Check | None = None
        self._turned: float | None = None
        self._worst = 0.0
        self.says(LIFE, ok=False, code="service.starting", why="it has not registered yet")

    def says(self, name: str, *, ok: bool, code: str = "", why: str = "", good_for: float | None = None) -> None:
        """An observation: `name` is fine, or is not, with a stable code and a sentence for people."""
        with self._lock:
            self._checks[name] = observed(
                self._checks.get(name),
                ok=ok,
                code=code,
                why=why,
                now=self._clock.now(),
                seen=self._monotonic(),
                good_for=good_for,
            )

    def forget(self, name: str) -> None:
        """There is nothing to say about `name` any more."""
        with self._lock:
            self._checks.pop(name, None)

    def turned(self) -> None:
        """The event loop came round."""
        self._worst = max(self._worst, self.lag())
        self._turned = self._monotonic()

    def lag(self) -> float:
        """Seconds since the event loop last came round; 0 until it does so for the first time."""
        return 0.0 if self._turned is None else self._monotonic() - self._turned

    def worst_lag(self) -> float:
        """The longest of late: since this was last asked."""
        worst, self._worst = max(self._worst, self.lag()), 0.0
        return worst

    @property
    def alive(self) -> bool:
        """Whether the process is worth keeping: a loop that is stuck will not come back."""
        return self.lag() < STUCK_AFTER

    def report(self) -> Report:
        """Whether the process can make progress."""
        seen, now = self._monotonic(), self._clock.now()
        with self._lock:
            self._loop = loop_check(self.lag(), now, self._loop, seen)
            return report({**self._checks, LOOP: self._loop}, seen)
