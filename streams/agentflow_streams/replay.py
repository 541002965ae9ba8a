"""Replay of what a broker has: reads it, feeds it to `replaying`, and counts.

All runs are replayed in one pass over their stream: every run is a fold of its own, and ends with its last decision.
A run that goes on after it was put away, that was pushed out because too many are open, or that began before the part
that is read, is read once more by itself, from its beginning.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agentflow.chain import is_stranger
from agentflow.errors import InputError, NotStored
from agentflow.ids import check_token
from agentflow.mesh.transport import Message, Transport
from agentflow_streams.deciders import Deciders
from agentflow_streams.decisions import read_decision
from agentflow_streams.fidelity import ReplayReport, Tally
from agentflow_streams.history import RUN_STREAM, first_since
from agentflow_streams.installed import installed_deciders
from agentflow_streams.isolation import isolated
from agentflow_streams.readonly import Past, Readable, ReadOnly
from agentflow_streams.recordings import Histories, Shelf
from agentflow_streams.replaying import Outcome, RunReplay, Sent
from agentflow_streams.sources import COMMANDS, Source, kind_of, run_of

MAX_OPEN = 20_000
"""Runs that are folded at once; the one that has been silent longest is read again by itself."""

MAX_ENDED = 2_000
"""Runs that are kept a little longer behind their end, because something late may come."""

Progress = Callable[[int, int], None]
"""Told how many messages are done, of how many."""

_EVERY = 500


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the stream of runs that is replayed."""

    start: int
    end: int


async def replay_runs(
    transport: Transport,
    *,
    runs: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    from_seq: int = 1,
    to_seq: int | None = None,
    progress: Progress | None = None,
    deciders: Deciders | None = None,
) -> ReplayReport:
    """Decide again, from what is recorded, about the named `runs`, or about all that decided anything in the window.

    `since` and `until` are moments of the server's clock, `from_seq` and `to_seq` sequences of AF_MESSAGES; they bound
    which decisions are looked at, and every run is folded from its beginning all the same. Only reads. `deciders` are
    those that are installed, unless they are given. Raises `NotStored` for a run or a stream that is not there and
    `MeshError` when the broker cannot be reached. A divergence is not an error: it is in the result.
    """
    for run in runs:
        check_token(run, "workflow id")
    mesh = ReadOnly(transport)
    window = await _window(mesh, since, until, from_seq, to_seq)
    return await _replayed(mesh, window, runs, deciders, progress)


async def replay_histories(
    histories: Histories, runs: Sequence[str] = (), *, deciders: Deciders | None = None
) -> ReplayReport:
    """Decide again about some runs, or all, of recorded histories. Needs no mesh, and awaits nothing but itself.

    Raises `NotStored` for a run that is not among them.
    """
    shelf = Shelf(histories)
    info = await shelf.stream_info(RUN_STREAM)
    window = Window(1, info.last_seq if info else 0)
    return await _replayed(shelf, window, runs, deciders, None)


async def _replayed(
    mesh: Readable, window: Window, runs: Sequence[str], deciders: Deciders | None, progress: Progress | None
) -> ReplayReport:
    # Where tracing is on, one span belongs around this, linked to the traces of the runs.
    replayer = _Replayer(Source(mesh), installed_deciders() if deciders is None else deciders, window)
    if runs:
        for run in dict.fromkeys(runs):
            replayer.tally.add(await replayer.one(run))
    else:
        await replayer.all(progress)
    return replayer.tally.report(window.start, window.end)


async def _window(
    transport: Past, since: datetime | None, until: datetime | None, from_seq: int, to_seq: int | None
) -> Window:
    info = await transport.stream_info(RUN_STREAM)
    if info is None:
        hint = "agentflow streams apply"
        raise NotStored(f"there is no stream {RUN_STREAM}", code="stream.unknown", stream=RUN_STREAM, hint=hint)
    start, end = max(1, from_seq), info.last_seq if to_seq is None else min(to_seq, info.last_seq)
    if since is not None:
        start = max(start, await first_since(transport, info, since))
    if until is not None:
        end = min(end, await first_since(transport, info, until) - 1)
    if to_seq is not None and to_seq < from_seq:
        raise InputError(f"sequences {from_seq} to {to_seq} hold nothing", code="replay.window", found=str(to_seq))
    return Window(start, end)


