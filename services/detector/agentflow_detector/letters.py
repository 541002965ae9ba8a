"""Dead letters of what on the audit stream is no call and no audit entry: each is written once, whoever folds it again."""

from dataclasses import dataclass

from agentflow import subjects
from agentflow.envelope import unseal
from agentflow.errors import InputError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.transport import Message, Transport
from agentflow.payloads import DeadLetter
from agentflow.schemas import payload_as
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
        self._known: set[tuple[int, str]] = set()
        self._read = 0

    async def write(self, message: Message, code: str, reason: str) -> bool:
        """Store a letter about a message unless there is one; returns whether one had to be written."""
        await self._read_on(message.stream)
        if (message.seq, message.subject) in self._known:
            return False
        await write_dead_letter(self._transport, Junk(message), DETECTOR, DETECTOR, code, reason)
        return True

    async def _read_on(self, stream: str) -> None:
        """Take note of the letters there are, also those another detector wrote meanwhile."""
        subject = subjects.dead(stream, DETECTOR)
        async for stored in self._transport.read(subjects.stream_of(subject), subject, start=self._read + 1):
            self._read = stored.seq
            try:
                letter = payload_as(unseal(stored.body, stored.subject), DeadLetter)
            except InputError:
                continue
            self._known.add((letter.seq, letter.subject))
