"""The fold: a state, the rules and what was seen give the next state and what was found. Pure.

    evolve(state, rules, at, seen) -> Step(state, findings)

The same history gives the same findings, wherever it was cut into pieces and whoever folded which piece.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from agentflow.payloads import Evidence
from agentflow_detector.judging import Broken, counts, judge
from agentflow_detector.observing import BLOCKED, Observation
from agentflow_detector.rules import Dimension, Rule, RuleSet, ScopeRule
from agentflow_detector.state import (
    MOST_CALLS,
    MOST_EVIDENCE,
    MOST_RATES,
    ROOM,
    Memory,
    Position,
    Shelf,
    State,
    remember,
)

_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that was broken, by what, and what is known about it."""

    rule: Rule
    key: str
    """What it is about, as one word: the rule and this are found once for each call."""
    about: dict[Dimension, str]
    count: int
    detail: str
    evidence: tuple[Evidence, ...]
    features: dict[str, Any]
    seen: Observation
    """The call that broke it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one message came to."""

    state: State
    findings: tuple[Finding, ...] = ()


def evolve(state: State, rules: RuleSet, at: Position, time: int, seen: Observation | None) -> Step:
    """The state behind the message at a position, stored at `time`; `seen` is None where no rule is about it."""
    state = replace(state, position=at, now=max(state.now, time))
    if seen is None:
        return Step(state)
    seen = replace(seen, time=state.now)
    if seen.kind == "call":
        return Step(replace(state, calls=remember(state.calls, seen.call_id, seen.time, MOST_CALLS)))
    asked = state.calls.get(seen.call_id)
    if asked is not None:
        state = replace(state, calls={name: each for name, each in state.calls.items() if name != seen.call_id})
    if seen.code == BLOCKED:
        return Step(state)
    state = replace(state, rates=_rates(state.rates, seen))
    features = {**seen.features, **_measured(state, seen, asked)}
    return _judged(state, rules, seen, features)


def fit(state: State, rules: RuleSet) -> State:
    """The state without what rules remember that are not among these."""
    wanted = {rule.digest for rule in rules.rules}
    return replace(state, shelves={name: shelf for name, shelf in state.shelves.items() if name in wanted})


def key_of(rule: Rule, seen: Observation) -> tuple[str, dict[Dimension, str]] | None:
    """What the rule counts this call for, or None where the record does not say it."""
    about: dict[Dimension, str] = {}
    for dimension in rule.per:
        value: str = getattr(seen, dimension) or (
            f"of {seen.principal}" if dimension == "run" and seen.principal else ""
        )
        if not value:
            return None
        about[dimension] = value
    return msgspec.json.encode(list(about.values())).decode(), about


def _judged(state: State, rules: RuleSet, seen: Observation, features: dict[str, Any]) -> Step:
    shelves, found = dict(state.shelves), []
    room = ROOM // len(rules.rules)
    for rule in rules.rules:
        named = key_of(rule, seen) if counts(rule, seen) else None
        if named is None:
            continue
        key, about = named
        shelf = shelves.get(rule.digest, Shelf())
        before = shelf.memories.get(key, Memory())
        memory, broken = judge(rule, before, seen)
        if memory is not before:
            shelves[rule.digest] = shelf.put(key, memory, room)
        if broken is not None:
            found.append(_finding(rule, key, about, before, broken, seen, features))
    return Step(replace(state, shelves=shelves), tuple(found))


def _finding(
    rule: Rule,
    key: str,
    about: dict[Dimension, str],
    before: Memory,
    broken: Broken,
    seen: Observation,
    features: dict[str, Any],
) -> Finding:
    evidence = (*before.evidence[-(MOST_EVIDENCE - 1) :], seen.evidence)
    if not isinstance(rule, ScopeRule):  # there the one before is what the scope was first seen with
        evidence = evidence[-broken.count :]
    return Finding(rule, key, about, broken.count, broken.detail, evidence, features, seen)


def _rates(rates: dict[str, tuple[int, int]], seen: Observation) -> dict[str, tuple[int, int]]:
    """The calls of this minute, of who calls and of the tenant."""
    minute, found = seen.time // _MINUTE, dict(rates)
    for name in (f"principal:{seen.principal}", f"tenant:{seen.tenant}"):
        before, count = found.pop(name, (minute, 0))
        found[name] = (minute, count + 1 if before == minute else 1)
    while len(found) > MOST_RATES:
        del found[next(iter(found))]
    return found


def _measured(state: State, seen: Observation, asked: int | None) -> dict[str, Any]:
    """What only the history tells about a call."""
    return {
        "since_call_ms": None if asked is None else (seen.time - asked) / 1000,
        "calls_this_minute": {
            "principal": state.rates[f"principal:{seen.principal}"][1],
            "tenant": state.rates[f"tenant:{seen.tenant}"][1],
        },
    }
