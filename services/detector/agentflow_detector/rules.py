"""The rules: data, checked before anything is watched. Pure.

A rules file has a `version` and a list of `rules`. Each rule has an `id`, a `kind`, and says `per` what it counts. The
digest of a rule is that of its members, so it is the same wherever it was written down; what a rule remembers is kept
under its digest, so a rule that was changed begins anew and the others go on.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentflow.envelope import brief, sha256_hex
from agentflow.payloads import Action, Severity
from agentflow_detector.errors import RulesError

Dimension = Literal["tool", "principal", "run", "tenant"]
"""What calls are told apart by. A call outside any run counts for its principal where `run` is asked for."""

Target = Literal["tool", "agent"]
"""What a breaker blocks: the tool, or whoever called (an agent, or the states of a workflow)."""

Status = Literal["completed", "failed", "refused", "unknown"]

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]

MAX_RULES = 64


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calls: every list that is given has to hold the call's own value; an empty one takes all."""

    tools: tuple[Name, ...] = ()
    principals: tuple[Name, ...] = ()
    """Agent ids, or `workflow:<name>`."""
    tenants: tuple[Name, ...] = ()
    status: tuple[Status, ...] = ()
    codes: tuple[Name, ...] = ()
    """Of the failure, such as `tool.denied`."""
    permissions: tuple[Name, ...] = ()
    """One of them is enough; `db.write` also stands for `db.write:orders`."""


class RuleBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every rule has."""

    id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    about: str = ""
    """A sentence for people."""
    per: tuple[Dimension, ...] = ("tool", "principal")
    match: Match = Match()
    severity: Severity = "medium"
    actions: tuple[Action, ...] = ("flag",)
    """What is done at most; the operator's `AF_SECURITY_ANOMALY_ACTION` has to allow it too. Flagged it is always."""
    block: tuple[Target, ...] = ()
    block_seconds: Annotated[float, Meta(gt=0, le=86400)] = 60.0

    @property
    def digest(self) -> str:
        """Hex digest of the rule's members."""
        return sha256_hex(msgspec.json.encode(self, order="sorted"))

    @property
    def blocks(self) -> bool:
        """Whether it would trip breakers."""
        return "auto_block" in self.actions and bool(self.block)


class RateRule(RuleBase, frozen=True, tag_field="kind", tag="rate", kw_only=True):
    """So many calls within a window."""

    threshold: Annotated[int, Meta(ge=1, le=1000)]
    window: Seconds


class SequenceRule(RuleBase, frozen=True, tag_field="kind", tag="sequence", kw_only=True):
    """A call that is `then` within a window after one that was `first`; neither a refused one."""

    first: Match
    then: Match
    window: Seconds


class ScopeRule(RuleBase, frozen=True, tag_field="kind", tag="scope", kw_only=True):
    """A tool with a permission beyond its scope: what is listed for it, or what it had when it was first seen."""

    per: tuple[Dimension, ...] = ("tool",)
    scopes: dict[Name, tuple[Name, ...]] = {}
    """Permissions by tool; a tool that is not listed has the scope it was first seen with."""


class StreakRule(RuleBase, frozen=True, tag_field="kind", tag="streak", kw_only=True):
    """So many failures in a row; a refusal neither counts nor ends a row."""

    threshold: Annotated[int, Meta(ge=1, le=1000)]


class SpikeRule(RuleBase, frozen=True, tag_field="kind", tag="spike", kw_only=True):
    """More calls in a period than a multiple of the mean of the periods before."""

    window: Seconds
    """Length of a period."""
    periods: Annotated[int, Meta(ge=1, le=60)] = 6
    """Periods before that make the mean; until there are so many, nothing is said."""
    factor: Annotated[float, Meta(gt=1, le=1000)] = 10.0
    least: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    """Calls in a period below which there is no spike."""


Rule = RateRule | SequenceRule | ScopeRule | StreakRule | SpikeRule


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rules file."""

    version: Name
    rules: tuple[Rule, ...]

    @property
    def digest(self) -> str:
        """Hex digest of the whole."""
        return sha256_hex(msgspec.json.encode(self, order="sorted"))


def parse_rules(content: Any, where: str) -> RuleSet:
    """The rules in what a file holds; raises `RulesError` that names `where`, the place, what is there and allowed."""
    try:
        found = msgspec.convert(content, RuleSet)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _refused(where, "", brief(error)) from error
    if not 1 <= len(found.rules) <= MAX_RULES:
        raise _refused(where, "rules", f"{len(found.rules)} rules; allowed are 1 to {MAX_RULES}")
    seen: dict[str, int] = {}
    for at, rule in enumerate(found.rules):
        for place, problem in (*_problems(rule), *_taken(rule, seen)):
            raise _refused(where, f"rules[{at}].{place}", problem)
        seen[rule.id] = at
    return found


def _problems(rule: Rule) -> Iterator[tuple[str, str]]:
    """What the types alone let through."""
    if not rule.per or len(set(rule.per)) != len(rule.per):
        yield "per", f"{list(rule.per)}; allowed is at least one of tool, principal, run, tenant, each once"
    if isinstance(rule, ScopeRule) and rule.per != ("tool",):
        yield "per", f"{list(rule.per)}; a scope is that of a tool, allowed is [tool]"
    if "auto_block" in rule.actions and not rule.block:
        yield "block", "nothing, though the actions have auto_block; allowed are tool and agent"
    if rule.block and "auto_block" not in rule.actions:
        yield "actions", f"{list(rule.actions)}, though there is something to block; auto_block is missing"
    if isinstance(rule, SequenceRule) and rule.match != Match():
        yield "match", "a sequence says with first and then which calls it is about"


def _taken(rule: Rule, seen: dict[str, int]) -> Iterator[tuple[str, str]]:
    if rule.id in seen:
        yield "id", f"{rule.id!r} is also the id of rules[{seen[rule.id]}]; allowed is every id once"


def _refused(where: str, place: str, problem: str) -> RulesError:
    at = f"{where}: {place}: " if place else f"{where}: "
    return RulesError(f"{at}{problem}", where=where, place=place, found=problem)
