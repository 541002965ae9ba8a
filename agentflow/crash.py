"""Named crash points: places where a test kills the process with SIGKILL, to prove that nothing is lost or done twice.

`AF_CRASH_AT=executor.after_intent` kills the process the first time it passes that point, `…:3` the third time. Unset,
a crash point costs one comparison. Read once, by `arm`, in a service's composition root.
"""

import os
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
    }
)
"""Every crash point there is; arming another name is an error."""

_armed: dict[str, int] = {}


def arm(spec: str) -> None:
    """Arm `POINT` or `POINT:N`; an empty spec disarms. Raises `ValueError` for a point that does not exist."""
    _armed.clear()
    if not spec:
        return
    name, _, count = spec.partition(":")
    if name not in POINTS:
        raise ValueError(f"unknown crash point {name!r}; there are {', '.join(sorted(POINTS))}")
    _armed[name] = int(count or "1")


def point(name: str) -> None:
    """Die here, if this point is armed and its count is reached."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        print(f"crash point {name}: SIGKILL", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
