"""Rules files: the shipped one is sound, and every other one is read or refused with the place and what is allowed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agentflow_detector.errors import RulesError
from agentflow_detector.loading import load_rules, shipped_text
from agentflow_detector.rules import RateRule, RuleSet, ScopeRule, SequenceRule, parse_rules
from tests.services.detector.histories import pair, rapid, ruleset


def refused(content: Any) -> RulesError:
    """The error a content is refused with."""
    with pytest.raises(RulesError) as caught:
        parse_rules(content, "rules.yaml")
    assert "rules.yaml" in str(caught.value)
    return caught.value


def test_the_shipped_rules_cover_what_they_should() -> None:
    """A rate, a pair, permissions, a streak and spikes; each says in a sentence what it is about."""
    rules = load_rules().rules

    assert {"rate", "sequence", "scope", "streak", "spike"} == {type(rule).__struct_config__.tag for rule in rules}
    assert all(rule.about.endswith(".") for rule in rules)
    [scope] = [rule for rule in rules if isinstance(rule, ScopeRule)]
    assert scope.blocks
    [sequence] = [rule for rule in rules if isinstance(rule, SequenceRule)]
    assert (300, ("db.write",)) == (sequence.window, sequence.first.permissions)


def test_the_shipped_rules_let_a_busy_mesh_alone() -> None:
    """What blocks by count is about one run; what is about a caller in all its runs only tells."""
    rates = [rule for rule in load_rules().rules if isinstance(rule, RateRule) and not rule.match.status]

    assert {"run"} == {rule.per[0] for rule in rates if rule.blocks}
    assert all(rule.threshold >= 30 for rule in rates if not rule.match.codes)


def test_a_file_is_read_as_yaml_or_json(tmp_path: Path) -> None:
    """JSON is YAML; both are the same rules with the same digest."""
    content = {"version": "7", "rules": [rapid(), pair()]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "b.json").write_bytes(msgspec.json.encode(content))

    one, other = load_rules(tmp_path / "a.yaml"), load_rules(tmp_path / "b.json")

    assert one == other == ruleset(rapid(), pair(), version="7")
    assert one.digest == other.digest


def test_the_digest_of_a_rule_is_that_of_all_its_members() -> None:
    """Another threshold is another rule; another rule beside it is not."""
    [rule], [same, _], [other] = (
        ruleset(rapid()).rules,
        ruleset(rapid(), pair()).rules,
        ruleset(rapid(threshold=4)).rules,
    )

    assert rule.digest == same.digest
    assert rule.digest != other.digest
    assert ruleset(rapid()).digest != ruleset(rapid(), version="8").digest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "Expected `object`"),
        ({"version": "1", "rules": []}, "0 rules; allowed are 1 to 64"),
        ({"version": "1", "rules": [rapid()] * 65}, "65 rules"),
        ({"version": "1", "rules": [rapid(), rapid()]}, "rules[1].id: 'rapid' is also the id of rules[0]"),
        ({"version": "1", "rules": [rapid(threshold=0)]}, "$.rules[0].threshold"),
        ({"version": "1", "rules": [rapid(threshold=1001)]}, "$.rules[0].threshold"),
        ({"version": "1", "rules": [rapid(window=-1)]}, "$.rules[0].window"),
        ({"version": "1", "rules": [rapid(kind="magic")]}, "Invalid value 'magic'"),
        ({"version": "1", "rules": [rapid(id="No Id")]}, "$.rules[0].id"),
        ({"version": "1", "rules": [rapid(treshold=3)]}, "unknown field `treshold`"),
        ({"version": "1", "rules": [rapid(per=[])]}, "rules[0].per"),
        ({"version": "1", "rules": [rapid(per=["tool", "tool"])]}, "each once"),
        ({"version": "1", "rules": [rapid(per=["colour"])]}, "Invalid enum value 'colour'"),
        ({"version": "1", "rules": [rapid(block=[])]}, "rules[0].block: nothing, though"),
        ({"version": "1", "rules": [rapid(actions=["flag"])]}, "auto_block is missing"),
        ({"version": "1", "rules": [rapid(actions=["delete"])]}, "Invalid enum value 'delete'"),
        ({"version": "1", "rules": [rapid(match={"status": ["maybe"]})]}, "$.rules[0].match.status"),
        ({"version": "1", "rules": [pair(match={"tools": ["a"]})]}, "first and then"),
        ({"version": "1", "rules": [{"id": "s", "kind": "scope", "per": ["run"]}]}, "allowed is [tool]"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(content: Any, told: str) -> None:
    """Nothing is guessed and no key is ignored."""
    error = refused(content)

    assert told in str(error)
    assert "rules.invalid" == error.error_code
    assert 2 == error.exit_code


@pytest.mark.parametrize("text", ["a: [", "version: '1'\nversion: '2'\nrules: []", "\x00"])
def test_a_file_that_is_no_yaml_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    """A key that stands twice too: one of the two would be dropped in silence."""
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(RulesError, match=r"rules\.yaml"):
        load_rules(path)


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    """The shipped rules never step in for it."""
    with pytest.raises(RulesError, match="nowhere") as caught:
        load_rules(tmp_path / "nowhere.yaml")

    assert "rules.unreadable" == caught.value.error_code


def test_the_shipped_file_says_how_to_replace_it() -> None:
    """Who opens it reads where to go on."""
    assert "AF_DETECTOR_RULES" in shipped_text()
    assert isinstance(load_rules(), RuleSet)
