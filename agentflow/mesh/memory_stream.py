"""One stream of the in-memory broker: messages in order, and the checks the server makes before it stores one.

The order of the checks is the server's (2.15): size, expected sequence, duplicate, headers, limits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from agentflow.errors import Conflict, PublishFailed
from agentflow.mesh.memory_config import complete, lifetime, overlap, refusal, republished, schedule
from agentflow.mesh.memory_time import Timeline
from agentflow.mesh.transport import Message, Stored, StreamInfo
from agentflow.subjects import matches

Emit = Callable[[str, bytes], None]
"""Hands a republished message to the core subscriptions."""

_OVERHEAD = 16
_STEERING = ("Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL")


class MemoryStream:
    """A stream. Its methods are called inside a turn of the timeline."""

    def __init__(self, config: Mapping[str, Any], timeline: Timeline, emit: Emit) -> None:
        self.config = complete(config)
        self.messages: dict[int, Message] = {}
        self.last_seq = 0
        self._timeline, self._emit, self._created = timeline, emit, timeline.now()
        self._subjects: dict[str, list[int]] = {}
        self._ids: dict[str, tuple[int, datetime]] = {}
        self._bytes = 0

    def takes(self, subject: str) -> bool:
        """Whether messages on `subject` are stored here."""
        return any(matches(pattern, subject) for pattern in self.config["subjects"])

    def overlaps(self, config: Mapping[str, Any]) -> bool:
        """Whether another stream would claim some of the same subjects."""
        return any(overlap(mine, theirs) for mine in self.config["subjects"] for theirs in config["subjects"])

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Take on another configuration, and drop what it has no room for."""
        changed = complete(config)
        for name in ("deny_delete", "deny_purge"):
            if self.config[name] and not changed[name]:
                raise refusal(f"a stream's {name} cannot be switched off")
        if self.config["storage"] != changed["storage"]:
            raise refusal("a stream's storage cannot be changed")
        self.config = changed
        self._trim()  # in this order, which is the server's
        self._trim_subjects(list(self._subjects))

    # --- storing -----------------------------------------------------------------------------------------------

    def store(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        now: datetime,
        msg_id: str | None = None,
        expect: int | None = None,
    ) -> Stored:
        """Store a message as the server would; raises `Conflict` or `PublishFailed`."""
        self._check_size(subject, body, headers)
        self._check_expected(subject, expect)
        if msg_id is not None and (earlier := self._duplicate_of(msg_id, now)) is not None:
            return Stored(self.config["name"], earlier, duplicate=True)
        due, kept = schedule(headers, self.config, subject), lifetime(headers, self.config)
        self._check_room(subject, body, headers)
        self._roll_up(subject, headers)
        message = self._append(subject, body, headers, now)
        if msg_id is not None:
            self._ids[msg_id] = (message.seq, now)
        if due is not None:
            self._timeline.at(due, lambda moment: self._fire(message, moment))
        if kept is not None:
            self._timeline.at(now + kept, lambda moment: self._expire(message.seq, moment))
        return Stored(message.stream, message.seq)

    def _check_size(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        limit, found = self.config["max_msg_size"], len(body) + _size_of(headers)
        if 0 < limit < found:
            raise refusal(f"message to {subject} has {found} bytes; the stream takes {limit}", found=found)

    def _check_room(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        size = len(body) + _size_of(headers) + len(subject) + _OVERHEAD
        if self.config["discard"] == "new" and self._full_for(subject, size):
            raise refusal(f"stream {self.config['name']} is full", stream=self.config["name"])

    def _full_for(self, subject: str, size: int) -> bool:
        """Whether there is no room; a message that replaces its subject's oldest may take that one's room."""
        held, each = self._subjects.get(subject, []), self.config["max_msgs_per_subject"]
        freed = _size(self.messages[held[0]]) if 0 < each <= len(held) else 0
        many = 0 < self.config["max_msgs"] <= len(self.messages) and not freed
        return many or (0 < self.config["max_bytes"] <= self._bytes + size and freed < size)

    def _check_expected(self, subject: str, expect: int | None) -> None:
        last = self._subjects.get(subject, [0])[-1]
        if expect is not None and expect != last:
            raise Conflict(f"{subject}: wrong last sequence: {last}", subject=subject, expect=expect, found=last)

    def _duplicate_of(self, msg_id: str, now: datetime) -> int | None:
        seq, stored = self._ids.get(msg_id, (0, now))
        return seq if seq and now - stored < timedelta(microseconds=self.config["duplicate_window"] / 1000) else None

    def _roll_up(self, subject: str, headers: Mapping[str, str]) -> None:
        kind = headers.get("Nats-Rollup")
        if kind is None:
            return
        if not self.config["allow_rollup_hdrs"] or kind not in ("sub", "all"):
            raise refusal("rollup not permitted")
        for seq in list(self._subjects.get(subject, []) if kind == "sub" else self.messages):
            self.remove(seq)

    def _append(self, subject: str, body: bytes, headers: Mapping[str, str], now: datetime) -> Message:
        self.last_seq += 1
        message = Message(self.config["name"], self.last_seq, subject, body, now, dict(headers))
        self.messages[message.seq] = message
        self._subjects.setdefault(subject, []).append(message.seq)
        self._bytes += _size(message)
        self._trim_subjects([subject])
        self._trim()
        copy = republished(self.config.get("republish"), subject)
        if copy is not None:
            self._emit(copy, b"" if self.config["republish"].get("headers_only") else body)
        return message

    def _trim_subjects(self, subjects: Iterable[str]) -> None:
        each = self.config["max_msgs_per_subject"]
        for subject in subjects:
            while 0 < each < len(self._subjects.get(subject, ())):
                self.remove(self._subjects[subject][0])

    def _trim(self) -> None:
        while self.config["discard"] == "old" and self._over():
            self.remove(next(iter(self.messages)))

    def _over(self) -> bool:
        messages, size = int(self.config["max_msgs"]), int(self.config["max_bytes"])
        return 0 < messages < len(self.messages) or 0 < size < self._bytes

    def remove(self, seq: int) -> Message | None:
        """Take a message away."""
        message = self.messages.pop(seq, None)
        if message is not None:
            self._bytes -= _size(message)
            self._subjects[message.subject].remove(seq)
            if not self._subjects[message.subject]:
                del self._subjects[message.subject]
        return message

    # --- what happens later ------------------------------------------------------------------------------------

    def _fire(self, scheduled: Message, moment: datetime) -> None:
        """A scheduled message is due: it moves to its target, unless it was replaced or dropped."""
        if self.remove(scheduled.seq) is None:
            return
        headers = {key: value for key, value in scheduled.headers.items() if key not in _STEERING}
        headers.update({"Nats-Scheduler": scheduled.subject, "Nats-Schedule-Next": "purge"})
        if kept := scheduled.headers.get("Nats-Schedule-TTL"):
            headers["Nats-TTL"] = kept
        moment = max(moment, scheduled.time)
        self.store(scheduled.headers["Nats-Schedule-Target"], scheduled.body, headers, now=moment)

    def _expire(self, seq: int, moment: datetime) -> None:
        """A message's time is over; where the stream leaves markers, the last of a subject leaves one."""
        gone, kept = self.remove(seq), self.config.get("subject_delete_marker_ttl")
        if gone is None or not kept or gone.subject in self._subjects or "Nats-Marker-Reason" in gone.headers:
            return
        marker = {"Nats-Marker-Reason": "MaxAge", "Nats-TTL": f"{kept // 1_000_000_000}s"}
        self.store(gone.subject, b"", marker, now=moment)

    # --- reading -----------------------------------------------------------------------------------------------

    def last(self, subject: str) -> Message | None:
        """The last message under exactly `subject`."""
        return self.messages.get(self._subjects.get(subject, [0])[-1])

    def first(self, subject: str) -> Message | None:
        """The first message under exactly `subject`."""
        return self.messages.get(self._subjects.get(subject, [0])[0])

    def select(self, pattern: str, start: int, end: int) -> Iterator[Message]:
        """Messages from `start` to `end` whose subject `pattern` covers, in order."""
        for seq in range(max(1, start), min(end, self.last_seq) + 1):
            message = self.messages.get(seq)
            if message is not None and matches(pattern, message.subject):
                yield message

    def info(self, consumers: int) -> StreamInfo:
        """The stream as it is."""
        first = next(iter(self.messages), self.last_seq + 1)
        name, config = self.config["name"], dict(self.config)
        messages, subjects = len(self.messages), len({message.subject for message in self.messages.values()})
        return StreamInfo(name, config, messages, self._bytes, first, self.last_seq, consumers, self._created, subjects)


def _size(message: Message) -> int:
    return len(message.subject) + len(message.body) + _size_of(message.headers) + _OVERHEAD


def _size_of(headers: Mapping[str, str]) -> int:
    return sum(len(key) + len(value) + 4 for key, value in headers.items())


def check_message(subject: str, body: bytes, headers: Mapping[str, str], limit: int) -> None:
    """Refuse what a client must not even send: a wildcard, spaces or an empty token, or more bytes than `limit`."""
    if any(not token or any(sign in token for sign in "*> \t\r\n") for token in subject.split(".")):
        raise PublishFailed(f"{subject!r} cannot be published to", code="mesh.bad_subject", subject=subject)
    size = len(body) + _size_of(headers)
    if size > limit:
        text = f"message to {subject} has {size} bytes; the server takes {limit}"
        raise PublishFailed(text, code="mesh.too_large", found=size)
