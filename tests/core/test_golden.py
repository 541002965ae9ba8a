"""The wire form, written down: bytes that were sealed once must open for ever, and be made again to the byte.

A change here breaks stored histories and clients in other languages. Bytes in this file are never edited to make a test
pass: a payload gets a new version, or a member with a default at its end, and then its bytes here get that member.
"""

import json
from typing import Any

import msgspec
import pytest

from agentflow.chain import decision_chain, handling_chain
from agentflow.envelope import ChainPlace, Cost, Sealed, unseal
from agentflow.ids import derive_id
from agentflow.payloads import (
    SCHEMAS,
    Command,
    Consumed,
    DefinitionRef,
    Evaluated,
    Failure,
    GoalAccepted,
    GoalSubmitted,
    Payload,
    StepCompleted,
    TimerSet,
    ToolRequested,
)
from agentflow.schemas import compose, decode_payload
from tests.core import wire as independent

GOAL = (
    b'{"envelope_hash":"65b27ef1df9a2b6c2a2d30cf4fbbeafc520d7bac761540f79c78415fc6ad1825",'
    b'"id":"01KDVDNA0031GFVX1A47NTMKHK","subject":"workflows.demo-1.in","schema":"goal.submitted/1",'
    b'"type":"request","from":"client","to":"planner","trace_id":"0af7651916cd43dd8448eb211c80319c",'
    b'"span_id":"b7ad6b7169203331","ts":"2026-11-20T18:00:00.000000Z","payload":{"goal":"support",'
    b'"input":{"text":"my card never came"}},"metadata":{"tenant":"default","workflow_id":"demo-1"},'
    b'"cost":{"tokens":0,"dollars":0.0},"chain":"input:01KDVDNA00AAAAAAAAAAAAAAAA:demo-1","chain_seq":0,'
    b'"prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","causes":[]}'
)

CALL = (
    b'{"envelope_hash":"fa6f6a1f95509f4c777b65dd66de529bd1d8b361fc4542d27dae9765f9b1cdd0",'
    b'"id":"01KDVDNA0052M1JH6P0M9FE9GR","subject":"tools.calls.01KDVDNA0052M1JH6P0M9FE9GR",'
    b'"schema":"tool.requested/1","type":"request","from":"planner","to":"executor",'
    b'"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"00f067aa0ba902b8",'
    b'"ts":"2026-11-20T18:00:00.000001Z","payload":{"tool":"send_response","input":{"ticket":"t-7",'
    b'"text":"Gr\xc3\xbc\xc3\x9fe \\"\xf0\x9f\x99\x82\\"\\n","weight":0.1},"deadline":"2026-11-20T18:00:30.000000Z","workflow":"",'
    b'"state":"","attempt":1},"metadata":{},"cost":{"tokens":12,"dollars":0.25},'
    b'"chain":"decision:01KDVDNA0031GFVX1A47NTMKHK","chain_seq":0,'
    b'"prev_hash":"65b27ef1df9a2b6c2a2d30cf4fbbeafc520d7bac761540f79c78415fc6ad1825",'
    b'"causes":[{"id":"01KDVDNA0031GFVX1A47NTMKHK",'
    b'"hash":"65b27ef1df9a2b6c2a2d30cf4fbbeafc520d7bac761540f79c78415fc6ad1825"}]}'
)

CLAIM = (
    b'{"envelope_hash":"c8cbc4536eb0d7287aa410f895b377129dd38062d2568af38ad9c05b755e6fc5",'
    b'"id":"01KDVDNA00D5ZY31RCRJPSTNDK","subject":"workflows.demo-1.results.01KDVDNA0052M1JH6P0M9FE9GR",'
    b'"schema":"step.completed/1","type":"response","from":"agent-1","to":"planner",'
    b'"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"00f067aa0ba902b9",'
    b'"ts":"1970-01-01T00:00:00.000000Z",'
    b'"payload":{"artifact":"sha256-d495f555d935d4a8105e351d2faaa616a8f5156048a48b5bb96c48d6400668c2",'
    b'"sha256":"d495f555d935d4a8105e351d2faaa616a8f5156048a48b5bb96c48d6400668c2","size":200022},'
    b'"metadata":{},"cost":{"tokens":0,"dollars":0.0},"chain":"handling:01KDVDNA0052M1JH6P0M9FE9GR",'
    b'"chain_seq":1,"prev_hash":"fa6f6a1f95509f4c777b65dd66de529bd1d8b361fc4542d27dae9765f9b1cdd0",'
    b'"causes":[{"id":"01KDVDNA0052M1JH6P0M9FE9GR",'
    b'"hash":"fa6f6a1f95509f4c777b65dd66de529bd1d8b361fc4542d27dae9765f9b1cdd0"},{"id":"01KDVDNA0031GFVX1A47NTMKHK",'
    b'"hash":"65b27ef1df9a2b6c2a2d30cf4fbbeafc520d7bac761540f79c78415fc6ad1825"}]}'
)


