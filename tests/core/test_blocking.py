"""The blocking client: the same methods, delegated to a loop in a thread of its own."""

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import pytest

from agentflow import RunFailed, blocking, client, run
from agentflow.errors import NotStored, Unreachable
from agentflow.mesh.memory import MemoryTransport
from agentflow.runs import RunState
from agentflow.testing import memory_mesh
from tests.support.fake_planner import FakePlanner

NAME = "blocking-tests"
URL = f"memory://{NAME}"


@pytest.fixture
def mesh() -> Iterator[blocking.Client]:
    """A blocking client of a provisioned mesh in memory."""
    with blocking.Client.connect(URL) as connected:
        connected._loop.call(_provision(connected))
        yield connected
    MemoryTransport.forget(NAME)


async def _provision(connected: blocking.Client) -> None:
    """Give the named broker the streams of a mesh."""
    async with memory_mesh() as provisioned:
        for name in await provisioned.stream_names():
            info = await provisioned.stream_info(name)
            assert info is not None
            await connected._twin.transport.create_stream(info.config)


def planned(connected: blocking.Client, plan: Callable[[FakePlanner], Any]) -> None:
    """Let the planner of the mesh do something."""
    connected._loop.call(plan(FakePlanner(connected._twin.transport)))


def public_methods(kind: type) -> dict[str, inspect.Signature]:
    """The public methods of a class, with what they take."""
    members = inspect.getmembers(kind, inspect.isroutine)
    return {name: inspect.signature(member) for name, member in members if not name.startswith("_")}


def parameters(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults, without `self`."""
    found = [p for p in signature.parameters.values() if p.name != "self"]
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize(("blocked", "twin"), [(blocking.Client, client.Client), (blocking.Run, run.Run)])
def test_the_twins_have_the_same_methods(blocked: type, twin: type) -> None:
    """Names and parameters; only `open` is missing, because `connect` already gives a client that can be closed."""
    expected = {name: parameters(s) for name, s in public_methods(twin).items() if name != "open"}

    assert expected == {name: parameters(s) for name, s in public_methods(blocked).items()}


@pytest.mark.parametrize("kind", [blocking.Client, blocking.Run])
def test_delegated_methods_keep_their_documentation(kind: type) -> None:
    """`help(run.result)` says what it raises."""
    assert all(inspect.getdoc(getattr(kind, name)) for name in public_methods(kind))
    assert "RunTimeout" in (inspect.getdoc(blocking.Run.result) or "")


def test_a_run_from_submit_to_result(mesh: blocking.Client) -> None:
    """The types that come back are the blocking ones, and the checker knows them."""
    started = mesh.submit("greet", {"name": "Ada"}, id="run-1")
    assert_type(started, blocking.Run)
    planned(mesh, lambda planner: planner.accept("run-1"))
    state = started.state()
    assert_type(state, RunState)
    assert "running" == state.status
    started.signal("hurry", {"why": "late"})
    planned(mesh, lambda planner: planner.complete("run-1", {"greeting": "Hello"}))

    assert {"greeting": "Hello"} == started.result(timeout=5)
    assert "Run('run-1')" == repr(started)
    assert ["run-1"] == [listed.id for listed in mesh.runs(status="completed")]


def test_events_are_an_ordinary_iterator(mesh: blocking.Client) -> None:
    """In order, up to the end; left early, it is closed."""
    started = mesh.submit("greet", id="run-1")
    planned(mesh, lambda planner: planner.accept("run-1"))
    first = next(started.events())
    planned(mesh, lambda planner: planner.complete("run-1"))

    assert "goal.submitted/1" == first.schema
    assert ["goal.submitted/1", "goal.accepted/1", "run.completed/1"] == [event.schema for event in started.events()]


def test_errors_are_the_same(mesh: blocking.Client) -> None:
    """What the twin raises is raised here."""
    started = mesh.submit("greet", id="run-1")
    planned(mesh, lambda planner: planner.fail("run-1"))

    with pytest.raises(RunFailed, match="it broke"):
        started.result(timeout=5)
    with pytest.raises(NotStored):
        mesh.run("nobody").cancel()


def test_one_client_serves_many_threads(mesh: blocking.Client) -> None:
    """Each call waits by itself."""
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda number: mesh.submit("greet", id=f"run-{number}"), range(32)))

    assert 32 == len({each.id for each in submitted}) == len(mesh.runs())


def test_a_closed_client_leaves_no_thread_behind() -> None:
    """Closing again does nothing."""
    before = threading.active_count()
    connected = blocking.Client.connect("memory://blocking-close")
    assert before + 1 == threading.active_count()
    connected.close()
    connected.close()

    assert before == threading.active_count()
    MemoryTransport.forget("blocking-close")


def test_a_client_that_cannot_connect_leaves_no_thread_behind(unused_port: int) -> None:
    """The error is the caller's, the loop is gone."""
    before = threading.active_count()
    with pytest.raises(Unreachable):
        blocking.Client.connect(f"nats://127.0.0.1:{unused_port}", timeout=0.1)

    assert before == threading.active_count()


@pytest.fixture
def unused_port() -> int:
    """A port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
