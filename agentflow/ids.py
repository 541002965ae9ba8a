"""Identifiers: new and derived ULIDs, and the tokens that may stand in a subject.

A derived id is a pure function of what made it (architecture, section 4): handling the same message twice makes the
same ids. It has the ULID layout, so that ids sort by the time of their cause: the cause's 48 time bits, then the first
80 bits of sha256(cause id | logical producer | purpose | index).
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentflow.errors import SubjectError

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


def check_token(value: str, what: str = "id") -> str:
    """Return `value` if it may stand as one token of a subject, else raise `SubjectError`."""
    if not isinstance(value, str) or not TOKEN.match(value):
        shown = repr(value)[:80]
        raise SubjectError(
            f"{what} {shown} is not allowed: use 1 to 64 of A-Z a-z 0-9 _ -",
            code="id.invalid",
            what=what,
            found=shown,
            allowed="[A-Za-z0-9_-]{1,64}",
        )
    return value


def is_ulid(value: str) -> bool:
    """Whether `value` is a ULID in canonical (upper case) form."""
    return bool(_ULID.match(value))


def new_id(now: datetime, randomness: Callable[[int], bytes]) -> str:
    """A new ULID from a time and ten random bytes, both given by the caller (a core never asks the machine)."""
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    from ulid import ULID  # put off: it takes 17 ms, and sandboxed tools never make ids

    return str(ULID.from_bytes(milliseconds.to_bytes(6, "big") + randomness(10)))


def derive_id(cause_id: str, producer: str, purpose: str, index: int = 0) -> str:
    """The id of what `producer` makes while it handles `cause_id`, for `purpose`, the `index`-th of its kind.

    `producer` is the logical service or agent id, never an incarnation: whoever takes the work over makes the same id.
    Raises `SubjectError` for a cause that is no ULID.
    """
    if not is_ulid(cause_id):
        raise SubjectError(f"cause {cause_id[:80]!r} is not a ULID", code="id.invalid", found=cause_id[:80])
    from ulid import ULID  # put off, as above

    cause = ULID.from_str(cause_id)
    digest = hashlib.sha256(f"{cause_id}|{producer}|{purpose}|{index}".encode()).digest()
    return str(ULID.from_bytes(cause.bytes[:6] + digest[:10]))