CONSUMED = (
    b'"consumed":[{"id":"01KDVDNA0031GFVX1A47NTMKHK","hash":"hash","schema":"schema","subject":"subject","seq":1}],'
)
DELTA = (
    b'"state":"","previous":"","reason":"","attempt":0,"conditions":[],"commands":[],"waits_for":"",'
    b'"timer":null,"retry_at":"","error":null'
)
ACCEPTED = (
    b'"definition":{"name":"name","version":"version","sha256":"sha256","planner":"planner",'
    b'"engine":"engine"},"seed":"seed"'
)
PAYLOADS = {
    "goal.submitted/1": b'{"goal":"goal","input":{}}',
    "run.signalled/1": b'{"name":"name","data":{}}',
    "run.cancel_requested/1": b'{"reason":""}',
    "step.requested/1": b'{"workflow":"workflow","state":"state","attempt":1,"input":{},"deadline":"deadline"}',
    "step.completed/1": b'{"output":{"any":[null]}}',
    "step.failed/1": b'{"error":{"code":"code","type":"type","message":"message","blame":"input","retryable":true}}',
    "tool.requested/1": b'{"tool":"tool","input":{},"deadline":"deadline","workflow":"","state":"","attempt":1}',
    "tool.completed/1": b'{"output":{"any":[null]}}',
    "tool.failed/1": b'{"error":{"code":"code","type":"type","message":"message","blame":"input","retryable":true}}',
    "tool.intent/1": (
        b'{"tool":"tool","tool_version":"tool_version","effect":"effect","principal":"principal",'
        b'"input_sha256":"input_sha256","profile_sha256":"profile_sha256","execution":1,"expires":"expires",'
        b'"permissions":[]}'
    ),
    "tool.outcome/1": (
        b'{"tool":"tool","status":"completed","input_sha256":"input_sha256","output_sha256":"",'
        b'"exit_code":null,"usage":null,"error":null,"result":{},'
        b'"principal":"","tool_version":"","permissions":[],"input_bytes":0,"output_bytes":0}'
    ),
    "tool.reconciled/1": b'{"tool":"tool","happened":true,"detail":"","result":{}}',
    "tool.anomaly/1": (
        b'{"rule":"rule","kind":"kind","rule_sha256":"rule_sha256","rules_version":"rules_version",'
        b'"rules_sha256":"rules_sha256","severity":"low","detail":"detail","count":1,"tool":"","principal":"",'
        b'"workflow_id":"","tenant":"","evidence":[],"features":{},"actions":["flag"],"breakers":[],"until":""}'
    ),
    "goal.accepted/1": b"{" + CONSUMED + DELTA + b"," + ACCEPTED + b"}",
    "run.advanced/1": b"{" + CONSUMED + DELTA + b"}",
    "run.completed/1": b"{" + CONSUMED + DELTA + b',"output":null}',
    "run.failed/1": b"{" + CONSUMED + DELTA + b"}",
    "run.cancelled/1": b"{" + CONSUMED + DELTA + b"}",
    "goal.rejected/1": b"{" + CONSUMED + b'"code":"code","message":"message","found":"","allowed":""}',
    "input.rejected/1": b"{" + CONSUMED + b'"code":"code","message":"message","found":"","allowed":""}',
    "timer.due/1": b'{"due":"due","state":"state"}',
    "message.dead/1": (
        b'{"stream":"stream","consumer":"consumer","seq":1,"subject":"subject","deliveries":1,"code":"code",'
        b'"reason":"reason","body_base64":"body_base64","retry_of":""}'
    ),
    "message.retried/1": b'{"letter":"letter","redelivered":"redelivered"}',
    "message.redelivered/1": (b'{"letter":"letter","hash":"hash","seq":1,"stream":"stream","consumer":"consumer"}'),
    "message.resolved/1": b'{"letter":"letter","deliveries":1}',
    "component.lifecycle/1": b'{"component":"component","incarnation":"incarnation","state":"started","detail":""}',
}
"""A payload of every schema that has its required members only."""

