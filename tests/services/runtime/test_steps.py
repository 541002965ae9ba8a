"""Steps on the wire: what is accepted, and that everything a handling makes is a function of what it handles."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import subjects
from agentflow.chain import examine, handling_chain, link_of
from agentflow.clock import format_time
from agentflow.envelope import Ref, Sealed
from agentflow.errors import InputError
from agentflow.ids import is_ulid
from agentflow.payloads import Failure, Payload, RunSignalled, StepCompleted, StepFailed, StepRequested, ToolRequested
from agentflow.schemas import payload_as
from agentflow_runtime.steps import effect_id, read_step, reply_address, seal_call, seal_result, span_id
from tests.services.runtime.harness import request, step

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEP = step("worker", {"text": "hi"})
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
moments = st.integers(0, 2**31).map(lambda seconds: NOW + timedelta(seconds=seconds, microseconds=seconds % 1_000_000))


def call(tool: str = "search", **input: Any) -> ToolRequested:
    """A tool call's payload."""
    return ToolRequested(tool, input, "2026-01-01T00:00:30.000000Z")


@given(tokens, st.integers(0, 999), moments, moments)
def test_a_call_made_again_has_the_same_id_subject_and_payload(
    agent: str, index: int, first: datetime, again: datetime
) -> None:
    """Whenever and wherever the handler runs again: so the first attempt's call is found by its subject."""
    place = handling_chain(STEP)
    place = type(place)(place.chain, index, place.prev_hash)
    one, two = (seal_call(STEP, agent, call(text="x"), place, ts) for ts in (first, again))
    assert one.envelope.id == two.envelope.id == effect_id(STEP.envelope.id, agent, index)
    assert one.envelope.subject == subjects.tool_call(one.envelope.id) == two.envelope.subject
    assert bytes(one.envelope.payload) == bytes(two.envelope.payload)


@given(tokens, tokens, st.integers(0, 99), st.integers(0, 99))
def test_effects_of_one_handling_have_ids_of_their_own(one: str, two: str, first: int, second: int) -> None:
    """Two effects have the same id only if they are the same effect of the same agent."""
    ids = [effect_id(STEP.envelope.id, agent, index) for agent, index in ((one, first), (two, second))]
    assert all(map(is_ulid, ids))
    assert (ids[0] == ids[1]) == ((one, first) == (two, second))


def test_the_id_of_an_effect_does_not_depend_on_what_it_is() -> None:
    """A second attempt that asks for another tool meets the first attempt's call, and is found out."""
    one, two = (seal_call(STEP, "worker", call(tool), handling_chain(STEP), NOW) for tool in ("search", "refund"))
    assert one.envelope.subject == two.envelope.subject


def test_a_call_says_whose_it_is_and_where_the_answer_goes() -> None:
    """Sender, receiver, reply address, trace, causes and the run's metadata."""
    sealed = seal_call(STEP, "worker", call(), handling_chain(STEP), NOW).envelope
    cause = STEP.envelope
    assert (sealed.sender, sealed.to, sealed.type) == ("worker", "executor", "request")
    assert sealed.metadata["reply_to"] == subjects.tool_result("worker", sealed.id)
    assert {**sealed.metadata, "reply_to": ""} == {**cause.metadata, "reply_to": ""}
    assert (sealed.trace_id, sealed.causes) == (cause.trace_id, (STEP.ref,))
    assert (sealed.span_id, len(span_id(sealed.id))) == (span_id(sealed.id), 16)
    assert sealed.span_id != cause.span_id


@given(st.integers(0, 6))
def test_calls_and_result_are_one_unbroken_chain_that_rests_on_the_step(effects: int) -> None:
    """Place 0 rests on the step, each place on the one before, the result comes last."""
    place, made = handling_chain(STEP), list[Sealed]()
    for index in range(effects):
        made.append(seal_call(STEP, "worker", call(n=index), place, NOW))
        place = place.after(made[-1])
    made.append(seal_result(STEP, "worker", reply_address(STEP), StepCompleted(1), place=place, ts=NOW))
    assert made[0].envelope.prev_hash == STEP.hash
    assert examine([link_of(sealed, "S", seq) for seq, sealed in enumerate(made)]) == []


def test_a_result_names_what_it_is_made_of() -> None:
    """The handled step first, then the tool results; the run's metadata without a reply address."""
    used = (Ref(effect_id(STEP.envelope.id, "worker", 5), "a" * 64),)
    failed = StepFailed(Failure("x.y", "E", "m", "agent"))
    sealed = seal_result(
        STEP, "worker", reply_address(STEP), failed, place=handling_chain(STEP), ts=NOW, used=used
    ).envelope
    assert sealed.causes == (STEP.ref, *used)
    assert (sealed.sender, sealed.to, sealed.schema) == ("worker", "planner", "step.failed/1")
    assert sealed.metadata == {name: value for name, value in STEP.envelope.metadata.items() if name != "reply_to"}


def test_a_step_is_read_with_its_deadline() -> None:
    """The deadline is the moment the payload names, in whatever offset."""
    asked = StepRequested("w@1.0.0", "s", 2, {}, "2026-01-01T01:00:00+01:00")
    sealed = request(asked, "worker")
    read = read_step(sealed, asked)
    assert (read.deadline, read.request, read.reply_to) == (NOW, asked, reply_address(sealed))


@pytest.mark.parametrize(
    "metadata",
    [
        {"reply_to": ""},
        {"reply_to": None},
        {"reply_to": 7},
        {"reply_to": "workflows.other.results.01J00000000000000000000000"},
        {"reply_to": "agents.worker.in"},
        {"workflow_id": ""},
        {"workflow_id": "a.b"},
        {"workflow_id": "*"},
        {"workflow_id": ["run-0"]},
        {"workflow_id": "other"},
    ],
    ids=repr,
)
def test_a_reply_address_that_is_not_the_steps_own_is_refused(metadata: dict[str, Any]) -> None:
    """A result is stored in exactly one place: nobody can have it put anywhere else."""
    sealed = request(payload_as(STEP, StepRequested), "worker", metadata=metadata)
    with pytest.raises(InputError) as refused:
        reply_address(sealed)
    assert refused.value.error_code == "reply.invalid"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (RunSignalled("go"), "schema.unexpected"),
        (StepRequested("w@1.0.0", "s", 1, {}, "tomorrow"), "schema.mismatch"),
        (StepRequested("w@1.0.0", "s", 1, {}, "2026-01-01T00:00:00"), "schema.mismatch"),
        (StepRequested("w@1.0.0", "s", 1, {}, ""), "schema.mismatch"),
    ],
    ids=repr,
)
def test_what_is_no_step_with_a_deadline_is_refused(payload: Payload, code: str) -> None:
    """Another schema, or a deadline that is no moment."""
    with pytest.raises(InputError) as refused:
        read_step(request(payload, "worker"), payload)
    assert refused.value.error_code == code


@given(moments, st.integers(-3600, 3600))
def test_deadlines_as_planners_write_them_are_read_exactly(moment: datetime, seconds: int) -> None:
    """To the microsecond."""
    deadline = moment + timedelta(seconds=seconds)
    asked = StepRequested("w@1.0.0", "s", 1, {}, format_time(deadline))
    assert read_step(request(asked, "worker"), asked).deadline == deadline
