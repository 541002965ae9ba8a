"""What a definition's states have to be, taken together: a graph every run gets through. Pure.

A state is reached from the initial one over transitions, `on_success` and `on_error`. Every state has to be reached,
has to do exactly one thing, has to lead somewhere when that succeeds, and has to have a way to a final state.
A problem names the path it is about; `parsing` knows where that is in the file.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agentflow_planner.definition import Declared, Definition, StateDef
from agentflow_planner.durations import format_duration
from agentflow_planner.findings import did_you_mean, nearest
from agentflow_planner.reading import Path

_ACTIONS = ("agent", "tool", "signal")
_REACHED = ("named in transitions, on_success or on_error of a state that is reached", "or removed")
_NO_STATES = ("a key under states, which has none",)
_NO_FINALS = ("a way to a state in final_states, which names none",)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a definition, at a path."""

    path: Path
    code: str
    """Without the leading `definition.`."""
    message: str
    found: str = ""
    allowed: tuple[str, ...] = ()
    suggestion: str = ""
    on_key: bool = False
    """The place is the key, not the value."""


def validate(
    definition: Definition, declared: Declared | None = None, opaque: frozenset[str] = frozenset()
) -> tuple[Problem, ...]:
    """Every problem with the states of a definition; empty for a sound one.

    `declared` are the agents and tools there are; None skips that check. `opaque` names states that could not be read
    in full: they may lead anywhere, and nothing is said about them.
    """
    problems = [*_finals(definition), *_unknown(definition), *_paths(definition, opaque)]
    for state in definition.states.values():
        if state.name not in opaque:
            problems += [*_one_state(definition, state)]
    if declared is not None:
        problems += undeclared(definition, declared)
    return tuple(problems)


def edges(definition: Definition, name: str) -> tuple[str, ...]:
    """The states that a state leads to; none from a final one.

    A name that does not exist counts as the one that was probably meant: one slip should not look like many.
    """
    if definition.is_final(name) or name not in definition.states:
        return ()
    meant = (_meant(definition, to) for to in definition.states[name].targets)
    return tuple(to for to in meant if to)


def _meant(definition: Definition, name: str) -> str:
    return name if name in definition.state_names else nearest(name, definition.state_names)


def reachable(definition: Definition) -> frozenset[str]:
    """Every state a run can get to; none where nothing is known about the first."""
    start = _meant(definition, definition.initial_state)
    return _closure([start] if start else [], lambda name: edges(definition, name))


def ending(definition: Definition, ends: Iterable[str]) -> frozenset[str]:
    """Every state from which one of `ends` can be reached."""
    sources: dict[str, list[str]] = {}
    for name in definition.states:
        for to in edges(definition, name):
            sources.setdefault(to, []).append(name)
    return _closure(ends, lambda name: sources.get(name, ()))


