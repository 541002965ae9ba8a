"""I1 and I3: what every publish ended with, written down by whoever published, and compared with what is stored.

A line is appended to one file after each attempt, by the test's clients (`RecordingTransport`) and by the services
(`recorder/sitecustomize.py`, which their `PYTHONPATH` leads to). A line `stored` is written only after the server's
acknowledgement; a process that is killed in between has written none, which is right: it knew nothing.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentflow.errors import AgentflowError, Conflict, OutcomeUnknown, Unreachable
from agentflow.mesh.transport import Message, Stored
from tests.faults.verdicts import Verdict, judged

VARIABLE = "RECORD_PUBLISHES"
"""The environment variable that names the file, for services."""

EVIDENCE = ("AF_MESSAGES", "AF_AGENTS", "AF_AUDIT", "AF_PROTOCOLS", "AF_DEAD")
"""Streams that never let a message go; what others acknowledge may be replaced later."""

Ending = Literal["stored", "refused", "unknown", "unsent"]
"""Acknowledged; not stored for certain; no answer; not connected."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to publish, and how it ended."""

    writer: str
    stream: str
    subject: str
    sha256: str
    """Of the whole body."""
    id: str
    """The envelope's; empty for a body that is none."""
    payload: str
    """Digest of the envelope's payload."""
    ending: Ending
    seq: int = 0
    guarded: bool = False
    """It expected a sequence, so that the server itself lets one of several attempts through."""


def attempt(
    writer: str, stream: str, subject: str, body: bytes, ending: Ending, seq: int = 0, *, guarded: bool = False
) -> Attempt:
    """What is noted about one attempt."""
    found: Any = None
    if body.startswith(b'{"envelope_hash"'):
        found = json.loads(body)
    sealed = isinstance(found, dict)
    payload = json.dumps(found.get("payload"), sort_keys=True).encode() if sealed else b""
    return Attempt(
        writer,
        stream,
        subject,
        hashlib.sha256(body).hexdigest(),
        found.get("id", "") if sealed else "",
        hashlib.sha256(payload).hexdigest() if sealed else "",
        ending,
        seq,
        guarded,
    )


def ending_of(error: BaseException) -> Ending:
    """How an attempt ended that raised."""
    if isinstance(error, Unreachable):
        return "unsent"
    if isinstance(error, Conflict) or (isinstance(error, AgentflowError) and not isinstance(error, OutcomeUnknown)):
        return "refused"
    return "unknown"


class PublishLog:
    """The file all writers append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, made: Attempt) -> None:
        """Append one line; whole lines of several processes do not mix."""
        line = json.dumps([getattr(made, name) for name in Attempt.__slots__]).encode() + b"\n"
        target = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(target, line)
        finally:
            os.close(target)

    def attempts(self) -> list[Attempt]:
        """Everything noted so far; a line that a killed writer left unfinished is none."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().splitlines():
            try:
                found.append(Attempt(*json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found


class RecordingTransport:
    """A transport that notes how every publish ended; everything else goes through as it is."""

    def __init__(self, transport: Any, log: PublishLog, writer: str = "client") -> None:
        self._transport, self._log, self._writer = transport, log, writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def publish(self, subject: str, body: bytes, *, stream: str, **more: Any) -> Stored:
        """One attempt, noted."""
        return await recorded(self._transport.publish, self._log, self._writer, subject, body, stream, more)


async def recorded(
    publish: Any, log: PublishLog, writer: str, subject: str, body: bytes, stream: str, more: Mapping[str, Any]
) -> Stored:
    """Publish, and note the ending."""
    guarded = more.get("expect") is not None
    try:
        stored: Stored = await publish(subject, body, stream=stream, **more)
    except BaseException as error:
        log.note(attempt(writer, stream, subject, body, ending_of(error), guarded=guarded))
        raise
    if not stored.duplicate:
        log.note(attempt(writer, stored.stream, subject, body, "stored", stored.seq, guarded=guarded))
    return stored


@dataclass(slots=True)
class StoredIndex:
    """What the evidence streams hold, by place and by content."""

    by_place: dict[tuple[str, int], str]
    contents: set[tuple[str, str]]
    """Subject and sha256."""

    @classmethod
    def of(cls, messages: Iterable[Message]) -> "StoredIndex":
        """Of messages that were read."""
        found = cls({}, set())
        for message in messages:
            digest = hashlib.sha256(message.body).hexdigest()
            found.by_place[message.stream, message.seq] = digest
            found.contents.add((message.subject, digest))
        return found


def nothing_acked_is_lost(attempts: Iterable[Attempt], stored: StoredIndex) -> Verdict:
    """I1: every acknowledged message is where the acknowledgement said, byte for byte."""
    acked = [made for made in attempts if made.ending == "stored" and made.stream in EVIDENCE]
    violations = []
    for made in acked:
        there = stored.by_place.get((made.stream, made.seq))
        if there != made.sha256:
            what = "is not there" if there is None else "holds other bytes"
            violations.append(f"{made.stream}:{made.seq} {made.subject} ({made.id or made.sha256[:12]}) {what}")
    return judged("I1", len(acked), violations, "no publish was acknowledged")


def unknown_stays_unknown(
    attempts: Iterable[Attempt], stored: StoredIndex, told: Iterable[tuple[str, str]] = ()
) -> Verdict:
    """I3: a publish without an answer is not said again under a new id, nor is anybody told that it failed if it landed.

    `told` are the subjects somebody published to, and what the caller was told: `stored`, `refused` or `unknown`.
    (A conflict after an unknown attempt at the same bytes is no violation: whoever gets one reads back. Nor is another
    id where both expected the same sequence, as when a caller submits the same run once more: at most one is stored.)
    """
    made = [each for each in attempts if each.stream in EVIDENCE]
    violations = [
        f"{saying[0].subject}: ended unknown and was said again as {sorted({each.id for each in saying})}"
        for saying in _sayings(made)
        if _said_twice(saying, stored)
    ]
    subjects = {subject for subject, _ in stored.contents}
    callers = list(told)
    violations += [
        f"{s}: the caller was told it is refused, and it is stored"
        for s, w in callers
        if w == "refused" and s in subjects
    ]
    violations += [
        f"{s}: the caller was told it is stored, and it is not"
        for s, w in callers
        if w == "stored" and s not in subjects
    ]
    return judged("I3", len(made) + len(callers), violations, "nothing was published")


def _sayings(made: Iterable[Attempt]) -> list[list[Attempt]]:
    """Attempts of one writer to say one thing in one place."""
    found: dict[tuple[str, str, str], list[Attempt]] = defaultdict(list)
    for each in made:
        if each.id:
            found[each.writer, each.subject, each.payload].append(each)
    return list(found.values())


def _said_twice(saying: list[Attempt], stored: StoredIndex) -> bool:
    """Whether something without an answer may stand there, or does stand there, under two ids."""
    if len({each.id for each in saying}) < 2 or all(each.ending != "unknown" for each in saying):
        return False
    there = {each.id for each in saying if (each.subject, each.sha256) in stored.contents}
    return len(there) > 1 or not all(each.guarded for each in saying)


def landed(attempts: Iterable[Attempt], stored: StoredIndex) -> tuple[int, int]:
    """How many publishes that ended unknown have landed, and how many have not."""
    unknown = {(each.subject, each.sha256) for each in attempts if each.ending == "unknown"}
    there = len(unknown & stored.contents)
    return there, len(unknown) - there
