"""Where a decision that was made again differs from the recorded one: said so that a person sees why. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from agentflow.envelope import Sealed, encode_payload
from agentflow.payloads import Evaluated, Payload

Kind = Literal[
    "edited",
    "unreadable",
    "missing",
    "extra",
    "chain",
    "ids",
    "clock",
    "seed",
    "decision",
    "command",
    "command_missing",
]
"""What differs.

`edited`: the stored bytes are not the ones their hash was made of. `unreadable`: they are no decision at all.
`missing`: a decision before this one is not stored. `extra`: this one would not have been made. `chain`, `ids`,
`clock`, `seed`: only places in chains, ids, times or the run's seed. `decision`: what was decided. `command`: a stored
command is not the one its decision makes. `command_missing`: it is not stored.
"""

MAX_DIFFERENCES = 20
"""Differences that are told one by one."""

ABSENT = "(absent)"
"""Stands in a difference for a member the other side does not have."""

_CHAIN = ("/chain", "/chain_seq", "/prev_hash")
_IDS = ("/id", "/span_id", "/trace_id")
_CLOCK = ("/ts", "/payload/retry_at", "/payload/timer/due", "/payload/timer/payload_sha256")


class Difference(msgspec.Struct, frozen=True):
    """One member that differs."""

    path: str
    """JSON pointer (RFC 6901) into the envelope."""
    recorded: Any
    decided: Any


class Condition(msgspec.Struct, frozen=True):
    """One condition as it was evaluated when the decision was made, and now; None where it was not evaluated."""

    expression: str
    recorded: Evaluated | None
    decided: Evaluated | None


class Divergence(msgspec.Struct, frozen=True):
    """The first place where a run, decided again, is not what was recorded."""

    workflow: str
    index: int
    """Which of the run's decisions, from 0."""
    decision: str
    """Its id."""
    stream: str
    seq: int
    kind: Kind
    detail: str
    recorded: Any = None
    """What is stored, decoded."""
    decided: Any = None
    """What is made now, decoded; None where nothing is."""
    differences: tuple[Difference, ...] = ()
    conditions: tuple[Condition, ...] = ()


def compared(recorded: Any, decided: Any) -> tuple[Difference, ...]:
    """Every member in which two JSON values differ, in the order of the first, at most `MAX_DIFFERENCES`."""
    found: list[Difference] = []
    for difference in _walk("", recorded, decided):
        found.append(difference)
        if len(found) == MAX_DIFFERENCES:
            break
    return tuple(found)


def kind_of(differences: Sequence[Difference]) -> Kind:
    """What a decision differs in, by the paths of its differences."""
    paths = [each.path for each in differences if each.path != "/envelope_hash"]
    if paths and all(path in _CHAIN for path in paths):
        return "chain"
    if "/payload/seed" in paths:
        return "seed"
    if paths and all(path in _IDS for path in paths):
        return "ids"
    if "/ts" in paths and all(path in _CLOCK or path in _CHAIN for path in paths):
        return "clock"
    return "decision"


def decoded(sealed: Sealed, payload: Payload | None) -> dict[str, Any]:
    """An envelope as JSON values, with its payload in full where it is kept elsewhere."""
    found: dict[str, Any] = msgspec.json.decode(sealed.body)
    if payload is not None:
        found["payload"] = msgspec.json.decode(encode_payload(payload))
    return found


def conditions_of(recorded: Payload | None, decided: Payload | None) -> tuple[Condition, ...]:
    """The conditions that either side evaluated, by expression, in order."""
    before, now = _evaluated(recorded), _evaluated(decided)
    return tuple(Condition(text, before.get(text), now.get(text)) for text in {**before, **now})


def _evaluated(payload: Payload | None) -> dict[str, Evaluated]:
    return {each.expression: each for each in getattr(payload, "conditions", ())}


def _walk(path: str, recorded: Any, decided: Any) -> Iterator[Difference]:
    if isinstance(recorded, Mapping) and isinstance(decided, Mapping):
        for key in {**recorded, **decided}:
            step = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            yield from _walk(step, recorded.get(key, ABSENT), decided.get(key, ABSENT))
    elif isinstance(recorded, list) and isinstance(decided, list):
        for index in range(max(len(recorded), len(decided))):
            sides = (side[index] if index < len(side) else ABSENT for side in (recorded, decided))
            yield from _walk(f"{path}/{index}", *sides)
    elif type(recorded) is not type(decided) or recorded != decided:
        yield Difference(path, recorded, decided)