def _closure(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> frozenset[str]:
    found, waiting = set(start), list(start)
    while waiting:
        for name in following(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return frozenset(found)


def _finals(definition: Definition) -> Iterator[Problem]:
    """Final states are given once, and do nothing."""
    for index, name in enumerate(definition.final_states):
        if name in definition.final_states[:index]:
            yield Problem(("final_states", index), "duplicate_final_state", f"{name!r} stands twice", name)
    if definition.initial_state and definition.is_final(definition.initial_state):
        yield Problem(
            ("initial_state",), "initial_is_final", "a run would end where it starts", definition.initial_state
        )


def _unknown(definition: Definition) -> Iterator[Problem]:
    """Every state that is named exists."""
    for path, name in _mentions(definition):
        if name and name not in definition.state_names:
            known = definition.state_names
            message = f"there is no state {name!r}"
            yield Problem(path, "unknown_state", message, name, known or _NO_STATES, did_you_mean(name, known))


def _mentions(definition: Definition) -> Iterator[tuple[Path, str]]:
    yield ("initial_state",), definition.initial_state
    for state in definition.states.values():
        for index, transition in enumerate(state.transitions):
            yield ("states", state.name, "transitions", index, "to"), transition.to
        yield ("states", state.name, "on_success"), state.on_success
        yield ("states", state.name, "on_error"), state.on_error


def _paths(definition: Definition, opaque: frozenset[str]) -> Iterator[Problem]:
    """Every state is reached, and gets to an end."""
    reached = reachable(definition)
    if reached and not reached & opaque:
        for name in definition.state_names:
            if name not in reached:
                path: Path = ("states", name) if name in definition.states else _final_path(definition, name)
                message = f"nothing leads to the state {name!r} from {definition.initial_state!r}"
                yield Problem(path, "unreachable_state", message, "nothing leads to it", _REACHED, on_key=True)
    ended = ending(definition, [*definition.final_states, *opaque, *_leading_nowhere(definition)])
    for name in definition.states:
        if name not in ended:
            finals = tuple(dict.fromkeys(definition.final_states)) or _NO_FINALS
            message = f"no final state can be reached from {name!r}"
            yield Problem(("states", name), "no_path_to_end", message, name, finals, on_key=True)


def _final_path(definition: Definition, name: str) -> Path:
    return ("final_states", definition.final_states.index(name))


def _leading_nowhere(definition: Definition) -> list[str]:
    """States that have another problem, which may be all that keeps them from an end."""
    return [
        state.name
        for state in definition.states.values()
        if not _has_way_out(state) or any(to not in definition.state_names for to in state.targets)
    ]


def _has_way_out(state: StateDef) -> bool:
    return bool(state.transitions or state.on_success)


def _one_state(definition: Definition, state: StateDef) -> Iterator[Problem]:
    """A final state does nothing, any other does one thing and goes on."""
    path: Path = ("states", state.name)
    actions = [name for name in _ACTIONS if getattr(state, name)]
    if definition.is_final(state.name):
        yield from _final_state(state, path)
        return
    if len(actions) != 1:
        found = " and ".join(actions) or "none of them"
        message = f"the state {state.name!r} does exactly one thing"
        yield Problem(path, "one_action", message, found, _ACTIONS, on_key=True)
    if not _has_way_out(state):
        message = f"the state {state.name!r} leads nowhere when its step succeeds"
        hint = "a state where runs end belongs in final_states"
        yield Problem(path, "no_way_out", message, state.name, ("on_success", "transitions"), hint, on_key=True)
    yield from _dead_transitions(state, path)
    yield from _waiting(definition, state, path)


def _final_state(state: StateDef, path: Path) -> Iterator[Problem]:
    given = {
        **{name: bool(getattr(state, name)) for name in (*_ACTIONS, "on_success", "on_error", "transitions")},
        "input": state.input is not None,
    }
    for key, present in given.items():
        if present:
            message = f"runs end in {state.name!r}: a final state does nothing and leads nowhere"
            yield Problem((*path, key), "final_state_acts", message, key, on_key=True)


def _dead_transitions(state: StateDef, path: Path) -> Iterator[Problem]:
    """Nothing stands behind a transition that always holds."""
    always = next((i for i, transition in enumerate(state.transitions) if transition.condition is None), None)
    if always is None:
        return
    to = state.transitions[always].to
    message = f"this is never tried: the transition to {to!r} before it has no condition"
    for index in range(always + 1, len(state.transitions)):
        yield Problem((*path, "transitions", index), "dead_transition", message, state.transitions[index].to)
    if state.on_success:
        yield Problem((*path, "on_success"), "dead_transition", message, state.on_success, on_key=True)


def _waiting(definition: Definition, state: StateDef, path: Path) -> Iterator[Problem]:
    """No state waits longer than its run, and a signal has no work to repeat or to be given input."""
    if state.timeout > definition.timeout:
        longest, limit = format_duration(state.timeout), format_duration(definition.timeout)
        message = f"the state {state.name!r} may take {longest}, the whole run only {limit}"
        hint = f"write timeout: {longest} or more at the top of the file"
        yield Problem((*path, "timeout"), "timeout_too_long", message, longest, (f"up to {limit}",), hint)
    if state.signal:
        for key, given in (("input", state.input is not None), ("retry", state.retry.max_attempts > 1)):
            if given:
                message = f"{key} means nothing in a state that waits for a signal"
                yield Problem((*path, key), "misplaced_key", message, key, on_key=True)


def undeclared(definition: Definition, declared: Declared) -> Iterator[Problem]:
    """Every agent and tool that is named and not among those declared."""
    for state in definition.states.values():
        for kind, name, known in (("agent", state.agent, declared.agents), ("tool", state.tool, declared.tools)):
            if name and name not in known:
                allowed = tuple(sorted(known))
                path: Path = ("states", state.name, kind)
                message = f"the {kind} {name!r} is not declared"
                hint = did_you_mean(name, allowed)
                yield Problem(path, f"undeclared_{kind}", message, name, allowed or ("none are declared",), hint)
