"""Carrying out a plan of faults: against real processes, with a watch that is played by the test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from agentflow.clock import SystemClock
from agentflow.local.events import ProcessEvent
from agentflow.local.mesh import LocalMesh
from agentflow_support_desk import chaos
from agentflow_support_desk.chaos import PROCESSES, Storm, Wish, freeze, names_of, unleashed, until_growth
from agentflow_support_desk.errors import ChaosError, TooFewTicketsError
from tests.support.pids import gone
from tests.support.waiting import eventually, stays

NAMES = [name for names in names_of(PROCESSES).values() for name in names]


class FakeMesh:
    """Processes that sleep, under the names of a mesh; what is killed comes back when the test lets it."""

    def __init__(self) -> None:
        self.children = {name: self._sleeper() for name in NAMES}
        self.services = {service: [None] * count for service, count in PROCESSES.items()}

    def _sleeper(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])

    def pid_of(self, process: str) -> int:
        """As `LocalMesh.pid_of`."""
        return self.children[process].pid

    def revive(self, storm: Storm) -> None:
        """Play the watch: tell of those that ended, and start them again."""
        for name, child in self.children.items():
            if (code := child.poll()) is not None:
                storm.tell(ProcessEvent("ended", name, exit_code=code))
                self.children[name] = self._sleeper()
                storm.tell(ProcessEvent("up", name, pid=self.pid_of(name), down=0.1))

    def end(self) -> None:
        """Leave nothing behind."""
        for child in self.children.values():
            child.kill()
            child.wait()


@pytest.fixture
def mesh() -> Iterator[FakeMesh]:
    """Processes to strike."""
    found = FakeMesh()
    yield found
    found.end()


@contextlib.asynccontextmanager
async def watched(mesh: FakeMesh, storm: Storm) -> AsyncIterator[None]:
    """What ends is started again inside the block."""

    async def watch() -> None:
        while True:
            mesh.revive(storm)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def storm_of(tickets: int = 20, notes: list[str] | None = None, **wish: Any) -> Storm:
    """A storm of one kill for each process."""
    told = notes if notes is not None else list[str]()
    return Storm(Wish(**{"seed": 3, "kills": 1, **wish}), tickets, SystemClock(), told.append)


def loose(mesh: FakeMesh) -> LocalMesh:
    """The fake as what it stands for."""
    return cast(LocalMesh, mesh)


async def work(storm: Storm, tickets: int) -> int:
    """Work tickets as soon as each may be, and return how many."""
    for number in range(1, tickets + 1):
        await storm.admit(number)
        await storm.begun()
        await asyncio.sleep(0.01)
        await storm.done()
    return tickets


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody stands still for five seconds here."""
    monkeypatch.setattr(chaos, "FREEZE", 0.1)


# --- a whole storm -------------------------------------------------------------------------------------------------


async def test_every_fault_of_the_plan_is_done_and_overcome(mesh: FakeMesh) -> None:
    """Each is told with its number, and the work is over only after the last."""
    notes: list[str] = []
    storm = storm_of(notes=notes)
    pids = {name: mesh.pid_of(name) for name in NAMES}
    async with asyncio.timeout(60), watched(mesh, storm), unleashed(storm, loose(mesh)):
        await work(storm, 20)

    killed = [each for each in storm.struck if each.fault == "kill"]
    assert sorted(NAMES) == sorted(each.process for each in killed)
    assert pids == {each.process: each.pid for each in killed} | {
        each.process: pids[each.process] for each in storm.struck if each.fault == "freeze"
    }
    assert storm.plan.strikes == len(storm.struck)
    assert all(each.back > each.at for each in storm.struck)
    assert all(mesh.pid_of(name) != pids[name] for name in NAMES)
    assert [] == storm.unasked
    assert storm.plan.strikes == sum(note.startswith("fault ") for note in notes)


async def test_tickets_are_held_back_until_their_round(mesh: FakeMesh) -> None:
    """The last one begins after all faults but those of its own round have fallen: no fault can come too late."""
    storm = storm_of()
    last_round = len(storm.plan.rounds[-1].strikes)
    struck_before_last: list[int] = []

    async def worker() -> None:
        await work(storm, 19)
        await storm.admit(20)
        struck_before_last.append(storm._count)
        await storm.begun()
        await storm.done()

    async with asyncio.timeout(60), watched(mesh, storm), unleashed(storm, loose(mesh)):
        await worker()

    assert [storm.plan.strikes - last_round] == struck_before_last


async def test_nothing_may_be_worked_before_the_storm_begins() -> None:
    """It is the rounds that set tickets free."""
    storm = storm_of()
    admitted = asyncio.create_task(storm.admit(1))
    await stays(lambda: not admitted.done(), "holding back", during=0.1)
    admitted.cancel()


# --- what goes wrong -----------------------------------------------------------------------------------------------


