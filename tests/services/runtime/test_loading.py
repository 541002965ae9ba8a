"""Agents by name: found and checked before the first message, or refused with a code that says why."""

from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import ConfigError
from agentflow.project import AgentSpec
from agentflow_runtime.hosting import HostedAgent, is_async
from agentflow_runtime.loading import load_agent, load_agents
from tests.services.runtime import sample_agents
from tests.services.runtime.sample_agents import Greeter

SAMPLES = sample_agents.__name__


def spec(name: str, **more: Any) -> AgentSpec:
    """A sample agent as a project file names it."""
    return AgentSpec(f"{SAMPLES}:{name}", **more)


def facts(agent: HostedAgent) -> tuple[str, str, int]:
    """What is declared of an agent."""
    return agent.declaration.id, agent.declaration.description, agent.declaration.concurrency


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Greeter", ("greeter", "Greets by name.", 3)),
        ("Described", ("described", "Told instead", 3)),
        ("shout", ("shouter", "Shouts.", 2)),
        ("whisper", ("whisper", "Whispers.", 8)),
        ("Plain", ("plain", "Fulfils the protocol without deriving from anything.", 8)),
        ("Holder.Inner", ("greeter", "Greets by name.", 3)),
    ],
)
def test_an_agent_of_every_kind_is_found_by_name(name: str, expected: tuple[str, str, int]) -> None:
    """Class, subclass, decorated and plain function, plain class, nested name."""
    assert facts(load_agent(spec(name))) == expected


def test_the_project_file_overrides_id_and_concurrency_and_gives_settings() -> None:
    """One class can be hosted under several names, each with its own settings."""
    agent = load_agent(spec("Greeter", id="polite", concurrency=1, settings={"tone": "warm"}))
    assert (agent.id, agent.concurrency, agent.consumer) == ("polite", 1, "agent-polite")
    assert agent.settings == {"tone": "warm"}
    assert facts(load_agent(spec("Nameless", id="named")))[0] == "named"


@pytest.mark.parametrize(
    ("use", "code", "said"),
    [
        ("greeter", "agent.not_found", "not of the form module:Name"),
        (":Greeter", "agent.not_found", "not of the form module:Name"),
        ("module:", "agent.not_found", "not of the form module:Name"),
        (f"{SAMPLES}:Gre-eter", "agent.not_found", "not of the form module:Name"),
        ("no_such_module_here:Greeter", "agent.not_found", "No module named 'no_such_module_here'"),
        (f"{SAMPLES}.inner:Greeter", "agent.not_found", "sample_agents"),
        (f"{SAMPLES}:Missing", "agent.not_found", "has no Missing"),
        (f"{SAMPLES}:Greeter.missing", "agent.not_found", "has no Greeter.missing"),
        (f"{SAMPLES}:NUMBER", "agent.invalid", "is int; allowed are"),
        (f"{SAMPLES}:Nameless", "agent.invalid", "has no id"),
        (f"{SAMPLES}:Deaf", "agent.invalid", "has no on_message"),
        (f"{SAMPLES}:WrongHook", "agent.invalid", "on_message that cannot be called with 2 arguments"),
        (f"{SAMPLES}:NotAHook", "agent.invalid", "on_plan that cannot be called"),
        (f"{SAMPLES}:Demanding", "agent.invalid", "cannot be made without arguments"),
        (f"{SAMPLES}:Leaving", "agent.invalid", "SystemExit: 3"),
        (f"{SAMPLES}:BadId", "agent.invalid", "A-Z a-z 0-9 _ -"),
        (f"{SAMPLES}:LongId", "agent.invalid", "the name of its consumer"),
        (f"{SAMPLES}:Greedy", "agent.invalid", "allowed are 1 to 1000"),
        (f"{SAMPLES}:one_argument", "agent.invalid", "cannot be called with 2 arguments"),
    ],
)
def test_what_cannot_be_hosted_is_refused(use: str, code: str, said: str) -> None:
    """Code and message name what is wrong, and nothing else escapes."""
    with pytest.raises(ConfigError) as refused:
        load_agent(AgentSpec(use))
    assert refused.value.error_code == code
    assert said in refused.value.message


@pytest.mark.parametrize("concurrency", [0, -1, 1001, True])
def test_a_concurrency_outside_its_range_is_refused(concurrency: int) -> None:
    """No consumer could keep to it."""
    with pytest.raises(ConfigError, match="allowed are 1 to 1000"):
        load_agent(spec("Greeter", concurrency=concurrency))


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("import no_such_dependency", "agent.invalid", "no_such_dependency"),
        ("raise SystemExit(9)", "agent.invalid", "SystemExit: 9"),
        ("1 / 0", "agent.invalid", "ZeroDivisionError"),
        ("def broken(:", "agent.invalid", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_its_authors_fault(
    content: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing dependency is told apart from a missing agent, and `sys.exit` does not end the host."""
    (tmp_path / "faulty_agents.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as refused:
        load_agent(AgentSpec("faulty_agents:Greeter"))
    assert refused.value.error_code == code
    assert said in refused.value.message


def test_two_agents_with_one_id_are_refused() -> None:
    """They would take each other's messages."""
    with pytest.raises(ConfigError) as refused:
        load_agents([spec("Greeter"), spec("Holder.Inner")])
    assert (refused.value.error_code, refused.value.fields["agent"]) == ("agent.duplicate", "greeter")


def test_no_agent_at_all_is_refused() -> None:
    """A runtime that hosts nothing is a mistake."""
    with pytest.raises(ConfigError) as refused:
        load_agents([])
    assert refused.value.error_code == "agent.none"


def test_several_agents_keep_their_order() -> None:
    """As the project file lists them."""
    agents = load_agents([spec("shout"), spec("Greeter"), spec("Greeter", id="again")])
    assert [agent.id for agent in agents] == ["shouter", "greeter", "again"]


def test_the_instance_that_was_checked_is_the_one_that_is_used() -> None:
    """A costly constructor runs once; only a restart makes another instance."""
    agent = load_agent(spec("Counted"))
    first = agent.create()
    assert len(sample_agents.made) == 1
    assert getattr(first.on_message, "__self__", None) is sample_agents.made[0]
    agent.create()
    assert len(sample_agents.made) == 2


def test_an_agent_defines_on_plan_or_has_none() -> None:
    """The base class defines none, so that `on_message` alone can make the output."""
    assert load_agent(spec("Greeter")).create().on_plan is None
    assert load_agent(spec("Plain")).create().on_plan is not None


class Callable:
    """An object that is called like a coroutine function."""

    async def __call__(self) -> None:
        """Do nothing."""


def test_what_is_asynchronous_is_recognised() -> None:
    """Everything else runs in a thread."""
    assert [is_async(hook) for hook in (Greeter().on_message, Callable(), sample_agents.whisper)] == [True, True, False]
