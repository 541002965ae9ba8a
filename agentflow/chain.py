"""Chains: one writer's log each, and what is wrong with one (architecture, section 3.3).

`AuditHasher` is the protocol behind the links; `Sha256Hasher` is the one in use: the hash of an envelope covers its
`prev_hash`, so each link is vouched for by the next. `examine` is the pure fold that the verifier and the tests use.

What a chain alone does not prove: that its tail is complete. Only a head kept elsewhere proves that.
"""

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from agentflow.envelope import ZERO_HASH, ChainPlace, Sealed, looks_sealed, sha256_hex, unseal
from agentflow.errors import EnvelopeError, EvidenceError

Damage = Literal["missing", "duplicated", "reordered", "branched", "unlinked"]
"""Kinds of damage a chain can show by itself."""


class _Linked(msgspec.Struct):
    """The one member of a record that a hasher looks at."""

    prev_hash: str


_linked = msgspec.json.Decoder(_Linked)


class AuditHasher(Protocol):
    """Links one serialised envelope or record to the one before it."""

    def chain(self, previous_hash: str, serialized_envelope: bytes) -> str:
        """The hash of a record whose bytes already carry `previous_hash`."""
        ...


class Sha256Hasher:
    """The hash of a sealed envelope: SHA-256 over the bytes that follow its `envelope_hash` member."""

    def chain(self, previous_hash: str, serialized_envelope: bytes) -> str:
        """Hash of `serialized_envelope` (JSON without `envelope_hash`).

        Raises `EvidenceError` (`evidence.unlinked`) unless its own member `prev_hash` is `previous_hash`.
        """
        try:
            carried = _linked.decode(serialized_envelope).prev_hash
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            carried = ""
        if carried != previous_hash:
            raise EvidenceError(f"record does not carry prev_hash {previous_hash}", code="evidence.unlinked")
        return sha256_hex(serialized_envelope)


class Link(msgspec.Struct, frozen=True):
    """One stored envelope, reduced to what a chain check needs."""

    stream: str
    seq: int
    """Sequence in the stream."""
    id: str
    hash: str
    chain: str
    place: int
    prev_hash: str


class Break(msgspec.Struct, frozen=True):
    """One damage found in a chain, and where."""

    chain: str
    kind: Damage
    place: int
    stream: str
    seq: int
    detail: str


def workflow_chain(workflow_id: str, goal_id: str) -> ChainPlace:
    """A run's decisions."""
    return ChainPlace(f"workflow:{workflow_id}:{goal_id}")


def is_stranger(body: bytes, workflow_id: str) -> bool:
    """Whether what lies among a run's decisions was never one: no envelope, or a sound one of another chain.

    Whoever may write there can put anything beside the decisions; it is stepped over, and a verification tells it. What
    claims to be of the run's chain, or was an envelope once, is not passed over: it may be a decision that was damaged.
    """
    try:
        chain = unseal(body).envelope.chain
    except EnvelopeError:
        return not looks_sealed(body)
    return not chain.startswith(f"workflow:{workflow_id}:")


def decision_chain(decision: Sealed) -> ChainPlace:
    """A decision's commands: place 0 rests on the decision."""
    return ChainPlace(f"decision:{decision.envelope.id}", 0, decision.hash)


def handling_chain(cause: Sealed) -> ChainPlace:
    """What a handler makes while it handles `cause`: place 0 rests on the cause."""
    return ChainPlace(f"handling:{cause.envelope.id}", 0, cause.hash)


def audit_chain(call: Sealed) -> ChainPlace:
    """The audit of one tool call: place 0 rests on the call."""
    return ChainPlace(f"audit:{call.envelope.id}", 0, call.hash)


def incarnation_chain(producer: str, incarnation: str) -> ChainPlace:
    """Spontaneous events of one incarnation; at most one publish in flight."""
    return ChainPlace(f"events:{producer}:{incarnation}")


def link_of(sealed: Sealed, stream: str, seq: int) -> Link:
    """What a chain check needs of a stored envelope."""
    envelope = sealed.envelope
    return Link(stream, seq, envelope.id, sealed.hash, envelope.chain, envelope.chain_seq, envelope.prev_hash)


def rests_on(link: Link) -> str | None:
    """The id of the envelope that place 0 of this chain must rest on, or None when the chain rests on nothing."""
    kind, _, name = link.chain.partition(":")
    return name if kind in ("decision", "handling", "audit") else None


def examine(links: Iterable[Link]) -> list[Break]:
    """Every damage in one chain, given its links in stored order (per stream).

    Place 0 of a chain that rests on nothing must have the zero hash. Missing places below the first one seen count;
    what may be missing behind the last one cannot be seen here.
    """
    found: list[Break] = []
    by_place: dict[int, Link] = {}
    latest: dict[str, Link] = {}
    for link in links:
        first = by_place.setdefault(link.place, link)
        if first is not link:
            kind: Damage = "duplicated" if first.hash == link.hash else "branched"
            found.append(_break(link, kind, f"place {link.place} is also held by {first.stream}:{first.seq}"))
            continue
        before = latest.get(link.stream)
        if before is not None and before.place > link.place:
            found.append(
                _break(link, "reordered", f"stored behind place {before.place} ({before.stream}:{before.seq})")
            )
        latest[link.stream] = link
    found.extend(_check_places([by_place[place] for place in sorted(by_place)]))
    return found


def _check_places(ordered: list[Link]) -> list[Break]:
    found: list[Break] = []
    expected = 0
    before: Link | None = None
    for link in ordered:
        if link.place > expected:
            gap = f"place {expected}" if link.place == expected + 1 else f"places {expected} to {link.place - 1}"
            found.append(_break(link, "missing", f"{gap} before this one"))
        elif before is not None and link.prev_hash != before.hash:
            found.append(_break(link, "unlinked", f"prev_hash is not the hash of {before.stream}:{before.seq}"))
        elif before is None and rests_on(link) is None and link.prev_hash != ZERO_HASH:
            found.append(_break(link, "unlinked", "place 0 must have the zero prev_hash"))
        expected, before = link.place + 1, link
    return found


def _break(link: Link, kind: Damage, detail: str) -> Break:
    return Break(link.chain, kind, link.place, link.stream, link.seq, detail)