@dataclass(slots=True)
class _Replayer:
    source: Source
    deciders: Deciders
    window: Window
    tally: Tally = field(default_factory=Tally)
    _open: OrderedDict[str, RunReplay] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, RunReplay] = field(default_factory=OrderedDict)
    _again: dict[str, None] = field(default_factory=dict)
    _unanswered: list[tuple[RunReplay, Sent]] = field(default_factory=list)

    # --- one run by itself -----------------------------------------------------------------------------------------

    async def one(self, run: str) -> Outcome:
        """Read and replay one run; raises `NotStored` (`run.unknown`)."""
        replayed, sends, found = RunReplay(run, self.deciders), list[Sent](), False
        async for message in self.source.run(run, self.window.end):
            found = True
            sends += await self._feed(replayed, message)
        if not found:
            raise NotStored(f"nothing is stored about run {run!r}", code="run.unknown", workflow=run)
        for sent in sends:
            await self._look_up(replayed, sent)
        return self._outcome(replayed)

    async def _look_up(self, replayed: RunReplay, sent: Sent) -> None:
        """Compare one command with what the leader has under its subject."""
        stored = await self.source.command(sent.subject)
        expired = stored is None and await self.source.has_expired(sent.subject, sent.by.time)
        replayed.compare(sent, stored, expired=expired)

    # --- all of them -----------------------------------------------------------------------------------------------

    async def all(self, progress: Progress | None) -> None:
        """Replay every run that decided something in the window."""
        if self.window.end < self.window.start:
            return
        stored = await self._commands()
        total = self.window.end - self.window.start + 1
        async for message in self.source.runs(self.window.start, self.window.end):
            await self._take(message, stored)
            done = message.seq - self.window.start + 1
            if progress is not None and done % _EVERY == 0:
                progress(done, total)
        for replayed, sent in self._unanswered:
            await self._look_up(replayed, sent)
        for replayed in [*self._ended.values(), *self._open.values()]:
            self._close(replayed)
        for run in self._again:
            self.tally.add(await self.one(run))
        if progress is not None:
            progress(total, total)

    async def _commands(self) -> dict[str, bytes]:
        """The digest of every stored command, by its subject."""
        found: dict[str, bytes] = {}
        for stream, pattern in COMMANDS:
            async for message in self.source.commands(stream, pattern, self.window.start):
                found.setdefault(message.subject, hashlib.sha256(message.body).digest())  # what is behind is junk
        return found

    async def _take(self, message: Message, stored: dict[str, bytes]) -> None:
        kind = kind_of(message.subject)
        if not kind:
            return
        run = run_of(message.subject)
        if run in self._again:
            return
        if run in self.tally:
            self._again[run] = None
            self.tally.forget(run)
            return
        replayed = self._session(run)
        for sent in await self._feed(replayed, message):
            digest = stored.pop(sent.subject, None)
            if digest == hashlib.sha256(sent.sealed.body).digest():
                replayed.confirm(sent)
            else:
                self._unanswered.append((replayed, sent))
        if replayed.ended and run in self._open:
            self._ended[run] = self._open.pop(run)
            self._put_away()

    def _session(self, run: str) -> RunReplay:
        if run in self._ended:
            return self._ended[run]
        replayed = self._open.setdefault(run, RunReplay(run, self.deciders))
        self._open.move_to_end(run)
        if len(self._open) > MAX_OPEN:
            pushed, _ = self._open.popitem(last=False)
            self._again[pushed] = None
        return replayed

    def _put_away(self) -> None:
        while len(self._ended) > MAX_ENDED:
            self._close(self._ended.popitem(last=False)[1])

    def _close(self, replayed: RunReplay) -> None:
        """Count a run; one of which only a part was read, and which did not match, is read again from its beginning."""
        outcome = self._outcome(replayed)
        if outcome.verdict != "matched" and self.window.start > 1:
            self._again[replayed.workflow] = None
        elif outcome.decisions:
            self.tally.add(outcome)

    async def _feed(self, replayed: RunReplay, message: Message) -> list[Sent]:
        arrival = await self.source.arrival(message)
        if kind_of(message.subject) != "workflow.out":
            replayed.receive(arrival)
            return []
        if is_stranger(message.body, run_of(message.subject)):
            return []  # no decision, and never was one: verification tells it
        recorded = read_decision(arrival)
        if isinstance(recorded, str):
            replayed.spoil(arrival, recorded)
            return []
        definition, timer = await self.source.context(recorded)
        with isolated():
            return replayed.decide(recorded, definition, timer)

    def _outcome(self, replayed: RunReplay) -> Outcome:
        with isolated():
            return replayed.outcome()
