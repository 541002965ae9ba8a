"""A mesh on this machine: everything is started, watched, and stopped, and nothing is ever left behind."""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from agentflow.clock import SystemClock
from agentflow.definitions import Applied
from agentflow.errors import ConfigError, DefinitionError, MeshError
from agentflow.local import mesh as local_mesh
from agentflow.local import services, watch
from agentflow.local.events import ProcessEvent
from agentflow.local.mesh import LocalMesh, MeshOptions, reason_in, stages
from agentflow.local.processes import ChildProcess
from agentflow.local.running import meshes_alive
from agentflow.local.services import Program
from agentflow.mesh.connect import connect
from agentflow.mesh.embedded import EmbeddedServer
from agentflow.mesh.transport import Transport
from agentflow.registry import REGISTRY, WorkflowDeclaration
from tests.local.conftest import StubProgram
from tests.support.pids import gone, parent_of_one
from tests.support.waiting import eventually


def mode(**modes: str) -> dict[str, dict[str, str]]:
    """What each stub shall do."""
    return {name: {"STUB_MODE": text} for name, text in modes.items()}


def descendants() -> set[int]:
    """The processes below this one that live."""
    return {child.pid for child in psutil.Process().children(recursive=True) if not gone(child.pid)}


def with_workflows(project: Path, *names: str) -> None:
    """Let the project have workflows."""
    project.write_text(f"agents: [{{use: 'agents:one'}}]\nworkflows: [{', '.join(names)}]\n")


def is_up(told: list[ProcessEvent], name: str) -> bool:
    """Whether it was told that a process is up again."""
    return ("up", name) in [(event.event, event.process) for event in told]


async def registered(url: str) -> list[str]:
    """What is in the registry."""
    transport = await connect(url)
    try:
        return [entry.key.split(".")[0] for entry in await (await transport.bucket(REGISTRY)).entries()]
    finally:
        await transport.close()


# --- a sound one ---------------------------------------------------------------------------------------------------


