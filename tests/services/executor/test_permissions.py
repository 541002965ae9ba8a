"""Default deny: who may call which tool, and what a tool may touch."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigError, SubjectError
from agentflow.project import Allow, Grant
from agentflow_executor.permissions import (
    ALLOWED,
    AccessPolicy,
    Decision,
    Permission,
    check_allow,
    grant_problem,
    parse_permission,
    principal_of,
)

NAMES = st.sampled_from(["a", "b", "c", "planner", "workflow"])


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("none", "none", ""),
        ("fs.tmp", "fs.tmp", ""),
        ("fs.read:book", "fs.read", "book"),
        ("fs.append:outbox", "fs.append", "outbox"),
        ("network.http", "network.http", ""),
        ("network.http:api.example.com", "network.http", "api.example.com"),
        ("network.dns", "network.dns", ""),
        ("db.read:tickets", "db.read", "tickets"),
        ("k8s.get:pods", "k8s.get", "pods"),
    ],
)
def test_known_permissions_are_read(text: str, kind: str, target: str) -> None:
    """Kind and target."""
    assert Permission(kind, target) == parse_permission(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all",
        "*",
        "fs.write:x",
        "fs.read",
        "fs.append:",
        "db.write",
        "none:x",
        "fs.tmp:/",
        "network",
        "network.ftp",
        "k8s",
    ],
)
def test_other_permissions_are_refused(text: str) -> None:
    """With what would be allowed; what is scoped needs its scope."""
    with pytest.raises(ConfigError) as caught:
        parse_permission(text)

    assert "permission.unknown" == caught.value.error_code
    assert "fs.append:<grant>" in str(caught.value)


# --- who asks ------------------------------------------------------------------------------------------------------


def test_the_principal_is_the_agent_or_the_workflow() -> None:
    """The planner calls for a run's state; the version does not matter."""
    assert "clerk" == principal_of("clerk", "")
    assert "clerk" == principal_of("clerk", "support@1.0.0"), "an agent does not borrow the rights of a workflow"
    assert "workflow:support" == principal_of("planner", "support@1.0.0")
    assert "workflow:support" == principal_of("planner", "support")


@pytest.mark.parametrize(
    ("sender", "workflow"), [("workflow:support", ""), ("", ""), ("a b", ""), ("planner", ""), ("planner", "@1")]
)
def test_nobody_passes_for_a_workflow(sender: str, workflow: str) -> None:
    """A sender is a token, and a colon is none."""
    with pytest.raises(SubjectError):
        principal_of(sender, workflow)


# --- may they ------------------------------------------------------------------------------------------------------


def policy() -> AccessPolicy:
    """Agents and workflows with a few tools; one tool lacks its grant."""
    allow = Allow(agents={"a": ["add", "send"]}, workflows={"a": ["send"], "b": []})
    return AccessPolicy(allow, {"add": ALLOWED, "send": Decision("permission.missing", "no outbox"), "drop": ALLOWED})


@pytest.mark.parametrize(
    ("principal", "tool", "code"),
    [
        ("a", "add", "allowed"),
        ("a", "drop", "tool.denied"),
        ("a", "fly", "tool.unknown"),
        ("nobody", "add", "tool.denied"),
        ("workflow:a", "add", "tool.denied"),
        ("workflow:a", "send", "permission.missing"),
        ("workflow:b", "add", "tool.denied"),
        ("b", "send", "tool.denied"),
    ],
)
def test_what_is_not_listed_is_denied(principal: str, tool: str, code: str) -> None:
    """An agent `a` and a workflow `a` are two principals."""
    decision = policy().decide(principal, tool)

    assert code == decision.code
    assert (code == "allowed") == decision.allowed
    assert bool(decision.message) != decision.allowed


@given(
    agents=st.dictionaries(NAMES, st.lists(NAMES)),
    workflows=st.dictionaries(NAMES, st.lists(NAMES)),
    tools=st.sets(NAMES),
    name=NAMES,
    tool=NAMES,
)
def test_allowed_is_exactly_what_a_list_says(
    agents: dict[str, list[str]], workflows: dict[str, list[str]], tools: set[str], name: str, tool: str
) -> None:
    """Neither an empty list, nor another's, nor a principal of the other kind with the same name opens anything."""
    access = AccessPolicy(Allow(agents, workflows), dict.fromkeys(tools, ALLOWED))

    assert access.decide(name, tool).allowed == (tool in tools and tool in agents.get(name, []))
    assert access.decide(f"workflow:{name}", tool).allowed == (tool in tools and tool in workflows.get(name, []))


def test_the_check_takes_less_than_a_tenth_of_a_millisecond() -> None:
    """With a thousand agents that may each call a hundred tools: the mean of ten thousand checks."""
    tools = {f"tool-{n}": ALLOWED for n in range(100)}
    access = AccessPolicy(Allow({f"agent-{n}": list(tools) for n in range(1000)}), tools)
    begun = time.perf_counter()
    for n in range(10_000):
        access.decide(f"agent-{n % 1000}", f"tool-{n % 100}")
    mean = (time.perf_counter() - begun) / 10_000

    assert mean < 100e-6


# --- grants --------------------------------------------------------------------------------------------------------

READ, APPEND = Grant("/x", "read"), Grant("/x", "append")


@pytest.mark.parametrize(
    ("permissions", "grants", "code"),
    [
        ([], {}, "allowed"),
        (["none"], {}, "allowed"),
        (["fs.append:outbox"], {"outbox": APPEND}, "allowed"),
        (["fs.append:outbox", "fs.read:book"], {"outbox": APPEND, "book": READ}, "allowed"),
        (["fs.append:outbox"], {}, "permission.missing"),
        (["fs.append:outbox"], {"inbox": APPEND}, "permission.missing"),
        (["fs.append:outbox"], {"outbox": READ}, "permission.missing"),
        (["fs.read:book"], {"book": APPEND}, "permission.missing"),
        (["none"], {"outbox": APPEND}, "grant.undeclared"),
        (["fs.read:book"], {"book": READ, "outbox": APPEND}, "grant.undeclared"),
    ],
)
def test_grants_are_what_a_tool_asks_for(permissions: list[str], grants: dict[str, Grant], code: str) -> None:
    """No less, no more, and in no other mode."""
    assert code == grant_problem([parse_permission(text) for text in permissions], grants).code


@pytest.mark.parametrize(
    ("allow", "place"),
    [
        (Allow(agents={"a": ["fly"]}), "allow.agents.a"),
        (Allow(workflows={"w": ["add", "fly"]}), "allow.workflows.w"),
        (Allow(agents={"a b": ["add"]}), "allow.agents.a b"),
        (Allow(workflows={"w@1": ["add"]}), "allow.workflows.w@1"),
    ],
)
def test_an_allow_list_that_cannot_be_meant_is_refused(allow: Allow, place: str) -> None:
    """A tool that is not there, or a name nobody can have, with file and place."""
    with pytest.raises(ConfigError, match=place) as caught:
        check_allow(allow, frozenset({"add"}), "agentflow.yaml")

    assert str(caught.value).startswith("agentflow.yaml: ")
