"""Reading recorded history as judged records: streaming, one message in memory at a time.

Everything comes through `Transport.read`, in stream order. What a read leaves out is asked of the stream's leader once
more, because a replica may lag behind it and a damaged record ends a batch early; what the leader does not have either
is missing. A payload that is kept in the object store is fetched and compared with the hash that was sealed, so a
record says of the whole message whether it is what was sealed.
"""

from collections.abc import AsyncIterator
from datetime import datetime

from agentflow import subjects
from agentflow.errors import EvidenceError, MeshError, NotStored, OutcomeUnknown, Unreachable
from agentflow.mesh.transport import Message, Objects, StreamInfo, Transport
from agentflow.registry import ARTIFACTS
from agentflow_streams.readonly import Past
from agentflow_streams.records import Record, open_record, with_artifact

RUN_STREAM = "AF_MESSAGES"
"""The stream whose subjects name runs."""

MAX_QUESTIONS = 1000
"""Sequences of one stream that the leader is asked about one by one; more than that are missing without a question."""


class Artifacts:
    """The object store that keeps large payloads."""

    def __init__(self, transport: Transport, objects: Objects) -> None:
        self._transport, self._objects = transport, objects

    @classmethod
    async def of(cls, transport: Transport) -> "Artifacts | None":
        """A mesh's object store, or None where there is none."""
        try:
            return cls(transport, await transport.objects(ARTIFACTS))
        except NotStored:
            return None

    async def fetch(self, name: str) -> bytes | None:
        """An artifact's bytes; None where the store has none, or cannot make them whole.

        Raises `Unreachable` when the broker itself does not answer.
        """
        try:
            return await self._objects.get(name)
        except (Unreachable, OutcomeUnknown):
            await self._transport.rtt()  # the broker is there, so it is the artifact that is not
            return None
        except (EvidenceError, MeshError):
            return None


async def read_stream(
    transport: Transport,
    stream: str,
    *,
    start: int = 1,
    end: int | None = None,
    artifacts: Artifacts | None = None,
) -> AsyncIterator[Record]:
    """All of a stream's records from sequence `start` to `end` (by default the last there is now).

    Raises `NotStored` for a stream that does not exist. Without `artifacts` a payload that is kept elsewhere stays
    unread: its record has a `claim`.
    """
    if end is None:
        info = await transport.stream_info(stream)
        if info is None:
            raise NotStored(f"there is no stream {stream}", code="stream.unknown", stream=stream)
        start, end = max(start, info.first_seq), info.last_seq
    async for message in _all_there_is(transport, stream, start, end):
        yield await _judged(message, artifacts)


async def read_workflow(
    transport: Transport,
    stream: str,
    workflow: str,
    *,
    start: int = 1,
    end: int | None = None,
    artifacts: Artifacts | None = None,
) -> AsyncIterator[Record]:
    """What of a stream belongs to one run: what is on its own subjects, or names it in its metadata.

    Damaged bytes belong to it when they still name it.
    """
    pattern = subjects.workflow_all(workflow) if stream == RUN_STREAM else ">"
    async for message in transport.read(stream, pattern, start=start, end=end):
        if pattern == ">" and workflow.encode() not in message.body:
            continue
        record = await _judged(message, artifacts)
        if pattern != ">" or belongs_to(record, message.body, workflow):
            yield record


def belongs_to(record: Record, body: bytes, workflow: str) -> bool:
    """Whether a message names a run: a clean envelope in its metadata, anything else anywhere."""
    if record.sealed is not None and record.sealed.workflow_id:
        return record.sealed.workflow_id == workflow
    return f'"workflow_id":"{workflow}"'.encode() in body or f"workflows.{workflow}.".encode() in body


async def first_since(transport: Past, info: StreamInfo, moment: datetime) -> int:
    """The sequence of the first message stored at `moment` or later; one behind the last where there is none."""
    low, high = max(1, info.first_seq), info.last_seq + 1
    while low < high:
        middle = (low + high) // 2
        message = await transport.get(info.name, middle) or await _first_behind(transport, info.name, middle, high)
        if message is None or message.time >= moment:
            high = middle
        else:
            low = message.seq + 1
    return low


async def _first_behind(transport: Past, stream: str, seq: int, end: int) -> Message | None:
    """The first message behind `seq` and before `end`, where there is none at `seq` itself."""
    async for message in transport.read(stream, start=seq, end=end - 1):
        return message
    return None


async def _all_there_is(transport: Transport, stream: str, start: int, end: int) -> AsyncIterator[Message]:
    """Every message from `start` to `end` that a read or the leader has, in order."""
    expected, questions = start, MAX_QUESTIONS
    while expected <= end:
        async for message in transport.read(stream, start=expected, end=end):
            skipped = range(expected, message.seq)
            async for found in _asked_for(transport, stream, skipped[:questions]):
                yield found
            questions -= min(questions, len(skipped))
            yield message
            expected = message.seq + 1
        if expected > end or not questions:
            return
        async for found in _asked_for(transport, stream, range(expected, expected + 1)):
            yield found
        questions, expected = questions - 1, expected + 1


async def _asked_for(transport: Transport, stream: str, sequences: range) -> AsyncIterator[Message]:
    """Those of some sequences that the leader has."""
    for seq in sequences:
        try:
            found = await transport.get(stream, seq)
        except (Unreachable, OutcomeUnknown):
            raise
        except MeshError:
            continue  # it has something there that it cannot read
        if found is not None:
            yield found


async def _judged(message: Message, artifacts: Artifacts | None) -> Record:
    record = open_record(message.stream, message.seq, message.subject, message.body)
    if record.claim is None or artifacts is None:
        return record
    return with_artifact(record, await artifacts.fetch(record.claim.artifact))