FULL_DECISION = (
    b'{"consumed":[{"id":"01KDVDNA0031GFVX1A47NTMKHK","hash":"aa","schema":"goal.submitted/1",'
    b'"subject":"workflows.demo-1.in","seq":7}],"state":"classify","previous":"","reason":"started",'
    b'"attempt":1,"conditions":[{"expression":"output.confidence >= 0.8","result":true,"to":"reply",'
    b'"values":{"output.confidence":0.9}}],"commands":[{"id":"01KDVDNA0052M1JH6P0M9FE9GR",'
    b'"subject":"tools.calls.01KDVDNA0052M1JH6P0M9FE9GR","schema":"tool.requested/1","payload_sha256":"bb"}],'
    b'"waits_for":"approval","timer":{"id":"01KDVDNA00D5ZY31RCRJPSTNDK",'
    b'"set_subject":"timers.set.workflow.demo-1.0","payload_sha256":"cc","due":"2026-11-20T18:00:30.000000Z"},'
    b'"retry_at":"2026-11-20T18:00:10.000000Z","error":{"code":"step.failed","type":"ValueError",'
    b'"message":"no","blame":"agent","retryable":false},"definition":{"name":"support","version":"1.0.0",'
    b'"sha256":"dd","planner":"fsm","engine":"cel-cpp/1"},"seed":"00ff"}'
)


def goal() -> Sealed:
    """A goal as a client sends it."""
    return compose(
        GoalSubmitted("support", {"text": "my card never came"}),
        id="01KDVDNA0031GFVX1A47NTMKHK",
        subject="workflows.demo-1.in",
        sender="client",
        to="planner",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        ts="2026-11-20T18:00:00.000000Z",
        place=ChainPlace("input:01KDVDNA00AAAAAAAAAAAAAAAA:demo-1"),
        metadata={"tenant": "default", "workflow_id": "demo-1"},
    )


def call() -> Sealed:
    """A command that rests on another envelope, with text beyond ASCII and a cost."""
    before = goal()
    call_id = derive_id(before.envelope.id, "planner", "command", 3)
    return compose(
        ToolRequested(
            "send_response", {"ticket": "t-7", "text": 'Grüße "🙂"\n', "weight": 0.1}, "2026-11-20T18:00:30.000000Z"
        ),
        id=call_id,
        subject=f"tools.calls.{call_id}",
        sender="planner",
        to="executor",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="00f067aa0ba902b8",
        ts="2026-11-20T18:00:00.000001Z",
        place=decision_chain(before),
        causes=(before.ref,),
        cost=Cost(12, 0.25),
    )


def claim() -> Sealed:
    """A result too large to be inline, second on its chain, with two causes."""
    before = call()
    return compose(
        StepCompleted({"text": "x" * 200_000}),
        id=derive_id(before.envelope.id, "agent-1", "result"),
        subject=f"workflows.demo-1.results.{before.envelope.id}",
        sender="agent-1",
        to="planner",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="00f067aa0ba902b9",
        ts="1970-01-01T00:00:00.000000Z",
        place=handling_chain(before).after(before),
        causes=(before.ref, goal().ref),
    )


@pytest.mark.parametrize(("made", "written"), [(goal, GOAL), (call, CALL), (claim, CLAIM)])
def test_the_same_facts_make_the_same_bytes_for_ever(made: Any, written: bytes) -> None:
    """Member names and order, escapes, numbers, hashes and derived ids are as they were when this was written."""
    assert written == made().body


@pytest.mark.parametrize("written", [GOAL, CALL, CLAIM])
def test_bytes_that_were_stored_once_open_for_ever(written: bytes) -> None:
    """And they verify without our code, so this file itself holds no mistake."""
    assert independent.verifies(written)
    assert written == unseal(written, json.loads(written)["subject"]).body


