"""Which process is struck when: the plan of a chaos run, a pure function of its seed.

A run of F faults is cut into rounds. A round is due when so many tickets are done; it then sets free a batch of new
tickets, so that there is work in flight for certain, and strikes one process or several. No round strikes a process
twice, and the faults of one process are spread over the whole run: the first in its first part, the last in its last.
So no round can be struck before what it follows has made progress, and the work cannot end before the last fault.

Draws are hashes of the seed and of what is drawn, not a generator's sequence: the plan of a seed is the same on every
version of Python, and a process more or less leaves the draws for the others as they are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agentflow_support_desk.errors import TooFewTicketsError

Fault = Literal["kill", "freeze"]

FROZEN = ("runtime", "executor", "planner")
"""Services of which one process is frozen once."""

LEAD = 0.8
"""The part of the tickets set free so far that has to be done before the next round."""

LONGEST_DELAY = 0.4
"""Seconds within which the faults of one round fall."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of one process."""

    process: str
    fault: Fault
    delay: float
    """Seconds after the round's begin."""


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that fall together."""

    at_done: int
    """Tickets that have to be done before."""
    released: int
    """Tickets that may be in work from then on, the earlier ones included."""
    strikes: tuple[Strike, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All faults of a run."""

    seed: int
    kills: int
    """Of each process."""
    tickets: int
    rounds: tuple[Round, ...]

    @property
    def strikes(self) -> int:
        """How many faults there are."""
        return sum(len(each.strikes) for each in self.rounds)

    def as_json(self) -> dict[str, Any]:
        """For the record, so that a run can be compared with another."""
        return asdict(self)


def plan(seed: int, processes: Mapping[str, Sequence[str]], *, kills: int, tickets: int) -> Plan:
    """The plan for the `processes` (names, by service), each killed `kills` times while so many tickets are worked.

    Raises `TooFewTicketsError` where there are fewer tickets than one process has faults.
    """
    faults = {name: ["kill"] * kills for names in processes.values() for name in names}
    for service in FROZEN:
        if names := processes.get(service):
            frozen = min(names, key=lambda name: _draw(seed, "frozen", name))
            place = int(_draw(seed, "place", frozen) * (kills + 1))
            faults[frozen].insert(place, "freeze")
    needed = max(map(len, faults.values()))
    if tickets < needed:
        raise TooFewTicketsError(tickets, needed)
    count = max(needed, min(tickets, -(-sum(map(len, faults.values())) // 2)))
    by_round: dict[int, list[Strike]] = {}
    for name, its in faults.items():
        for number, fault in enumerate(its):
            at = _spread(number, len(its), count, _draw(seed, "round", name, str(number)))
            delay = round(_draw(seed, "delay", name, str(number)) * LONGEST_DELAY, 3)
            by_round.setdefault(at, []).append(Strike(name, "kill" if fault == "kill" else "freeze", delay))
    strikes = [sorted(by_round[at], key=lambda each: (each.delay, each.process)) for at in sorted(by_round)]
    return Plan(seed, kills, tickets, tuple(_rounds(strikes, tickets)))


def _rounds(strikes: Sequence[Sequence[Strike]], tickets: int) -> list[Round]:
    """The rounds with their shares of the tickets: each sets some free, the last one all that are left."""
    found, before = [], 0
    for number, its in enumerate(strikes, 1):
        released = tickets * number // len(strikes)
        found.append(Round(int(before * LEAD), released, tuple(its)))
        before = released
    return found


def _spread(number: int, of: int, rounds: int, draw: float) -> int:
    """The round of a process's n-th fault: somewhere in the n-th of equal parts of all rounds."""
    begin, end = number * rounds // of, (number + 1) * rounds // of
    return begin + int(draw * (end - begin))


def _draw(seed: int, *what: str) -> float:
    """A number in [0, 1) that seed and words alone decide."""
    digest = hashlib.sha256("\0".join((str(seed), *what)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