async def test_a_process_that_does_not_come_back_ends_the_run(mesh: FakeMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody starts it again: the error names it and the seed, and the work is ended too."""
    monkeypatch.setattr(chaos, "COMEBACK", 0.3)
    storm = storm_of()
    with pytest.raises(ChaosError, match=r"did not come back after 0\.3 s \(seed 3\)") as caught:
        async with asyncio.timeout(60), unleashed(storm, loose(mesh)):
            await work(storm, 20)

    assert 3 == caught.value.seed


async def test_work_that_stands_still_ends_the_run(mesh: FakeMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """With how far it came, and not never."""
    monkeypatch.setattr(chaos, "STALL", 2.0)
    storm = storm_of()

    async def stand_still() -> None:
        async with asyncio.timeout(60), watched(mesh, storm), unleashed(storm, loose(mesh)):
            await storm.admit(1)
            await storm.begun()
            await asyncio.Event().wait()

    with pytest.raises(ChaosError, match="tickets should be done, 0 are"):
        await stand_still()


async def test_work_that_fails_ends_the_storm_with_its_own_error(mesh: FakeMesh) -> None:
    """As it is, and not in a group of errors; nothing stays frozen."""
    storm = storm_of()
    with pytest.raises(ZeroDivisionError):
        async with watched(mesh, storm), unleashed(storm, loose(mesh)):
            raise ZeroDivisionError

    assert not [name for name, child in mesh.children.items() if psutil.Process(child.pid).status() == "stopped"]


async def test_an_end_that_nobody_caused_is_noted(mesh: FakeMesh) -> None:
    """A process that exits by itself, also one that was killed before and ends again while it starts."""
    notes: list[str] = []
    storm = storm_of(notes=notes)
    storm._killed.add("planner")
    storm.tell(ProcessEvent("ended", "planner", exit_code=-9, detail="x"))
    assert [] == storm.unasked
    storm.tell(ProcessEvent("ended", "planner", exit_code=4, detail="x"))
    storm.tell(ProcessEvent("starting", "planner", pid=1))
    storm.tell(ProcessEvent("failed", "planner", detail="no room"))

    assert ["planner"] == storm.unasked
    assert ["not a fault of the plan: planner ended by itself", "planner did not start: no room"] == [
        note.partition(" with ")[0].partition(";")[0] for note in notes
    ]


def test_too_few_tickets_are_refused_before_anything_starts() -> None:
    """When the storm is made."""
    with pytest.raises(TooFewTicketsError):
        storm_of(tickets=3, kills=3)


async def test_a_mesh_that_lacks_a_service_is_planned_for_as_it_is(mesh: FakeMesh) -> None:
    """What is not there is not struck."""
    del mesh.services["detector"]
    storm = storm_of()
    async with asyncio.timeout(60), watched(mesh, storm), unleashed(storm, loose(mesh)):
        await work(storm, 20)

    assert not [each for each in storm.struck if each.process.startswith("detector")]
    assert {"planner", "planner-2", "nats-server"} < {each.process for each in storm.struck}


# --- freezing ------------------------------------------------------------------------------------------------------


async def test_a_frozen_process_stands_still_and_goes_on(mesh: FakeMesh) -> None:
    """It is the same process afterwards."""
    process = psutil.Process(mesh.pid_of("runtime"))
    freezing = asyncio.create_task(freeze(process.pid, 0.3))
    await eventually(lambda: process.status() == psutil.STATUS_STOPPED, "the freeze")
    await freezing

    await eventually(lambda: process.status() != psutil.STATUS_STOPPED, "the thaw")


async def test_a_frozen_process_is_continued_when_the_freeze_is_interrupted(mesh: FakeMesh) -> None:
    """Ctrl-C in the middle leaves nothing frozen."""
    process = psutil.Process(mesh.pid_of("runtime"))
    freezing = asyncio.create_task(freeze(process.pid, 60))
    await eventually(lambda: process.status() == psutil.STATUS_STOPPED, "the freeze")
    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing

    await eventually(lambda: process.status() != psutil.STATUS_STOPPED, "the thaw")


async def test_a_process_that_dies_while_it_is_frozen_is_no_error(mesh: FakeMesh) -> None:
    """There is nothing left to continue."""
    child = mesh.children["runtime"]
    freezing = asyncio.create_task(freeze(child.pid, 0.3))
    await asyncio.sleep(0)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    await freezing

    assert gone(child.pid)


# --- aiming --------------------------------------------------------------------------------------------------------


async def test_a_kill_that_is_aimed_falls_when_an_effect_appears(tmp_path: Path) -> None:
    """In any of the files; what was there before is no effect."""
    files = [tmp_path / "outbox", tmp_path / "cases"]
    for file in files:
        file.write_text("before\n")
    waiting = asyncio.create_task(until_growth(files, 30))
    await stays(lambda: not waiting.done(), "waiting", during=0.1)
    with files[1].open("a") as cases:
        cases.write("an effect\n")

    async with asyncio.timeout(10):
        assert await waiting


async def test_it_falls_all_the_same_where_no_effect_appears(tmp_path: Path) -> None:
    """After a while, so that nothing waits for ever."""
    (tmp_path / "outbox").touch()

    assert not await until_growth([tmp_path / "outbox"], 0.05)


async def test_only_kills_of_executors_are_aimed(
    mesh: FakeMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each of them: the other processes know nothing of effects."""
    aimed: list[Sequence[Path]] = []

    async def note_aim(files: Sequence[Path], within: float) -> bool:
        aimed.append(files)
        return True

    monkeypatch.setattr(chaos, "until_growth", note_aim)
    storm = Storm(Wish(3, 2), 20, SystemClock(), lambda _: None, [tmp_path])
    async with asyncio.timeout(60), watched(mesh, storm), unleashed(storm, loose(mesh)):
        await work(storm, 20)

    assert [[tmp_path]] * 4 == aimed


# --- what is asked of a mesh ---------------------------------------------------------------------------------------


def test_a_process_is_found_by_its_name() -> None:
    """Of a service or the server; a name that none has is an error."""
    fake = SimpleNamespace(
        processes=lambda: [SimpleNamespace(name="planner", pid=1), SimpleNamespace(name="planner-2", pid=2)],
        server=SimpleNamespace(pid=3),
    )

    assert [2, 3] == [LocalMesh.pid_of(cast(LocalMesh, fake), name) for name in ("planner-2", "nats-server")]
    with pytest.raises(KeyError):
        LocalMesh.pid_of(cast(LocalMesh, fake), "planner-3")
