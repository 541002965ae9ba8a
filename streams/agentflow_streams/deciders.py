"""What replay asks of a planner: decide again. Pure.

A planner lies above this distribution, so it is found by entry point (`agentflow.deciders`, under the planner's name).
What it is given is recorded data and nothing else, and it answers at once: there is no way from here to a broker, a
tool, a clock or a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agentflow.envelope import ChainPlace, Sealed
from agentflow.payloads import Payload

DECIDERS = "agentflow.deciders"
"""The entry point group: a `Decider`, or a class of one, under the name of the planner whose runs it decides."""

DEFAULT = "fsm"
"""The planner whose decider judges a run that was refused before it named one."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A stored message, with the payload it refers to."""

    stream: str
    seq: int
    subject: str
    body: bytes
    time: datetime
    """When the server stored it."""
    artifact: bytes | None = None
    """The payload, where the envelope only refers to it and the object store has it."""
    trouble: tuple[str, str] = ("", "")
    """Code and message of why there is no `artifact`, where there should be one."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision as it is stored."""

    arrival: Arrival
    sealed: Sealed
    """As its bytes can be read; their hash is the one in front of them only if they are `intact`."""
    payload: Payload
    intact: bool = True

    @property
    def next_place(self) -> ChainPlace:
        """Where the decision behind it goes."""
        return ChainPlace(self.sealed.envelope.chain, self.sealed.envelope.chain_seq + 1, self.sealed.hash)


@dataclass(frozen=True, slots=True)
class Redecided:
    """What the decider makes of the input of a recorded decision."""

    decided: Sealed | None
    """The envelope it would store; None where it would store nothing."""
    payload: Payload | None = None
    """What `decided` carries."""
    reason: str = ""
    """Why it would store nothing."""
    sends: tuple[Sealed, ...] = ()
    """The commands of the recorded decision, made again."""


@dataclass(frozen=True, slots=True)
class Unreplayable:
    """Why a run cannot be decided again from here on. That is never a match."""

    code: str
    detail: str


class Rerun(Protocol):
    """One run, decided again: a fold of its record."""

    def redecide(self, recorded: Recorded, given: Arrival | None, definition: bytes | None) -> Redecided | Unreplayable:
        """Decide again about the input of the next recorded decision, then take the decision in as it is recorded.

        `given` is the input as it is stored; None for one that was consumed before, and for a timer, which is no
        evidence, that is stored no more.
        `definition` are the bytes the decision names, where it names some and they are there.
        """
        ...

    def would_decide(self, given: Arrival) -> bool:
        """Whether there is something to record about an input that no decision has consumed."""
        ...


class Decider(Protocol):
    """What a planner offers under `agentflow.deciders`."""

    def rerun(self, workflow_id: str) -> Rerun:
        """A run of which nothing has been decided yet."""
        ...


Deciders = Mapping[str, Decider]
"""By the name of the planner."""
