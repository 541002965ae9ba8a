"""The graph of a definition's states: each rule by example, and all of them against an independent reference."""

import itertools

import pytest
from hypothesis import given

from agentflow_planner.definition import Declared, Definition, RetryDef, StateDef, TransitionDef
from agentflow_planner.validation import Problem, edges, reachable, validate
from tests.services.planner.definitions import graphs


def flow(
    *states: StateDef, finals: tuple[str, ...] = ("done",), initial: str = "", timeout: float = 3600.0
) -> Definition:
    """A definition of some states, beginning with the first."""
    return Definition(
        name="flow",
        version="1.0.0",
        initial_state=initial or states[0].name,
        final_states=finals,
        states={state.name: state for state in states},
        timeout=timeout,
    )


def work(name: str, on_success: str = "done", **more: object) -> StateDef:
    """A state with an agent."""
    return StateDef(name=name, agent="worker", on_success=on_success, **more)  # type: ignore[arg-type]  # test helper


def codes(definition: Definition, declared: Declared | None = None) -> list[str]:
    """The codes of everything wrong with a definition."""
    return [problem.code for problem in validate(definition, declared)]


def only(definition: Definition, declared: Declared | None = None) -> Problem:
    """The one thing wrong with a definition."""
    (problem,) = validate(definition, declared)
    return problem


def test_a_sound_graph_has_no_problems() -> None:
    """Loops, several ends, and a way out of errors are all sound."""
    again = TransitionDef("ask", "output.again")
    assert (
        codes(
            flow(
                StateDef("ask", agent="a", transitions=(again, TransitionDef("done")), on_error="sorry"),
                StateDef("sorry", tool="mail", on_success="failed"),
                finals=("done", "failed"),
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        (flow(work("a"), initial="aa"), ("initial_state",)),
        (flow(work("a", on_success="dun"), work("b")), ("states", "a", "on_success")),
        (flow(work("a", on_error="b")), ("states", "a", "on_error")),
        (
            flow(StateDef("a", agent="x", transitions=(TransitionDef("done", "output.ok"), TransitionDef("dome")))),
            ("states", "a", "transitions", 1, "to"),
        ),
    ],
)
def test_names_of_states_that_do_not_exist_are_found_wherever_they_stand(
    definition: Definition, path: tuple[str | int, ...]
) -> None:
    """With the state that was probably meant, and all there are."""
    problem = next(problem for problem in validate(definition) if problem.code == "unknown_state")
    assert problem.path == path
    assert set(problem.allowed) == set(definition.state_names)


def test_one_slip_does_not_look_like_many() -> None:
    """What a misspelled name was probably meant for counts as reached."""
    definition = flow(work("classify", "serch"), work("search", "write"), work("write"), initial="clasify")
    assert codes(definition) == ["unknown_state", "unknown_state"]


def test_the_nearest_state_is_suggested() -> None:
    """A slip of the finger is the usual reason."""
    problem = only(flow(work("classify", on_error="clasify")))
    assert (problem.found, problem.suggestion) == ("clasify", "did you mean 'classify'?")


def test_a_state_nothing_leads_to_is_found() -> None:
    """Also when it leads somewhere itself, and also a final one."""
    assert only(flow(work("a"), work("b"))).path == ("states", "b")
    assert codes(flow(work("a"), work("b", "c"), work("c", "b"), finals=("done",)))[:2] == ["unreachable_state"] * 2
    problem = only(flow(work("a"), finals=("done", "never")))
    assert (problem.code, problem.path) == ("unreachable_state", ("final_states", 1))


def test_a_state_is_reached_over_errors_too() -> None:
    """`on_error` leads somewhere like any other way."""
    assert codes(flow(work("a", on_error="b"), work("b"))) == []


def test_a_state_without_a_way_to_an_end_is_found() -> None:
    """A loop nobody leaves keeps its run for ever."""
    problems = validate(
        flow(work("a", "b", on_error="c"), work("b", "a"), work("c", "d"), work("d", "c"), finals=("end",))
    )
    assert sorted(problem.path[-1] for problem in problems if problem.code == "no_path_to_end") == ["a", "b", "c", "d"]
    assert only(flow(work("a", on_error="b"), work("b", "b"))).found == "b"


def test_a_state_that_leads_nowhere_is_named_instead_of_those_before_it() -> None:
    """One cause, one finding."""
    problem = only(flow(work("a", "b", on_error="done"), StateDef("b", agent="x", on_error="done")))
    assert (problem.code, problem.path) == ("no_way_out", ("states", "b"))


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (StateDef("a", on_success="done"), "none of them"),
        (StateDef("a", agent="x", tool="y", on_success="done"), "agent and tool"),
        (StateDef("a", agent="x", tool="y", signal="z", on_success="done"), "agent and tool and signal"),
    ],
)
def test_a_state_does_exactly_one_thing(state: StateDef, found: str) -> None:
    """An agent's work, a tool's call, or waiting for a signal."""
    problem = only(flow(state))
    assert (problem.code, problem.found, problem.allowed) == ("one_action", found, ("agent", "tool", "signal"))


