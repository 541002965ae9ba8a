"""What envelopes say of each other by id and hash: causes, inputs a decision consumed, commands it lists. Pure.

Whatever is referred to must be there, be the same bytes, and be stored before what refers to it, unless it is on a
stream that was not read, has expired, or is a timer (`AF_TIMERS` holds no evidence: timers are only listed).
"""

import base64
import binascii
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Literal

from agentflow import subjects
from agentflow.chain import Link
from agentflow.envelope import Ref, Sealed, claim_in, sha256_hex, stored_hash
from agentflow.errors import SubjectError
from agentflow.payloads import Command, DeadLetter, Decision, GoalRejected, InputRejected, Payload
from agentflow_streams.continuity import ANYWHERE, HOMES, may_have_expired
from agentflow_streams.findings import Damage, Scope
from agentflow_streams.records import Record

_ANSWERS = {
    "step.completed/1": frozenset({"AF_AGENTS"}),
    "step.failed/1": frozenset({"AF_AGENTS"}),
    "tool.completed/1": frozenset({"AF_AUDIT"}),
    "tool.failed/1": frozenset({"AF_AUDIT"}),
}
"""Where the request is that a response answers: its first cause."""

_RESTS_ON = {"tool.completed/1": frozenset({"AF_AUDIT"}), "tool.failed/1": frozenset({"AF_AUDIT"})}
"""Where the further causes of a response are, where they are all of one kind: the audit entry it rests on."""


Place = tuple[str, int]
"""A stream and a sequence."""

STRANGERS = ("audit.foreign", "call.misplaced", "call.reply_to", "reply.invalid", "schema.unexpected", "stray.")
"""How the codes of dead letters begin whose message the mesh itself never made: it takes no place in any chain."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An envelope named by another one."""

    what: Literal["cause", "input", "command"]
    id: str
    hash: str
    """Empty for a command: a decision lists its payload's hash, not its own."""
    homes: frozenset[str]
    """Streams it may be on."""
    by: Link
    subject: str = ""
    """Where it must be stored, where that is known."""
    seq: int = 0
    """The sequence a decision read its input at, 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A stored command, as far as a decision's listing is compared with it."""

    link: Link
    subject: str
    schema: str
    payload_hashes: tuple[str, ...]
    """Of the payload as it is stored, and of the artifact where it is a claim check."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A stored message that is known by the hash of its bytes only."""

    stream: str
    seq: int
    subject: str

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.stream, self.seq


