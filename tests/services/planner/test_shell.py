"""The planner's shell on the memory mesh: committed once, sent for certain, whoever dies or doubles in between."""

import asyncio

import pytest

from agentflow import crash, subjects
from agentflow.artifacts import check_in
from agentflow.client import Client
from agentflow.definitions import store_definition
from agentflow.errors import Conflict, EvidenceError, InputError, MeshError
from agentflow.payloads import Failure, Lifecycle, StepCompleted, StepFailed
from agentflow.testing import START, envelope
from agentflow_planner.shell import Planner
from tests.services.planner.meshes import DEFINITION, Delivered, PlannerMesh, payload_of, planner_mesh


class Died(BaseException):
    """Stands for SIGKILL: nothing of the process goes on."""


def die_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the process die at a crash point."""

    def point(passed: str) -> None:
        if passed == name:
            raise Died(name)

    monkeypatch.setattr(crash, "point", point)


def live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No crash point is armed any more."""
    monkeypatch.setattr(crash, "point", lambda name: None)


async def run_to_the_end(mesh: PlannerMesh, planner: Planner) -> None:
    """Answer every command until the run has ended."""
    for at in range(5):
        commands = await mesh.commands()
        if (await mesh.state()).ended:
            return
        await planner.handle(Delivered(await mesh.answer(commands[at], StepCompleted(output={"n": at}))))
    raise AssertionError("the run did not end")


async def test_a_goal_is_accepted_and_its_first_command_sent() -> None:
    """One decision, one command, one timer."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=4)))
        [command] = await mesh.commands()
        assert payload_of(command).input == {"n": 4}
        assert await mesh.decisions() == ["goal.accepted/1"]
        assert len(await mesh.timers()) == 1


async def test_a_run_goes_to_its_end_and_takes_its_timer_back() -> None:
    """Two steps, three decisions; what is left of the timer is a plain message that expires."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        await run_to_the_end(mesh, planner)
        assert await mesh.decisions() == ["goal.accepted/1", "run.advanced/1", "run.completed/1"]
        assert [body[:13] for body in await mesh.timers()] == [b'{"cancelled":']
        mesh.clock.advance(7200)
        assert await mesh.due() == []


@pytest.mark.parametrize("point", ["planner.after_decision", "planner.after_commands"])
@pytest.mark.parametrize("same_process", [True, False])
async def test_a_death_after_the_decision_loses_no_command_and_decides_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, point: str, same_process: bool
) -> None:
    """The redelivered input finds its decision; the commands are stored exactly once."""
    async with planner_mesh() as mesh:
        planner, message = mesh.planner(), await mesh.submit(n=1)
        die_at(monkeypatch, point)
        with pytest.raises(Died):
            await planner.handle(Delivered(message))
        live_on(monkeypatch)

        heir = planner if same_process else mesh.planner()
        await heir.handle(Delivered(message, deliveries=2))
        await heir.handle(Delivered(message, deliveries=3))

        assert await mesh.decisions() == ["goal.accepted/1"]
        assert len(await mesh.commands()) == 1
        assert len(await mesh.timers()) == 1
        await run_to_the_end(mesh, heir)


