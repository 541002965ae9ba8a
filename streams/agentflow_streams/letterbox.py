"""Dead letters on a mesh: listed, found by id, with what is known around them."""

from datetime import datetime

from agentflow.artifacts import check_out
from agentflow.client import Client
from agentflow.envelope import Sealed, unseal
from agentflow.errors import EvidenceError, InputError, NotStored
from agentflow.letters import STREAM, Case, Letter, cases
from agentflow.mesh.retries import original
from agentflow.mesh.transport import Message, Transport
from agentflow.payloads import Payload
from agentflow.registry import ARTIFACTS
from agentflow.subjects import stream_of
from agentflow_streams.outlook import Known, answer_subject, run_of


async def read_cases(transport: Transport) -> dict[str, Case]:
    """Every letter and what became of it, the oldest first."""
    found = [(m.body, m.subject, m.seq, m.time) async for m in transport.read(STREAM)]
    return cases(found)


def chosen(
    found: dict[str, Case],
    *,
    stream: str = "",
    consumer: str = "",
    code: str = "",
    since: datetime | None = None,
    open_only: bool = False,
) -> list[Case]:
    """The letters that fit; whatever is empty fits all."""
    return [
        case
        for case in found.values()
        if stream in ("", case.letter.content.stream)
        and consumer in ("", case.letter.content.consumer)
        and code in ("", case.letter.content.code)
        and (since is None or case.letter.stored >= since)
        and (not open_only or case.status == "open")
    ]


def by_id(found: dict[str, Case], given: str) -> Case:
    """The letter with that id, or with an id that ends like that; raises `NotStored`, or `InputError` for several."""
    fitting = [case for id, case in found.items() if id == given] or [
        case for id, case in found.items() if len(given) >= 4 and id.endswith(given.upper())
    ]
    if not fitting:
        raise NotStored(
            f"there is no dead letter {given[:40]!r}", code="dead.unknown", letter=given[:40], hint="agentflow dead ls"
        )
    if len(fitting) > 1:
        ids = [case.letter.id for case in fitting]
        raise InputError(f"{given!r} may be {' or '.join(ids[:4])}", code="dead.ambiguous", letters=ids)
    return fitting[0]


async def opened(transport: Transport, letter: Letter) -> tuple[Message, Sealed | None, Payload | None]:
    """The original message, and where it is an envelope that, with its payload.

    Raises `EvidenceError` (`dead.body_damaged`).
    """
    message = await original(transport, letter)
    try:
        sealed = unseal(message.body, message.subject)
    except InputError:
        return message, None, None
    try:
        return message, sealed, await check_out(await transport.objects(ARTIFACTS), sealed.envelope)
    except (InputError, EvidenceError, NotStored):
        return message, sealed, None


async def known_of(transport: Transport, letter: Letter) -> Known:
    """What is known around a letter's message; raises `EvidenceError` where its bytes are gone."""
    _, sealed, payload = await opened(transport, letter)
    answer = await _answer(transport, answer_subject(letter, sealed))
    run_id = run_of(letter, sealed)
    try:
        state = await Client(transport).run(run_id).state() if run_id else None
    except (NotStored, InputError):
        state = None
    if state is None:
        return Known(sealed, payload, answer, run_id)
    error = f"{state.error.code}: {state.error.message}" if state.error else ""
    return Known(sealed, payload, answer, run_id, state.status, error)


async def _answer(transport: Transport, subject: str) -> Payload | None:
    message = await transport.last(stream_of(subject), subject) if subject else None
    if message is None:
        return None
    try:
        sealed = unseal(message.body, message.subject)
        return await check_out(await transport.objects(ARTIFACTS), sealed.envelope)
    except (InputError, EvidenceError, NotStored):
        return None