class References:
    """Collects envelopes and what they refer to; what can be settled at once is not kept."""

    def __init__(self) -> None:
        self.elsewhere = 0
        """References to what may be on a stream that was not read."""
        self.expired = 0
        """References to what is gone by age."""
        self.timers = 0
        self.unsent: list[Reference] = []
        """The last commands of open runs, where they are not stored: to be sent still, or lost."""
        self._known: dict[str, Link] = {}
        self._doubles: dict[tuple[str, str], Link] = {}
        self._pending: dict[str, list[Reference]] = {}
        self._awaited: dict[str, tuple[Command, Reference]] = {}
        self._sent: dict[str, Sent] = {}
        self._listing: set[str] = set()
        self._last_listing: dict[str, Link] = {}
        self._strangers: dict[str, list[Stranger]] = {}
        self._damaged: dict[str, list[Stranger]] = {}
        self._given_up: dict[str, set[Place]] = {}
        self._disowned: set[tuple[str, int, str]] = set()
        self._consumed: set[tuple[str, str]] = set()
        self._read_at: list[tuple[str, int, int, str]] = []
        self._found: list[Damage] = []
        self._told: set[str] = set()

    @property
    def settled(self) -> bool:
        """Whether everything referred to was found."""
        return not self._pending and not self._awaited

    def add(self, link: Link, sealed: Sealed, payload: Payload | None, *, late: bool = False) -> None:
        """Take in a clean envelope. A `late` one was stored after what is judged: it only settles references."""
        if self._known.setdefault(link.id, link) is not link:
            self._doubles.setdefault((link.id, link.hash), link)
        self._settle_pending(link, sealed)
        self._take_account(sealed, payload)
        if late:
            return
        for reference in _references(link, sealed, payload):
            self._take(reference)
        if isinstance(payload, Decision):
            self._take_decision(link, payload)

    def add_stranger(self, record: Record) -> None:
        """Take in a message that a decision may list by the hash of its raw bytes.

        That is what is no clean envelope, or one that has no place on its subject.
        """
        id = record.sealed.envelope.id if record.sealed else record.trace.id if record.trace else ""
        stranger = Stranger(record.stream, record.seq, record.subject)
        self._strangers.setdefault(record.raw_hash, []).append(stranger)
        if id and record.damage is not None:
            self._damaged.setdefault(id, []).append(stranger)

    def accounted(self) -> set[Place]:
        """Where the messages are that a decision consumed or refused by their raw bytes, or a consumer gave up."""
        named = (
            stranger
            for reference in self._unsettled()
            for stranger in self._strangers.get(reference.hash, ())
            if stranger.subject == reference.subject
        )
        given_up = (stranger for hash in self._given_up for stranger in self._strangers.get(hash, ()))
        return {stranger.place for stranger in (*named, *given_up)}

    def refused(self) -> set[Place]:
        """Where the messages are, on any subject, that the mesh says it did not take.

        A decision lists exactly their bytes and subject, or a dead letter has exactly their bytes, stream and sequence.
        """
        return {
            stranger.place
            for hash, strangers in self._strangers.items()
            for stranger in strangers
            if (hash, stranger.subject) in self._consumed
            or not self._given_up.get(hash, set()).isdisjoint({stranger.place, (_home(stranger.subject), stranger.seq)})
        }

    def disowned(self) -> set[Place]:
        """Where sound envelopes are that a decision refused by their raw bytes: made by somebody else than they say."""
        return {
            stranger.place
            for hash, strangers in self._strangers.items()
            for stranger in strangers
            if (hash, stranger.subject) in self._consumed
        }

    def strangers(self) -> Set[tuple[str, int, str]]:
        """Stream, sequence and hash of sound envelopes that were given up as nothing the mesh makes."""
        return self._disowned

    def took(self, record: Record) -> bool:
        """Whether a decision consumed this envelope as what it is: then its payload was there once."""
        return record.sealed is not None and (record.sealed.hash, record.subject) in self._consumed

    def excuse(self, places: Set[Place]) -> None:
        """Say what is not told as damage where it is stored: then what refers to it tells, if the true one is missing.

        To be called once everything was added, before anything is judged.
        """
        self._told = {id for id, them in self._damaged.items() if any(each.place not in places for each in them)}

    def explained(self) -> dict[str, int]:
        """For each decision with commands: how many of them are told as missing, and so explain a gap in its chain."""
        explained = dict.fromkeys(self._listing, 0)
        for _, reference in self._awaited.values():
            explained[reference.by.id] += 1
        return explained

    def judge(self, scope: Scope, open_chains: set[str]) -> Iterator[Damage]:
        """Every damage. The last commands of a run in `open_chains` may still be on their way.

        What is damaged itself, and not excused, is told where it is and not by those that refer to it.
        """
        in_flight = {last.id for chain, last in self._last_listing.items() if chain in open_chains}
        yield from self._found
        for id, (_, reference) in self._awaited.items():
            if id in self._told:
                continue
            if reference.by.id in in_flight and id not in self._pending:
                self.unsent.append(reference)
            else:
                yield from self._absent(reference, scope)
        for reference in self._unsettled():
            yield from self._judge_reference(reference, scope)
        yield from self._inversions()

    def judge_foundation(self, link: Link, below: str) -> Iterator[Damage]:
        """Place 0 of a chain that rests on an envelope must carry that envelope's hash."""
        known = self._known.get(below)
        fits = known is None or known.hash == link.prev_hash or (below, link.prev_hash) in self._doubles
        if below not in self._told and not fits:
            told = f"the chain rests on {below}, and its first prev_hash is not the hash of that envelope"
            yield Damage(link.stream, link.seq, "unlinked", link.chain, told)

    def _unsettled(self) -> Iterator[Reference]:
        return (reference for references in self._pending.values() for reference in references)

    def _take_account(self, sealed: Sealed, payload: Payload | None) -> None:
        """Note which bytes an envelope accounts for; only the planner's decisions and dead letters do."""
        subject = sealed.envelope.subject
        if isinstance(payload, DeadLetter) and subject == f"dead.{payload.stream}.{payload.consumer}":
            self._given_up.setdefault(_given_up(payload), set()).add((payload.stream, payload.seq))
            if payload.code.startswith(STRANGERS) and (hash := _sealed_hash(payload)):
                self._disowned.add((payload.stream, payload.seq, hash))
        elif isinstance(payload, Decision | GoalRejected | InputRejected) and subject.endswith(".out"):
            self._consumed.update((each.hash, each.subject) for each in payload.consumed)

    def _settle_pending(self, link: Link, sealed: Sealed) -> None:
        """Settle what waited for this envelope."""
        waiting = self._pending.pop(link.id, [])
        for reference in waiting:
            if reference.hash == link.hash:
                self._settle(reference, link)
        if left := [reference for reference in waiting if reference.hash != link.hash]:
            self._pending[link.id] = left
        if link.chain.startswith("decision:"):
            awaited = self._awaited.pop(link.id, None)
            if awaited is None:
                self._sent[link.id] = _sent(link, sealed)
            else:
                self._found.extend(_compare(awaited[0], _sent(link, sealed), awaited[1].by))

    def _take(self, reference: Reference) -> None:
        """Settle a reference if what it names was read already, else keep it."""
        known = self._known.get(reference.id)
        if known is None or known.hash != reference.hash:
            known = self._doubles.get((reference.id, reference.hash))
        if known is None:
            self._pending.setdefault(reference.id, []).append(reference)
        else:
            self._settle(reference, known)

    def _take_decision(self, link: Link, decision: Decision) -> None:
        self.timers += decision.timer is not None
        if decision.commands:
            self._listing.add(link.id)
            last = self._last_listing.setdefault(link.chain, link)
            if link.place > last.place:
                self._last_listing[link.chain] = link
        for command in decision.commands:
            if (home := _home(command.subject)) not in ANYWHERE:
                continue
            if sent := self._sent.pop(command.id, None):
                self._found.extend(_compare(command, sent, link))
            else:
                reference = Reference("command", command.id, "", frozenset({home}), link, command.subject)
                self._awaited[command.id] = (command, reference)

    def _settle(self, reference: Reference, found: Link) -> None:
        by = reference.by
        self._note_place(reference, found.stream, found.seq)
        if found.stream == by.stream and found.seq > by.seq:
            told = f"stored before its {reference.what} {found.id} ({_at(found)})"
            self._found.append(Damage(by.stream, by.seq, "reordered", by.chain, told))

    def _judge_reference(self, reference: Reference, scope: Scope) -> Iterator[Damage]:
        by = reference.by
        if reference.id in self._told or self._is_stranger(reference):
            return
        if known := self._known.get(reference.id):
            told = f"its {reference.what} {reference.id} has another hash where it is stored ({_at(known)})"
            yield Damage(by.stream, by.seq, "unlinked", by.chain, told)
        elif reference is self._pending[reference.id][0] and reference.id not in self._awaited:
            yield from self._absent(reference, scope)

    def _absent(self, reference: Reference, scope: Scope) -> Iterator[Damage]:
        by, homes = reference.by, reference.homes
        vague = bool(scope.workflow) and homes == ANYWHERE
        if vague or not homes <= scope.covered():
            self.elsewhere += 1
        elif _before_front(reference, scope) and may_have_expired(reference.id, homes, scope):
            self.expired += 1
        else:
            where = f" on {reference.subject}" if reference.subject else ""
            told = f"its {reference.what} {reference.id} is not stored{where}"
            yield Damage(by.stream, by.seq, "missing", by.chain, told)

    def _is_stranger(self, reference: Reference) -> bool:
        """Whether what is named is there, as raw bytes on the subject it was read from."""
        found = [each for each in self._strangers.get(reference.hash, ()) if each.subject == reference.subject]
        if len(found) == 1:
            self._note_place(reference, *found[0].place)
        return bool(found)

    def _note_place(self, reference: Reference, stream: str, seq: int) -> None:
        if reference.seq:
            self._read_at.append((stream, seq, reference.seq, reference.id))

    def _inversions(self) -> Iterator[Damage]:
        """Inputs lie in the order in which they were read, from whatever sequence a copy of the stream counts."""
        twice = {id for id, _ in self._doubles}
        highest: dict[str, int] = {}
        for stream, seq, read_at, id in sorted(self._read_at):
            if id in twice:
                continue
            if read_at < highest.get(stream, 0):
                chain = self._known[id].chain if id in self._known else ""
                told = f"input {id} lies behind inputs that were read after it"
                yield Damage(stream, seq, "reordered", chain, told)
            highest[stream] = max(read_at, highest.get(stream, 0))


