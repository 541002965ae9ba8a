"""Chains: an undamaged one shows nothing, and every damage that a chain can show by itself is found and named."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.chain import (
    AuditHasher,
    Break,
    Link,
    Sha256Hasher,
    audit_chain,
    decision_chain,
    examine,
    handling_chain,
    incarnation_chain,
    link_of,
    rests_on,
    workflow_chain,
)
from agentflow.envelope import ZERO_HASH, ChainPlace, Envelope, Sealed, seal
from agentflow.errors import EvidenceError
from agentflow.payloads import StepCompleted
from agentflow.testing import envelope
from tests.core import wire as independent
from tests.core.strategies import POOL, digest, draft, drafts
from tests.support.profiles import wire

RUN = "workflow:run-1:01KDVDNA0031GFVX1A47NTMKHK"
HANDLING = "handling:01KDVDNA0031GFVX1A47NTMKHK"

lengths = st.integers(1, 9)
places = st.integers(0, 99)
chains = st.sampled_from([RUN, HANDLING])


def link(chain: str, place: int, prev_hash: str, salt: str = "") -> Link:
    """One link whose hash covers what it says, as an envelope's does."""
    hash = digest(chain, place, prev_hash, salt)
    return Link("S", place + 1, f"id-{hash[:8]}", hash, chain, place, prev_hash)


def undamaged(length: int, chain: str = RUN) -> list[Link]:
    """A chain as its writer made it."""
    before = ZERO_HASH if chain == RUN else digest("cause")
    made: list[Link] = []
    for place in range(length):
        made.append(link(chain, place, before))
        before = made[-1].hash
    return made


def stored(links: Sequence[Link]) -> list[Link]:
    """The links with the sequences they have when they are stored in this order."""
    return [
        Link("S", seq, each.id, each.hash, each.chain, each.place, each.prev_hash) for seq, each in enumerate(links, 1)
    ]


def kinds(breaks: Sequence[Break]) -> list[str]:
    """What was found, in order."""
    return [each.kind for each in breaks]


@wire
@given(lengths, chains)
def test_an_undamaged_chain_shows_nothing(length: int, chain: str) -> None:
    """No false alarm, whether it rests on nothing or on a cause."""
    assert [] == examine(stored(undamaged(length, chain)))


def test_no_links_show_nothing() -> None:
    """There is nothing to be said about a chain nobody has seen."""
    assert [] == examine([])


@wire
@given(lengths, places, chains)
def test_a_dropped_link_is_found_unless_it_was_the_last(length: int, which: int, chain: str) -> None:
    """It is missing before the next one; a cut tail cannot be seen here, and is not claimed to be."""
    which %= length
    links = undamaged(length, chain)
    del links[which]

    found = examine(stored(links))

    if which == length - 1:
        assert [] == found
    else:
        assert ["missing"] == kinds(found)
        assert (chain, which + 1, "S", which + 1) == (found[0].chain, found[0].place, found[0].stream, found[0].seq)
        assert f"place {which} " in found[0].detail


@wire
@given(st.sets(st.integers(0, 9), min_size=1, max_size=9))
def test_each_gap_is_told_once_with_its_places(dropped: set[int]) -> None:
    """Of ten links any are dropped: as many gaps are named as there are, by first and last place."""
    links = [each for each in undamaged(10) if each.place not in dropped]
    kept = [each.place for each in links]
    gaps = [(low + 1, high - 1) for low, high in zip([-1, *kept], kept, strict=False) if high - low > 1]

    found = examine(stored(links))

    assert ["missing"] * len(gaps) == kinds(found)
    for (first, last), each in zip(gaps, found, strict=True):
        assert (f"place {first} " if first == last else f"places {first} to {last} ") in each.detail


@wire
@given(lengths, places, places)
def test_a_link_stored_twice_is_found(length: int, which: int, where: int) -> None:
    """Wherever behind the first the copy was stored; it is named, and nothing else is."""
    links = undamaged(length)
    which %= length
    position = which + 1 + where % (length - which)
    links.insert(position, links[which])

    found = examine(stored(links))

    assert [("duplicated", which, position + 1)] == [(each.kind, each.place, each.seq) for each in found]
    assert f"S:{which + 1}" in found[0].detail


@wire
@given(st.integers(2, 9), places, places)
def test_two_swapped_links_are_found(length: int, one: int, other: int) -> None:
    """Stored in another order than written, although each link is right by itself."""
    links = undamaged(length)
    one, other = one % length, other % length
    links[one], links[other] = links[other], links[one]

    found = examine(stored(links))

    assert (one == other) == (found == [])
    assert set(kinds(found)) <= {"reordered"}


@wire
@given(lengths, places, st.booleans())
def test_a_branch_is_found(length: int, where: int, behind: bool) -> None:
    """Two different links at one place: the second stored is named, and whoever rests on the one that does not count."""
    links = undamaged(length)
    where %= length
    rival = link(RUN, where, links[where].prev_hash, "rival")
    links.insert(where + 1 if behind else where, rival)

    found = examine(stored(links))

    expected = ["branched"] if behind or where == length - 1 else ["branched", "unlinked"]
    assert expected == kinds(found)
    assert (where, where + 2) == (found[0].place, found[0].seq)


@wire
@given(lengths, places, chains)
def test_a_link_made_to_rest_on_something_else_is_found(length: int, where: int, chain: str) -> None:
    """Hashed again or not. Only what place 0 of a derived chain rests on is told by its cause, not by the chain."""
    links = undamaged(length, chain)
    where %= length
    links[where] = Link("S", where + 1, links[where].id, links[where].hash, chain, where, digest("elsewhere"))

    found = examine(stored(links))

    if where == 0 and chain == HANDLING:
        assert [] == found
    else:
        assert [("unlinked", where)] == [(each.kind, each.place) for each in found]