async def test_every_input_may_be_delivered_again_at_any_time() -> None:
    """Full redelivery of a finished run changes nothing, in the planner that knows it and in a new one."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        inputs = [await mesh.submit(n=1)]
        await planner.handle(Delivered(inputs[0]))
        for at in range(2):
            inputs.append(await mesh.answer((await mesh.commands())[at]))
            await planner.handle(Delivered(inputs[-1]))
        before = (await mesh.decisions(), await mesh.commands())
        for again in (planner, mesh.planner()):
            for message in inputs:
                await again.handle(Delivered(message, deliveries=2))
        assert (await mesh.decisions(), await mesh.commands()) == before


async def test_two_planners_that_race_for_every_input_make_one_run() -> None:
    """Both get everything; the server lets one win, and the other adopts."""
    async with planner_mesh() as mesh:
        planners = [mesh.planner(), mesh.planner()]
        message = await mesh.submit(n=1)
        await asyncio.gather(*(planner.handle(Delivered(message)) for planner in planners))
        for at in range(2):
            message = await mesh.answer((await mesh.commands())[at])
            await asyncio.gather(*(planner.handle(Delivered(message)) for planner in planners))
        assert await mesh.decisions() == ["goal.accepted/1", "run.advanced/1", "run.completed/1"]
        assert len(await mesh.commands()) == 2


async def test_a_planner_that_was_frozen_cannot_write_over_what_happened_since() -> None:
    """Its stale state loses to the stream: it reads again and finds the run where it is."""
    async with planner_mesh() as mesh:
        frozen, other = mesh.planner(), mesh.planner()
        await frozen.handle(Delivered(await mesh.submit(n=1)))
        [first] = await mesh.commands()
        answer = await mesh.answer(first)
        await other.handle(Delivered(answer))
        await frozen.handle(Delivered(answer, deliveries=2))
        await frozen.handle(Delivered(await mesh.signal("hello")))
        assert await mesh.decisions() == ["goal.accepted/1", "run.advanced/1", "run.advanced/1"]
        assert (await mesh.state()).state == "second"


async def test_a_lost_acknowledgement_of_the_decision_is_read_back() -> None:
    """The decision was stored though nobody said so: it is taken for stored, not decided again."""
    async with planner_mesh() as mesh:
        mesh.transport.broker.faults.lose_ack("workflows.run-1.out")
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        assert await mesh.decisions() == ["goal.accepted/1"]
        assert len(await mesh.commands()) == 1


async def test_a_cancel_that_overtakes_its_goal_finds_the_goal_first() -> None:
    """Earlier inputs are decided before a later one is refused: the run exists, and is cancelled."""
    async with planner_mesh() as mesh:
        message, cancel = await mesh.submit(n=1), await mesh.cancel()
        planner = mesh.planner()
        await planner.handle(Delivered(cancel))
        await planner.handle(Delivered(message))
        assert await mesh.decisions() == ["goal.accepted/1", "run.cancelled/1"]


async def test_a_cancel_without_a_goal_is_refused_on_record() -> None:
    """Nothing is dropped in silence."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.cancel("nobody")))
        [refused] = await mesh.stored("AF_MESSAGES", "workflows.nobody.out")
        assert payload_of(refused).code == "run.unknown"


async def test_the_same_goal_again_is_nothing_and_another_is_refused() -> None:
    """A plain goal with other members is another goal; the run goes on."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        await planner.handle(Delivered(await mesh.plain(b'{"input": {"n": 1}, "goal": "sample"}')))
        await planner.handle(Delivered(await mesh.plain(b'{"goal":"sample","input":{"n":2}}')))
        assert await mesh.decisions() == ["goal.accepted/1", "input.rejected/1"]
        await run_to_the_end(mesh, planner)


async def test_a_plain_goal_is_adopted_and_runs() -> None:
    """What the `nats` command line publishes is enough."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.plain(b'{"goal":"sample@1.0.0","input":{"n":5}}')))
        await run_to_the_end(mesh, planner)
        assert (await mesh.decisions())[-1] == "run.completed/1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"goal":"unknown"}', "definition.unknown"),
        (b'{"goal":"sample@9.9.9"}', "definition.unknown"),
        (b'{"goal":"a b"}', "id.invalid"),
        (b'{"goal":"sample","input":{"n":"text"}}', "input.schema"),
        (b'{"goal":3}', "plain.wrong_type"),
        (b"\x00\xff", "plain.malformed"),
        (b"[" * 100_000, "plain.malformed"),
        (b'{"envelope_hash":"' + b"0" * 64 + b'","id":"x"}', "envelope.hash_mismatch"),
    ],
)
async def test_a_goal_that_cannot_be_taken_is_rejected_with_a_code(body: bytes, code: str) -> None:
    """The rejection is on the run's own subject, where whoever asked is looking."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.plain(body)))
        [rejected] = await mesh.stored("AF_MESSAGES", "workflows.run-1.out")
        assert rejected.envelope.schema == "goal.rejected/1"
        assert payload_of(rejected).code == code


async def test_a_step_that_fails_is_tried_again_when_its_timer_fires() -> None:
    """The wait is the server's; a planner that starts in between takes it over."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [first] = await mesh.commands()
        failure = Failure(code="boom", type="Boom", message="it broke", blame="agent")
        await mesh.planner().handle(Delivered(await mesh.answer(first, StepFailed(failure))))
        assert len(await mesh.commands()) == 1
        mesh.clock.advance(2)
        [due] = await mesh.due()
        await mesh.planner().handle(Delivered(due))
        assert [payload_of(command).attempt for command in await mesh.commands()] == [1, 2]


async def test_a_step_that_is_silent_times_out_by_a_durable_timer() -> None:
    """Both attempts are used up by time alone, and the run fails with the step's code."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        handled: set[str] = set()
        for _ in range(12):
            mesh.clock.advance(6)
            for due in await mesh.due():
                if due.subject not in handled:
                    handled.add(due.subject)
                    await mesh.planner().handle(Delivered(due))
        state = await mesh.state()
        assert state.status == "failed"
        assert state.error is not None
        assert state.error.code == "step.timeout"


async def test_a_forged_timer_changes_nothing() -> None:
    """A timer counts only if the run's history lists its id and payload."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        mesh.clock.advance(10)
        [due] = await mesh.due()
        stranger = await mesh.submit("run-2", n=1)
        await planner.handle(Delivered(stranger))
        moved = Delivered(due)
        moved.message = type(due)(due.stream, due.seq, due.subject.replace("run-1", "run-2"), due.body, due.time)
        await planner.handle(moved)
        refused = (await mesh.stored("AF_MESSAGES", "workflows.run-2.out"))[-1]
        assert payload_of(refused).code == "envelope.moved"
        assert (await mesh.state("run-2")).status == "running"


