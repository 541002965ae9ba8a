"""The executor killed between any two steps of a call, and frozen, and doubled: one effect, one answer, a true audit.

A kill is an exception nobody catches, raised at a named crash point or around a publish; what was stored before it stays,
everything else is gone. Afterwards another process handles the next deliveries until the call is answered.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from agentflow import crash, subjects
from agentflow.clock import Clock, SystemClock
from agentflow.envelope import Sealed
from agentflow.errors import OutcomeUnknown
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.transport import Stored
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, ToolCompleted
from agentflow.schemas import decode_payload, payload_as
from agentflow_executor.execution import Execution
from agentflow_executor.sandbox import Job
from tests.services.executor.harness import Desk, HandDelivery, call, catalog, checked, crashed, ran


class Killed(BaseException):
    """As near to SIGKILL as one interpreter allows."""


class LeapClock:
    """The machine's clock, and what a test does not want to wait for."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """The present time, from where the test stands."""
        return SystemClock().now() + self.ahead


@dataclass
class WorldSandbox:
    """Has effects that can be counted, and checks that look at them."""

    effects: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    uid: int | None = None
    clock: Clock = field(default_factory=SystemClock)

    async def execute(self, job: Job) -> Execution:
        """Have the effect, or say whether it was had."""
        self.jobs.append(job)
        there = job.call_id in self.effects
        if job.mode == "check":
            return checked(there, {"call": job.call_id} if there else None)
        if "put" in job.use and there:
            return ran({"call": job.call_id})
        self.effects.append(job.call_id)
        return ran({"sum": 1} if job.use.endswith(":add") else {"call": job.call_id})

    async def probe(self, uses: Sequence[str] = (), memory_mib: int = 512) -> None:
        """It can always be set up."""

    def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture
def world() -> WorldSandbox:
    """A world without any effect."""
    return WorldSandbox()


@pytest.fixture
def desk(mesh: MemoryTransport, world: WorldSandbox) -> Desk:
    """An executor in that world."""
    return Desk(mesh, catalog(), world, LeapClock())


async def dies(desk: Desk, delivery: HandDelivery) -> None:
    """A process takes the delivery and is killed."""
    with pytest.raises(Killed):
        await (await desk.handler()).handle(delivery)


async def recover(desk: Desk, delivery: HandDelivery) -> list[str]:
    """Deliver it again until nobody gives it back; what was said about each delivery."""
    said = []
    for _ in range(6):
        delivery = await desk.again(delivery)
        said += delivery.said
        if not delivery.said:
            return said
        assert isinstance(desk.clock, LeapClock)
        desk.clock.ahead += timedelta(seconds=delivery.delay)
    raise AssertionError("it is given back for ever")


async def story(desk: Desk, sealed: Sealed) -> str:
    """A call's audit chain in a few words."""
    words = []
    for entry in await desk.audit(sealed):
        match decode_payload(entry.envelope.schema, entry.envelope.payload):
            case AuditIntent() as intent:
                words.append(f"intent{intent.execution}")
            case AuditReconciled() as said:
                words.append({True: "yes", False: "no", None: "?"}[said.happened])
            case AuditOutcome() as outcome:
                words.append(outcome.status)
    return " ".join(words)


CASES: list[tuple[str, str, str, int]] = [
    # tool, killed at, what the audit says in the end, how often the effect was had
    ("append_line", "executor.after_intent", "intent1 no intent2 completed", 1),
    ("append_line", "executor.after_effect", "intent1 yes completed", 1),
    ("append_line", "executor.after_outcome", "intent1 completed", 1),
    ("append_line", "executor.after_result", "intent1 completed", 1),
    ("shoot", "executor.after_intent", "intent1 unknown", 0),
    ("shoot", "executor.after_effect", "intent1 unknown", 1),
    ("shoot", "executor.after_outcome", "intent1 completed", 1),
    ("shoot", "executor.after_result", "intent1 completed", 1),
    ("put", "executor.after_intent", "intent1 intent2 completed", 1),
    ("put", "executor.after_effect", "intent1 intent2 completed", 1),
    ("put", "executor.after_outcome", "intent1 completed", 1),
    ("put", "executor.after_result", "intent1 completed", 1),
    ("add", "executor.after_effect", "completed", 2),
    ("add", "executor.after_outcome", "completed", 1),
    ("add", "executor.after_result", "completed", 1),
]


