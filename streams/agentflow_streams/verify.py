"""Verification of recorded history as one fold: records in, damage out. Pure.

    verifier = Verifier(scope)
    for record in history: verifier.add(record)
    result = verifier.finish()

Each record is judged by itself (`records`), the sequences of its stream are counted, its place goes to `continuity`
and what it refers to goes to `references`. What is kept of a message is a small struct, never its bytes.

What is accepted although it is not sealed: a plain message on an open `in` subject that a decision accounts for by the
hash of its raw bytes (architecture, section 3.5). Elsewhere bytes the mesh did not write are a warning where a decision
or a dead letter accounts for exactly them, and damage where nothing does; they hold no place and stand for nothing.
What a client does to its own chain is a warning, never damage: no
evidence rests on it.

What this cannot see, and says: a tail cut off a stream, a chain that is missing as a whole and that nothing refers to,
the order of messages that no chain, cause or decision ties together, and a history that was rewritten from its first
byte by someone who may write everywhere. Signed heads close those (the notary).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from agentflow import subjects
from agentflow.chain import link_of
from agentflow.envelope import Sealed
from agentflow.payloads import TERMINAL, Decision, GoalRejected, InputRejected
from agentflow_streams.continuity import Chains
from agentflow_streams.findings import Caution, Damage, OpenRun, Scope, StreamScope, StreamSummary, Verification
from agentflow_streams.records import Record, is_open_input
from agentflow_streams.references import Place, References


class Verifier:
    """Folds records, each stream's in its order, into a `Verification`."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._chains = Chains()
        self._references = References()
        self._sequences = {stream.name: _Sequences(stream) for stream in scope.streams}
        self._envelopes = 0
        self._unclean: list[Record] = []
        self._open_inputs: set[Place] = set()
        self._seen: dict[str, set[str]] = {}
        self._cautions: list[Caution] = []
        self._judged: set[str] = set()
        self._runs: set[str] = set()
        self._ended: set[str] = set()

    @property
    def settled(self) -> bool:
        """Whether all references were found and all messages are clean; else what was stored meanwhile may settle it."""
        return self._references.settled and not self._unclean

    def add(self, record: Record) -> None:
        """Take in one message."""
        record = _in_its_place(record)
        self._sequences[record.stream].add(record.seq)
        if is_open_input(record.subject):
            self._open_inputs.add((record.stream, record.seq))
        if record.damage is not None:
            self._unclean.append(record)
        elif record.detail or record.claim:
            told = record.detail or "its payload is in the object store, and was not checked"
            self._cautions.append(Caution(record.stream, record.seq, told))
        if record.sealed is None or record.damage in ("moved", "foreign"):
            self._add_doubtful(record)
        else:
            self._add_clean(record, record.sealed)

    def add_late(self, record: Record) -> None:
        """Take in a message stored after what is judged: it may settle what others refer to, and is not judged."""
        if record.sealed is None or record.damage is not None:
            self._references.add_stranger(record)
            return
        link = link_of(record.sealed, record.stream, record.seq)
        self._chains.add(link, late=True)
        self._references.add(link, record.sealed, record.payload, late=True)
        self._note_run(record.sealed)

    def finish(self, first_seqs: Mapping[str, int] | None = None) -> Verification:
        """Judge everything. `first_seqs` are the streams' first sequences now: what expired meanwhile is no gap."""
        accounted = self._references.accounted() & self._open_inputs
        disowned = self._disowned()
        refused = self._refused()
        self._references.excuse(accounted | refused | self._strayed())
        damages = sorted({*self._gaps(first_seqs or {}), *self._judge_unclean(accounted, refused)})
        damages = sorted({*damages, *self._judge_ties(refused, disowned)})
        open_runs = self._open_runs()
        return Verification(
            ok=not damages,
            envelopes=self._envelopes,
            adopted=sum((record.stream, record.seq) in accounted for record in self._unclean),
            chains=len(self._judged),
            runs=len(self._runs),
            open_runs=open_runs,
            damages=tuple(damages),
            warnings=tuple(sorted([*self._cautions, *self._unsent()])),
            not_vouched=tuple(self._not_vouched(open_runs)),
            streams=tuple(each.summary() for each in self._sequences.values()),
            unchecked=self._elsewhere() + self._expired(),
        )

    def _add_clean(self, record: Record, sealed: Sealed) -> None:
        link = link_of(sealed, record.stream, record.seq)
        self._envelopes += 1
        self._judged.add(link.chain)
        self._seen.setdefault(record.stream, set()).add(subjects.stream_of(record.subject))
        self._chains.add(link)
        from_client = (record.stream, record.seq) in self._open_inputs
        self._references.add(link, sealed, record.payload, late=from_client)  # what a client refers to binds nobody
        if from_client or ".results." in record.subject:
            self._references.add_stranger(record)  # a decision that refuses it lists its raw bytes
        self._note_run(sealed)

    def _add_doubtful(self, record: Record) -> None:
        self._references.add_stranger(record)
        if record.sealed is not None:
            self._chains.add_moved(link_of(record.sealed, record.stream, record.seq))
        elif record.trace is not None:
            self._chains.add_edited(record.stream, record.seq, record.trace)

    def _note_run(self, sealed: Sealed) -> None:
        chain, schema = sealed.envelope.chain, sealed.envelope.schema
        if not chain.startswith("workflow:") or not sealed.envelope.subject.endswith(".out"):
            return
        if schema != "input.rejected/1":
            self._runs.add(chain)
        if schema in TERMINAL:
            self._ended.add(chain)

    def _gaps(self, first_seqs: Mapping[str, int]) -> Iterator[Damage]:
        for name, sequences in self._sequences.items():
            for first, last in sequences.gaps(first_seqs.get(name, 0)):
                told = f"sequence {first} is" if first == last else f"sequences {first} to {last} are"
                yield Damage(name, first, "missing", "", f"{told} not in the stream, which lets nobody delete")

    def _refused(self) -> set[Place]:
        """Where bytes are that the mesh did not write, should not be, and are accounted for as such."""
        junk = {
            (record.stream, record.seq)
            for record in self._unclean
            if (record.damage in ("foreign", "moved") and not _is_decision(record.subject))
            or (record.damage == "edited" and record.sealed is None)
        }
        return (junk - self._open_inputs) & self._references.refused()

    def _disowned(self) -> set[Place]:
        """Where sound envelopes are that were refused as somebody else's; they hold no place in any chain."""
        unclean = {(record.stream, record.seq) for record in self._unclean}
        found = self._chains.disown(self._references.disowned() - unclean, self._references.strangers())
        for place in sorted(found):
            self._cautions.append(Caution(*place, "an envelope that was refused, and is accounted for"))
        return found

    def _strayed(self) -> set[Place]:
        """Where anyone may write, and what is there is a warning at most."""
        return {(record.stream, record.seq) for record in self._unclean if self._is_stray(record)}

    def _is_stray(self, record: Record) -> bool:
        """What a client put on an open input and nobody took: not sealed, or sealed over a payload that is not there."""
        stray = record.damage == "foreign" or (record.damage == "missing" and not self._references.took(record))
        return stray and (record.stream, record.seq) in self._open_inputs

    def _judge_unclean(self, accounted: set[Place], refused: set[Place]) -> Iterator[Damage]:
        for record in self._unclean:
            place = (record.stream, record.seq)
            if record.damage is None or place in accounted:
                continue
            if place in refused:
                told = f"{record.subject} holds a message that was refused, and is accounted for: {record.detail}"
                self._cautions.append(Caution(*place, told))
                continue
            if self._is_stray(record):
                told = f"{record.subject} holds a message that no decision accounts for: {record.detail}"
                self._cautions.append(Caution(*place, told))
                continue
            yield Damage(*place, record.damage, _chain_of(record), f"{record.detail} (stored on {record.subject})")

    def _judge_ties(self, refused: set[Place], disowned: set[Place]) -> Iterator[Damage]:
        """Chains and references; where the bytes themselves are damaged, what follows from that is not told again."""
        told = {(record.stream, record.seq) for record in self._unclean if record.damage != "missing"}
        scope = self._scope.holding({name: frozenset(seen) for name, seen in self._seen.items()})
        for damage in self._judge_chains(scope, refused):
            place = (damage.stream, damage.seq)
            if place in self._open_inputs:
                self._cautions.append(Caution(*place, f"a client's own chain: {damage.detail}"))
            elif damage.kind == "duplicated" and damage.chain.startswith("events:"):
                self._cautions.append(Caution(*place, f"an event told twice after an unknown outcome: {damage.detail}"))
            elif damage.kind == "missing" or place not in told:
                yield damage
        for damage in self._references.judge(scope, self._runs - self._ended):
            place = (damage.stream, damage.seq)
            if place not in disowned and (damage.kind == "missing" or place not in told):
                yield damage

    def _judge_chains(self, scope: Scope, refused: set[Place]) -> Iterator[Damage]:
        yield from self._chains.judge(scope, self._references.explained(), refused)
        for link, below in self._chains.foundations():
            yield from self._references.judge_foundation(link, below)

    def _open_runs(self) -> tuple[OpenRun, ...]:
        found = []
        for chain in self._runs - self._ended:
            if chain not in self._chains.links:
                continue  # all there was of it was refused as somebody else's
            last = self._chains.last_place(chain)
            found.append(OpenRun(chain.split(":")[1], chain, last.stream, last.seq))
        return tuple(sorted(found))

    def _unsent(self) -> Iterator[Caution]:
        for each in self._references.unsent:
            told = f"command {each.id}, the last of an open run, is not on {each.subject}"
            yield Caution(each.by.stream, each.by.seq, f"{told}: it is still to be sent, or lost")

    def _elsewhere(self) -> int:
        return self._chains.elsewhere + self._references.elsewhere

    def _expired(self) -> int:
        return self._chains.expired + self._references.expired

    def _not_vouched(self, open_runs: tuple[OpenRun, ...]) -> Iterator[str]:
        yield "No signed head was checked: whoever can rewrite every stream can make a history that verifies."
        for sequences in self._sequences.values():
            yield from sequences.not_vouched()
        for run in open_runs:
            yield (
                f"Run {run.workflow} is open, its last known envelope is {run.stream} {run.seq}: "
                "nothing vouches for what may be missing behind."
            )
        if self._scope.workflow:
            yield f"Only what names run {self._scope.workflow} was read, so sequences were not counted."
        if elsewhere := self._elsewhere():
            yield f"{elsewhere} places or references were not checked here (other stream)."
        if expired := self._expired():
            yield f"{expired} places or references were not checked: they are older than what the streams keep."
        if timers := self._references.timers:
            yield f"{timers} timers are listed by decisions; AF_TIMERS holds no evidence and was not read."
        yield (
            "The order of messages that no chain, cause or decision ties together, "
            "and chains that are missing as a whole and that nothing refers to, leave no trace."
        )


