"""What replay reads of a mesh: runs, their commands, fired timers, definitions and large payloads. Never writes."""

from collections.abc import AsyncIterator
from datetime import datetime

from agentflow import subjects
from agentflow.envelope import claim_in, unseal
from agentflow.errors import EnvelopeError, EvidenceError, NotStored, SubjectError
from agentflow.mesh.transport import Message
from agentflow.registry import ARTIFACTS
from agentflow_streams.deciders import Arrival, Recorded
from agentflow_streams.decisions import consumed_by, definition_of, hashes_of
from agentflow_streams.history import RUN_STREAM, first_since
from agentflow_streams.readonly import Readable

TIMERS = "AF_TIMERS"

COMMANDS = (("AF_AGENTS", "agents.*.in.*"), ("AF_AUDIT", "tools.calls.*"))
"""Where the commands of decisions are stored."""

_CLAIM = b'"payload":{"artifact":'
"""In every envelope whose payload is kept elsewhere."""


def kind_of(subject: str) -> str:
    """What a subject of a run carries; empty for one that is none."""
    try:
        kind = subjects.parse(subject).kind
    except SubjectError:
        return ""
    return kind if kind.startswith("workflow.") else ""


def run_of(subject: str) -> str:
    """The run a subject belongs to."""
    return subjects.parse(subject).owner


class Source:
    """A mesh, as far as it is read."""

    def __init__(self, mesh: Readable) -> None:
        self._mesh = mesh
        self._definitions: dict[str, bytes | None] = {}
        self._horizons: dict[str, datetime | None] = {}

    def runs(self, start: int, end: int) -> AsyncIterator[Message]:
        """Everything stored about runs, in stream order."""
        return self._mesh.read(RUN_STREAM, start=start, end=end)

    async def run(self, run: str, end: int) -> AsyncIterator[Message]:
        """Everything stored about one run, in stream order."""
        async for message in self._mesh.read(RUN_STREAM, subjects.workflow_all(run), end=end):
            if kind_of(message.subject):
                yield message

    async def commands(self, stream: str, pattern: str, behind: int) -> AsyncIterator[Message]:
        """The commands in a stream that were stored behind a place in the stream of runs."""
        info = await self._mesh.stream_info(stream)
        if info is None or (place := await self._mesh.get(RUN_STREAM, behind)) is None:
            return
        start = await first_since(self._mesh, info, place.time) if behind > 1 else 1
        async for message in self._mesh.read(stream, pattern, start=start):
            yield message

    async def command(self, subject: str) -> bytes | None:
        """The bytes of a command, from the leader of its stream."""
        message = await self.stored_command(subject)
        return None if message is None else message.body

    async def stored_command(self, subject: str) -> Message | None:
        """A command as it is stored, before any junk; None where it is not, or where no stream keeps such a subject."""
        try:
            return await self._mesh.first(subjects.stream_of(subject), subject)
        except (NotStored, SubjectError):
            return None

    async def has_expired(self, subject: str, moment: datetime) -> bool:
        """Whether a stream has let go of messages as old as this."""
        stream = subjects.stream_of(subject)
        if stream not in self._horizons:
            self._horizons[stream] = await self._horizon(stream)
        horizon = self._horizons[stream]
        return horizon is not None and moment < horizon

    async def _horizon(self, stream: str) -> datetime | None:
        """The time of the first message a stream has left; None where it has let go of nothing."""
        info = await self._mesh.stream_info(stream)
        if info is None or info.first_seq <= 1:
            return None
        first = await self._mesh.get(stream, info.first_seq)
        return first.time if first is not None else datetime.max.replace(tzinfo=info.created.tzinfo)

    async def arrival(self, message: Message) -> Arrival:
        """A message with the payload it refers to."""
        arrival = Arrival(message.stream, message.seq, message.subject, message.body, message.time)
        if _CLAIM not in message.body:
            return arrival
        try:
            claim = claim_in(unseal(message.body, message.subject).envelope.payload)
        except EnvelopeError:
            return arrival
        if claim is None:
            return arrival
        try:
            return _with(arrival, await self._mesh.artifact(ARTIFACTS, claim.artifact), ("", ""))
        except (NotStored, EvidenceError) as error:
            return _with(arrival, None, (error.error_code, error.message))

    async def context(self, recorded: Recorded) -> tuple[bytes | None, Arrival | None]:
        """What a decision rests on besides its run: the definition it names, the timer it consumed."""
        ref = definition_of(recorded.payload)
        consumed = consumed_by(recorded.payload)[0]
        timer = None
        if consumed.subject.startswith("timers."):
            timer = await self._timer(consumed.seq, consumed.subject, consumed.hash)
        return (None if ref is None else await self.definition(ref.sha256)), timer

    async def definition(self, sha256: str) -> bytes | None:
        """The bytes of a definition, not yet compared with their hash; None where they are not stored any more."""
        if sha256 not in self._definitions:
            try:
                self._definitions[sha256] = await self._mesh.artifact(ARTIFACTS, f"sha256-{sha256}")
            except (NotStored, EvidenceError):
                self._definitions[sha256] = None
        return self._definitions[sha256]

    async def _timer(self, seq: int, subject: str, digest: str) -> Arrival | None:
        """A fired timer, if it is still what was consumed: a later one may have taken its place."""
        try:
            message = await self._mesh.get(TIMERS, seq)
        except NotStored:
            return None
        if message is None or message.subject != subject or digest not in hashes_of(message.body):
            return None
        return Arrival(message.stream, message.seq, message.subject, message.body, message.time)


def _with(arrival: Arrival, artifact: bytes | None, trouble: tuple[str, str]) -> Arrival:
    return Arrival(arrival.stream, arrival.seq, arrival.subject, arrival.body, arrival.time, artifact, trouble)
