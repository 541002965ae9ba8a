"""The chains of what was read: every place held once, in order, each resting on the one before. Pure.

`agentflow.chain.examine` judges one chain. Here it is decided what a gap means when not everything was read: a chain
of kind `handling:`, `decision:` or `audit:` has its places on several streams, and the front of any chain may have
expired with its stream. A gap is damage only where the missing place must be in what was read. A chain that lives on
one stream lives where it is found, under whatever name that stream has: a copy must have every place too.
"""

from collections.abc import Iterable, Iterator, Set
from datetime import UTC, datetime, timedelta

import msgspec

from agentflow.chain import Break, Link, examine, rests_on
from agentflow.ids import is_ulid
from agentflow_streams.findings import Damage, Scope
from agentflow_streams.records import Trace

ANYWHERE = frozenset({"AF_MESSAGES", "AF_AGENTS", "AF_AUDIT", "AF_PROTOCOLS", "AF_DEAD"})
"""Where an envelope may be of which nothing more is known."""

HOMES: dict[str, frozenset[str]] = {
    "workflow": frozenset({"AF_MESSAGES"}),
    "audit": frozenset({"AF_AUDIT"}),
    "decision": ANYWHERE - {"AF_DEAD"},
    "handling": ANYWHERE,
}
"""Streams that hold the places of a chain, by its kind; other chains live where they are found."""

CLOCK_MARGIN = timedelta(hours=1)
"""Ids carry the clock of whoever made the first message of a run; how far it may be off."""

_ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def id_time(id: str) -> datetime | None:
    """The time in a ULID, a lower bound for when a derived id's message was stored; None for another id."""
    if not is_ulid(id):
        return None
    milliseconds = 0
    for digit in id[:10]:
        milliseconds = milliseconds * 32 + _ULID_DIGITS.index(digit)
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=min(milliseconds, 2**47))


def may_have_expired(id: str, homes: frozenset[str], scope: Scope) -> bool:
    """Whether a message may be gone from its stream by age alone."""
    horizon = scope.horizon(homes)
    if horizon is None:
        return False
    time = id_time(id)
    return time is None or time < horizon + CLOCK_MARGIN


class Chains:
    """Collects links, then judges every chain."""

    def __init__(self) -> None:
        self.links: dict[str, list[Link]] = {}
        self.elsewhere = 0
        """Gaps that could not be judged, because another stream may fill them."""
        self.expired = 0
        """Gaps that age explains."""
        self._doubtful: list[tuple[Link, str]] = []
        self._late: set[tuple[str, int]] = set()

    def add(self, link: Link, *, late: bool = False) -> None:
        """Take in a clean envelope. A `late` one was stored after what is judged: it fills gaps and has none."""
        self.links.setdefault(link.chain, []).append(link)
        if late:
            self._late.add((link.stream, link.seq))

    def add_edited(self, stream: str, seq: int, trace: Trace) -> None:
        """Take in the place an edited envelope still claims; it counts where nothing clean holds that place."""
        hash = trace.claimed or trace.actual
        link = Link(stream, seq, trace.id, hash, trace.chain, trace.place, trace.prev_hash)
        self._doubtful.append((link, trace.actual))

    def add_moved(self, link: Link) -> None:
        """Take in the place of a moved envelope; it counts where nothing clean holds that place."""
        self._doubtful.append((link, link.hash))

    def disown(self, places: Set[tuple[str, int]], named: Set[tuple[str, int, str]]) -> set[tuple[str, int]]:
        """Forget the places that strangers' envelopes claimed: they hold none. Returns where those are.

        They are told by where they are, or also by their hash (`named`).
        """
        found = set(places)
        for chain, links in list(self.links.items()) if places or named else ():
            strange = {link for link in links if _place(link) in places or (*_place(link), link.hash) in named}
            if strange:
                found.update(map(_place, strange))
                self.links[chain] = [link for link in links if link not in strange]
            if not self.links[chain]:
                del self.links[chain]
        return found

    def last_place(self, chain: str) -> Link:
        """The link with the highest place of a chain that has one."""
        return max(self.links[chain], key=lambda link: link.place)

    def judge(
        self, scope: Scope, listed: dict[str, int], excused: Set[tuple[str, int]] = frozenset()
    ) -> Iterator[Damage]:
        """Every damage in every chain. `listed` says for known decisions how many places others account for.

        What is not clean and `excused` holds no place: it is not told as damage, so it must not hide a gap.
        """
        self._fill_in(excused)
        for chain, links in self.links.items():
            breaks = [found for found in examine(links) if (found.stream, found.seq) not in self._late]
            first = min(link.place for link in links)
            for found in breaks:
                if found.kind != "missing" or self._is_damage(found, links, first, scope, listed):
                    yield Damage(found.stream, found.seq, found.kind, chain, _sentence(found))

    def foundations(self) -> Iterator[tuple[Link, str]]:
        """The first place of each chain that rests on an envelope, with that envelope's id."""
        for links in self.links.values():
            for link in links:
                below = rests_on(link) if link.place == 0 else None
                if below is not None and (link.stream, link.seq) not in self._late:
                    yield link, below

    def _fill_in(self, excused: Set[tuple[str, int]]) -> None:
        for link, actual in self._doubtful:
            links = self.links.get(link.chain, [])
            if not links or (link.stream, link.seq) in excused or any(link.place == other.place for other in links):
                continue
            if any(other.prev_hash == actual for other in links):
                link = msgspec.structs.replace(link, hash=actual)  # noqa: PLW2901 - the same link, its hash corrected
            links.append(link)
            links.sort(key=lambda each: (each.stream, each.seq))
        self._doubtful.clear()

    def _is_damage(self, found: Break, links: list[Link], first: int, scope: Scope, listed: dict[str, int]) -> bool:
        kind, _, name = found.chain.partition(":")
        homes = HOMES.get(kind, frozenset({found.stream}))
        at_front = found.place == first
        if kind == "decision" and name in listed:
            return _missing_places(links) > listed[name] and not may_have_expired(name, homes, scope)
        if len(homes) == 1 and not homes <= scope.covered():
            homes = frozenset({found.stream})
        if not homes <= scope.covered() | {found.stream}:
            self.elsewhere += 1
            return False
        if (at_front or len(homes) > 1) and may_have_expired(_born(found.chain), homes, scope):
            self.expired += 1
            return False
        return True


def _place(link: Link) -> tuple[str, int]:
    return link.stream, link.seq


def _missing_places(links: Iterable[Link]) -> int:
    places = {link.place for link in links}
    return max(places) + 1 - len(places)


def _born(chain: str) -> str:
    """The id in a chain's name that dates it: the goal, the cause, the incarnation."""
    return chain.rpartition(":")[2]


def _sentence(found: Break) -> str:
    match found.kind:
        case "missing":
            return f"place {found.place} of the chain is here, but not {found.detail.replace(' before this one', '')}"
        case _:
            return f"place {found.place} of the chain: {found.detail}"
