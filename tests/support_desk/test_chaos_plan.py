"""The plan of a chaos run: a function of the seed, fair to every process, and paced by the work."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk.chaos import PROCESSES, names_of
from agentflow_support_desk.chaos_plan import FROZEN, LONGEST_DELAY, Plan, plan
from agentflow_support_desk.errors import TooFewTicketsError

MESH = names_of(PROCESSES)
PLAN_OF_SEVEN = [
    ["kill runtime", "freeze executor", "kill detector-2"],
    ["kill detector", "kill executor-2"],
    ["kill planner", "kill planner-2", "kill runtime-2"],
]
seeds = st.integers(min_value=0, max_value=2**40)
kills = st.integers(min_value=1, max_value=12)


def strikes(found: Plan) -> list[tuple[int, str, str]]:
    """Round, process and fault of each strike."""
    return [(at, each.process, each.fault) for at, its in enumerate(found.rounds) for each in its.strikes]


def test_the_mesh_of_the_demo_has_two_of_each_service_and_one_server() -> None:
    """What the plans below are made for."""
    assert {"nats-server", "planner", "runtime", "executor", "detector"} == set(MESH)
    assert ["nats-server"] == MESH["nats-server"]
    assert ["planner", "planner-2"] == MESH["planner"]


@given(seeds, kills, st.integers(min_value=0, max_value=400))
def test_every_process_is_killed_as_often_as_was_asked(seed: int, count: int, more: int) -> None:
    """And one process of each service that can stand still is frozen once."""
    found = strikes(plan(seed, MESH, kills=count, tickets=count + 1 + more))

    killed = Counter(process for _, process, fault in found if fault == "kill")
    assert dict.fromkeys((name for names in MESH.values() for name in names), count) == killed
    frozen = [process for _, process, fault in found if fault == "freeze"]
    assert sorted(FROZEN) == sorted(name.removesuffix("-2") for name in frozen)


@given(seeds, kills, st.integers(min_value=0, max_value=400))
def test_no_round_strikes_a_process_twice(seed: int, count: int, more: int) -> None:
    """So that a process that is struck has come back from the fault before: the server above all."""
    found = plan(seed, MESH, kills=count, tickets=count + 1 + more)

    for each in found.rounds:
        names = [strike.process for strike in each.strikes]
        assert names
        assert len(set(names)) == len(names)
        assert all(0 <= strike.delay <= LONGEST_DELAY for strike in each.strikes)


@given(seeds, kills, st.integers(min_value=0, max_value=400))
def test_every_round_sets_tickets_free_and_none_needs_what_is_not_free(seed: int, count: int, more: int) -> None:
    """Work cannot end before the last fault, and the run cannot wait for ever."""
    tickets = count + 1 + more
    found = plan(seed, MESH, kills=count, tickets=tickets)

    assert tickets == found.rounds[-1].released
    assert found.rounds[0].at_done == 0
    assert found.rounds[0].released >= 1
    for before, after in pairwise(found.rounds):
        assert before.released < after.released
        assert before.at_done <= after.at_done <= before.released


@given(seeds, kills)
def test_the_faults_of_a_process_are_spread_over_the_run(seed: int, count: int) -> None:
    """The first falls into its first part, the last into its last."""
    found = plan(seed, MESH, kills=count, tickets=400)
    rounds = max(at for at, _, _ in strikes(found)) + 1

    for name in ("nats-server", "detector"):
        its = [at for at, process, _ in strikes(found) if process == name]
        assert its == sorted(set(its))
        if count >= 2:
            assert its[0] <= rounds / 2 <= its[-1] + 1


@given(seeds)
def test_the_same_seed_plans_the_same(seed: int) -> None:
    """And the order in which processes are named does not matter."""
    other = dict(reversed(MESH.items()))

    assert plan(seed, MESH, kills=3, tickets=168) == plan(seed, other, kills=3, tickets=168)


def test_the_plan_of_a_seed_is_the_same_everywhere() -> None:
    """It is written down here, so that a seed that was reported can be run again with a later version."""
    found = plan(7, MESH, kills=3, tickets=168)

    assert PLAN_OF_SEVEN == [[f"{each.fault} {each.process}" for each in its.strikes] for its in found.rounds[:3]]


def test_other_seeds_plan_otherwise() -> None:
    """A hundred seeds are a hundred plans."""
    assert len({plan(seed, MESH, kills=3, tickets=168).rounds for seed in range(100)}) == 100


def test_more_kills_are_more_faults() -> None:
    """Nothing else bounds them."""
    assert [30, 93] == [plan(1, MESH, kills=count, tickets=168).strikes for count in (3, 10)]


@given(seeds, kills)
def test_too_few_tickets_are_refused(seed: int, count: int) -> None:
    """There has to be one in flight at each fault of a process."""
    with pytest.raises(TooFewTicketsError) as caught:
        plan(seed, MESH, kills=count, tickets=count)

    assert (count, count + 1, 2) == (caught.value.found, caught.value.needed, caught.value.exit_code)


def test_a_mesh_without_a_detector_has_its_plan() -> None:
    """A service that is not installed is not struck, and the others are as before."""
    without = {name: names for name, names in MESH.items() if name != "detector"}

    assert {"detector", "detector-2"} == {process for _, process, _ in strikes(plan(1, MESH, kills=3, tickets=168))} - {
        process for _, process, _ in strikes(plan(1, without, kills=3, tickets=168))
    }


def test_a_plan_is_recorded_whole() -> None:
    """Seed, rounds and faults, as the figures show them."""
    found = plan(1, MESH, kills=3, tickets=168).as_json()

    assert (1, 3, 168) == (found["seed"], found["kills"], found["tickets"])
    assert {"process", "fault", "delay"} == set(found["rounds"][0]["strikes"][0])
