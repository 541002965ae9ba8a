"""Each kind of rule, case by case, and against an oracle that looks at the whole history at once."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_detector.observing import Observation
from tests.services.detector.histories import Folding, fold, pair, rapid, ruleset, seen

FLAGGED = {"actions": ["flag"], "block": []}
WRITE, SEND = ("db.write:orders",), ("network.http:example.com",)

gaps = st.lists(st.integers(0, 12), min_size=1, max_size=40)
"""Whole seconds between calls, so that edges of windows are hit."""


def at(gaps: Sequence[int]) -> list[int]:
    """The moments that lie so far apart."""
    found, now = [], 0
    for gap in gaps:
        now += gap
        found.append(now)
    return found


def broken_by(folding: Folding, calls: Sequence[Observation]) -> list[int]:
    """Which calls broke a rule, by their place."""
    ids = [each.call_id for each in calls]
    return [ids.index(call_id) for _, call_id in folding.told]


# --- rate ----------------------------------------------------------------------------------------------------------


@given(gaps, st.integers(1, 6), st.integers(1, 20))
def test_a_rate_is_found_where_an_oracle_finds_it(gaps: list[int], threshold: int, window: int) -> None:
    """The n-th call within a window, both ends included; then quiet for a window, from an empty count."""
    moments = at(gaps)
    calls = [seen(number, moment) for number, moment in enumerate(moments)]
    expected, counted, quiet = [], [], 0
    for number, moment in enumerate(moments):
        if moment < quiet:
            continue
        counted.append(moment)
        if len([each for each in counted if each >= moment - window]) >= threshold:
            expected.append(number)
            counted, quiet = [], moment + window

    found = fold(ruleset(rapid(threshold, window, **FLAGGED)), calls)

    assert expected == broken_by(found, calls)


def test_a_rate_counts_for_each_key_apart() -> None:
    """Two callers of one tool, and one caller of two tools, are three counts."""
    calls = [
        seen(n, n, principal=who, tool=what)
        for n, (who, what) in enumerate([("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")] * 2)
    ]

    found = fold(ruleset(rapid(4)), calls)

    assert [("a", "x")] == [(each.about["principal"], each.about["tool"]) for each in found.findings]


def test_a_rule_that_blocks_is_quiet_for_as_long_as_it_blocks() -> None:
    """A burst that goes on is one finding until the block is over."""
    calls = [seen(number, number) for number in range(70)]

    found = fold(ruleset(rapid(3, 10, block_seconds=30)), calls)

    assert [2, 34, 66] == broken_by(found, calls)


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"tools": ["lookup"]}, True),
        ({"tools": ["other"]}, False),
        ({"principals": ["clerk", "other"]}, True),
        ({"tenants": ["umbrella"]}, False),
        ({"status": ["refused"]}, False),
        ({"status": ["failed"], "codes": ["tool.error"]}, True),
        ({"codes": ["tool.denied"]}, False),
        ({"permissions": ["db.write"]}, True),
        ({"permissions": ["db.write:orders"]}, True),
        ({"permissions": ["db.write:users"]}, False),
        ({"permissions": ["db"]}, False),
        ({"permissions": ["fs.tmp", "db.write"]}, True),
    ],
)
def test_a_rule_counts_the_calls_it_is_about(match: dict[str, Any], fits: bool) -> None:
    """Every list that is given has to hold the call's value; of permissions one is enough, a kind stands for all."""
    given = seen(1, status="failed", code="tool.error", permissions=WRITE)

    assert fits == bool(fold(ruleset(rapid(1, match=match)), [given]).findings)


def test_a_call_without_what_a_rule_counts_by_is_not_counted() -> None:
    """Records from before the principal was kept; a call outside any run counts for its principal."""
    assert [] == fold(ruleset(rapid(1)), [seen(1, principal="")]).findings
    [finding] = fold(ruleset(rapid(1, per=["run"])), [seen(1, run="")]).findings
    assert {"run": "of clerk"} == finding.about


# --- sequence ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["write", "send", "both", "other", "refused"])), max_size=40)
)
def test_a_pair_is_found_where_an_oracle_finds_it(steps: list[tuple[int, str]]) -> None:
    """The second part within the window after the last first part; then quiet for the window."""
    window = 10
    moments = at([gap for gap, _ in steps])
    kinds = {"write": WRITE, "send": SEND, "both": WRITE + SEND, "other": (), "refused": SEND}
    calls = [
        seen(n, moment, permissions=kinds[kind], status="refused" if kind == "refused" else "completed")
        for n, (moment, (_, kind)) in enumerate(zip(moments, steps, strict=True))
    ]
    expected, first, quiet = [], None, 0
    for number, (moment, (_, kind)) in enumerate(zip(moments, steps, strict=True)):
        if kind in ("send", "both") and first is not None and moment - first <= window and moment >= quiet:
            expected.append(number)
            first, quiet = None, moment + window
        elif kind in ("write", "both"):
            first = moment

    assert expected == broken_by(fold(ruleset(pair(window)), calls), calls)