def _sent(link: Link, sealed: Sealed) -> Sent:
    payload = bytes(sealed.envelope.payload)
    claim = claim_in(payload)
    hashes = (sha256_hex(payload), claim.sha256) if claim else (sha256_hex(payload),)
    return Sent(link, sealed.envelope.subject, sealed.envelope.schema, hashes)


def _compare(command: Command, sent: Sent, by: Link) -> Iterator[Damage]:
    """A stored command must be what the decision lists."""
    for member, fits in (
        ("subject", command.subject == sent.subject),
        ("schema", command.schema == sent.schema),
        ("payload", command.payload_sha256 in sent.payload_hashes),
    ):
        if not fits:
            told = f"its {member} is not the one that decision {by.id} ({_at(by)}) lists for this command"
            yield Damage(sent.link.stream, sent.link.seq, "edited", sent.link.chain, told)


def _references(link: Link, sealed: Sealed, payload: Payload | None) -> Iterator[Reference]:
    consumed = payload.consumed if isinstance(payload, Decision | GoalRejected | InputRejected) else ()
    inputs = {each.id for each in consumed}
    for cause in sealed.envelope.causes:
        if cause.id not in inputs:
            yield Reference("cause", cause.id, cause.hash, _homes_of_cause(cause, sealed, payload), link)
    for each in consumed:
        if (home := _home(each.subject)) in ANYWHERE:
            yield Reference("input", each.id, each.hash, frozenset({home}), link, each.subject, each.seq)


