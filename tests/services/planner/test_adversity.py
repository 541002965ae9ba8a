"""What others do to a run, and what a death at a bad moment does: the run goes on, or says why it cannot."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from agentflow import subjects
from agentflow.envelope import ClaimCheck, Envelope, seal, unseal
from agentflow.errors import Conflict, EvidenceError, MeshError
from agentflow.mesh.transport import Message
from agentflow.payloads import Failure, GoalSubmitted, RunSignalled, StepCompleted, StepFailed, TimerDue
from agentflow.testing import envelope
from tests.services.planner.meshes import Delivered, PlannerMesh, payload_of, planner_mesh
from tests.services.planner.test_shell import Died, die_at, live_on
from tests.support.waiting import eventually


async def last_code(mesh: PlannerMesh, run_id: str = "run-1") -> str:
    """The code of the last record on a run's `out` subject."""
    return str(payload_of((await mesh.stored("AF_MESSAGES", subjects.workflow_out(run_id)))[-1]).code)


async def handle_due(mesh: PlannerMesh, seconds: float) -> int:
    """Let time pass and handle every timer that fired; how many there were."""
    mesh.clock.advance(seconds)
    fired = [message for message in await mesh.due() if message.seq not in mesh.taken]
    for message in fired:
        mesh.taken.add(message.seq)
        await mesh.planner().handle(Delivered(message))
    return len(fired)