@pytest.mark.parametrize(
    ("final", "key"),
    [
        (StateDef("done", agent="x"), "agent"),
        (StateDef("done", tool="x"), "tool"),
        (StateDef("done", signal="x"), "signal"),
        (StateDef("done", input={}), "input"),
        (StateDef("done", on_success="a"), "on_success"),
        (StateDef("done", on_error="a"), "on_error"),
        (StateDef("done", transitions=(TransitionDef("a"),)), "transitions"),
    ],
)
def test_a_final_state_does_nothing(final: StateDef, key: str) -> None:
    """A run that got there has ended."""
    problem = only(flow(work("a"), final))
    assert (problem.code, problem.path) == ("final_state_acts", ("states", "done", key))


def test_final_states_are_given_once_and_are_no_beginning() -> None:
    """Twice is a slip; at the beginning there would be nothing to run."""
    assert only(flow(work("a"), finals=("done", "done"))).code == "duplicate_final_state"
    assert codes(flow(work("a"), initial="done")) == ["initial_is_final", "unreachable_state"]


def test_nothing_stands_behind_a_transition_that_always_holds() -> None:
    """Neither another transition nor `on_success`."""
    ways = (TransitionDef("done", "output.ok"), TransitionDef("done"), TransitionDef("done", "output.other"))
    problem = only(flow(StateDef("a", agent="x", transitions=ways)))
    assert (problem.code, problem.path) == ("dead_transition", ("states", "a", "transitions", 2))
    both = only(flow(StateDef("a", agent="x", transitions=ways[:2], on_success="done")))
    assert (both.code, both.path) == ("dead_transition", ("states", "a", "on_success"))
    assert codes(flow(StateDef("a", agent="x", transitions=ways[:1], on_success="done"))) == []


def test_no_state_outlasts_its_run() -> None:
    """A wait that the run's own timeout would cut short is a contradiction."""
    problem = only(flow(work("a", timeout=7200.0)))
    assert (problem.code, problem.path, problem.found) == ("timeout_too_long", ("states", "a", "timeout"), "2h")
    assert problem.suggestion == "write timeout: 2h or more at the top of the file"
    assert codes(flow(work("a", timeout=7200.0), timeout=7200.0)) == []


def test_a_signal_takes_no_input_and_is_not_tried_again() -> None:
    """There is nothing to do but wait."""
    waiting = StateDef("a", signal="approve", on_success="done", input={"x": 1}, retry=RetryDef(3))
    assert [problem.path[-1] for problem in validate(flow(waiting))] == ["input", "retry"]