def test_a_chain_links_by_the_hashes_in_the_bytes() -> None:
    """The call rests on the goal, the claim on the call: told from the bytes alone."""
    first, second, third = (json.loads(body) for body in (GOAL, CALL, CLAIM))

    assert "0" * 64 == first["prev_hash"]
    assert first["envelope_hash"] == second["prev_hash"] == second["causes"][0]["hash"]
    assert second["envelope_hash"] == third["prev_hash"] == third["causes"][0]["hash"]


def test_every_schema_has_its_bytes_here() -> None:
    """A new schema is written down with the others."""
    assert set(PAYLOADS) == set(SCHEMAS)


@pytest.mark.parametrize("schema", PAYLOADS)
def test_a_stored_payload_can_still_be_read(schema: str) -> None:
    """Old bytes decode: nothing was renamed, removed or made required."""
    assert isinstance(decode_payload(schema, PAYLOADS[schema]), SCHEMAS[schema][0])


@pytest.mark.parametrize("schema", PAYLOADS)
def test_a_payload_is_still_written_the_same(schema: str) -> None:
    """Members, order and defaults are as they were: derived hashes and decisions depend on the bytes."""
    payload: Payload = decode_payload(schema, PAYLOADS[schema])

    assert PAYLOADS[schema] == msgspec.json.encode(payload)


BEFORE = {
    "tool.intent/1": (
        b'{"tool":"tool","tool_version":"tool_version","effect":"effect","principal":"principal",'
        b'"input_sha256":"input_sha256","profile_sha256":"profile_sha256","execution":1,"expires":"expires"}'
    ),
    "tool.outcome/1": (
        b'{"tool":"tool","status":"completed","input_sha256":"input_sha256","output_sha256":"",'
        b'"exit_code":null,"usage":null,"error":null,"result":{}}'
    ),
}
"""Payloads as they were written before members were added to them."""


@pytest.mark.parametrize("schema", BEFORE)
def test_a_payload_from_before_a_member_was_added_is_the_one_without_it(schema: str) -> None:
    """Histories of the first release are read for ever; what they do not say has its default."""
    assert decode_payload(schema, PAYLOADS[schema]) == decode_payload(schema, BEFORE[schema])


def test_a_failure_says_when_to_try_again_only_where_that_is_known() -> None:
    """So the bytes of all other failures, and what was derived from them, are as they were."""
    known = Failure("breaker.open", "Denied", "no", "mesh", True, 2.5)

    assert b"retry_after" not in msgspec.json.encode(Failure("code", "type", "message", "input"))
    assert b'"retryable":true,"retry_after":2.5}' in msgspec.json.encode(known)
    assert known == msgspec.json.decode(msgspec.json.encode(known), type=Failure)


def test_a_decision_with_everything_in_it_is_still_written_the_same() -> None:
    """The structs inside other payloads have their form too."""
    decision = GoalAccepted(
        consumed=(Consumed("01KDVDNA0031GFVX1A47NTMKHK", "aa", "goal.submitted/1", "workflows.demo-1.in", 7),),
        state="classify",
        reason="started",
        attempt=1,
        conditions=(Evaluated("output.confidence >= 0.8", True, "reply", {"output.confidence": 0.9}),),
        commands=(
            Command("01KDVDNA0052M1JH6P0M9FE9GR", "tools.calls.01KDVDNA0052M1JH6P0M9FE9GR", "tool.requested/1", "bb"),
        ),
        waits_for="approval",
        timer=TimerSet(
            "01KDVDNA00D5ZY31RCRJPSTNDK", "timers.set.workflow.demo-1.0", "cc", "2026-11-20T18:00:30.000000Z"
        ),
        retry_at="2026-11-20T18:00:10.000000Z",
        error=Failure("step.failed", "ValueError", "no", "agent", False),
        definition=DefinitionRef("support", "1.0.0", "dd", "fsm", "cel-cpp/1"),
        seed="00ff",
    )

    assert FULL_DECISION == msgspec.json.encode(decision)
    assert decision == decode_payload("goal.accepted/1", FULL_DECISION)
