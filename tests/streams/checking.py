"""Verifying a `Recording` without a broker: the same records and scope that the shell makes."""

from collections.abc import Sequence
from datetime import datetime

from agentflow.envelope import Sealed, unseal
from agentflow_streams.findings import Damage, Kind, Scope, StreamScope, Verification
from agentflow_streams.records import open_record
from agentflow_streams.verification import DEFAULT_STREAMS
from agentflow_streams.verify import Verifier
from tests.streams.histories import Recording


def check(
    recording: Recording,
    streams: Sequence[str] = DEFAULT_STREAMS,
    *,
    horizon: datetime | None = None,
    late: Recording | None = None,
) -> Verification:
    """Verify what a recording has of some streams. With a `horizon`, what is older has expired.

    `late` is what was stored while that was read.
    """
    verifier = Verifier(Scope(tuple(scope_of(recording, name, horizon) for name in streams)))
    for name in streams:
        for each in recording.of(name):
            verifier.add(open_record(each.stream, each.seq, each.subject, each.body))
    for each in late.messages if late else ():
        if each.stream in streams:
            verifier.add_late(open_record(each.stream, each.seq, each.subject, each.body))
    return verifier.finish()


def scope_of(recording: Recording, name: str, horizon: datetime | None = None) -> StreamScope:
    """A stream of a recording as the shell finds it."""
    messages = recording.of(name)
    if not messages:
        return StreamScope(name, (name,), 1, 0, horizon=horizon)
    first, last = messages[0].seq, messages[-1].seq
    return StreamScope(name, (name,), first, last, horizon=horizon if first > 1 else None)


def kinds(result: Verification) -> set[Kind]:
    """The kinds of damage found."""
    return {damage.kind for damage in result.damages}


def at(result: Verification, stream: str, seq: int) -> list[Damage]:
    """The damage found at one place."""
    return [damage for damage in result.damages if (damage.stream, damage.seq) == (stream, seq)]


def sealed_in(recording: Recording) -> dict[int, Sealed]:
    """The envelopes of a recording, by index."""
    return {
        index: unseal(each.body) for index, each in enumerate(recording.messages) if each.body.startswith(b'{"envelope')
    }