def test_a_pair_names_both_calls_and_how_far_they_were_apart() -> None:
    """The evidence is the two envelopes, in their order."""
    calls = [seen(1, 0, tool="save", permissions=WRITE), seen(2, 1), seen(3, 2.5, tool="post", permissions=SEND)]

    [finding] = fold(ruleset(pair()), calls).findings

    assert (calls[0].evidence, calls[2].evidence) == finding.evidence
    assert "2.500 s after" in finding.detail


def test_the_other_order_is_no_pair() -> None:
    """What was sent out before the write knew nothing of it."""
    assert [] == fold(ruleset(pair()), [seen(1, 0, permissions=SEND), seen(2, 1, permissions=WRITE)]).findings


# --- scope ---------------------------------------------------------------------------------------------------------

SCOPE = {"id": "scope", "kind": "scope", "actions": ["flag", "auto_block"], "block": ["tool"]}


@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=20))
def test_a_widened_scope_is_found_where_an_oracle_finds_it(asked: list[set[str]]) -> None:
    """Each permission beyond the first ones is told once, with the call that had it first."""
    calls = [seen(n, n, permissions=tuple(sorted(each))) for n, each in enumerate(asked)]
    expected, known = [], None
    for number, each in enumerate(asked):
        if known is not None and each - known:
            expected.append(number)
        known = each if known is None else known | each

    assert expected == broken_by(fold(ruleset(SCOPE), calls), calls)


def test_a_scope_that_is_written_down_counts_from_the_first_call() -> None:
    """Then nothing is learnt from what is seen."""
    rules = ruleset({**SCOPE, "scopes": {"lookup": ["fs.tmp"]}})

    found = fold(rules, [seen(1, permissions=("fs.tmp", "network.http")), seen(2, 1, tool_version="")])

    assert ["lookup 1.0.0 asks for network.http; its scope is fs.tmp"] == [each.detail for each in found.findings]


def test_a_widened_scope_names_the_call_the_scope_was_first_seen_with() -> None:
    """Both are evidence: what it was, and what it is."""
    first, second = seen(1, permissions=("none",)), seen(2, 1, permissions=("network.http",), tool_version="2.0.0")

    [finding] = fold(ruleset(SCOPE), [first, second]).findings

    assert (first.evidence, second.evidence) == finding.evidence


# --- streak --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["completed", "failed", "unknown", "refused"]), max_size=40), st.integers(1, 4))
def test_a_streak_is_found_where_an_oracle_finds_it(said: list[str], threshold: int) -> None:
    """Failures in a row; a refusal neither counts nor ends a row; after a finding the row begins anew."""
    calls = [seen(n, n, status=status, code="tool.error") for n, status in enumerate(said)]
    expected, row = [], 0
    for number, status in enumerate(said):
        row = 0 if status == "completed" else row + (status != "refused")
        if status in ("failed", "unknown") and row == threshold:
            expected.append(number)
            row = 0

    rules = ruleset({"id": "streak", "kind": "streak", "threshold": threshold})

    assert expected == broken_by(fold(rules, calls), calls)


# --- spike ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=14), st.integers(1, 3))
def test_a_spike_is_found_where_an_oracle_finds_it(counts: list[int], periods: int) -> None:
    """The first call of a period that reaches both the least and the multiple of the mean of the periods before."""
    counts = [1, *counts]  # the first call begins the first period
    calls = [seen(1000 * p + n, 10 * p + n / 10) for p, count in enumerate(counts) for n in range(count)]
    expected, before, quiet, number = [], list[int](), -1.0, 0
    for period, count in enumerate(counts):
        for n in range(count):
            moment, mean = 10 * period + n / 10, sum(before[-periods:]) / periods
            if moment >= quiet:
                heard = n + 1 if 10 * period >= quiet else sum(10 * period + k / 10 >= quiet for k in range(n + 1))
                if len(before) >= periods and heard >= 4 and heard >= 2 * mean:
                    expected.append(number)
                    quiet = moment + 10
            number += 1
        before.append(count)

    rules = ruleset({"id": "spike", "kind": "spike", "window": 10, "periods": periods, "factor": 2, "least": 4})
    found = broken_by(fold(rules, calls), calls)

    assert expected[:1] == found[:1]


def test_a_steady_rate_is_no_spike_and_a_sudden_one_is() -> None:
    """And nothing is said before there is a mean."""
    rules = ruleset(
        {"id": "spike", "kind": "spike", "per": ["tenant"], "window": 10, "periods": 3, "factor": 5, "least": 20}
    )
    steady = [seen(n, n) for n in range(60)]
    sudden = [seen(100 + n, 60 + n / 20) for n in range(100)]

    assert [] == fold(rules, steady).findings
    [finding] = fold(rules, [*steady, *sudden]).findings
    assert "50 calls within 10 s, where the mean was 10.0" == finding.detail
    assert [] == fold(rules, sudden).findings
