"""Properties of every run: whatever happens to it, it ends, it folds, and it is made again byte for byte."""

from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import given, settings

from agentflow.chain import examine, link_of
from agentflow.envelope import unseal
from agentflow.payloads import Decision
from agentflow_planner.definition import StateDef
from agentflow_planner.machine import Decided, decide
from agentflow_planner.plan import Plan
from agentflow_planner.runs import RunState, evolve, key_of
from agentflow_planner.sealing import seal_commands, seal_decision
from tests.services.planner.worlds import World, branch, plan_of, retries, step

PLAN: Plan = plan_of(
    {
        "a": step("a", "wait", retry=retries(3, 0.5), on_error="c", timeout=5.0),
        "wait": StateDef("wait", signal="go", timeout=7.0, on_success="b", on_error="c"),
        "b": branch("b", ("a", "output.again == true"), ("c", "output.n > 10"), on_success="done", on_error="c"),
        "c": step("c", input={"n": "${input.n}"}, retry=retries(2, 1.0)),
    },
    max_steps=8,
    timeout=120.0,
)

EVENTS = st.sampled_from(
    [
        "answer",
        "again",
        "large",
        "empty",
        "fail",
        "fatal",
        "signal",
        "fire",
        "cancel",
        "goal",
        "junk",
        "wait",
        "late",
        "back",
    ]
)


def happen(world: World, event: str) -> None:
    """Let one thing happen to the run."""
    match event:
        case "answer" | "again" | "large" | "empty" if world.commands:
            outputs = {"answer": {"again": False, "n": 1}, "again": {"again": True}, "large": {"again": False, "n": 11}}
            world.answer(outputs.get(event, {}))
        case "fail" | "fatal" if world.commands:
            world.fail(retryable=event == "fail")
        case "late" if world.commands:
            world.answer({}, world.commands[0])
        case "signal":
            world.signal("go", n=1)
        case "fire" if world.state.timer is not None and not world.state.ended:
            world.fire()
        case "cancel":
            world.cancel()
        case "goal":
            world.submit(n=1)
        case "junk":
            world.take("workflows.w-1.in", b"{")
        case "wait":
            world.now += timedelta(seconds=3)
        case "back":
            world.now -= timedelta(seconds=2)


def lived(events: list[str]) -> World:
    """A run to which these things happened."""
    world = World(PLAN)
    world.submit(n=1)
    for event in events:
        happen(world, event)
    return world


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None)
def test_folding_the_history_again_gives_the_same_state(events: list[str]) -> None:
    """A planner that starts anew stands where the one before it stood."""
    world = lived(events)
    assert world.refold() == world.state


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None)
def test_deciding_again_from_the_recorded_inputs_makes_the_same_bytes(events: list[str]) -> None:
    """Every decision and every command of a run is a function of its history."""
    world = lived(events)
    state = RunState(world.workflow_id)
    for sealed, recorded, after in world.log:
        [consumed] = recorded.consumed
        given_input = world.inputs[key_of(consumed)]
        verdict = decide(state, given_input, PLAN)
        assert isinstance(verdict, Decided)
        assert seal_decision(state, given_input, verdict.recorded).body == sealed.body
        state = evolve(state, sealed, recorded, {key_of(consumed): given_input}, after.out_seq)
        if isinstance(recorded, Decision):
            again = seal_commands(PLAN, state, sealed, recorded)
            assert all(command in world.commands for command, _ in again)


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None)
def test_the_chain_of_decisions_is_whole(events: list[str]) -> None:
    """No gap, no branch, and every envelope verifies on its own subject."""
    world = lived(events)
    links = [link_of(sealed, "AF_MESSAGES", after.out_seq) for sealed, _, after in world.log]
    assert examine(links) == []
    for sealed, _, _ in world.log:
        assert unseal(sealed.body, "workflows.w-1.out") == sealed


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None)
def test_every_run_ends_by_its_timers_alone(events: list[str]) -> None:
    """Whoever is silent, the timers bring a run to its end; a run that has not ended always has one armed."""
    world = lived(events)
    for _ in range(60):
        if world.state.ended:
            break
        assert world.state.timer is not None, world.reasons
        world.fire()
    assert world.state.ended, world.reasons


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None)
def test_times_never_run_backwards(events: list[str]) -> None:
    """The time of a decision is never below the one before."""
    times = [sealed.envelope.ts for sealed, _, _ in lived(events).log]
    assert times == sorted(times)
