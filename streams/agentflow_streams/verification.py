"""Verification of what a broker has: decides what to read, reads it, and lets `verify` judge.

A mesh that is at work does not stop for this. The end of every stream is noted before anything is read; what is stored
behind those ends is looked at once more, where something refers to it, and judged next time.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from agentflow import subjects
from agentflow.errors import InputError, NotStored, SubjectError
from agentflow.ids import check_token
from agentflow.mesh.transport import StreamInfo, Transport
from agentflow_streams.definitions import SECOND, evidence
from agentflow_streams.findings import Scope, StreamScope, Verification
from agentflow_streams.history import Artifacts, first_since, read_stream, read_workflow
from agentflow_streams.records import Record
from agentflow_streams.verify import Verifier

DEFAULT_STREAMS = ("AF_MESSAGES", "AF_AGENTS", "AF_AUDIT", "AF_PROTOCOLS", "AF_DEAD")
"""What is verified unless streams are named; decisions come before what they caused."""

Progress = Callable[[str, int, int], None]
"""Told a stream, how many of its messages are done, and how many there are."""

_EVERY = 500


async def verify(
    transport: Transport,
    *,
    now: datetime,
    streams: Sequence[str] = (),
    workflow: str = "",
    since: datetime | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Verify everything, some `streams`, one `workflow`, or what was stored `since` a moment.

    `now` tells what may have expired. Raises `InputError` for a stream that holds no evidence, `NotStored` for a
    stream or a workflow that is not there, and `MeshError` when the broker cannot be reached. Damage is not an error:
    it is in the result.
    """
    if workflow:
        check_token(workflow, "workflow id")
    scope = await _scope(transport, streams, workflow, now, since)
    artifacts = await Artifacts.of(transport)
    verifier = Verifier(scope)
    for stream in scope.streams:
        await _read(transport, verifier.add, stream, workflow, artifacts, progress)
    infos = {stream.name: await transport.stream_info(stream.name) for stream in scope.streams}
    for stream in scope.streams if not verifier.settled else ():
        if (info := infos[stream.name]) is not None and info.last_seq > stream.last_seq:
            start, end = max(stream.last_seq + 1, info.first_seq), info.last_seq
            async for record in _records(transport, stream.name, workflow, start, end, artifacts):
                verifier.add_late(record)
    result = verifier.finish({name: info.first_seq for name, info in infos.items() if info is not None})
    if workflow and not any(stream.messages for stream in result.streams):
        raise NotStored(f"nothing is stored about workflow {workflow!r}", code="run.unknown", workflow=workflow)
    return result


async def _read(
    transport: Transport,
    take: Callable[[Record], None],
    stream: StreamScope,
    workflow: str,
    artifacts: Artifacts | None,
    progress: Progress | None,
) -> None:
    total, done = max(0, stream.last_seq - stream.first_seq + 1), 0
    async for record in _records(transport, stream.name, workflow, stream.first_seq, stream.last_seq, artifacts):
        take(record)
        done = record.seq - stream.first_seq + 1
        if progress is not None and done % _EVERY == 0:
            progress(stream.name, done, total)
    if progress is not None:
        progress(stream.name, total, total)


async def _records(
    transport: Transport, stream: str, workflow: str, start: int, end: int, artifacts: Artifacts | None
) -> AsyncIterator[Record]:
    if end < start:
        return
    if workflow:
        records = read_workflow(transport, stream, workflow, start=start, end=end, artifacts=artifacts)
    else:
        records = read_stream(transport, stream, start=start, end=end, artifacts=artifacts)
    async for record in records:
        yield record


async def _scope(
    transport: Transport, named: Sequence[str], workflow: str, now: datetime, since: datetime | None
) -> Scope:
    """What there is to read, with every stream's end as it is now."""
    names = tuple(dict.fromkeys(named)) or DEFAULT_STREAMS
    found = {name: await transport.stream_info(name) for name in names}
    absent = [name for name, info in found.items() if info is None]
    if absent and (named or len(absent) == len(names)):
        raise NotStored(
            f"there is no stream {absent[0]}" if named else "there are no streams of a mesh here",
            code="stream.unknown",
            streams=absent,
            hint="`agentflow streams ls` shows what there is; `agentflow streams apply` makes what is missing",
        )
    scopes = [
        await _stream_scope(transport, info, workflow, now, since) if info else StreamScope(name, (name,), 1, 0)
        for name, info in found.items()
    ]
    return Scope(tuple(scopes), workflow)


async def _stream_scope(
    transport: Transport, info: StreamInfo, workflow: str, now: datetime, since: datetime | None
) -> StreamScope:
    covers = _covers(info.config)
    protected = bool(info.config.get("deny_delete")) and bool(info.config.get("deny_purge"))
    if not protected and info.name not in evidence():
        raise InputError(
            f"stream {info.name} holds no evidence: it lets messages be deleted or purged",
            code="stream.no_evidence",
            found=info.name,
            allowed=", ".join(DEFAULT_STREAMS),
        )
    first, horizon = max(1, info.first_seq), _expiry_horizon(info, now)
    if since is not None:
        first = await first_since(transport, info, since)
        horizon = max(since, horizon) if horizon else since
    return StreamScope(info.name, covers, first, info.last_seq, whole=not workflow, horizon=horizon)


def _expiry_horizon(info: StreamInfo, now: datetime) -> datetime | None:
    """What is younger than this cannot have expired; None where nothing has."""
    age = info.config.get("max_age") or 0
    if info.first_seq <= 1 or not age:
        return None
    return now - timedelta(seconds=age / SECOND)


def _covers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The streams of the mesh whose messages a stream holds, by its subjects or by what it copies."""
    copied = [config.get("mirror") or {}, *(config.get("sources") or [])]
    found = {source["name"] for source in copied if "name" in source}
    for subject in config.get("subjects") or ():
        try:
            found.add(subjects.stream_of(subject))
        except SubjectError:
            continue
    return tuple(sorted(found))
