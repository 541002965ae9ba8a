"""The fold as a whole: cut anywhere it is the same, what it remembers is bounded, and rules hold from the first call."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agentflow.ids import is_ulid
from agentflow_detector.fold import Finding, evolve, fit
from agentflow_detector.loading import load_rules
from agentflow_detector.observing import Observation
from agentflow_detector.rules import RuleSet
from agentflow_detector.snapshots import pack, unpack
from agentflow_detector.state import MOST_CALLS, ROOM, Position, State
from tests.services.detector.histories import Folding, fold, pair, rapid, ruleset, seen

RULES = ruleset(
    rapid(2, 5.0, block_seconds=4),
    rapid(id="failed", threshold=2, match={"status": ["failed"]}, per=["run"]),
    pair(20.0),
    {"id": "scope", "kind": "scope"},
    {"id": "streak", "kind": "streak", "threshold": 2},
    {"id": "spike", "kind": "spike", "window": 3, "periods": 2, "factor": 2, "least": 2},
)


@st.composite
def histories(draw: st.DrawFn) -> list[Observation]:
    """Calls of a few agents in their order."""
    steps = draw(
        st.lists(
            st.tuples(
                st.integers(0, 4),
                st.sampled_from(["clerk", "writer"]),
                st.sampled_from(["lookup", "post"]),
                st.sampled_from(["completed", "failed", "refused"]),
                st.sets(st.sampled_from(["db.write:x", "network.http", "fs.tmp"])),
            ),
            max_size=30,
        )
    )
    now, found = 0, []
    for number, (gap, who, tool, status, permissions) in enumerate(steps):
        now += gap
        found.append(seen(number, now, principal=who, tool=tool, status=status, permissions=tuple(sorted(permissions))))
    return found


def restarted(rules: RuleSet, history: list[Observation], cuts: set[int]) -> Folding:
    """The fold with a restart from a snapshot before each of these places."""
    folding = Folding(rules)
    for number, each in enumerate(history):
        if number in cuts:
            head, parts = pack(folding.state, "a")
            state = unpack(head, parts)
            assert state is not None
            folding.state = fit(state, rules)
        folding.take(each)
    return folding


@given(histories(), st.sets(st.integers(0, 29)))
def test_a_history_gives_the_same_findings_wherever_it_is_cut(history: list[Observation], cuts: set[int]) -> None:
    """Rules, calls, evidence and features: a restart from a snapshot changes nothing at all."""
    whole, cut = fold(RULES, history), restarted(RULES, history, cuts)

    assert whole.findings == cut.findings
    assert whole.state == cut.state


@given(histories(), st.sets(st.integers(0, 29)))
def test_a_message_that_is_folded_again_finds_the_same(history: list[Observation], again: set[int]) -> None:
    """A state is a value: who died before it was kept folds the message once more, from the state before."""
    state, found = State(), list[Finding]()
    for number, each in enumerate(history):
        at = Position(number + 1, "")
        if number in again:
            assert evolve(state, RULES, at, each.time, each) == evolve(state, RULES, at, each.time, each)
        step = evolve(state, RULES, at, each.time, each)
        state = step.state
        found += step.findings

    assert fold(RULES, history).findings == found


@given(histories())
def test_a_finding_is_told_apart_by_rule_and_key_and_call(history: list[Observation]) -> None:
    """So the ids derived from these three never meet; each call is in its finding's evidence, at its end."""
    findings = fold(RULES, history).findings
    names = [(each.rule.id, each.key, each.seen.evidence.id) for each in findings]

    assert len(names) == len(set(names))
    assert all(is_ulid(each.seen.evidence.id) and each.evidence[-1] == each.seen.evidence for each in findings)
    assert all(len(each.evidence) <= 8 for each in findings)


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten() -> None:
    """A flood of keys cannot grow a rule's memory beyond its part; the last used keys are still there."""
    rules = ruleset(rapid(2), rapid(id="other", threshold=2))
    folding = Folding(rules)
    [rule, _] = rules.rules
    room = ROOM // 2
    wide = "x" * 190
    for number in range(8000):
        folding.take(seen(number, number / 100, principal=f"{wide}{number}", tool=wide))
    shelf = folding.state.shelves[rule.digest]

    assert 0 < shelf.weight <= room
    assert sum(len(key) + memory.weight for key, memory in shelf.memories.items()) == shelf.weight
    assert any("7999" in key for key in shelf.memories)
    assert not any(f'{wide}0"' in key for key in shelf.memories)
    assert sum(map(len, pack(folding.state, "a")[1])) < ROOM


def test_calls_without_an_outcome_are_remembered_up_to_a_number() -> None:
    """A flood of calls nobody answers."""
    folding = Folding(RULES)
    for number in range(MOST_CALLS + 10):
        asked = msgspec.structs.replace(seen(number), kind="call")
        folding.take(asked)

    assert MOST_CALLS == len(folding.state.calls)


def test_time_does_not_go_back() -> None:
    """A message with an earlier time than the one before counts as stored with it."""
    folding = fold(ruleset(rapid(3, 10.0)), [seen(1, 100), seen(2, 50), seen(3, 105)])

    assert 1 == len(folding.findings)


def test_the_shipped_rules_hold_from_the_first_call_of_a_tenant_or_a_tool() -> None:
    """Nothing has to be learnt: a tenant nobody has seen, with a tool nobody has seen."""
    calls = [seen(n, n / 10, tenant="new", tool="brand-new", principal="newcomer") for n in range(30)]

    assert ["rapid-fire"] == [each.rule.id for each in fold(load_rules(), calls).findings]


def test_a_call_that_a_breaker_kept_from_running_moves_nothing_but_the_position() -> None:
    """No count, no memory, no rate."""
    before = fold(RULES, [seen(1)])
    shelves, rates = before.state.shelves, before.state.rates

    before.take(*(seen(10 + n, n, status="refused", code="breaker.open") for n in range(50)))

    assert (shelves, rates) == (before.state.shelves, before.state.rates)


def test_what_rules_remember_goes_with_them() -> None:
    """A state that is fitted to other rules keeps what unchanged ones remember."""
    state = fold(RULES, [seen(1, permissions=("db.write:x",))]).state
    other = RuleSet("2", RULES.rules[:1])

    assert {RULES.rules[0].digest} == set(fit(state, other).shelves)
    assert state.position == fit(state, other).position