class _Sequences:
    """Counts one stream's sequences."""

    def __init__(self, scope: StreamScope) -> None:
        self._scope = scope
        self._messages = 0
        self._next = scope.first_seq
        self._last = 0
        self._gaps: list[tuple[int, int]] = []

    def add(self, seq: int) -> None:
        if seq > self._next:
            self._gaps.append((self._next, seq - 1))
        self._messages += 1
        self._next, self._last = seq + 1, seq

    def gaps(self, first_now: int) -> Iterator[tuple[int, int]]:
        """Missing sequences, as ranges, without those that have left the front of the stream by now."""
        behind = [(self._next, self._scope.last_seq)] if self._next <= self._scope.last_seq else []
        for first, last in [*self._gaps, *behind] if self._scope.whole else []:
            if last >= max(first, first_now):
                yield max(first, first_now), last

    def not_vouched(self) -> Iterator[str]:
        scope = self._scope
        if scope.horizon is not None:
            yield f"{scope.name} is read from sequence {scope.first_seq}: what was before has expired or was left out."
        if self._last:
            yield f"{scope.name} was read up to sequence {scope.last_seq}: a tail cut off behind it leaves no trace."

    def summary(self) -> StreamSummary:
        return StreamSummary(self._scope.name, self._scope.first_seq, self._scope.last_seq, self._messages)


def _is_decision(subject: str) -> bool:
    """Whether a run's decisions are there: what is foreign among them keeps the run from being folded."""
    return subject.startswith("workflows.") and subject.endswith(".out")


def _in_its_place(record: Record) -> Record:
    """A sound envelope among a run's decisions that is none of them is foreign there, whoever accounts for it."""
    if record.damage is not None or record.sealed is None or not _is_decision(record.subject):
        return record
    owner, chain = subjects.parse(record.subject).owner, record.sealed.envelope.chain
    decides = record.payload is None or isinstance(record.payload, Decision | GoalRejected | InputRejected)
    if decides and chain.startswith(f"workflow:{owner}:"):
        return record
    told = f"{record.sealed.envelope.schema} on {chain} is no decision of run {owner}"
    return replace(record, damage="foreign", detail=told)


def _chain_of(record: Record) -> str:
    if record.sealed is not None:
        return record.sealed.envelope.chain
    return record.trace.chain if record.trace is not None else ""