@pytest.mark.parametrize("first", ["goal", "failure"])
async def test_a_timer_that_was_not_armed_before_a_death_is_armed_after_it(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Though another input was decided in between: the redelivered one arms the timer the run still counts on."""
    async with planner_mesh() as mesh:
        message = await mesh.submit(n=1)
        if first == "failure":
            await mesh.planner().handle(Delivered(message))
            [command] = await mesh.commands()
            failure = Failure(code="boom", type="Boom", message="x", blame="agent")
            message = await mesh.answer(command, StepFailed(failure))
        die_at(monkeypatch, "planner.after_decision")
        with pytest.raises(Died):
            await mesh.planner().handle(Delivered(message))
        live_on(monkeypatch)
        await mesh.planner().handle(Delivered(await mesh.signal("hello")))

        await mesh.planner().handle(Delivered(message, deliveries=2))

        state = await mesh.state()
        assert state.timer is not None
        assert await mesh.transport.last("AF_TIMERS", state.timer.set_subject) is not None
        assert await handle_due(mesh, 30) >= 1


async def test_the_timer_is_armed_before_the_commands_are_sent() -> None:
    """Whatever becomes of the commands, the run is looked at again."""
    async with planner_mesh() as mesh:
        mesh.transport.broker.faults.disconnect("agents.>", times=1000)
        planner, message = mesh.planner(), await mesh.submit(n=1)
        task = asyncio.create_task(planner.handle(Delivered(message)))
        await eventually(mesh.timers, "the timer is armed")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await mesh.timers()) == 1


async def test_somebody_elses_message_in_a_commands_place_is_evidence_and_the_run_goes_on_by_its_timer() -> None:
    """No endless loop: the input is given up once, the step times out, and the next attempt has a place of its own."""
    async with planner_mesh() as mesh:
        probe = mesh.planner()
        await probe.handle(Delivered(await mesh.submit("probe", n=1)))
        [command] = await mesh.commands()
        assert command.envelope.id

    async with planner_mesh() as mesh:
        twin_goal = await mesh.submit("probe", n=1)
        squatted = command.envelope.subject
        await mesh.transport.publish(squatted, b"mine", stream="AF_AGENTS")
        with pytest.raises(EvidenceError) as refused:
            await asyncio.wait_for(mesh.planner().handle(Delivered(twin_goal)), 5)
        assert refused.value.error_code == "command.squatted"
        assert await handle_due(mesh, 11) == 1
        assert await handle_due(mesh, 5) == 1
        assert (await mesh.state("probe")).attempt == 2
        last = await mesh.transport.last("AF_AGENTS", "agents.worker.in.>") or (
            await mesh.transport.get("AF_AGENTS", 2)
        )
        assert last is not None
        assert last.subject != squatted


@pytest.mark.parametrize("subject", ["workflows.run-1.foo", "workflows.run-1.results.a.b", "workflows.run-1.in.x"])
async def test_what_others_put_beside_a_run_does_not_make_it_unreadable(subject: str) -> None:
    """A subject outside the grammar is no part of the run's history."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        await mesh.transport.publish(subject, b"junk", stream="AF_MESSAGES")
        [command] = await mesh.commands()
        await mesh.planner().handle(Delivered(await mesh.answer(command)))
        assert (await mesh.state()).state == "second"


async def test_an_input_whose_payload_is_gone_is_refused_on_record() -> None:
    """A claim check for an artifact nobody has: neither the run nor later reads of it are stopped by it."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        plain = envelope(RunSignalled("x"), subjects.workflow_in("run-1"), index=3)
        claim = ClaimCheck(artifact="sha256-" + "0" * 64, sha256="0" * 64, size=200_000)
        members = {name: getattr(plain.envelope, name) for name in Envelope.__struct_fields__}
        claimed = seal(Envelope(**{**members, "payload": msgspec.Raw(msgspec.json.encode(claim))}))
        message = await mesh.put(claimed)
        await mesh.planner().handle(Delivered(message))
        assert await mesh.decisions() == ["goal.accepted/1", "input.rejected/1"]
        [command] = await mesh.commands()
        await mesh.planner().handle(Delivered(await mesh.answer(command)))
        assert (await mesh.state()).state == "second"


async def test_a_timer_that_fires_before_its_time_is_taken_at_its_time() -> None:
    """A server whose clock was set back: the decision, its commands and every later fold agree on one time."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        failure = Failure(code="boom", type="Boom", message="x", blame="agent")
        await mesh.planner().handle(Delivered(await mesh.answer(command, StepFailed(failure))))
        mesh.clock.advance(2)
        [due] = await mesh.due()
        early = Message(due.stream, due.seq, due.subject, due.body, due.time - timedelta(hours=1))
        await mesh.planner().handle(Delivered(early))
        await mesh.planner().handle(Delivered(early, deliveries=2))
        assert [payload_of(command).attempt for command in await mesh.commands()] == [1, 2]
        assert (await mesh.state()).waiting == "step"


async def test_an_input_under_an_id_that_is_taken_is_refused_and_hides_nothing() -> None:
    """A signal with the id of a coming result: the result still counts."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        answer = await mesh.answer(command)
        taken = unseal(answer.body).envelope.id
        signal = envelope(RunSignalled("x"), subjects.workflow_in("run-1"), index=4)
        members = {name: getattr(signal.envelope, name) for name in Envelope.__struct_fields__}
        thief = await mesh.put(seal(Envelope(**{**members, "id": taken})))
        await mesh.planner().handle(Delivered(thief))
        await mesh.planner().handle(Delivered(answer))
        assert await last_code(mesh) == "input.id_taken"
        assert (await mesh.decisions())[-1] == "input.rejected/1"
        await mesh.planner().handle(Delivered(answer, deliveries=2))
        assert (await mesh.state()).status == "running"


async def test_two_goals_with_one_id_fold_to_the_one_that_was_decided() -> None:
    """Whatever order they are read in later."""
    async with planner_mesh() as mesh:
        subject = subjects.workflow_in("run-1")
        first = await mesh.put(envelope(GoalSubmitted("sample", {"n": 1}), subject, index=1))
        second = await mesh.put(envelope(GoalSubmitted("sample", {"n": 2}), subject, index=1))
        await mesh.planner().handle(Delivered(second))
        await mesh.planner().handle(Delivered(first))
        await mesh.planner().handle(Delivered(second, deliveries=2))
        assert (await mesh.state()).input == {"n": 2}
        assert await mesh.decisions() == ["goal.accepted/1", "input.rejected/1"]


async def test_a_run_whose_goal_is_missing_from_the_stream_is_not_folded() -> None:
    """Damage is an error with its place, not another state."""
    async with planner_mesh() as mesh:
        message = await mesh.submit(n=1)
        await mesh.planner().handle(Delivered(message))
        [command] = await mesh.commands()
        answer = await mesh.answer(command)
        real_read = mesh.transport.read

        def without_the_goal(*arguments: object, **more: object) -> object:
            async def remaining() -> object:
                async for each in real_read(*arguments, **more):  # type: ignore[arg-type]  # passed on as they came
                    if each.seq != message.seq:
                        yield each

            return remaining()

        mesh.transport.read = without_the_goal  # type: ignore[method-assign, assignment]  # a lossy server
        with pytest.raises(EvidenceError, match="missing or altered"):
            await mesh.planner().handle(Delivered(answer))


async def test_junk_before_a_goal_does_not_take_the_goal_with_it() -> None:
    """The goal's own refusal is recorded, whatever was there before."""
    async with planner_mesh() as mesh:
        await mesh.transport.publish("workflows.run-1.results.x", b"junk", stream="AF_MESSAGES")
        goal = await mesh.plain(b'{"goal":"nothing-like-it"}')
        await mesh.planner().handle(Delivered(goal))
        assert await last_code(mesh) == "definition.unknown"


async def test_many_refusals_on_one_run_stay_cheap() -> None:
    """Only what is new is read for each: 300 pieces of junk do not cost 300 whole histories."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        read = 0
        real_read = mesh.transport.read

        def counting(*arguments: object, **more: object) -> object:
            async def counted() -> object:
                nonlocal read
                async for each in real_read(*arguments, **more):  # type: ignore[arg-type]  # passed on as they came
                    read += 1
                    yield each

            return counted()

        mesh.transport.read = counting  # type: ignore[method-assign, assignment]  # counts what is read
        for number in range(100):
            await planner.handle(Delivered(await mesh.plain(b"junk %d" % number)))
        assert (await mesh.decisions()).count("input.rejected/1") == 100
        assert read < 1000


async def test_a_planner_keeps_nothing_of_an_ended_run() -> None:
    """Its outputs are on the stream; memory is for runs under way."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        for at in range(2):
            await planner.handle(Delivered(await mesh.answer((await mesh.commands())[at], StepCompleted({"n": at}))))
        assert not planner._slots


async def test_a_run_that_is_decided_about_elsewhere_all_the_time_is_left_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounds of reading again are bounded: then the input comes again by redelivery."""
    monkeypatch.setattr("agentflow_planner.shell.CONFLICT_PAUSE", 0.0)
    async with planner_mesh() as mesh:
        message = await mesh.submit(n=1)

        async def lost(*_: object, **__: object) -> object:
            raise Conflict("somebody else was first")

        monkeypatch.setattr("agentflow_planner.shell.store", lost)
        with pytest.raises(MeshError, match="elsewhere"):
            await mesh.planner().handle(Delivered(message))


@pytest.mark.parametrize("forged", ["another id", "another payload"])
async def test_a_timer_the_history_does_not_list_changes_nothing(forged: str) -> None:
    """It counts only with the id and the payload that the run's decision names."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        state = await mesh.state()
        assert state.timer is not None
        subject = subjects.timer_due("planner", "run-1", 77)
        due = state.timer.due if forged == "another id" else "2026-01-01T00:00:01.000000Z"
        timer = envelope(TimerDue(due=due, state="first"), subject, index=5)
        if forged == "another payload":
            members = {name: getattr(timer.envelope, name) for name in Envelope.__struct_fields__}
            timer = seal(Envelope(**{**members, "id": state.timer.id}))
        mesh.clock.advance(11)
        await mesh.planner().handle(Delivered(await mesh.put(timer)))
        assert await mesh.decisions() == ["goal.accepted/1"]


async def test_a_history_that_lags_behind_its_leader_is_not_decided_on() -> None:
    """A stale read is no state: the input is left for later."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        answer = await mesh.answer(command)
        real_read = mesh.transport.read

        def behind(*arguments: object, **more: object) -> object:
            async def remaining() -> object:
                async for each in real_read(*arguments, **more):  # type: ignore[arg-type]  # passed on as they came
                    if not each.subject.endswith(".out"):
                        yield each

            return remaining()

        mesh.transport.read = behind  # type: ignore[method-assign, assignment]  # a replica that lags
        with pytest.raises(MeshError) as stale:
            await mesh.planner().handle(Delivered(answer))
        assert stale.value.error_code == "planner.stale_read"


async def test_a_definition_that_was_altered_in_the_store_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps to the bytes it began with, by their hash."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        answer = await mesh.answer(command)
        real_get = mesh.objects.get

        async def altered(name: str) -> bytes:
            return (await real_get(name)).replace(b"on_success: second", b"on_success: done")

        monkeypatch.setattr(mesh.objects, "get", altered)
        with pytest.raises(EvidenceError) as refused:
            await mesh.planner().handle(Delivered(answer))
        assert refused.value.error_code == "definition.altered"


async def test_runs_that_were_put_out_of_memory_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used are folded again when something comes for them."""
    monkeypatch.setattr("agentflow_planner.shell.MAX_RUNS", 2)
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        for number in range(5):
            await planner.handle(Delivered(await mesh.submit(f"run-{number}", n=number)))
        assert len(planner._slots) == 2
        first = next(c for c in await mesh.commands() if c.workflow_id == "run-0")
        await planner.handle(Delivered(await mesh.answer(first, run_id="run-0")))
        assert (await mesh.state("run-0")).state == "second"