def _homes_of_cause(cause: Ref, sealed: Sealed, payload: Payload | None) -> frozenset[str]:
    """Where the cause of an envelope must be, as far as the envelope tells."""
    kind, _, name = sealed.envelope.chain.partition(":")
    if isinstance(payload, DeadLetter):
        return frozenset({payload.stream})
    if kind == "decision" and name == cause.id:
        return HOMES["workflow"]
    if kind in ("audit", "workflow"):
        return HOMES[kind]
    is_answered = cause == sealed.envelope.causes[0]
    return (_ANSWERS if is_answered else _RESTS_ON).get(sealed.envelope.schema, ANYWHERE)


def _home(subject: str) -> str:
    """The stream that stores a subject, or an empty string where none does."""
    try:
        return subjects.stream_of(subject)
    except SubjectError:
        return ""


def _sealed_hash(letter: DeadLetter) -> str:
    """The hash of the envelope a letter holds; empty where it holds none, or keeps it elsewhere."""
    try:
        hashes = stored_hash(base64.b64decode(letter.body_base64, validate=True))
    except (binascii.Error, ValueError):
        return ""
    return hashes[0] if hashes is not None and hashes[0] == hashes[1] else ""


def _given_up(letter: DeadLetter) -> str:
    """The hash of the bytes a dead letter is about; a large body is an artifact named by it."""
    if letter.body_base64.startswith("artifact:sha256-"):
        return letter.body_base64.removeprefix("artifact:sha256-")
    try:
        return sha256_hex(base64.b64decode(letter.body_base64))
    except (binascii.Error, ValueError):
        return ""


def _before_front(reference: Reference, scope: Scope) -> bool:
    """Whether a decision read its input at a sequence that has left the stream since; unknown for other references."""
    return not reference.seq or any(reference.seq < stream.first_seq for stream in scope.shortened(reference.homes))


def _at(link: Link) -> str:
    return f"{link.stream} {link.seq}"
