"""The wire format once more, from architecture sections 3.1 and 3.2, with json and hashlib and without our own code.

The tests compare agentflow with it: were both wrong, they would have to be wrong in the same way.
"""

import hashlib
import json
import re
from typing import Any

PREFIX = 84
"""Bytes in front of the second member: `{"envelope_hash":"`, 64 digits, `",`."""

MEMBERS = (
    *("id", "subject", "schema", "type", "from", "to", "trace_id", "span_id", "ts", "payload", "metadata", "cost"),
    *("chain", "chain_seq", "prev_hash", "causes"),
)
"""Every member behind `envelope_hash`, in the order our own writer stores them."""

_BEGINNING = re.compile(rb'\{"envelope_hash":"([0-9a-f]{64})",')


def verifies(body: bytes) -> bool:
    """What any client can check of a dumped message: the hash in front is the hash of the rest."""
    beginning = _BEGINNING.match(body)
    return beginning is not None and beginning[1].decode() == hashlib.sha256(b"{" + body[PREFIX:]).hexdigest()


def rest_of(body: bytes) -> bytes:
    """The bytes that are hashed."""
    return b"{" + body[PREFIX:]


def with_hash(rest: bytes) -> bytes:
    """Put the right hash in front of any bytes, as a writer in another language does, or an attacker."""
    return b'{"envelope_hash":"' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest[1:]


def members_of(body: bytes) -> dict[str, Any]:
    """The members a reader finds who has only a JSON parser."""
    found: dict[str, Any] = json.loads(rest_of(body))
    return found


def edited(body: bytes, old: bytes, new: bytes) -> bytes:
    """Replace the one place where `old` stands first, and make the hash right again."""
    rest = rest_of(body)
    assert old in rest, f"{old!r} is not in the body"
    return with_hash(rest.replace(old, new, 1))


def rewritten(body: bytes, *, order: list[str] | None = None, **style: Any) -> bytes:
    """The same members as another JSON writer stores them: in another order, or with other spacing and escapes."""
    members = members_of(body)
    return with_hash(json.dumps({name: members[name] for name in order or members}, **style).encode())