async def test_junk_where_no_run_is_is_given_up_not_answered() -> None:
    """A result or timer of nobody's makes no run: it is for the dead letters."""
    async with planner_mesh() as mesh:
        await mesh.transport.publish("workflows.ghost.results.x", b"junk", stream="AF_MESSAGES")
        junk = await mesh.transport.last("AF_MESSAGES", "workflows.ghost.results.x")
        assert junk is not None
        with pytest.raises(InputError):
            await mesh.planner().handle(Delivered(junk))
        assert await mesh.decisions("ghost") == []


async def test_large_outputs_travel_by_reference() -> None:
    """An output above the inline limit is kept once, and the next step and the run's end refer to it."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        large = {"n": "x" * 200_000}
        for at in range(2):
            payload = StepCompleted(output=large)
            await check_in(mesh.objects, payload)
            await planner.handle(Delivered(await mesh.answer((await mesh.commands())[at], payload)))
        assert (await mesh.state()).output == large
        assert all(len(each.body) < 10_000 for each in await mesh.stored("AF_MESSAGES", "workflows.run-1.>"))


async def test_damaged_history_stops_the_run_with_evidence() -> None:
    """A planner that has to read a run back refuses one whose decisions do not verify."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [first] = await mesh.commands()
        last = await mesh.transport.last("AF_MESSAGES", "workflows.run-1.out")
        assert last is not None
        forged = last.body.replace(b'"state":"first"', b'"state":"third"')
        await mesh.transport.publish(last.subject, forged, stream="AF_MESSAGES", expect=last.seq)
        with pytest.raises(EvidenceError, match="damaged"):
            await mesh.planner().handle(Delivered(await mesh.answer(first)))


async def test_a_broker_that_is_away_leaves_the_input_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mesh error is no decision: the same input, delivered again, is decided once."""
    async with planner_mesh() as mesh:
        monkeypatch.setattr("agentflow.mesh.publishing.PATIENCE", 0.0)
        planner, message = mesh.planner(), await mesh.submit(n=1)

        async def refuse(*_: object, **__: object) -> object:
            raise MeshError("away")

        monkeypatch.setattr(mesh.transport, "publish", refuse)
        with pytest.raises(MeshError):
            await planner.handle(Delivered(message))
        monkeypatch.undo()
        await planner.handle(Delivered(message, deliveries=2))
        assert await mesh.decisions() == ["goal.accepted/1"]


async def test_a_definition_applied_later_does_not_change_a_run_in_flight() -> None:
    """A run keeps the digest of its definition."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        later = DEFINITION.replace(b"1.0.0", b"1.1.0").replace(b"second", b"other")
        await store_definition(mesh.transport, later, "sample", "1.1.0", "fsm", applied=START)
        await run_to_the_end(mesh, mesh.planner())
        assert await mesh.decisions() == ["goal.accepted/1", "run.advanced/1", "run.completed/1"]
        await mesh.planner().handle(Delivered(await mesh.submit("run-2", n=1)))
        assert payload_of((await mesh.stored("AF_MESSAGES", "workflows.run-2.out"))[0]).definition.version == "1.1.0"


def test_conflict_is_a_mesh_error() -> None:
    """A lost race is settled by reading again, never by failing a run."""
    assert issubclass(Conflict, MeshError)


@pytest.mark.parametrize("same_process", [True, False])
async def test_junk_among_the_decisions_stops_no_run(same_process: bool) -> None:
    """The planner steps over it, in memory and folding anew; the client and its commands do as well."""
    foreign = envelope(Lifecycle("a", "b", "started"), subjects.workflow_out("run-1"))
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        for body in (b"junk", foreign.body, b'{"goal":"order"}'):
            await mesh.transport.publish(subjects.workflow_out("run-1"), body, stream="AF_MESSAGES")
            if not same_process:
                planner = mesh.planner()
        await run_to_the_end(mesh, planner)

        client = Client(mesh.transport)
        await mesh.transport.publish(subjects.workflow_out("run-1"), b"late", stream="AF_MESSAGES")
        assert {"n": 1} == await client.run("run-1").result(timeout=5)
        assert ["completed"] == [state.status for state in await client.runs()]
