"""Reading recorded history as judged records: streaming, one message in memory at a time.

Everything comes through `Transport.read`, in stream order. A payload that is kept in the object store is fetched and
compared with the hash that was sealed, so a record says of the whole message whether it is what was sealed.
"""

from collections.abc import AsyncIterator
from datetime import datetime

from agentflow import subjects
from agentflow.errors import MeshError, NotStored, OutcomeUnknown, Unreachable
from agentflow.mesh.transport import Message, Objects, StreamInfo, Transport
from agentflow.registry import ARTIFACTS
from agentflow_streams.records import Record, open_record, with_artifact

RUN_STREAM = "AF_MESSAGES"
"""The stream whose subjects name runs."""


async def read_stream(
    transport: Transport,
    stream: str,
    *,
    subject: str = ">",
    start: int = 1,
    end: int | None = None,
    artifacts: Objects | None = None,
) -> AsyncIterator[Record]:
    """A stream's records from sequence `start` to `end`; raises `NotStored` for a stream that does not exist.

    Without `artifacts` a payload that is kept elsewhere stays unread: its record has a `claim`.
    """
    async for message in transport.read(stream, subject, start=start, end=end):
        yield await _judged(message, artifacts)


async def read_workflow(
    transport: Transport,
    stream: str,
    workflow: str,
    *,
    start: int = 1,
    end: int | None = None,
    artifacts: Objects | None = None,
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


async def artifacts_of(transport: Transport) -> Objects | None:
    """The object store that keeps large payloads, or None where there is none."""
    try:
        return await transport.objects(ARTIFACTS)
    except NotStored:
        return None


async def first_since(transport: Transport, info: StreamInfo, moment: datetime) -> int:
    """The sequence of the first message stored at `moment` or later; one behind the last where there is none."""
    low, high = info.first_seq, info.last_seq + 1
    while low < high:
        middle = (low + high) // 2
        message = await _at_or_behind(transport, info.name, middle, high)
        if message is None or message.time >= moment:
            high = middle
        else:
            low = message.seq + 1
    return low


async def _at_or_behind(transport: Transport, stream: str, seq: int, end: int) -> Message | None:
    """The first message from `seq` on and before `end`: a sequence may be missing."""
    async for message in transport.read(stream, start=seq, end=end - 1):
        return message
    return None


async def _judged(message: Message, artifacts: Objects | None) -> Record:
    record = open_record(message.stream, message.seq, message.subject, message.body)
    if record.claim is None or artifacts is None:
        return record
    return with_artifact(record, await _fetch(artifacts, record.claim.artifact))


async def _fetch(artifacts: Objects, name: str) -> bytes | None:
    """An artifact's bytes; None where the store has none, or none that it can make whole."""
    try:
        return await artifacts.get(name)
    except (Unreachable, OutcomeUnknown):
        raise
    except MeshError:
        return None