def input_of(tool: str) -> Mapping[str, Any]:
    """An input the tool takes."""
    return {"a": 1} if tool == "add" else {"text": "hi"}


@pytest.mark.parametrize(("tool", "point", "ending", "effects"), CASES)
async def test_a_kill_at_a_named_point_is_survived(
    desk: Desk, world: WorldSandbox, monkeypatch: pytest.MonkeyPatch, tool: str, point: str, ending: str, effects: int
) -> None:
    """What the next process finds, does and answers, for every kind of tool and every window."""

    def die(name: str) -> None:
        if name == point:
            raise Killed

    asked = call(tool, input_of(tool))
    delivery = await desk.send(asked)
    with monkeypatch.context() as patch:
        patch.setattr(crash, "point", die)
        await dies(desk, delivery)
    await recover(desk, delivery)

    assert ending == await story(desk, asked)
    assert effects == len(world.effects)
    answer = await desk.answer(asked)
    assert ("tool.failed/1" if "unknown" in ending else "tool.completed/1") == answer.envelope.schema


async def test_an_open_effect_is_given_back_until_it_has_expired(
    desk: Desk, world: WorldSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delivery is not held: it comes again when nobody can act any more, and only then is the check asked."""
    monkeypatch.setattr(crash, "point", _killer("executor.after_intent"))
    delivery = await desk.send(call("append_line", {"text": "hi"}))
    await dies(desk, delivery)
    monkeypatch.setattr(crash, "point", lambda name: None)

    early = await desk.again(delivery)

    assert ["nak"] == early.said
    assert 5 < early.delay < 7
    assert [] == world.jobs
    assert ["nak"] == await recover(desk, delivery)


def _killer(point: str) -> Callable[[str], None]:
    def die(name: str) -> None:
        if name == point:
            raise Killed

    return die


class Mortal(MemoryTransport):
    """A connection whose process is killed at its n-th publish: before it is sent, or after it landed."""

    deadly: int = 0
    landed: bool = False
    count: int = 0

    async def publish(self, subject: str, body: bytes, **more: Any) -> Stored:
        """Die at the n-th."""
        self.count += 1
        if self.count == self.deadly and not self.landed:
            raise Killed
        stored = await super().publish(subject, body, **more)
        if self.count == self.deadly:
            raise Killed
        return stored


@pytest.mark.parametrize("tool", ["add", "put", "append_line", "shoot"])
@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_kill_around_any_publish_is_survived(
    mesh: MemoryTransport, desk: Desk, world: WorldSandbox, tool: str, landed: bool, at: int
) -> None:
    """Before or after each message the executor stores: the same promises."""
    asked = call(tool, input_of(tool))
    delivery = await desk.send(asked)
    mortal = Mortal(mesh.broker)
    mortal.deadly, mortal.landed = at, landed
    doomed = Desk(mortal, desk.catalog, world, desk.clock)
    if tool == "add" and at == 3:
        await (await doomed.handler()).handle(delivery)
    else:
        await dies(doomed, delivery)
    await recover(desk, delivery)

    told = await story(desk, asked)
    assert told.endswith(("completed", "unknown"))
    assert "unknown" not in told or tool == "shoot"
    assert len(world.effects) <= (2 if tool == "add" else 1)
    assert await desk.find_answer(asked) is not None


async def test_several_deaths_in_a_row_are_survived(
    desk: Desk, world: WorldSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its intent, again while it asks the check, again after the effect."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    deaths = itertools.cycle(["executor.after_intent", "executor.after_intent", "executor.after_effect"])
    assert isinstance(desk.clock, LeapClock)
    for point, _ in zip(deaths, range(3), strict=False):
        with monkeypatch.context() as patch:
            patch.setattr(crash, "point", _killer(point))
            await dies(desk, delivery)
        desk.clock.ahead += timedelta(seconds=8)
        delivery = HandDelivery(delivery.message, delivery.deliveries + 1)
    await recover(desk, delivery)

    assert "intent1 no intent2 no intent3 yes completed" == await story(desk, asked)
    assert 1 == len(world.effects)


# --- more than one -------------------------------------------------------------------------------------------------


async def test_a_frozen_holder_finds_that_another_went_on(desk: Desk, world: WorldSandbox) -> None:
    """It wakes up in the middle of its run: its child was ended, the chain has moved on, its late word is refused."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    thaw, running = asyncio.Event(), asyncio.Event()

    class FrozenSandbox(WorldSandbox):
        async def execute(self, job: Job) -> Execution:
            running.set()
            await thaw.wait()
            return crashed()

    frozen = await Desk(desk.mesh, desk.catalog, FrozenSandbox(), desk.clock).handler()
    task = asyncio.create_task(frozen.handle(delivery))
    await running.wait()
    assert ["nak"] == await recover(desk, delivery)
    before = await desk.stored("AF_AUDIT", "tools.>")
    thaw.set()
    await task

    assert before == await desk.stored("AF_AUDIT", "tools.>")
    assert "intent1 no intent2 completed" == await story(desk, asked)
    assert 1 == len(world.effects)
    assert [] == delivery.said, "it may be acknowledged: the answer is there"


async def test_another_executor_in_the_middle_of_a_run_wins_once(desk: Desk, world: WorldSandbox) -> None:
    """An idempotent call that two executors run: both see the same outcome, and there is one answer."""
    asked = call("put", {"text": "hi"})
    delivery = await desk.send(asked)
    second = await desk.handler()
    overtaken: list[HandDelivery] = []

    async def overtake(job: Job) -> Execution:
        if not overtaken:
            overtaken.append(HandDelivery(delivery.message, 2))
            await second.handle(overtaken[0])
        return await WorldSandbox.execute(world, job)

    world.execute = overtake  # type: ignore[method-assign]  # the other executor acts in the middle of this one
    await (await desk.handler()).handle(delivery)

    assert "intent1 intent2 completed" == await story(desk, asked)
    assert 1 == len(world.effects)
    assert ToolCompleted({"call": asked.envelope.id}) == payload_as(await desk.answer(asked), ToolCompleted)


async def test_a_late_executor_whose_effect_was_found_by_another_agrees(desk: Desk, world: WorldSandbox) -> None:
    """The check of a second executor said yes and concluded; the first, done at last, answers the same."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    second = await desk.handler()

    async def slow(job: Job) -> Execution:
        done = await WorldSandbox.execute(world, job)
        if job.mode == "call":
            assert isinstance(desk.clock, LeapClock)
            desk.clock.ahead += timedelta(seconds=10)
            await second.handle(HandDelivery(delivery.message, 2))
        return done

    world.execute = slow  # type: ignore[method-assign]  # the other executor acts in the middle of this one
    await (await desk.handler()).handle(delivery)

    assert "intent1 yes completed" == await story(desk, asked)
    assert 1 == len(world.effects)


# --- an unsteady broker --------------------------------------------------------------------------------------------


async def test_a_publish_nobody_answered_is_found_again(desk: Desk, world: WorldSandbox, mesh: MemoryTransport) -> None:
    """The intent landed, but its acknowledgement was lost: it is read back, and the effect is had once."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    lossy = Lossy(mesh.broker)
    await (await Desk(lossy, desk.catalog, world, desk.clock).handler()).handle(delivery)

    assert 3 == lossy.lost, "intent, outcome and answer"
    assert "intent1 completed" == await story(desk, asked)
    assert 1 == len(world.effects)


class Lossy(MemoryTransport):
    """A connection on which every acknowledgement is lost."""

    lost: int = 0

    async def publish(self, subject: str, body: bytes, **more: Any) -> Stored:
        """Store it, and do not say so."""
        await super().publish(subject, body, **more)
        self.lost += 1
        raise OutcomeUnknown(f"no answer about {subject}", subject=subject)


async def test_an_audit_that_can_only_be_read_in_part_is_read_again_later(
    desk: Desk, world: WorldSandbox, mesh: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that is behind must not be taken for the truth."""
    asked = call("append_line", {"text": "hi"})
    delivery = await desk.send(asked)
    await (await desk.handler()).handle(delivery)
    stored = await desk.stored("AF_AUDIT", subjects.tool_audit(asked.envelope.id))

    async def behind(*_: Any, **__: Any) -> Any:
        for message in stored[:-1]:
            yield message

    monkeypatch.setattr(mesh, "read", behind)
    with pytest.raises(OutcomeUnknown):
        await desk.again(delivery)

    assert 1 == len(world.effects)
