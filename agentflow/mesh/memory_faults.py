"""What can be made to go wrong with an in-memory broker, so that tests see every outcome a publish can have.

    broker.faults.lose_ack()                  the next publish is stored, and ends `OutcomeUnknown`
    broker.faults.drop(times=2)               the next two are not stored, and end `OutcomeUnknown`
    broker.faults.delay(0.5, "tools.>")       the next to `tools.>` ends `OutcomeUnknown`, and is stored later
    broker.faults.disconnect()                the next is not sent, and ends `Unreachable`

Faults strike in the order they were planned, each a publish that its subject pattern covers.
"""

from dataclasses import dataclass
from typing import Literal

from agentflow.subjects import matches

Kind = Literal["lost_ack", "dropped", "late", "disconnected"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One publish that will go wrong."""

    kind: Kind
    subject: str
    """Pattern of the subjects it strikes."""
    seconds: float = 0.0
    """How much later than sent a `late` one is stored, by the broker's clock."""


class Faults:
    """The faults that are planned."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    @property
    def planned(self) -> tuple[Fault, ...]:
        """What has not struck yet."""
        return tuple(self._planned)

    def lose_ack(self, subject: str = ">", *, times: int = 1) -> None:
        """Store the next publish, but lose the acknowledgement."""
        self._planned.extend([Fault("lost_ack", subject)] * times)

    def drop(self, subject: str = ">", *, times: int = 1) -> None:
        """Lose the next publish on its way."""
        self._planned.extend([Fault("dropped", subject)] * times)

    def delay(self, seconds: float, subject: str = ">", *, times: int = 1) -> None:
        """Give no answer to the next publish, and store it after `seconds`, if its expectation still holds then."""
        self._planned.extend([Fault("late", subject, seconds)] * times)

    def disconnect(self, subject: str = ">", *, times: int = 1) -> None:
        """Have no connection when the next publish is made."""
        self._planned.extend([Fault("disconnected", subject)] * times)

    def clear(self) -> None:
        """Let nothing more go wrong."""
        self._planned.clear()

    def strike(self, subject: str) -> Fault | None:
        """The fault that hits a publish to `subject` now, if any; it is used up."""
        for fault in self._planned:
            if matches(fault.subject, subject):
                self._planned.remove(fault)
                return fault
        return None
