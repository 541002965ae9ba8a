"""What the property tests of the core draw from. Cheap on purpose: the wire's properties take 10,000 examples each.

Most is made of one drawn number: what only has to differ (ids, hashes) is derived from it, and what has to be awkward
(texts, numbers, nested values) is picked by it from pools that were made for that.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st

from agentflow.envelope import ZERO_HASH, Cost, Envelope, MessageType, Ref, Sealed, seal

TOKEN_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_US = 4_102_444_800_000_000
"""Microseconds from 1970 to 2100."""

AWKWARD_TEXTS = (
    "",
    " ",
    '"',
    "\\",
    '\\"',
    "/",
    "\n\r\t\b\f",
    "\x00\x1f\x7f",
    "\u2028\u2029",
    "äöü ß €",
    "日本語",
    "🙂🏳️‍🌈",
    "\ufeffBOM",
    "\uffff",
    "\U0010ffff",
    "envelope_hash",
    '","prev_hash":"',
    "}" * 8,
    "NaN",
    "null",
    "x" * 300,
)
AWKWARD_NUMBERS = (
    0,
    1,
    -1,
    2**53 - 1,
    2**53 + 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    0.1,
    1e-7,
    1e16,
    1e300,
    5e-324,
)
SCHEMA_NAMES = ("goal.submitted/1", "step.completed/12", "a.b.c_d/9999")
MESSAGE_TYPES: tuple[MessageType, ...] = ("request", "response", "event", "control")

numbers = st.integers(0, 2**64 - 1)


def token_of(number: int) -> str:
    """A token the grammar allows, of one to eleven letters or one of the longest."""
    if number % 50 == 0:
        return ("z" * 64, "-", "_", "0", "01KDVDNA0031GFVX1A47NTMKHK")[number // 50 % 5]
    letters = [TOKEN_ALPHABET[number % 64]]
    while number := number // 64:
        letters.append(TOKEN_ALPHABET[number % 64])
    return "".join(letters)


def text_of(number: int) -> str:
    """A text JSON can hold: an awkward one, or up to four characters from anywhere in Unicode."""
    which, number = number % 3, number // 3
    if which:
        return AWKWARD_TEXTS[number % len(AWKWARD_TEXTS)]
    letters = []
    while number:
        number, code = divmod(number, 0x110000)
        letters.append(chr(code) if not 0xD800 <= code < 0xE000 else "s")
    return "".join(letters)


def object_of(number: int) -> dict[str, Any]:
    """An object of at most three members, one level deeper at most."""
    inner = {text_of(number // 7): AWKWARD_NUMBERS[number % len(AWKWARD_NUMBERS)], "t": text_of(number // 5)}
    shapes: tuple[dict[str, Any], ...] = (
        {},
        inner,
        {"": inner, text_of(number // 3): [None, True, inner]},
        {"list": list(AWKWARD_NUMBERS)},
        {text: text for text in AWKWARD_TEXTS},
    )
    return shapes[number % len(shapes)]


tokens = numbers.map(token_of)
texts = numbers.map(text_of)
json_objects = numbers.map(object_of)

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(AWKWARD_NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.text(max_size=6),
)
"""Values JSON can hold that hold no others."""

json_values: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
"""Values JSON holds without changing them; dearer than the others."""

moments = st.integers(0, LATEST_US).map(lambda us: EPOCH + timedelta(microseconds=us))
"""Aware moments from 1970 to 2100, to the microsecond."""


def digest(*parts: object) -> str:
    """64 hex digits that depend on `parts` alone."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def crockford(value: int) -> str:
    """128 bits as a ULID is written, without the library the code uses."""
    return "".join(CROCKFORD[(value >> shift) & 31] for shift in range(125, -5, -5))


def ulid(seed: int) -> str:
    """A ULID that depends on a number alone, from all over their range."""
    return crockford(int(digest("ulid", seed), 16) % 2**128)


ulids = numbers.map(ulid)


def draft(
    seed: int,
    *,
    payload: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    sender: str = "planner",
    to: str = "greeter",
    seq: int = 0,
) -> Envelope:
    """An envelope that may be sealed; what is not given depends on `seed` alone."""
    return Envelope(
        id=ulid(seed),
        subject=(f"workflows.run-{seed % 7}.in", f"tools.calls.{ulid(seed)}")[seed % 2],
        schema=SCHEMA_NAMES[seed % 3],
        type=MESSAGE_TYPES[seed % 4],
        sender=sender,
        to=to,
        trace_id=digest("trace", seed)[:32],
        span_id=digest("span", seed)[:16],
        ts=(EPOCH + timedelta(microseconds=seed % LATEST_US)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        payload=msgspec.Raw(json.dumps(payload or {}, ensure_ascii=False, separators=(",", ":")).encode()),
        metadata=dict(metadata or {}),
        cost=Cost(seed % 1000, seed % 97 / 32),
        chain=f"handling:{ulid(seed)}",
        chain_seq=seq,
        prev_hash=digest("prev", seed) if seq else ZERO_HASH,
        causes=tuple(Ref(ulid(seed + number), digest("cause", number)) for number in range(seed % 3)),
    )


@st.composite
def drafts(draw: st.DrawFn) -> Envelope:
    """Envelopes that may be sealed."""
    seed, inside, text = draw(numbers), draw(json_objects), draw(texts)
    return draft(
        seed,
        payload=inside,
        metadata={**inside, "workflow_id": text},
        sender=text,
        to=AWKWARD_TEXTS[seed % len(AWKWARD_TEXTS)],
        seq=(0, 1, 7, 2**53 - 1)[seed // 3 % 4],
    )


POOL: tuple[Sealed, ...] = tuple(
    seal(draft(number, payload={text: number}, metadata={"workflow_id": text}, sender=text, to="x", seq=number % 5))
    for number, text in enumerate(AWKWARD_TEXTS)
)
"""Sealed envelopes, for properties that change bytes and care little which."""

sealed_bodies = st.sampled_from([sealed.body for sealed in POOL])
