"""Whether a process can make progress, from what was observed about it. Pure.

A `Check` is the last observation about one thing, with how long it may be believed: what nobody looked at for longer
than that is not fine, because a process that no longer looks does not work either. Ready is who has no check that fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentflow.clock import format_time

STALE = "check.stale"

STUCK_AFTER = 10.0
"""Seconds of an event loop that does not turn, after which the process is not alive any more: end it."""

LAGGING_AFTER = 1.0
"""Seconds of an event loop that does not turn, after which the process is not ready."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was last seen of one thing."""

    ok: bool
    code: str
    why: str
    since: datetime
    """Since when it is like that."""
    seen: float
    """Monotonic seconds of the last observation."""
    good_for: float | None = None
    """Seconds it may be believed; None for ever."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to `/readyz`."""

    checks: Mapping[str, Check]

    @property
    def ready(self) -> bool:
        """Whether everything is fine, and somebody looked."""
        return bool(self.checks) and all(check.ok for check in self.checks.values())

    def as_json(self) -> dict[str, Any]:
        """The answer's body."""
        return {
            "ready": self.ready,
            "checks": {
                name: {"ok": check.ok, "code": check.code, "why": check.why, "since": format_time(check.since)}
                for name, check in sorted(self.checks.items())
            },
        }


def observed(
    before: Check | None, *, ok: bool, code: str, why: str, now: datetime, seen: float, good_for: float | None = None
) -> Check:
    """An observation after another of the same thing: `since` moves only where what was seen differs."""
    same = before is not None and (before.ok, before.code) == (ok, code)
    since = before.since if before is not None and same else now
    return Check(ok, code, why, since, seen, good_for)


def report(checks: Mapping[str, Check], seen: float) -> Report:
    """What the observations mean at the monotonic moment `seen`."""
    return Report({name: _believed(check, seen) for name, check in checks.items()})


def _believed(check: Check, seen: float) -> Check:
    silent = seen - check.seen
    if not check.ok or check.good_for is None or silent <= check.good_for:
        return check
    why = f"nothing was seen of it for {silent:.1f} s; looked at least every {check.good_for:g} s"
    return Check(False, STALE, why, check.since, check.seen, check.good_for)


def loop_check(lag: float, now: datetime, before: Check | None, seen: float) -> Check:
    """What a loop that last turned `lag` seconds ago says about the process."""
    ok = lag <= LAGGING_AFTER
    why = "" if ok else f"the event loop has not turned for {lag:.1f} s"
    return observed(before, ok=ok, code="" if ok else "loop.blocked", why=why, now=now, seen=seen)
