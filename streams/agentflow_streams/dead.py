"""`agentflow dead ls`, `show` and `retry`: messages that services gave up, and what to do about them.

Light on purpose, like `commands`: everything heavy is imported where it is used.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, is_terminal, note, say, table
from agentflow.cli.session import open_transport

if TYPE_CHECKING:
    from agentflow.letters import Case
    from agentflow.mesh.transport import Transport

FAILED = 1
SHOWN = 2048
"""Bytes of a body that are shown unless --full asks for all."""

Stream = Annotated[str, typer.Option("--stream", metavar="NAME", help="Only of this stream.", show_default=False)]
Consumer = Annotated[str, typer.Option("--consumer", metavar="NAME", help="Only given up by it.", show_default=False)]
Code = Annotated[str, typer.Option("--code", metavar="CODE", help="Only with this code.", show_default=False)]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only since: 30m, 2h, 7d, or RFC 3339.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dead = typer.Typer(help="Look at messages that were given up, and have them handled again.", rich_markup_mode=None)
    dead.callback(invoke_without_command=True, epilog=examples("agentflow dead", "agentflow dead --json"))(_all)
    dead.command("ls", epilog=examples("agentflow dead ls", "agentflow dead ls --open --since 24h --json"))(ls)
    dead.command("show", epilog=examples("agentflow dead show 4KT9", "agentflow dead show 4KT9 --full --json"))(show)
    dead.command(
        "retry",
        epilog=examples(
            "agentflow dead retry 4KT9", "agentflow dead retry --all --code delivery.exhausted --yes --json"
        ),
    )(retry)
    app.add_typer(dead, name="dead")


def _all(context: typer.Context, as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Look at messages that were given up, and have them handled again."""
    if context.invoked_subcommand is None:
        ls(as_json=as_json, nats_url=nats_url)


@command
async def ls(
    stream: Stream = "",
    consumer: Consumer = "",
    code: Code = "",
    since: Since = "",
    open_only: Annotated[bool, typer.Option("--open", help="Only those nothing was done about.")] = False,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """List the dead letters, the oldest first, and what became of each."""
    async with open_transport(nats_url) as transport:
        found = await _chosen(transport, stream, consumer, code, since, open_only=open_only)
    emit([_row(case) for case in found], as_json=as_json, render=_print_rows)


async def _chosen(
    transport: "Transport", stream: str, consumer: str, code: str, since: str, *, open_only: bool
) -> "list[Case]":
    from agentflow.clock import SystemClock
    from agentflow_streams.letterbox import chosen, read_cases
    from agentflow_streams.since import parse_since

    moment = parse_since(since, SystemClock().now()) if since else None
    found = await read_cases(transport)
    return chosen(found, stream=stream, consumer=consumer, code=code, since=moment, open_only=open_only)


def _row(case: "Case") -> dict[str, Any]:
    from agentflow.clock import format_time

    content = case.letter.content
    return {
        "id": case.letter.id,
        "status": case.status,
        "stored": format_time(case.letter.stored),
        "stream": content.stream,
        "seq": content.seq,
        "consumer": content.consumer,
        "subject": content.subject,
        "code": content.code,
        "reason": content.reason,
        "deliveries": content.deliveries,
        "retry_of": content.retry_of or None,
        "retried": case.retried or None,
        "resolved": case.resolved or None,
        "given_up_again": case.again or None,
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table(
        ("id", "status", "stored", "consumer", "code", "subject"),
        [
            (
                row["id"],
                row["status"],
                row["stored"][:19].replace("T", " "),
                row["consumer"],
                row["code"],
                row["subject"],
            )
            for row in rows
        ],
        empty="there are no dead letters like that",
    )


@command
async def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="Of the letter, or the end of it.", show_default=False)],
    full: Annotated[bool, typer.Option("--full", help="All of the body, however long.")] = False,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Show a dead letter: why, and the message as it was.

    An envelope is decoded, anything else shown as bytes; whether the bytes are those that were given up is checked.
    """
    from agentflow.clock import SystemClock
    from agentflow_streams.letterbox import by_id, read_cases

    async with open_transport(nats_url) as transport:
        case = by_id(await read_cases(transport), letter)
        shown = {**_row(case), **await _message(transport, case, None if full else SHOWN, SystemClock().now())}
    emit(shown, as_json=as_json, render=_print_letter)


async def _message(transport: "Transport", case: "Case", limit: int | None, now: Any) -> dict[str, Any]:
    """The original, what is known around it, and what a retry would come to."""
    import msgspec

    from agentflow.envelope import sha256_hex
    from agentflow.errors import EvidenceError
    from agentflow_streams.letterbox import known_of, opened
    from agentflow_streams.outlook import foresee

    letter = case.letter
    try:
        message, sealed, payload = await opened(transport, letter)
    except EvidenceError as error:
        return {"verified": False, "problem": error.message, "message": None, "body": None, "outlook": error.error_code}
    known = await known_of(transport, letter)
    outlook = foresee(letter, known, now)
    there = await transport.get(letter.content.stream, letter.content.seq)
    envelope = None
    if sealed is not None:
        envelope = msgspec.to_builtins(sealed.envelope, enc_hook=_raw)
        envelope["payload"] = _cut(msgspec.to_builtins(payload), limit) if payload else "not to be had"
    return {
        "verified": True,
        "size": len(message.body),
        "sha256": sha256_hex(message.body),
        "kept_in": f"artifact {letter.artifact}" if letter.artifact else "the letter",
        "still_stored": there is not None and there.body == message.body,
        "run": known.run_id or None,
        "run_status": known.run_status or None,
        "outlook": outlook.code or "helps",
        "outlook_message": outlook.message or outlook.note,
        "message": envelope,
        "body": None if envelope else hexdump(message.body[:limit]),
        "truncated": envelope is None and limit is not None and len(message.body) > limit,
    }


def _raw(value: Any) -> Any:
    import msgspec

    return msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else str(value)


def _cut(payload: Any, limit: int | None) -> Any:
    """A payload, or where it is longer than `limit` its beginning as text."""
    import json

    text = json.dumps(payload, ensure_ascii=False)
    return payload if limit is None or len(text) <= limit else text[:limit] + "…"


def hexdump(data: bytes) -> list[str]:
    """Bytes as people read them: offset, hex and text, sixteen a line."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {text}")
    return lines


