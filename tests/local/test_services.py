"""Which programs a mesh starts: found by entry point, required or not."""

import sys
from importlib.metadata import EntryPoint

import pytest

from agentflow.errors import ConfigError
from agentflow.local import services
from agentflow.local.services import Program, installed_programs, installed_provisioners, programs_to_start
from agentflow.mesh.transport import Transport


def install(monkeypatch: pytest.MonkeyPatch, group: str, **targets: str) -> None:
    """Let only these entry points be installed."""
    points = [EntryPoint(name, target, group) for name, target in targets.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [p for p in points if p.group == group])


def test_a_service_is_run_as_a_module_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m agentflow_planner`, whatever the name of its script."""
    install(monkeypatch, services.SERVICES, planner="agentflow.__main__:main", tool="agentflow.cli.app:main")

    found = installed_programs()
    assert [sys.executable, "-m", "agentflow"] == found["planner"].argv
    assert [sys.executable, "-m", "agentflow.cli.app"] == found["tool"].argv


def test_an_entry_point_that_leads_nowhere_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution may announce what it does not have yet."""
    install(
        monkeypatch,
        services.SERVICES,
        detector="agentflow.no_such_module:main",
        other="no_such_package.__main__:main",
        planner="agentflow.__main__:main",
    )

    assert ["planner"] == list(installed_programs())


def programs(*names: str) -> dict[str, Program]:
    """Programs of those names."""
    return {name: Program(name, f"module_{name}") for name in names}


def test_everything_that_is_installed_is_started() -> None:
    """Required services and optional ones, and no stranger."""
    wanted, absent = programs_to_start(programs("planner", "runtime", "executor", "detector", "stranger"))

    assert ["executor", "planner", "runtime", "detector"] == [program.name for program in wanted]
    assert [] == absent


def test_a_mesh_goes_without_what_is_optional() -> None:
    """And says so."""
    wanted, absent = programs_to_start(programs("planner", "runtime", "executor"))

    assert ["executor", "planner", "runtime"] == [program.name for program in wanted]
    assert ["detector"] == absent


@pytest.mark.parametrize("missing", ["planner", "runtime", "executor"])
def test_a_mesh_does_not_go_without_what_is_required(missing: str) -> None:
    """The error names what to install."""
    names = {"planner", "runtime", "executor", "detector"} - {missing}

    with pytest.raises(ConfigError, match=missing) as caught:
        programs_to_start(programs(*names))
    assert f"pip install agentflow-{missing}" == caught.value.fields["hint"]


async def provision(transport: Transport) -> None:
    """Make nothing."""


def test_provisioners_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them; none is an error."""
    install(monkeypatch, services.PROVISIONERS, streams=f"{__name__}:provision")
    assert ["provision"] == [each.__name__ for each in installed_provisioners()]

    install(monkeypatch, services.PROVISIONERS)
    with pytest.raises(ConfigError, match="nothing is installed"):
        installed_provisioners()
