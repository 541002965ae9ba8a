"""Inputs that were given up and are retried: decided about as what they are, and the run that waits goes on."""

from agentflow.clock import SystemClock
from agentflow.letters import Letter, redelivery_subject, seal_redelivered, seal_retried
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.publishing import store
from agentflow.mesh.retries import RetriedDelivery, Retries, retry
from agentflow.mesh.transport import Message
from agentflow_planner.sending import PRODUCER
from agentflow_streams.letterbox import read_cases
from agentflow_streams.verification import verify
from tests.services.planner.meshes import Delivered, PlannerMesh, planner_mesh


async def given_up(mesh: PlannerMesh, message: Message) -> Letter:
    """The planner gave a message up."""
    await write_dead_letter(
        mesh.transport, Delivered(message, deliveries=9), PRODUCER, PRODUCER, "delivery.exhausted", "x"
    )
    (case,) = (await read_cases(mesh.transport)).values()
    return case.letter


async def redelivery(mesh: PlannerMesh, letter: Letter) -> Message:
    """What a retry stores for the planner."""
    found = await mesh.transport.last("AF_MESSAGES", redelivery_subject(letter))
    assert found is not None
    return found


async def test_a_result_that_was_given_up_moves_the_run_when_it_is_retried() -> None:
    """The run still waited for it; what is recorded verifies like any other history."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        letter = await given_up(mesh, await mesh.answer(command))
        await retry(mesh.transport, letter, SystemClock())

        given = Delivered(await redelivery(mesh, letter))
        meant = await Retries(mesh.transport, PRODUCER).resolve(given)
        assert isinstance(meant, RetriedDelivery)
        await mesh.planner().handle(meant)
        await meant.ack()

        assert "second" == (await mesh.state()).state
        assert ["ack"] == given.settled
        assert "resolved" == (await read_cases(mesh.transport))[letter.id].status
        found = await verify(mesh.transport, now=mesh.clock.now())
        assert found.ok, found.damages


async def test_a_redelivery_on_the_runs_subjects_is_no_input_of_its_own() -> None:
    """Whoever reads back over it leaves it alone: it is resolved where it is delivered."""
    async with planner_mesh() as mesh:
        planner = mesh.planner()
        await planner.handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        letter = await given_up(mesh, await mesh.answer(command))
        await retry(mesh.transport, letter, SystemClock())
        await mesh.planner().handle(Delivered(await mesh.plain(b"junk")))
        await planner.handle(Delivered(await mesh.plain(b"more junk")))

        refused = [each for each in await mesh.decisions() if each == "input.rejected/1"]
        assert 2 == len(refused)
        assert "second" == (await mesh.state()).state  # the result itself was decided first, in stream order


async def test_a_redelivery_that_stands_for_nothing_is_refused_and_the_run_still_folds() -> None:
    """Forged, without a record: it is an input that the run does not take."""
    async with planner_mesh() as mesh:
        await mesh.planner().handle(Delivered(await mesh.submit(n=1)))
        [command] = await mesh.commands()
        letter = await given_up(mesh, await mesh.answer(command))
        await store(mesh.transport, seal_redelivered(letter, seal_retried(letter, mesh.clock.now())), expect=0)

        given = Delivered(await redelivery(mesh, letter))
        meant = await Retries(mesh.transport, PRODUCER).resolve(given)
        assert meant is given
        await mesh.planner().handle(given)

        assert "input.rejected/1" in await mesh.decisions()
        await mesh.planner().handle(Delivered(await mesh.plain(b"junk")))
        assert (await mesh.state()).exists
