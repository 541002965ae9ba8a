"""What a run stores, written down: the floor stores and consumes the same, in the same order.

A run of three steps is watched once on the wire. From the subjects follows who wrote what after which message; what is
left is a script, `start` by the client and then rounds: what the decider writes about a message, and what the worker
answers. The floor replays it with a plain client, message for message and byte for byte in size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Write:
    """One stored message: the kind of stream it goes to, and its bytes with headers."""

    kind: str
    """`decision`, `command`, `timer`, `input` or `result`."""
    size: int


@dataclass(frozen=True, slots=True)
class Script:
    """One run as stored messages."""

    start: Write
    rounds: list[list[Write]] = field(default_factory=list)
    """What is written about each message the decider takes: the start, then every result."""
    answers: list[Write] = field(default_factory=list)
    """What the worker answers to the command of each round but the last."""

    @property
    def messages(self) -> int:
        """How many messages a run stores."""
        return 1 + sum(len(writes) for writes in self.rounds) + len(self.answers)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Script":
        """What `plain` made."""
        return cls(
            Write(**plain["start"]),
            [[Write(**write) for write in writes] for writes in plain["rounds"]],
            [Write(**write) for write in plain["answers"]],
        )


def kind_of(subject: str) -> str:
    """What a message on one of the mesh's subjects is to a run; raises `ValueError` for one that is none of it."""
    match subject.split("."):
        case ["workflows", _, "in"]:
            return "input"
        case ["workflows", _, "out"]:
            return "decision"
        case ["workflows", _, "results", _]:
            return "result"
        case ["agents", _, "in", _]:
            return "command"
        case ["timers", "set", *_]:
            return "timer"
    raise ValueError(f"{subject} is no part of a run")


def script_of(seen: Sequence[tuple[str, int]]) -> Script:
    """The script of a run that was seen as (subject, size) in the order the server took them."""
    writes = [Write(kind_of(subject), size) for subject, size in seen]
    if not writes or writes[0].kind != "input":
        raise ValueError("a run begins with its input")
    script = Script(writes[0], [[]])
    for write in writes[1:]:
        if write.kind == "result":
            script.answers.append(write)
            script.rounds.append([])
        else:
            script.rounds[-1].append(write)
    return script
