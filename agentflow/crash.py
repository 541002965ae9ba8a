"""Named crash points: places where a test kills the process with SIGKILL, to prove that nothing is lost or done twice.

`AF_CRASH_AT=executor.after_intent` kills the process the first time it passes that point, `…:3` the third time. Unset,
a crash point costs one comparison. Read once, by `arm`, in a service's composition root.
"""

import os
import re
import signal
import sys

POINTS = frozenset(
    {
        "planner.after_decision",
        "planner.after_commands",
        "runtime.before_tool_call",
        "runtime.after_tool_call",
        "runtime.after_result",
        "executor.after_intent",
        "executor.after_effect",
        "executor.after_outcome",
        "executor.after_result",
        "detector.after_anomaly",
        "detector.after_breaker",
        "detector.after_snapshot",
    }
)
"""Every crash point there is; arming another name is an error."""

_SPEC = re.compile(r"([a-z_.]+)(?::([1-9][0-9]{0,8}))?")

_armed: dict[str, int] = {}


def parse(spec: str) -> tuple[str, int]:
    """The point and the count of `POINT` or `POINT:N`, N from 1. Raises `ValueError`, without the spec in its text."""
    match = _SPEC.fullmatch(spec)
    if match is None or match[1] not in POINTS:
        raise ValueError(f"unknown crash point; there are {', '.join(sorted(POINTS))}, each alone or with :N, N from 1")
    return match[1], int(match[2] or "1")


def arm(spec: str) -> None:
    """Arm `POINT` or `POINT:N`; an empty spec disarms. Raises `ValueError` for what `parse` refuses."""
    _armed.clear()
    if spec:
        name, count = parse(spec)
        _armed[name] = count


def point(name: str) -> None:
    """Die here, if this point is armed and its count is reached."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        sys.stderr.write(f"crash point {name}: SIGKILL\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
