"""`agentflow why`: what a run waits for, who has to act, and what can be done."""

from typing import TYPE_CHECKING

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, say
from agentflow.cli.runs import RunId
from agentflow.cli.session import open_client

if TYPE_CHECKING:
    from agentflow.mesh.transport import Transport
    from agentflow.payloads import DeadLetter
    from agentflow.why import Facts, Reason, Wait


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why", epilog=examples("agentflow why my-run", "agentflow why my-run --json"))(why)


@command
async def why(run: RunId, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Say why a run does not move.

    Names the message, service, timer or person it waits for, since when, until when it looks again by itself, and what
    can be done. Exit code 0 whatever the reason is; 3 where there is no such run.
    """
    from agentflow import subjects
    from agentflow.cli.runs import with_suggestions
    from agentflow.errors import NotStored
    from agentflow.run import STREAM, stored_event
    from agentflow.why import explain, wait_of

    async with open_client(nats_url) as client:
        handle = client.run(run)
        try:
            await handle.state()
        except NotStored as error:
            raise await with_suggestions(client, error, run) from error
        messages = client.transport.read(STREAM, subjects.workflow_all(handle.id))
        events = [await stored_event(client.transport, message) async for message in messages]
        state, wait = wait_of(run, events)
        reason = explain(state, wait, await _facts(client.transport, wait))
    emit(reason, as_json=as_json, render=_print)


async def _facts(transport: "Transport", wait: "Wait") -> "Facts":
    """What the mesh shows of what a run waits for. What cannot be read is not known, and does not keep us."""
    import msgspec

    from agentflow.clock import SystemClock
    from agentflow.registry import REGISTRY, Heartbeat
    from agentflow.why import Facts

    alive: dict[str, int] = {}
    for entry in await (await transport.bucket(REGISTRY)).entries():
        try:
            beat = msgspec.json.decode(entry.value, type=Heartbeat)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # no heartbeat: nobody is alive by it
        key = f"agent.{beat.id}" if beat.kind == "agent" else beat.kind
        alive[key] = alive.get(key, 0) + 1
    letters = await _letters(transport, wait.subject)
    now = SystemClock().now()
    if wait.kind != "tool":
        return Facts(now, alive, letters)
    tool, caller = await _called(transport, wait.subject)
    intended = await transport.last("AF_AUDIT", f"tools.audit.{wait.owner}") is not None
    until, by, unreadable = await _blocked(transport, tool, caller)
    return Facts(now, alive, letters, tool, intended, until, by, unreadable)


async def _letters(transport: "Transport", subject: str) -> "tuple[DeadLetter, ...]":
    """The dead letters about a subject that keep it from being handled: nothing came of them yet."""
    from agentflow.letters import HANDLE_NOTHING, STREAM, cases

    if not subject:
        return ()
    stored = [(m.body, m.subject, m.seq, m.time) async for m in transport.read(STREAM)]
    return tuple(
        case.letter.content
        for case in cases(stored).values()
        if case.letter.content.subject == subject
        and case.status == "open"
        and case.letter.content.consumer not in HANDLE_NOTHING
    )


async def _called(transport: "Transport", subject: str) -> tuple[str, str]:
    """The tool a call names, and the principal who calls."""
    from agentflow.payloads import ToolRequested
    from agentflow.run import stored_event

    message = await transport.first("AF_AUDIT", subject)
    payload = None if message is None else (await stored_event(transport, message)).payload
    if not isinstance(payload, ToolRequested):
        return "", ""
    return payload.tool, f"workflow:{payload.workflow.partition('@')[0]}"


def _print(reason: "Reason") -> None:
    wait = reason.wait
    facts = [
        ("run", f"{reason.run} ({reason.status})"),
        ("why", f"{reason.why} [{reason.code}]"),
        ("since", wait.since),
        ("until", wait.until),
        ("message", f"{wait.message} on {wait.subject}" if wait.message else wait.subject),
        ("do", reason.do),
    ]
    for name, value in facts:
        if value:
            say(f"{name:<8} {value}")


async def _blocked(transport: "Transport", tool: str, caller: str) -> tuple[str, str, str]:
    """Until when a breaker keeps the call from being executed, its key, and a key that cannot be read; empty for none."""
    from agentflow.breakers import breaker_keys, is_open, read_breaker
    from agentflow.clock import SystemClock
    from agentflow.errors import EvidenceError
    from agentflow.registry import BREAKERS

    now, bucket = SystemClock().now(), await transport.bucket(BREAKERS)
    blocking, unreadable = [("", "")], ""
    for key in breaker_keys(tool, caller):
        entry = await bucket.get(key)
        if entry is None:
            continue
        try:
            breaker = read_breaker(key, entry.value)
        except EvidenceError:
            unreadable = unreadable or key
        else:
            blocking += [(breaker.until, key)] if is_open(breaker, now) else []
    return *max(blocking), unreadable
