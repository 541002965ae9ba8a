"""What happens to the processes of a local mesh, as values: for people as a sentence, for programs as a JSON object.

A process that ends by itself makes three events: `ended`, `starting` once its pause is over, and `up` when it works
again (a service when it has announced itself, the server when it takes connections and its streams are there).
"""

import signal
from dataclasses import asdict, dataclass
from typing import Any, Literal

SERVER = "nats-server"
"""The name of the broker among the processes."""


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """Something that happened to one process."""

    event: Literal["ended", "starting", "up", "failed"]
    process: str
    """`planner`, `planner-2`, …, or `nats-server`."""
    pid: int | None = None
    exit_code: int | None = None
    """Of one that ended; minus the signal that killed it."""
    pause: float | None = None
    """Seconds until it is started again, of one that ended or did not start."""
    down: float | None = None
    """Seconds from its end until it worked again, of one that is up."""
    detail: str = ""
    """Why it did not start, or where to read on."""

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it, or None where it ended otherwise."""
        return None if self.exit_code is None or self.exit_code >= 0 else signal_name(-self.exit_code)

    @property
    def sentence(self) -> str:
        """The event for people."""
        match self.event:
            case "ended":
                how = f"was killed by {self.signal}" if self.signal else f"ended by itself with {self.exit_code}"
                return f"{self.process} {how}: {_again(self.pause)}, see {self.detail}"
            case "starting":
                return f"{self.process} is started again (pid {self.pid})"
            case "up":
                return f"{self.process} is up again after {self.down or 0.0:.1f} s (pid {self.pid})"
            case "failed":
                return f"{self.process} did not start: {self.detail}; {_again(self.pause)}"

    def as_json(self) -> dict[str, Any]:
        """The event for programs; what is not known is left out."""
        found = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        return {**found, **({"signal": self.signal} if self.signal else {})}


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; a number nobody knows stays one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _again(pause: float | None) -> str:
    return f"starting it again in {pause:g} s" if pause else "starting it again"
