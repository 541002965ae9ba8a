"""I11: planted secrets, and a search for them wherever something is kept or shown."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentflow.mesh.transport import Transport
from tests.faults.verdicts import Verdict, judged


@dataclass(frozen=True, slots=True)
class Canary:
    """A made-up secret."""

    where: str
    """Where it was planted."""
    value: str
    payload: bool = False
    """It is part of an input: the streams keep it, because they keep every input; logs and pages must not show it."""


def canary(where: str, *, payload: bool = False) -> Canary:
    """A new one."""
    return Canary(where, f"canary{secrets.token_hex(12)}", payload)


@dataclass(frozen=True, slots=True)
class Places:
    """What was searched: a name and its bytes each."""

    streams: Mapping[str, bytes] = field(default_factory=dict)
    """What is kept, where inputs belong."""
    shown: Mapping[str, bytes] = field(default_factory=dict)
    """Logs, metrics, health pages."""


async def kept(transport: Transport) -> dict[str, bytes]:
    """Every message of every stream and bucket, headers and all."""
    found = {}
    for stream in await transport.stream_names():
        parts = [
            b"\n".join([m.subject.encode(), repr(dict(m.headers)).encode(), m.body])
            async for m in transport.read(stream)
        ]
        found[stream] = b"\n".join(parts)
    return found


def logged(folders: Iterable[Path]) -> dict[str, bytes]:
    """Every log file."""
    return {str(path): path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.log*"))}


def no_secret_appears(canaries: Iterable[Canary], places: Places) -> Verdict:
    """I11: no canary is in what is kept or shown."""
    planted = list(canaries)
    if planted and not (places.streams and places.shown):
        return judged("I11", 0, ["secrets were planted, and streams or logs were not searched"])
    violations = [
        f"the secret planted in {each.where} is in {name}"
        for each in planted
        for name, text in _searched(each, places)
        if each.value.encode() in text
    ]
    return judged("I11", len(planted) * (len(places.streams) + len(places.shown)), violations, "no secret was planted")


def _searched(each: Canary, places: Places) -> list[tuple[str, bytes]]:
    return [*places.shown.items(), *([] if each.payload else places.streams.items())]
