"""Chains: an undamaged one shows nothing, and every damage that a chain can show by itself is found and named."""

import functools
from collections.abc import Iterable

import msgspec
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
from tests.core.strategies import POOL, digest, draft, drafts, numbers
from tests.support.profiles import wire

RUN = "workflow:run-1:01KDVDNA0031GFVX1A47NTMKHK"
HANDLING = "handling:01KDVDNA0031GFVX1A47NTMKHK"

LENGTHS = range(1, 10)
EVERY_PLACE = [(length, place) for length in LENGTHS for place in range(length)]
"""Every place of every chain of one to nine links: the properties below are tried on all of them."""


def link(chain: str, place: int, prev_hash: str, salt: str = "") -> Link:
    """One link whose hash covers what it says, as an envelope's does."""
    hash = digest(chain, place, prev_hash, salt)
    return Link("S", place + 1, f"id-{hash[:8]}", hash, chain, place, prev_hash)


@functools.cache
def whole(length: int, chain: str = RUN) -> tuple[Link, ...]:
    """A chain as its writer made it."""
    before = ZERO_HASH if chain == RUN else digest("cause")
    made: list[Link] = []
    for place in range(length):
        made.append(link(chain, place, before))
        before = made[-1].hash
    return tuple(made)


def stored(links: Iterable[Link]) -> list[Link]:
    """The links with the sequences they have when they are stored in this order."""
    return [msgspec.structs.replace(each, seq=seq) for seq, each in enumerate(links, 1)]


def kinds(breaks: Iterable[Break]) -> list[str]:
    """What was found, in order."""
    return [each.kind for each in breaks]


# --- whether there is damage at all ----------------------------------------------------------------------------------


def is_sound(links: Iterable[Link]) -> bool:
    """The definition once more: places count from 0 as stored, and each link rests on the one before."""
    before = ZERO_HASH
    for place, each in enumerate(links):
        if (each.place, each.prev_hash) != (place, before):
            return False
        before = each.hash
    return True


def damaged(links: list[Link], script: int) -> list[Link]:
    """The links after up to three damages that a number stands for: it is read digit by digit."""
    for _ in range(script % 4):
        script, kind = divmod(script // 4, 6)
        script, one = divmod(script, max(1, len(links)))
        script, other = divmod(script, max(1, len(links)))
        if not links:
            break
        match kind:
            case 0:
                del links[one]
            case 1:
                links.insert(other, links[one])
            case 2:
                links[one], links[other] = links[other], links[one]
            case 3:
                links.insert(other, link(RUN, links[one].place, links[one].prev_hash, "branch"))
            case 4:
                links[one] = msgspec.structs.replace(links[one], prev_hash=links[other].hash)
            case 5:
                links[one] = link(RUN, links[one].place, links[one].prev_hash, "edited")
    return links


@wire
@given(st.integers(0, 9), numbers)
def test_damage_is_told_exactly_where_there_is_some(length: int, script: int) -> None:
    """After any mixture of drops, copies, swaps, branches, relinks and edits.

    A break is found if and only if the links, as they are stored, are no chain from place 0: nothing but a cut or an
    edited end can pass, and no alarm is false.
    """
    links = stored(damaged(list(whole(length)), script))

    assert is_sound(links) == (examine(links) == [])


@pytest.mark.parametrize("chain", [RUN, HANDLING])
def test_an_undamaged_chain_shows_nothing(chain: str) -> None:
    """Whether it rests on nothing or on a cause; and nothing is to be said about a chain without links."""
    assert [] == [found for length in range(10) for found in examine(whole(length, chain))]


# --- which damage, and where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_a_dropped_link_is_found_unless_it_was_the_last(length: int, place: int) -> None:
    """It is missing before the next one; a cut tail cannot be seen here, and is not claimed to be."""
    for chain in (RUN, HANDLING):
        links = list(whole(length, chain))
        del links[place]

        found = examine(stored(links))

        if place == length - 1:
            assert [] == found
        else:
            assert [Break(chain, "missing", place + 1, "S", place + 1, f"place {place} before this one")] == found


def test_each_gap_is_told_once_with_its_places() -> None:
    """Every way to drop some of ten links: as many gaps are named as there are, by first and last place."""
    for pattern in range(1, 2**10):
        kept = [each for each in whole(10) if pattern >> each.place & 1]
        places = [each.place for each in kept]
        gaps = [(low + 1, high - 1) for low, high in zip([-1, *places], places, strict=False) if high - low > 1]
        expected = [f"place {a}" if a == b else f"places {a} to {b}" for a, b in gaps]

        found = examine(kept)

        assert ["missing"] * len(gaps) == kinds(found)
        assert [f"{gap} before this one" for gap in expected] == [each.detail for each in found]


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_a_link_stored_twice_is_found(length: int, place: int) -> None:
    """Wherever behind the first the copy was stored; it is named, and nothing else is."""
    for position in range(place + 1, length + 1):
        links = list(whole(length))
        links.insert(position, links[place])

        found = examine(stored(links))

        assert [("duplicated", place, position + 1)] == [(each.kind, each.place, each.seq) for each in found]
        assert f"S:{place + 1}" in found[0].detail


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_two_swapped_links_are_found(length: int, place: int) -> None:
    """Stored in another order than written, although each link is right by itself."""
    for other in range(place):
        links = list(whole(length))
        links[place], links[other] = links[other], links[place]

        assert {"reordered"} == set(kinds(examine(stored(links))))


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_a_branch_is_found(length: int, place: int) -> None:
    """Two different links at one place: the second stored is named, and whoever rests on the one that does not count."""
    true = whole(length)
    rival = link(RUN, place, true[place].prev_hash, "rival")

    behind = examine(stored([*true[: place + 1], rival, *true[place + 1 :]]))
    before = examine(stored([*true[:place], rival, *true[place:]]))

    assert [("branched", place, place + 2)] == [(each.kind, each.place, each.seq) for each in behind]
    assert (["branched"] if place == length - 1 else ["branched", "unlinked"]) == kinds(before)


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_a_link_made_to_rest_on_something_else_is_found(length: int, place: int) -> None:
    """Only what place 0 of a derived chain rests on is told by its cause, and not by the chain."""
    for chain in (RUN, HANDLING):
        links = list(whole(length, chain))
        links[place] = msgspec.structs.replace(links[place], prev_hash=digest("elsewhere"))

        found = examine(links)

        expected = [] if (chain, place) == (HANDLING, 0) else [("unlinked", place)]
        assert expected == [(each.kind, each.place) for each in found]


@pytest.mark.parametrize(("length", "place"), EVERY_PLACE)
def test_a_link_that_was_edited_and_hashed_again_is_found(length: int, place: int) -> None:
    """The next one does not rest on the new hash; the last link has nobody to say so."""
    links = list(whole(length))
    links[place] = link(RUN, place, links[place].prev_hash, "edited")

    found = examine(links)

    expected = [] if place == length - 1 else [("unlinked", place + 1)]
    assert expected == [(each.kind, each.place) for each in found]


@given(st.lists(st.sampled_from("ST"), min_size=9, max_size=9))
def test_order_is_judged_for_each_stream_by_itself(streams: list[str]) -> None:
    """Links in two streams may be read in any order of the streams; within one they must rise."""
    links = [msgspec.structs.replace(each, stream=streams[each.place]) for each in whole(9)]

    assert [] == examine(sorted(links, key=lambda each: each.stream))


def test_several_damages_are_all_named() -> None:
    """One does not hide the others."""
    links = list(whole(8))
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


@pytest.mark.parametrize("length", LENGTHS)
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