@wire
@given(lengths, places)
def test_a_link_that_was_edited_and_hashed_again_is_found(length: int, where: int) -> None:
    """The next one does not rest on the new hash; the last link has nobody to say so."""
    links = undamaged(length)
    where %= length
    links[where] = link(RUN, where, links[where].prev_hash, "edited")

    found = examine(stored(links))

    assert [] == found if where == length - 1 else [("unlinked", where + 1)] == [(b.kind, b.place) for b in found]


@given(lengths, st.lists(st.sampled_from("ST"), min_size=9, max_size=9))
def test_order_is_judged_for_each_stream_by_itself(length: int, streams: list[str]) -> None:
    """Links in two streams may be read in any order of the streams; within one they must rise."""
    links = [
        Link(streams[each.place], each.seq, each.id, each.hash, each.chain, each.place, each.prev_hash)
        for each in undamaged(length)
    ]
    apart = sorted(links, key=lambda each: each.stream)

    assert [] == examine(apart)


def test_several_damages_are_all_named() -> None:
    """One does not hide the others."""
    links = undamaged(8)
    links[6], links[5] = links[5], links[6]
    links.insert(2, links[1])
    del links[4]

    assert {"duplicated", "missing", "reordered"} == set(kinds(examine(stored(links))))


# --- chains of real envelopes ----------------------------------------------------------------------------------------


def written(length: int, place: ChainPlace) -> list[Sealed]:
    """Envelopes on one chain, sealed one behind the other."""
    made: list[Sealed] = []
    for number in range(length):
        made.append(envelope(StepCompleted(number), f"tools.calls.call-{number}", index=number, place=place))
        place = place.after(made[-1])
    return made


@given(lengths)
def test_sealed_envelopes_make_an_undamaged_chain(length: int) -> None:
    """`after` and `link_of` fit together: what writers do is what verifiers look for."""
    cause = POOL[0]
    for place in (workflow_chain("run-1", cause.envelope.id), handling_chain(cause)):
        links = [link_of(sealed, "S", seq) for seq, sealed in enumerate(written(length, place), 1)]

        assert [] == examine(links)
        assert list(range(length)) == [each.place for each in links]


def test_a_link_is_the_envelope_reduced() -> None:
    """Nothing is made up, nothing is lost that a chain check needs."""
    sealed = seal(draft(3, seq=7))
    expected = Link(
        "AF_AUDIT",
        42,
        sealed.envelope.id,
        sealed.hash,
        sealed.envelope.chain,
        7,
        sealed.envelope.prev_hash,
    )

    assert expected == link_of(sealed, "AF_AUDIT", 42)


def test_chains_are_named_after_what_they_rest_on() -> None:
    """The names are part of the wire form: two writers of the same chain must agree on it."""
    cause, id = POOL[2], POOL[2].envelope.id

    assert ChainPlace(f"workflow:run-1:{id}", 0, ZERO_HASH) == workflow_chain("run-1", id)
    assert ChainPlace(f"decision:{id}", 0, cause.hash) == decision_chain(cause)
    assert ChainPlace(f"handling:{id}", 0, cause.hash) == handling_chain(cause)
    assert ChainPlace(f"audit:{id}", 0, cause.hash) == audit_chain(cause)
    assert ChainPlace("events:greeter:life-1", 0, ZERO_HASH) == incarnation_chain("greeter", "life-1")


@pytest.mark.parametrize(
    ("chain", "cause"),
    [
        ("decision:X", "X"),
        ("handling:X", "X"),
        ("audit:X", "X"),
        (RUN, None),
        ("events:greeter:1", None),
        ("input:client:run-1", None),
        ("dead:X", None),
        ("", None),
        ("handlings:X", None),
    ],
)
def test_only_derived_chains_rest_on_an_envelope(chain: str, cause: str | None) -> None:
    """All others begin with the zero hash."""
    assert cause == rests_on(link(chain, 0, ZERO_HASH))


def test_a_chain_that_rests_on_nothing_begins_with_the_zero_hash() -> None:
    """Else somebody cut its beginning and counted anew."""
    found = examine([link(RUN, 0, digest("cut"))])

    assert [("unlinked", 0)] == [(each.kind, each.place) for each in found]


# --- the hasher ------------------------------------------------------------------------------------------------------

hasher: AuditHasher = Sha256Hasher()


@given(drafts())
def test_the_hasher_gives_the_hash_of_the_stored_bytes(given_draft: Envelope) -> None:
    """The protocol's answer and the seal's are one."""
    sealed = seal(given_draft)

    assert sealed.hash == hasher.chain(sealed.envelope.prev_hash, independent.rest_of(sealed.body))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"prev_hash":1}',
        b'{"prev_hash":"' + b"1" * 64 + b'"}',
        b'{"payload":{"prev_hash":"' + ZERO_HASH.encode() + b'"},"prev_hash":"' + b"1" * 64 + b'"}',
    ],
)
def test_a_record_that_rests_on_something_else_is_not_hashed(record: bytes) -> None:
    """A link is vouched for only if the record itself carries it; the same words inside its payload do not count."""
    with pytest.raises(EvidenceError) as refused:
        hasher.chain(ZERO_HASH, record)

    assert "evidence.unlinked" == refused.value.error_code
