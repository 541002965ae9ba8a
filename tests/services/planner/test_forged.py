"""Envelopes that are sound in themselves and made by somebody else than they say: refused, and the run goes on."""

from typing import Any

import pytest
from msgspec.structs import replace

from agentflow import subjects
from agentflow.chain import handling_chain
from agentflow.envelope import ChainPlace, Ref, Sealed
from agentflow.payloads import InputRejected, RunCompleted, RunSignalled, StepCompleted
from agentflow.testing import envelope
from agentflow_planner.machine import Decided
from agentflow_planner.sealing import UNKNOWN_PUBLISHER
from tests.services.planner.test_machine import recorded
from tests.services.planner.worlds import World, plan_of, step


def waiting() -> tuple[World, Sealed]:
    """A run that waits for its agent, and the command it sent."""
    world = World(plan_of({"a": step("a")}))
    world.submit()
    return world, world.commands[-1]


def result(command: Sealed, **more: Any) -> bytes:
    """A result as its maker seals it, but for what is given."""
    made = {"sender": command.envelope.to, "place": handling_chain(command), "causes": (command.ref,), **more}
    subject = subjects.workflow_result("w-1", command.envelope.id)
    return envelope(StepCompleted(output={}), subject, **made).body


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"sender": "mallory"}, "result.wrong_sender"),
        ({"place": ChainPlace("handling:01KE0000000000000000000000")}, "result.wrong_chain"),
        ({"place": ChainPlace("workflow:w-1:01KE0000000000000000000000", 5)}, "result.wrong_chain"),
        ({"causes": (Ref("01KE0000000000000000000000", "a" * 64),)}, "result.wrong_cause"),
        ({"causes": ()}, "result.wrong_cause"),
    ],
)
def test_a_forged_result_is_refused_and_the_true_one_is_taken(more: dict[str, Any], code: str) -> None:
    """Each kind of forgery has a code; the run waits on and completes."""
    world, command = waiting()
    refused = recorded(world.take(subjects.workflow_result("w-1", command.envelope.id), result(command, **more)))
    assert isinstance(refused, InputRejected)
    assert (refused.code, bool(refused.found) or code == "result.wrong_cause") == (code, True)
    world.results.clear()
    assert isinstance(recorded(world.answer({})), RunCompleted)


@pytest.mark.parametrize("kind", ["workflow", "decision", "handling", "audit"])
def test_what_a_client_sends_takes_no_place_on_the_meshs_own_chains(kind: str) -> None:
    """A signal that claims one is refused."""
    world, _ = waiting()
    place = ChainPlace(f"{kind}:w-1:01KE0000000000000000000000", 2)
    forged = envelope(RunSignalled("go"), subjects.workflow_in("w-1"), place=place)
    refused = recorded(world.take(subjects.workflow_in("w-1"), forged.body))
    assert isinstance(refused, InputRejected)
    assert (refused.code, refused.found) == ("input.wrong_chain", place.chain)


def test_output_nested_too_deeply_is_refused() -> None:
    """What cannot be worked with is not taken, though it is sealed as it should be."""
    world, command = waiting()
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    place, cause = handling_chain(command), command.ref
    subject = subjects.workflow_result("w-1", command.envelope.id)
    sealed = envelope(StepCompleted(deep), subject, sender=command.envelope.to, place=place, causes=(cause,))
    refused = recorded(world.take(subject, sealed.body))
    assert isinstance(refused, InputRejected)
    assert refused.code == "value.too_deep"


def test_a_decision_says_that_nobody_knows_who_sent_a_plain_message() -> None:
    """With the hash of its raw bytes; commands and sealed inputs carry nothing of it."""
    world = World(plan_of({"a": step("a")}))
    verdict = world.take(subjects.workflow_in("w-1"), b'{"goal":"sample"}')
    assert isinstance(verdict, Decided)
    sealed, accepted, _ = world.log[-1]
    expected = {"from": UNKNOWN_PUBLISHER, "sha256": accepted.consumed[0].hash}
    assert expected == sealed.envelope.metadata["adopted"]
    assert "adopted" not in world.commands[-1].envelope.metadata
    world.answer({})
    assert "adopted" not in world.log[-1][0].envelope.metadata


def test_the_input_of_a_sealed_goal_names_its_sender() -> None:
    """So that a decision can tell whom it heard."""
    world, _ = waiting()
    [given] = world.inputs.values()
    assert (given.sender, replace(given, sender="").sender) == ("client", "")
