"""The command: what it takes, what it refuses before it connects, and a whole life from start to SIGTERM."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow import logs
from agentflow.agent import Agent
from agentflow.errors import ConfigError
from agentflow.mesh.memory import MemoryTransport
from agentflow.project import AgentSpec, Project, load_project
from agentflow_runtime.__main__ import find_agents, main, service_spec
from agentflow_streams.provision import provision
from tests.services.runtime import sample_agents
from tests.services.runtime.harness import Desk, class_agent, step, until

GREETER = f"{sample_agents.__name__}:Greeter"


def test_help_names_everything_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """With an example, and without connecting anywhere."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in said for word in ("--project", "--nats-url", "module:Class", "example:"))


def test_it_starts_as_a_module() -> None:
    """`python -m agentflow_runtime`, in a process of its own."""
    command = [sys.executable, "-m", "agentflow_runtime", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("usage: agentflow-runtime")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error[agent.none]: no agent to host"),
        (["no_such_module_here:Agent"], "error[agent.not_found]: agent 'no_such_module_here:Agent'"),
        ([GREETER, GREETER], "error[agent.duplicate]"),
        (["--project", "/no/such/project.yaml"], "error[project.invalid]: /no/such/project.yaml"),
    ],
)
def test_what_cannot_be_hosted_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, no traceback, and no connection is tried."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_a_setting_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The variable is named."""
    monkeypatch.setenv("AF_CANCEL_GRACE", "-1")
    assert main([GREETER]) == 2
    assert "AF_CANCEL_GRACE" in capsys.readouterr().err


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test change where modules are looked for."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("own_path")
def test_agents_come_from_the_project_file_and_the_command_line(tmp_path: Path) -> None:
    """Modules beside the project file are found; settings and ids of the file hold."""
    (tmp_path / "beside_project.py").write_text(
        "from agentflow.agent import agent\n\n@agent('near')\nasync def near(ctx, input):\n    return input\n"
    )
    file = tmp_path / "project.yaml"
    file.write_text("agents:\n  - use: beside_project:near\n    id: renamed\n    settings: {tone: warm}\n")
    agents = find_agents(load_project(file), [GREETER])
    assert [agent.id for agent in agents] == ["renamed", "greeter"]
    assert agents[0].settings == {"tone": "warm"}


@pytest.mark.usefixtures("own_path")
def test_a_project_and_an_argument_may_not_claim_the_same_id() -> None:
    """Whoever it comes from."""
    with pytest.raises(ConfigError, match="greeter"):
        find_agents(Project(agents=[AgentSpec(GREETER)]), [GREETER])


def test_the_service_presents_itself_with_its_agents() -> None:
    """To `nats micro ls` and `info`."""
    spec = service_spec([class_agent(Agent, "one"), class_agent(Agent, "two")])
    assert (spec.name, spec.metadata) == ("agentflow-runtime", {"agents": "one,two"})
    assert spec.version.count(".") == 2


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a provisioned broker in this process; the process's logging is left as it is."""
    monkeypatch.setattr(logs, "configure", lambda *args, **kwargs: None)
    name = "runtime-main"
    asyncio.run(_provision(name))
    yield f"memory://{name}"
    MemoryTransport.forget(name)


async def _provision(name: str) -> None:
    await provision(MemoryTransport.named(name))


@pytest.mark.usefixtures("own_path")
def test_a_whole_life_from_start_to_sigterm(broker: str) -> None:
    """It serves a step, drains at SIGTERM, and exits 0."""
    outputs: list[object] = []

    async def use() -> None:
        desk = Desk(MemoryTransport.named("runtime-main"))
        outputs.append(await desk.output(await desk.send(step("greeter", {"name": "Ada"}))))
        await until(lambda: settled(desk))

    def client() -> None:
        try:
            asyncio.run(use())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=client)
    thread.start()
    assert main(["--nats-url", broker, GREETER]) == 0
    thread.join()
    assert outputs == [{"greeting": "Hello Ada"}]


async def settled(desk: Desk) -> bool:
    """Whether nothing of the agent is pending."""
    return await desk.pending("greeter") == 0


@pytest.mark.usefixtures("own_path")
def test_a_mesh_that_was_not_set_up_ends_it_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """3: something that is needed is not there."""
    monkeypatch.setattr(logs, "configure", lambda *args, **kwargs: None)
    try:
        assert main(["--nats-url", "memory://runtime-empty", GREETER]) == 3
    finally:
        MemoryTransport.forget("runtime-empty")