async def test_a_mesh_is_ready_when_every_service_has_announced_itself(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """Each is a process of its own, with a log of its own."""
    async with LocalMesh.running(tmp_path / "data", project=project) as mesh:
        assert ["executor", "planner", "runtime"] == sorted(await registered(mesh.url))
        assert 3 == len({child.pid for child in mesh.processes()})
        for name in stubs:
            assert f"stub-{name}" in (mesh.logs / f"{name}.log").read_text()
        assert (mesh.logs / "nats-server.log").exists()


async def test_it_stops_in_order_and_leaves_nothing_behind(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """Services drain and end well while the server is still there."""
    before, notes = descendants(), list[str]()
    async with LocalMesh.running(tmp_path / "data", project=project, note=notes.append) as mesh:
        assert 4 == len(descendants() - before)

    assert before == descendants()
    assert {0} == {child.exit_code for child in mesh.processes()}
    assert not [note for note in notes if "ended" in note]
    assert all("service.stopped" in (mesh.logs / f"{name}.log").read_text() for name in stubs)


async def test_nothing_is_left_of_an_ephemeral_mesh(stubs: dict[str, Program], project: Path) -> None:
    """Neither processes nor files."""
    async with LocalMesh.running(project=project) as mesh:
        assert mesh.directory.is_dir()

    assert not mesh.directory.exists()


async def test_a_service_can_have_several_processes_or_none(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """The first keeps the plain name of its log."""
    options = MeshOptions(processes={"planner": 2, "executor": 0})
    async with LocalMesh.running(tmp_path / "data", project=project, options=options) as mesh:
        assert ["planner", "planner", "runtime"] == sorted(await registered(mesh.url))
        assert {"planner": 2, "runtime": 1, "executor": 0} == {name: len(c) for name, c in mesh.services.items()}

    assert {"planner.log", "planner-2.log", "runtime.log"} < {path.name for path in mesh.logs.iterdir()}


async def test_services_are_told_where_the_mesh_and_the_project_are(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And get what was given for one of them, or for all; a project in our own environment is not theirs."""
    monkeypatch.setenv("AF_PROJECT", "/elsewhere/agentflow.yaml")
    options = MeshOptions(
        environment={"*": {"AF_LOG_LEVEL": "debug"}, "planner": {"AF_CRASH_AT": "planner.after_commands"}}
    )
    async with LocalMesh.running(tmp_path / "data", project=project, options=options) as mesh:
        environments = {child.name: psutil.Process(child.pid).environ() for child in mesh.processes()}

    for name, found in environments.items():
        assert (mesh.url, str(project), "debug") == (found["AF_NATS_URL"], found["AF_PROJECT"], found["AF_LOG_LEVEL"])
        assert found["AF_MONITOR_URL"].startswith("http://127.0.0.1:")
        assert ("AF_CRASH_AT" in found) == (name == "planner")


async def test_services_run_beside_the_project_file(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """So that the modules it names are found."""
    async with LocalMesh.running(tmp_path / "data", project=project) as mesh:
        assert {str(project.parent)} == {psutil.Process(child.pid).cwd() for child in mesh.processes()}


async def test_a_project_without_agents_needs_no_runtime(stubs: dict[str, Program], tmp_path: Path) -> None:
    """It is noted, and the rest runs."""
    notes = list[str]()
    async with LocalMesh.running(tmp_path / "data", note=notes.append) as mesh:
        assert {"planner", "executor"} == set(mesh.services)

    assert any("no runtime" in note for note in notes)


async def test_a_running_mesh_can_be_found(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """While it runs, and not afterwards."""
    async with LocalMesh.running(tmp_path / "data", project=project, options=MeshOptions(kind="demo")) as mesh:
        [found] = meshes_alive()
        assert ("demo", mesh.url, str(mesh.directory), os.getpid()) == (
            found.kind,
            found.url,
            found.data_dir,
            found.pid,
        )
        assert (mesh.directory / "mesh.json").exists()

    assert [] == meshes_alive()
    assert not (mesh.directory / "mesh.json").exists()


async def test_a_directory_can_be_used_again(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """What was stored is there; streams that exist are no error."""
    for _ in range(2):
        async with LocalMesh.running(tmp_path / "data", project=project):
            pass


# --- workflows -----------------------------------------------------------------------------------------------------


async def test_the_workflows_of_a_project_are_applied(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the services are ready, because they declare what workflows may name."""
    with_workflows(project, "flows/one.yaml", "flows/two.yaml")
    paths, notes = list[Path](), list[str]()

    async def apply(transport: Transport, path: Path, now: object) -> Applied:
        assert 3 == len(await (await transport.bucket(REGISTRY)).entries())
        paths.append(path)
        return Applied(WorkflowDeclaration(path.stem, "1.0.0", "fsm", "0" * 64, ""), new=True, warnings=f"{path}: hm")

    monkeypatch.setattr(local_mesh, "apply_definition", apply)
    async with LocalMesh.running(tmp_path / "data", project=project, note=notes.append) as mesh:
        assert ["one", "two"] == [applied.declaration.name for applied in mesh.applied]

    assert [project.parent / "flows" / "one.yaml", project.parent / "flows" / "two.yaml"] == paths
    assert sum(note.endswith(": hm") for note in notes) == 2


async def test_a_workflow_that_is_refused_ends_the_start(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left running."""
    with_workflows(project, "one.yaml")
    before = descendants()

    async def refuse(*_: object) -> Applied:
        raise DefinitionError("one.yaml:3: no")

    monkeypatch.setattr(local_mesh, "apply_definition", refuse)
    with pytest.raises(DefinitionError):
        await LocalMesh(tmp_path / "data", project=project).start()
    assert before == descendants()


# --- what can go wrong at the start --------------------------------------------------------------------------------


async def test_a_service_that_ends_at_once_says_why(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """The reason is the last thing it logged; the others are stopped."""
    before = descendants()
    mesh = LocalMesh(tmp_path / "data", project=project, options=MeshOptions(environment=mode(planner="exit")))

    with pytest.raises(MeshError, match="the stub was told to fail") as caught:
        await mesh.start()
    assert ("service.exited", "planner") == (caught.value.error_code, caught.value.fields["service"])
    assert str(mesh.logs / "planner.log") in str(caught.value.fields["hint"])
    assert before == descendants()


async def test_a_service_that_never_announces_itself_is_given_up(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a deadline."""
    monkeypatch.setattr(local_mesh, "READY_TIMEOUT", 0.5)
    before = descendants()
    mesh = LocalMesh(tmp_path / "data", project=project, options=MeshOptions(environment=mode(runtime="silent")))

    with pytest.raises(MeshError, match=r"was not ready within 0\.5 s") as caught:
        await mesh.start()
    assert "service.not_ready" == caught.value.error_code
    assert before == descendants()


async def test_a_start_that_is_interrupted_leaves_nothing_behind(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the middle of it."""
    before = descendants()
    mesh = LocalMesh(tmp_path / "data", project=project, options=MeshOptions(environment=mode(runtime="silent")))
    starting = asyncio.create_task(mesh.start())
    await eventually(lambda: len(mesh.processes()) == 3, "the services' start")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert before == descendants()


async def test_what_is_not_installed_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started; a service that may be missing is only noted."""
    monkeypatch.setattr(services, "installed_programs", lambda: {"planner": Program("planner", "agentflow_planner")})

    with pytest.raises(ConfigError) as caught:
        await LocalMesh(tmp_path / "data", project=project).start()
    assert ("service.not_installed", ["executor", "runtime"]) == (
        caught.value.error_code,
        caught.value.fields["missing"],
    )
    assert not (tmp_path / "data").exists()


async def test_a_mesh_cannot_be_made_without_streams(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is installed that makes them."""
    monkeypatch.setattr(services, "PROVISIONERS", "agentflow.nothing")

    with pytest.raises(ConfigError) as caught:
        await LocalMesh(tmp_path / "data", project=project).start()
    assert "provisioner.not_installed" == caught.value.error_code


async def test_a_port_in_use_ends_the_start(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """With the server's error."""
    async with LocalMesh.running(tmp_path / "one", project=project) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(MeshError) as caught:
            await LocalMesh(tmp_path / "two", project=project, options=MeshOptions(port=port)).start()
    assert "server.port_in_use" == caught.value.error_code


async def test_drift_of_streams_is_told(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """A directory from another version may hold streams that differ; nothing is overwritten in silence."""
    async with LocalMesh.running(tmp_path / "data", project=project) as mesh:
        transport = await connect(mesh.url)
        info = await transport.stream_info("AF_DEAD")
        assert info is not None
        await transport.update_stream({**info.config, "max_bytes": 64 * 1024 * 1024})
        await transport.close()
    notes = list[str]()
    async with LocalMesh.running(tmp_path / "data", project=project, note=notes.append):
        pass

    assert [note for note in notes if "AF_DEAD" in note and "max_bytes" in note]


# --- while it runs -------------------------------------------------------------------------------------------------


async def test_what_ends_by_itself_is_started_again(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a note, and without the crash point of its first life."""
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.05)
    notes = list[str]()
    options = MeshOptions(environment={"planner": {"AF_CRASH_AT": "planner.after_commands"}})
    async with LocalMesh.running(tmp_path / "data", project=project, options=options, note=notes.append) as mesh:
        [planner] = mesh.services["planner"]
        first = planner.pid
        await planner.kill()
        await eventually(lambda: planner.running and planner.pid != first, "another planner")
        await eventually(lambda: any("planner is up again after" in note for note in notes), "word of it", within=30)

        assert "stub.ready" in "\n".join(planner.last_lines())
        assert "AF_CRASH_AT" not in psutil.Process(planner.pid).environ()
    assert [note for note in notes if "planner was killed by SIGKILL: starting it again in 0.05 s" in note]


async def test_a_service_that_keeps_ending_is_started_less_and_less_often(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses grow, so that a broken service does not eat the machine."""
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.01)
    notes = list[str]()
    options = MeshOptions(environment=mode(planner="brief"))
    async with LocalMesh.running(tmp_path / "data", project=project, options=options, note=notes.append) as mesh:
        await eventually(lambda: mesh._watch.restarts >= 2, "two restarts")

    assert len([note for note in notes if "planner ended by itself with 0" in note]) >= 2


async def test_a_watch_that_fails_does_not_stand_in_the_way_of_a_stop(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it stumbled over is noted, and everything is stopped."""
    before, notes = descendants(), list[str]()

    def stumble(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(watch.Watch, "_revive", stumble)
    async with LocalMesh.running(tmp_path / "data", project=project, note=notes.append) as mesh:
        await mesh.services["planner"][0].kill()
        task = mesh._watch._task
        assert task is not None
        await asyncio.wait({task}, timeout=10)

    assert [note for note in notes if "ZeroDivisionError: oh" in note]
    assert before == descendants()


async def test_a_server_that_is_killed_is_started_again(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """At the same address; services find it by themselves."""
    async with LocalMesh.running(tmp_path / "data", project=project) as mesh:
        url, pid = mesh.url, mesh.server.pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: mesh.server.alive and mesh.server.pid != pid, "another server")
        assert url == mesh.url

        await eventually(lambda: mesh._watch.restarts == 1, "the registry")

        async def back() -> bool:
            return sorted(await registered(url)) == ["executor", "planner", "runtime"]

        await eventually(back, "the services' return", within=20)
        assert all(child.running for child in mesh.processes())


async def test_what_happens_to_processes_is_told_in_order(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """Service and server: killed, by which signal, and up again: not started only, but at work."""
    told = list[ProcessEvent]()
    async with LocalMesh.running(tmp_path / "data", project=project, told=told.append) as mesh:
        for name, kill in (("runtime", mesh.services["runtime"][0].kill), ("nats-server", mesh.server.kill)):
            await kill()
            await eventually(partial(is_up, told, name), name, within=30)

    of = {name: [event for event in told if event.process == name] for name in ("runtime", "nats-server")}
    assert ["ended", "starting", "up"] == [event.event for event in of["runtime"]]
    assert ["ended", "up"] == [event.event for event in of["nats-server"]]
    assert {"SIGKILL"} == {events[0].signal for events in of.values()}
    assert of["runtime"][1].pid == of["runtime"][2].pid
    assert (of["runtime"][2].down or 0.0) >= watch.FIRST_PAUSE


async def test_a_server_that_does_not_start_is_tried_less_and_less_often(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is told with its reason and the pause, and the pauses grow."""
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.01)
    told = list[ProcessEvent]()

    async def refuse(_: object) -> None:
        raise MeshError("no room")

    async with LocalMesh.running(tmp_path / "data", project=project, told=told.append) as mesh:
        monkeypatch.setattr(EmbeddedServer, "restart", refuse)
        await mesh.server.kill()
        await eventually(lambda: len([e for e in told if e.event == "failed"]) >= 3, "three failures", within=30)

    failed = [event for event in told if event.event == "failed"]
    assert {"no room"} == {event.detail for event in failed}
    pauses = [event.pause or 0.0 for event in failed[:3]]
    assert sorted(set(pauses)) == pauses


async def test_a_mesh_that_is_not_watched_leaves_the_dead_alone(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """Tests that kill things want to decide themselves; a service can be started again by hand."""
    async with LocalMesh.running(tmp_path / "data", project=project, options=MeshOptions(watched=False)) as mesh:
        [planner] = mesh.services["planner"]
        await planner.kill()
        await asyncio.sleep(2 * watch.LOOK_EVERY)
        assert not planner.running
        planner.start()
        await eventually(lambda: "stub.ready" in "\n".join(planner.last_lines()), "its start")


async def test_what_does_not_end_is_killed_and_told(stubs: dict[str, Program], project: Path, tmp_path: Path) -> None:
    """A stop has a deadline; the others end well."""
    notes = list[str]()
    options = MeshOptions(environment=mode(planner="deaf"))
    mesh = LocalMesh(tmp_path / "data", project=project, options=options, note=notes.append)
    await mesh.start()
    await mesh.stop(deadline=1.0)
    await mesh.stop()

    assert {"executor": 0, "planner": -signal.SIGKILL, "runtime": 0} == {c.name: c.exit_code for c in mesh.processes()}
    assert [note for note in notes if "planner ended with -9" in note]


async def test_the_runtime_is_stopped_while_what_its_handlers_wait_for_still_runs(
    stubs: dict[str, Program], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then executor and detector, then the planner; the server is there to the end."""
    stubs["detector"] = StubProgram("detector", "stub")
    mesh = LocalMesh(tmp_path / "data", project=project, options=MeshOptions(processes={"runtime": 2}))
    stop, seen = ChildProcess.stop, dict[str, set[str]]()

    async def watched(child: ChildProcess, deadline: float = 10.0) -> int | None:
        if child in mesh.processes():
            assert mesh.server.alive
            seen[child.name] = {other.name for other in mesh.processes() if other.running}
        return await stop(child, deadline)

    await mesh.start()
    monkeypatch.setattr(ChildProcess, "stop", watched)
    await mesh.stop()
    await mesh.stop()

    everything = {"runtime", "runtime-2", "executor", "detector", "planner"}
    assert everything == set(seen)
    assert seen["runtime"] == everything
    for name in ("executor", "detector"):
        assert {"executor", "detector", "planner"} >= seen[name] >= {name, "planner"}
    assert {"planner"} == seen["planner"]
    assert {0} == {child.exit_code for child in mesh.processes()}


async def test_a_runtime_that_takes_all_the_time_leaves_the_others_enough_to_end_well(
    stubs: dict[str, Program], project: Path, tmp_path: Path
) -> None:
    """The deadline is for all of them, but none is killed for another's sake."""
    mesh = LocalMesh(tmp_path / "data", project=project, options=MeshOptions(environment=mode(runtime="deaf")))
    await mesh.start()
    async with asyncio.timeout(10):
        await mesh.stop(deadline=1.0)

    assert {"executor": 0, "planner": 0, "runtime": -signal.SIGKILL} == {c.name: c.exit_code for c in mesh.processes()}


def test_services_are_stopped_in_stages() -> None:
    """One nobody knows is stopped with the first; what is not there makes no stage."""
    assert [["runtime", "new"], ["executor", "detector"], ["planner"]] == stages(
        ["executor", "planner", "runtime", "detector", "new"]
    )
    assert [["planner"]] == stages(["planner"])
    assert [] == stages([])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_nothing_is_left_of_a_mesh_whose_process_is_killed(project: Path, tmp_path: Path) -> None:
    """Server and services die with it, and nobody takes its file for a running mesh."""
    code = f"""
import asyncio
from pathlib import Path
import agentflow.local.services as services
from tests.local.conftest import StubProgram
from agentflow.local.mesh import LocalMesh
services.installed_programs = lambda: {{name: StubProgram(name, "stub") for name in services.REQUIRED}}
async def main():
    mesh = await LocalMesh(Path({str(tmp_path / "data")!r}), project=Path({str(project)!r})).start()
    print(mesh.server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    parent, _ = await parent_of_one(code)
    family = [process.pid for process in psutil.Process(parent.pid).children(recursive=True)]
    assert 4 == len(family)
    assert 1 == len(meshes_alive())
    parent.kill()
    await parent.wait()

    await eventually(lambda: all(map(gone, family)), "the end of all of them")
    assert [] == meshes_alive()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "it logged nothing"),
        (["", "Traceback", "KeyError: 'x'", ""], "KeyError: 'x'"),
        (['{"event":"service.failed","reason":"no agent"}', ""], "no agent"),
        (['{"reason":"first"}', '{"event":"service.stopped"}'], "first"),
        (["plain", "[1]"], "[1]"),
    ],
)
def test_the_reason_of_an_end_is_read_from_the_log(lines: list[str], expected: str) -> None:
    """A reason in a JSON line comes before text that is only last."""
    assert expected == reason_in(lines)


def test_a_mesh_takes_its_time_from_a_clock() -> None:
    """The system's, unless it is given another."""
    assert isinstance(LocalMesh()._clock, SystemClock)