def _print_letter(shown: dict[str, Any]) -> None:
    import json

    for name in ("id", "status", "code", "reason", "stored", "stream", "seq", "consumer", "subject", "deliveries"):
        say(f"{name:<12} {shown[name]}")
    for name in ("retry_of", "retried", "resolved", "given_up_again", "run", "run_status", "kept_in", "sha256"):
        if shown.get(name):
            say(f"{name.replace('_', ' '):<12} {shown[name]}")
    told = shown.get("problem") or shown.get("outlook_message")
    say(f"{'retry':<12} {shown['outlook']}{f': {told}' if told else ''}")
    say()
    if shown["message"]:
        say(json.dumps(shown["message"], indent=2, ensure_ascii=False))
    for line in shown["body"] or ():
        say(line)
    if shown.get("truncated"):
        note(f"the first {SHOWN} bytes of {shown['size']}; --full shows all")


@command
async def retry(
    letters: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]…", help="Letters, or the ends of their ids.", show_default=False)
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every open letter that fits the options below.")] = False,
    stream: Stream = "",
    consumer: Consumer = "",
    code: Code = "",
    since: Since = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
    nats_url: NatsUrl = None,
) -> None:
    """Have messages that were given up handled again, by the consumer that gave them up.

    Twice is once. A run that has ended stays ended: --all passes over its letters, and for one that is named it is said.
    Ends with 1 where one could not be retried.
    """
    from agentflow.errors import InputError
    from agentflow_streams.letterbox import by_id, read_cases

    if every == bool(letters):
        raise InputError("name letters, or give --all", code="usage.letters", hint="agentflow dead ls --open")
    async with open_transport(nats_url) as transport:
        if every:
            wanted = await _chosen(transport, stream, consumer, code, since, open_only=True)
            _confirm(len(wanted), yes=yes, as_json=as_json)
        else:
            found = await read_cases(transport)
            wanted = [by_id(found, given) for given in letters or ()]
        done = [await _retried(transport, case, named=not every) for case in wanted]
    emit(done, as_json=as_json, render=_print_retried)
    if any(each["outcome"] == "refused" for each in done):
        raise typer.Exit(FAILED)


def _confirm(count: int, *, yes: bool, as_json: bool) -> None:
    from agentflow.errors import InputError

    if yes or not count:
        return
    if as_json or not is_terminal(sys.stdin):
        raise InputError(f"{count} letters would be retried", code="usage.confirm", hint="--yes does so")
    typer.confirm(f"retry {count} letters?", abort=True, err=True)


async def _retried(transport: "Transport", case: "Case", *, named: bool) -> dict[str, Any]:
    """Retry one letter, unless that cannot help."""
    from agentflow.clock import SystemClock
    from agentflow.errors import AgentflowError, MeshError
    from agentflow.letters import redelivery_subject
    from agentflow.mesh.retries import retry as retry_letter
    from agentflow_streams.letterbox import known_of
    from agentflow_streams.outlook import foresee

    letter, clock = case.letter, SystemClock()
    told = {"id": letter.id, "consumer": letter.content.consumer}
    try:
        if case.status not in ("open", "retried"):
            return {**told, "outcome": "already", "message": f"it is {case.status}", "letter": case.again or None}
        known = await known_of(transport, letter)
        outlook = foresee(letter, known, clock.now())
        if not outlook.helps and case.status == "open":
            return {**told, "outcome": "refused", "code": outlook.code, "message": outlook.message}
        if not named and known.run_status in ("completed", "failed", "cancelled", "rejected"):
            return {**told, "outcome": "skipped", "code": "dead.run_ended", "message": outlook.note}
        record, before = await retry_letter(transport, letter, clock)
    except MeshError:
        raise
    except AgentflowError as error:
        return {**told, "outcome": "refused", "code": error.error_code, "message": error.message}
    return {
        **told,
        "outcome": "already" if before else "retried",
        "message": f"asked for at {record.envelope.ts}" if before else outlook.note,
        "redelivered": redelivery_subject(letter),
    }


def _print_retried(done: list[dict[str, Any]]) -> None:
    for each in done:
        message = f": {each['message']}" if each["message"] else ""
        why = f" [{each['code']}]" if "code" in each else ""
        say(f"{each['id']}  {each['outcome']:<8}{why}{message}")
    if not done:
        note("there are no open letters like that")
    elif any(each["outcome"] == "retried" for each in done):
        note("its consumer is told; agentflow dead ls says when it is resolved")
