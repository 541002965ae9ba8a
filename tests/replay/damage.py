"""What can be done to a recorded history: each makes a bad one of a good one.

An attacker who may write to the streams seals what was changed anew and mends the chain behind it, so that every hash
and every chain verifies: only deciding again shows such a change.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from agentflow.envelope import Sealed, seal, sha256_hex, unseal
from agentflow.mesh.transport import Message
from agentflow_streams.recordings import Blob, Histories, Kept

Damage = Callable[[Histories], Histories]
Edit = Callable[[dict[str, Any]], None]


def decisions_of(histories: Histories) -> list[int]:
    """Where in the messages the decisions are, in stream order."""
    found = [(kept.seq, n) for n, kept in enumerate(histories.messages) if kept.subject.endswith(".out")]
    return [n for _, n in sorted(found)]


def without(histories: Histories, *places: int) -> Histories:
    """The same without some messages."""
    kept = tuple(each for n, each in enumerate(histories.messages) if n not in places)
    return replace(histories, messages=kept)


def edited(number: int, change: Callable[[bytes], bytes]) -> Damage:
    """The bytes of a decision are changed, and nothing else."""

    def damage(histories: Histories) -> Histories:
        place = decisions_of(histories)[number]
        message = histories.messages[place].message
        body = change(message.body)
        assert body != message.body
        return _put(histories, place, body)

    return damage


def resealed(number: int, edit: Edit) -> Damage:
    """The payload of a decision is changed, it is sealed anew, and so is all of its chain behind it."""

    def damage(histories: Histories) -> Histories:
        previous: Sealed | None = None
        for index, place in enumerate(decisions_of(histories)):
            if index < number:
                continue
            sealed = unseal(histories.messages[place].message.body)
            envelope = sealed.envelope
            if index == number:
                payload = msgspec.json.decode(bytes(envelope.payload))
                edit(payload)
                envelope = replace(envelope, payload=msgspec.Raw(msgspec.json.encode(payload)))
            if previous is not None:
                envelope = replace(envelope, prev_hash=previous.hash)
            previous = seal(envelope)
            histories = _put(histories, place, previous.body)
        return histories

    return damage


def members(**changed: Any) -> Edit:
    """Set members of a payload."""

    def edit(payload: dict[str, Any]) -> None:
        payload.update(changed)

    return edit


def moved_on(number: int, seconds: str) -> Damage:
    """The time of a decision is another, it is sealed anew, and so is all of its chain behind it."""

    def damage(histories: Histories) -> Histories:
        previous: Sealed | None = None
        for index, place in enumerate(decisions_of(histories)):
            if index < number:
                continue
            envelope = unseal(histories.messages[place].message.body).envelope
            if index == number:
                envelope = replace(envelope, ts=envelope.ts[:17] + seconds + "Z")
            if previous is not None:
                envelope = replace(envelope, prev_hash=previous.hash)
            previous = seal(envelope)
            histories = _put(histories, place, previous.body)
        return histories

    return damage


def without_input(number: int) -> Damage:
    """The input of a decision is gone."""

    def damage(histories: Histories) -> Histories:
        return without(histories, _input_of(histories, number))

    return damage


def altered_input(number: int, old: bytes, new: bytes) -> Damage:
    """The input of a decision says something else."""

    def damage(histories: Histories) -> Histories:
        place = _input_of(histories, number)
        body = histories.messages[place].message.body
        assert old in body
        return _put(histories, place, body.replace(old, new))

    return damage


def without_decision(number: int) -> Damage:
    """A decision is gone."""
    return lambda histories: without(histories, decisions_of(histories)[number])


def command(change: Callable[[Message], bytes | None]) -> Damage:
    """The first stored command is another, or gone."""

    def damage(histories: Histories) -> Histories:
        place = next(n for n, kept in enumerate(histories.messages) if kept.stream != "AF_MESSAGES")
        body = change(histories.messages[place].message)
        return without(histories, place) if body is None else _put(histories, place, body)

    return damage


def resealed_command(message: Message) -> bytes:
    """A command that asks for something else, sealed as it should be."""
    envelope = unseal(message.body).envelope
    payload = msgspec.json.decode(bytes(envelope.payload))
    payload["input"] = {"item": "ten of them"}
    return seal(replace(envelope, payload=msgspec.Raw(msgspec.json.encode(payload)))).body


def another_definition(old: bytes, new: bytes) -> Damage:
    """The run is said to keep to another definition, which is there under its own hash."""

    def damage(histories: Histories) -> Histories:
        [(name, blob)] = [(n, b) for n, b in histories.artifacts.items() if b.data.startswith(b"name:")]
        assert old in blob.data
        source = blob.data.replace(old, new)

        def edit(payload: dict[str, Any]) -> None:
            payload["definition"]["sha256"] = sha256_hex(source)

        changed = resealed(0, edit)(histories)
        return replace(changed, artifacts={f"sha256-{sha256_hex(source)}": Blob.of(source), name: blob})

    return damage


def swapped_definition(histories: Histories) -> Histories:
    """The bytes of the definition are other ones than its hash says."""
    swapped = {name: Blob.of(blob.data + b"\n# changed\n") for name, blob in histories.artifacts.items()}
    return replace(histories, artifacts=swapped)


def without_artifacts(histories: Histories) -> Histories:
    """No definition is there."""
    return replace(histories, artifacts={})


def engine(named: str) -> Damage:
    """The run was begun with another condition engine."""

    def edit(payload: dict[str, Any]) -> None:
        payload["definition"]["engine"] = named

    return resealed(0, edit)


def extra_decision(histories: Histories) -> Histories:
    """The last decision stands there a second time, sealed for the next place."""
    place = decisions_of(histories)[-1]
    last = unseal(histories.messages[place].message.body)
    again = seal(replace(last.envelope, chain_seq=last.envelope.chain_seq + 1, prev_hash=last.hash))
    seq = 1 + max(kept.seq for kept in histories.messages if kept.stream == "AF_MESSAGES")
    kept = replace(histories.messages[place], seq=seq, body=Blob.of(again.body))
    return replace(histories, messages=(*histories.messages, kept))


def _input_of(histories: Histories, number: int) -> int:
    decision = unseal(histories.messages[decisions_of(histories)[number]].message.body)
    consumed = msgspec.json.decode(bytes(decision.envelope.payload))["consumed"][0]
    return next(
        n
        for n, kept in enumerate(histories.messages)
        if (kept.subject, kept.seq) == (consumed["subject"], consumed["seq"])
    )


def _put(histories: Histories, place: int, body: bytes) -> Histories:
    changed: list[Kept] = list(histories.messages)
    changed[place] = replace(changed[place], body=Blob.of(body))
    return replace(histories, messages=tuple(changed))


BAD: Mapping[str, tuple[str, Damage, str]] = {
    "edited_decision": (
        "shipped",
        edited(1, lambda body: body.replace(b'"state":"ship"', b'"state":"shop"')),
        "edited",
    ),
    "unreadable_decision": ("shipped", edited(1, lambda _: b"not an envelope"), "missing"),
    "another_way_taken": ("shipped", resealed(1, members(state="refused")), "decision"),
    "another_condition_result": ("not_in_stock", resealed(1, members(conditions=[])), "decision"),
    "another_seed": ("retried", resealed(0, members(seed="0" * 32)), "seed"),
    "another_time": ("shipped", moved_on(1, "59.999999"), "clock"),
    "another_output": ("shipped", resealed(2, members(output={"item": "lamp", "price": 1})), "decision"),
    "another_transition": (
        "shipped",
        another_definition(b'to: ship, condition: "output.in_stock"', b'to: refused, condition: "output.in_stock"'),
        "decision",
    ),
    "extra_decision": ("shipped", extra_decision, "extra"),
    "missing_decision": ("shipped", without_decision(1), "missing"),
    "missing_beginning": ("shipped", without_decision(0), "history.beginning_missing"),
    "missing_input": ("shipped", without_input(1), "input.missing"),
    "missing_goal": ("plain_goal", without_input(0), "input.missing"),
    "altered_input": ("shipped", altered_input(1, b'"price":20', b'"price":2'), "input.altered"),
    "altered_plain_goal": ("plain_goal", altered_input(0, b"pen", b"pan"), "input.altered"),
    "tampered_command": ("shipped", command(resealed_command), "command"),
    "missing_command": ("shipped", command(lambda _: None), "command_missing"),
    "swapped_definition": ("shipped", swapped_definition, "definition.altered"),
    "missing_definition": ("shipped", without_artifacts, "definition.missing"),
    "unknown_engine": ("shipped", engine("cel-of-old/1.0"), "condition.engine_missing"),
    "another_engine_version": ("shipped", engine("cel-python/0.0.1"), "condition.engine_version"),
}
"""By name: the good history it is made of, what is done to it, and the kind or code that a replay must tell."""
