"""What no service takes: messages on subjects without a reader, and foreign bodies where only the mesh writes. Pure.

The broker stores whatever is published under a stream's subjects, also under a literal `*`. Goals, calls, steps, results
and timers have their reader, who refuses what is wrong with them. `stray` judges all the rest, so that nothing that
anybody ever publishes goes without a record (architecture, section 3.5).
"""

from collections.abc import Set
from dataclasses import dataclass

from agentflow import subjects
from agentflow.envelope import Sealed, claim_in, unseal
from agentflow.errors import InputError
from agentflow.payloads import SCHEMAS
from agentflow.schemas import decode_payload

CODES: dict[str, str] = {
    "stray.subject": "the subject is outside the grammar: nobody reads it",
    "stray.agent": "no agent of that id is declared",
    "stray.timer": "no service owns timers of that kind",
    "stray.schema": "a payload that has no place on its subject",
    "stray.chain": "an envelope that is not on the chain its subject belongs to, or answers another message",
}
"""The codes of this module; those of `unseal` and `decode_payload` come besides."""

READ_BY_OTHERS = frozenset({"workflow.in", "workflow.result", "tool.call", "tool.audit", "timer.set"})
"""Kinds of subjects whose readers refuse what is wrong."""

TIMER_OWNERS = frozenset({"planner"})

SCHEMAS_OF: dict[str, frozenset[str]] = {
    "workflow.out": frozenset(
        {"goal.accepted/1", "goal.rejected/1", "input.rejected/1", "run.advanced/1"}
        | {"run.completed/1", "run.failed/1", "run.cancelled/1"}
    ),
    "tool.result": frozenset({"tool.completed/1", "tool.failed/1"}),
    "dead": frozenset({"message.dead/1"}),
    "dead.case": frozenset({"message.retried/1", "message.resolved/1"}),
}
"""What may be stored where; other kinds of subjects take any schema there is."""

_CHAINS = {"tool.result": "handling"}
"""Chains of subjects that end in the id of a tool call."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Why a message is nobody's."""

    code: str
    reason: str


def stray(subject: str, body: bytes, agents: Set[str]) -> Stray | None:
    """Why nobody takes a message, or None; `agents` are the declared ones."""
    try:
        place = subjects.parse(subject)
    except InputError as error:
        return Stray("stray.subject", f"nobody reads this subject: {error.message}")
    if place.kind in READ_BY_OTHERS:
        return None
    if place.kind == "agent.in":
        return None if place.owner in agents else Stray("stray.agent", f"no agent {place.owner!r} is declared")
    if place.kind == "timer.due":
        kind = subject.split(".")[2]
        return None if kind in TIMER_OWNERS else Stray("stray.timer", f"no service owns timers of kind {kind!r}")
    try:
        sealed = unseal(body, subject)
        if claim_in(sealed.envelope.payload) is None:
            decode_payload(sealed.envelope.schema, sealed.envelope.payload)
    except InputError as error:
        return Stray(error.error_code, error.message)
    return _misplaced(place, sealed)


def _misplaced(place: subjects.Subject, sealed: Sealed) -> Stray | None:
    envelope = sealed.envelope
    allowed = SCHEMAS_OF.get(place.kind, SCHEMAS.keys())
    if envelope.schema not in allowed:
        return Stray("stray.schema", f"{envelope.schema} has no place on {envelope.subject}")
    if place.kind in _CHAINS:
        chain, cause = f"{_CHAINS[place.kind]}:{place.item}", envelope.causes[0].id if envelope.causes else ""
        if envelope.chain != chain or cause != place.item:
            return Stray(
                "stray.chain", f"it is on {envelope.chain[:100]} and answers {cause or 'nothing'}, not {chain}"
            )
    return None
