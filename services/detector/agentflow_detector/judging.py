"""One rule looking at one call: what it remembers then, and whether the rule is broken. Pure.

Each kind of rule is a function from the memory of a key and a call to a memory and, where the rule is broken, a `Broken`.
A finding mutes its rule for the key: for as long as it would block, or for the window, so that one burst is told once
and what a block lets pile up does not count as another.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from agentflow_detector.observing import Observation
from agentflow_detector.rules import Match, RateRule, Rule, ScopeRule, SequenceRule, SpikeRule, StreakRule
from agentflow_detector.state import MOST_EVIDENCE, Memory

_FAILED = frozenset({"failed", "unknown"})
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that was broken: by how many calls, and how to say it."""

    count: int
    detail: str


Judged = tuple[Memory, Broken | None]


def judge(rule: Rule, memory: Memory, seen: Observation) -> Judged:
    """What the rule makes of a call it counts."""
    if seen.time < memory.muted:
        return _muted(rule, memory, seen), None
    match rule:
        case RateRule():
            return _rate(rule, memory, seen)
        case SequenceRule():
            return _sequence(rule, memory, seen)
        case ScopeRule():
            return _scope(rule, memory, seen)
        case StreakRule():
            return _streak(rule, memory, seen)
        case SpikeRule():
            return _spike(rule, memory, seen)


def counts(rule: Rule, seen: Observation) -> bool:
    """Whether the rule is about this call at all."""
    if isinstance(rule, SequenceRule):
        return seen.status != "refused" and (fits(rule.first, seen) or fits(rule.then, seen))
    if isinstance(rule, ScopeRule) and not seen.tool_version:
        return False
    return fits(rule.match, seen)


def fits(wanted: Match, seen: Observation) -> bool:
    """Whether a call is one of those that are meant."""
    pairs = (
        (wanted.tools, seen.tool),
        (wanted.principals, seen.principal),
        (wanted.tenants, seen.tenant),
        (wanted.status, seen.status),
        (wanted.codes, seen.code),
    )
    if any(allowed and found not in allowed for allowed, found in pairs):
        return False
    return not wanted.permissions or any(_permits(each, seen.permissions) for each in wanted.permissions)


def _permits(wanted: str, permissions: tuple[str, ...]) -> bool:
    return any(found == wanted or found.partition(":")[0] == wanted for found in permissions)


def _muted(rule: Rule, memory: Memory, seen: Observation) -> Memory:
    """What is remembered while nothing is told: only what a later call would be the second part of."""
    if isinstance(rule, SequenceRule) and fits(rule.first, seen):
        return replace(memory, times=(seen.time,), evidence=(seen.evidence,))
    return memory


def _rate(rule: RateRule, memory: Memory, seen: Observation) -> Judged:
    since = seen.time - _span(rule.window)
    times = (*(time for time in memory.times if time >= since), seen.time)
    memory = _with(replace(memory, times=times[-rule.threshold :]), seen)
    if len(times) < rule.threshold:
        return memory, None
    took = (seen.time - memory.times[0]) / _SECOND
    detail = f"{rule.threshold} calls within {took:.3f} s; allowed are fewer than that within {rule.window:g} s"
    return Memory(muted=seen.time + _span(_quiet(rule, rule.window))), Broken(rule.threshold, detail)


def _sequence(rule: SequenceRule, memory: Memory, seen: Observation) -> Judged:
    before = memory.times[-1] if memory.times else None
    if before is not None and fits(rule.then, seen) and seen.time - before <= _span(rule.window):
        detail = (
            f"{seen.tool} with {', '.join(seen.permissions) or 'no permission'}, "
            f"{(seen.time - before) / _SECOND:.3f} s after what must not come within {rule.window:g} s before it"
        )
        return Memory(muted=seen.time + _span(_quiet(rule, rule.window))), Broken(2, detail)
    if fits(rule.first, seen):
        return replace(memory, times=(seen.time,), evidence=(seen.evidence,)), None
    return memory, None


def _scope(rule: ScopeRule, memory: Memory, seen: Observation) -> Judged:
    wanted = set(seen.permissions) - {"none"}
    known = rule.scopes.get(seen.tool) if memory.known is None else memory.known
    if known is None:
        return Memory(known=tuple(sorted(wanted)), evidence=(seen.evidence,)), None
    beyond = sorted(wanted - set(known))
    told = replace(memory, known=tuple(sorted({*known, *beyond})))
    if not beyond:
        return told, None
    detail = f"{seen.tool} {seen.tool_version} asks for {', '.join(beyond)}; its scope is {', '.join(known) or 'none'}"
    return told, Broken(1, detail)


def _streak(rule: StreakRule, memory: Memory, seen: Observation) -> Judged:
    if seen.status == "refused" or (seen.status not in _FAILED and not memory.count):
        return memory, None
    if seen.status not in _FAILED:
        return Memory(muted=memory.muted), None
    memory = _with(replace(memory, count=memory.count + 1), seen)
    if memory.count < rule.threshold:
        return memory, None
    detail = f"{memory.count} failures in a row, the last of them {seen.code}"
    return Memory(muted=seen.time + _span(_quiet(rule, 0.0))), Broken(memory.count, detail)


def _spike(rule: SpikeRule, memory: Memory, seen: Observation) -> Judged:
    memory = _turned(rule, memory, seen.time)
    memory = _with(replace(memory, count=memory.count + 1), seen)
    if len(memory.periods) < rule.periods or memory.count < rule.least:
        return memory, None
    mean = sum(memory.periods) / len(memory.periods)
    if memory.count < rule.factor * mean:
        return memory, None
    detail = f"{memory.count} calls within {rule.window:g} s, where the mean was {mean:.1f}"
    quiet = seen.time + _span(_quiet(rule, rule.window))
    return replace(memory, muted=quiet, evidence=()), Broken(memory.count, detail)


def _turned(rule: SpikeRule, memory: Memory, now: int) -> Memory:
    """The memory in the period of `now`; periods without a call count as such."""
    length = _span(rule.window)
    if not memory.began:
        return replace(memory, began=now)
    passed = (now - memory.began) // length
    if passed <= 0:
        return memory
    behind = (memory.count, *(0,) * min(passed - 1, rule.periods))
    periods = (*memory.periods, *behind)[-rule.periods :]
    return replace(memory, periods=periods, count=0, began=memory.began + passed * length, evidence=())


def _with(memory: Memory, seen: Observation) -> Memory:
    return replace(memory, evidence=(*memory.evidence, seen.evidence)[-MOST_EVIDENCE:])


def _quiet(rule: Rule, window: float) -> float:
    """Seconds a rule says nothing more about a key."""
    return max(window, rule.block_seconds) if rule.blocks else window


def _span(seconds: float) -> int:
    return round(seconds * _SECOND)
