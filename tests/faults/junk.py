"""What nobody should ever publish, and the doors it can be put in at."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from agentflow.envelope import ChainPlace, Ref, sha256_hex
from agentflow.payloads import RunSignalled, StepCompleted
from agentflow.testing import envelope

NOWHERE = "01KE0000000000000000000009"
"""An id nothing has."""

Maker = Callable[[str], bytes]
"""Makes a body for a subject."""


def resealed(body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """An envelope whose members were changed and hashed again, as a stranger who knows the form can do."""
    members = json.loads(body)
    members.pop("envelope_hash")
    change(members)
    return _with_hash(json.dumps(members, separators=(",", ":")).encode())


def _with_hash(rest: bytes) -> bytes:
    return b'{"envelope_hash":"' + sha256_hex(rest).encode() + b'",' + rest[1:]


def _sealed(subject: str, **more: Any) -> bytes:
    """A sound envelope of a schema that has hardly anywhere a place; the subject inside is a plain one."""
    meant, index = "workflows.elsewhere.in", int(sha256_hex(subject.encode())[:8], 16)
    metadata = {"workflow_id": "elsewhere"}
    sealed = envelope(RunSignalled("go"), meant, index=index, sender="mallory", metadata=metadata, **more)
    return resealed(sealed.body, lambda members: members.update(subject=subject))


def _forged(subject: str) -> bytes:
    """Right hash, right subject; wrong sender, chain and cause."""
    cause = (Ref(NOWHERE, "a" * 64),)
    place = ChainPlace(f"workflow:live:{NOWHERE}", 3, "b" * 64)
    made = envelope(StepCompleted({"n": 666}), "workflows.x.in", sender="planner", place=place, causes=cause)
    return resealed(made.body, lambda members: members.update(subject=subject))


PLAIN: Mapping[str, bytes] = {
    "invalid UTF-8": b"\xff\xfe\xfa",
    "byte order mark": b'\xef\xbb\xbf{"goal":"booking"}',
    "empty": b"",
    "null": b"null",
    "100,000 lists deep": b"[" * 100_000,
    "100,000 objects deep": b'{"a":' * 100_000,
    "a key twice": b'{"goal":"booking","goal":"other"}',
    "NaN": b'{"goal":"booking","input":{"amount":NaN}}',
    "infinity": b'{"goal":"booking","input":{"amount":Infinity}}',
    "1e400": b'{"goal":"booking","input":{"amount":1e400}}',
    "100,000 digits": b'{"goal":"booking","input":{"amount":' + b"9" * 100_000 + b"}}",
    "512 KiB": b'{"goal":"booking","input":{"t":"' + b"x" * (512 * 1024) + b'"}}',
    "almost 1 MiB": b'{"goal":"booking","input":{"t":"' + b"x" * (1024 * 1024 - 600) + b'"}}',
    "a wrong hash": b'{"envelope_hash":"' + b"0" * 64 + b'","id":"x"}',
    "an envelope of no members": _with_hash(b'{"a":1}'),
}
"""Bodies that are junk on every subject."""

SEALED: Mapping[str, Maker] = {
    "a wrong subject inside": lambda subject: _sealed("workflows.elsewhere.in"),
    "an unknown version": lambda subject: resealed(_sealed(subject), lambda m: m.update(schema="run.signalled/99")),
    "a key twice, sealed": lambda subject: _with_hash(b'{"id":"a",' + resealed(_sealed(subject), lambda m: None)[85:]),
    "100,000 deep, sealed": lambda subject: _with_hash(
        _sealed(subject)[84:]
        .replace(b'"data":{}', b'"data":{"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        .join((b"{", b""))
    ),
    "600 KiB, sealed": lambda subject: resealed(
        _sealed(subject), lambda m: m["payload"].update(data={"t": "x" * 600_000})
    ),
    "forged": _forged,
    "a broken chain": lambda subject: _sealed(subject, place=ChainPlace("workflow:live:x", 7, "c" * 64)),
}
"""Envelopes that are wrong in themselves, made for a subject."""


HOLLOW: Mapping[str, Maker] = {
    "a payload that is not there": lambda subject: resealed(
        _sealed(subject),
        lambda m: m.update(payload={"artifact": "sha256-" + "d" * 64, "sha256": "d" * 64, "size": 200_000}),
    ),
}
"""Envelopes over a payload nobody stored. Where only the mesh writes, that is what a lost payload looks like: damage."""


def bodies_for(subject: str) -> dict[str, bytes]:
    """Every kind of junk, for a subject."""
    makers = {**SEALED, **HOLLOW} if subject.endswith(".in") else SEALED
    return {**PLAIN, **{name: make(subject) for name, make in makers.items()}}


def doors(run_id: str, command_id: str) -> dict[str, str]:
    """Every entry subject, around a live run and the command it waits for."""
    return {
        "a live run's in": f"workflows.{run_id}.in",
        "a new run's in": "workflows.junk-1.in",
        "an agent": "agents.clerk.in",
        "an agent's own subject": f"agents.clerk.in.{NOWHERE}",
        "an agent nobody knows": "agents.nobody.in",
        "a tool call": f"tools.calls.{NOWHERE}",
        "the awaited result": f"workflows.{run_id}.results.{command_id}",
        "a result nobody awaits": f"workflows.{run_id}.results.{NOWHERE}",
        "a tool's result": f"tools.results.clerk.{NOWHERE}",
        "a tool's audit": f"tools.audit.{NOWHERE}",
        "a due timer": f"timers.due.planner.{run_id}.77",
        "a dead letter": "dead.AF_MESSAGES.planner",
    }


ODD_SUBJECTS = (
    "workflows.*.in",
    "workflows.>",
    "workflows.*",
    "workflows.live.in.more",
    "agents.*.in",
    "agents.>",
    "tools.calls.*",
    "tools.calls.a.b",
    "tools.results.*.*",
    "tools.nonsense",
    "timers.due.*.*.*",
    "timers.due.nobody.x.1",
    "dead.>",
    "protocols.*.*",
    "workflows.caf\u00e9.in",
    "workflows." + "x" * 3000 + ".in",
)
"""Subjects the server stores and no service would make."""
