"""Dead letters of what on the audit stream is no call and no audit entry: each is written once, whoever folds it again."""

from dataclasses import dataclass

from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.transport import Message, Transport
from agentflow_detector.sealing import DETECTOR


@dataclass(frozen=True, slots=True)
class Junk:
    """A message as `write_dead_letter` takes it; what it writes depends on nothing else."""

    message: Message
    deliveries: int = 1

    async def ack(self) -> None:
        """Nothing is delivered here."""

    async def nak(self, delay: float = 0.0) -> None:
        """Nothing is delivered here."""

    async def in_progress(self) -> None:
        """Nothing is delivered here."""

    async def term(self) -> None:
        """Nothing is delivered here."""


class Letters:
    """The detector's dead letters."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def write(self, message: Message, code: str, reason: str) -> bool:
        """Store a letter about a message unless there is one; returns whether one had to be written."""
        stored = await write_dead_letter(self._transport, Junk(message), DETECTOR, DETECTOR, code, reason)
        return not stored.duplicate