def test_agents_and_tools_have_to_be_declared() -> None:
    """With those there are; without a list of them nothing is said."""
    definition = flow(work("a", "b"), StateDef("b", tool="serch", on_success="done"))
    declared = Declared(frozenset({"worker"}), frozenset({"search", "mail"}))
    problem = only(definition, declared)
    assert (problem.code, problem.path, problem.found) == ("undeclared_tool", ("states", "b", "tool"), "serch")
    assert (problem.allowed, problem.suggestion) == (("mail", "search"), "did you mean 'search'?")
    assert codes(definition, Declared()) == ["undeclared_agent", "undeclared_tool"]
    assert codes(definition, None) == []


def test_an_agent_does_not_count_as_a_tool() -> None:
    """The two are called in different ways and have different rights."""
    definition = flow(StateDef("a", tool="worker", on_success="done"))
    assert codes(definition, Declared(agents=frozenset({"worker"}))) == ["undeclared_tool"]


def test_nothing_is_said_about_a_state_that_could_not_be_read() -> None:
    """It may lead anywhere, so neither it nor what depends on it is at fault."""
    definition = flow(StateDef("a"), work("b", "b"), finals=("done",))
    assert validate(definition, opaque=frozenset({"a"})) == (
        Problem(
            ("states", "b"), "no_path_to_end", "no final state can be reached from 'b'", "b", ("done",), on_key=True
        ),
    )


# --- against a reference: Warshall's transitive closure, which shares nothing with the code -----------------------------


def closure(definition: Definition) -> dict[str, set[str]]:
    """For every state, all states that any number of steps can lead to, none included."""
    names = [*dict.fromkeys([*definition.states, *definition.final_states])]
    leads = {name: {name} for name in names}
    for name, state in definition.states.items():
        if name not in definition.final_states:
            targets = [way.to for way in state.transitions] + [state.on_success, state.on_error]
            leads[name] |= {to for to in targets if to in names}
    for middle, start in itertools.product(names, names):
        if middle in leads[start]:
            leads[start] |= leads[middle]
    return leads


@given(graphs())
def test_reachability_agrees_with_the_reference(definition: Definition) -> None:
    """The states a run can get to, on graphs of any shape."""
    leads = closure(definition)
    assert reachable(definition) == leads.get(definition.initial_state, set())
    found = {
        p.path[-1] if p.path[0] == "states" else definition.final_states[int(p.path[1])]
        for p in validate(definition)
        if p.code == "unreachable_state"
    }
    expected = set(leads) - leads[definition.initial_state] if definition.initial_state in leads else set()
    assert found == expected


@given(graphs())
def test_ways_to_an_end_agree_with_the_reference(definition: Definition) -> None:
    """A state is reported exactly if no final state, and no other mistake that may be the cause, is ahead of it."""
    leads = closure(definition)
    excused = {*definition.final_states}
    for name, state in definition.states.items():
        unknown = [to for to in state.targets if to not in leads]
        if unknown or not (state.transitions or state.on_success):
            excused.add(name)
    expected = {name for name in definition.states if not leads[name] & excused}
    assert {p.path[-1] for p in validate(definition) if p.code == "no_path_to_end"} == expected


@given(graphs())
def test_unknown_names_agree_with_the_reference(definition: Definition) -> None:
    """Every mention of a state that does not exist, and nothing else."""
    mentioned = [definition.initial_state]
    for state in definition.states.values():
        mentioned += [*(way.to for way in state.transitions), state.on_success, state.on_error]
    known = {*definition.states, *definition.final_states}
    expected = sorted(name for name in mentioned if name and name not in known)
    assert sorted(p.found for p in validate(definition) if p.code == "unknown_state") == expected


@given(graphs())
def test_a_graph_without_problems_can_be_run_to_its_end(definition: Definition) -> None:
    """What validation is for: from every state of a sound definition there is a walk that ends."""
    if validate(definition):
        return
    for name in definition.states:
        here, walked = {name}, 0
        while not here & set(definition.final_states):
            here = {to for each in here for to in edges(definition, each)}
            walked += 1
            assert here
            assert walked <= len(definition.state_names)
