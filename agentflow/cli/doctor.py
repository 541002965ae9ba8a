"""`agentflow doctor`: is the mesh fit to be trusted with work? Each finding comes with what to do about it."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, is_terminal, paint, say

if TYPE_CHECKING:
    from agentflow.cli.findings import Finding

_SHOWN = {"ok": ("ok  ", "32"), "warning": ("warn", "33"), "error": ("FAIL", "31;1")}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "doctor",
        epilog=examples("agentflow doctor", "agentflow doctor --json | jq '.findings[] | select(.level != \"ok\")'"),
    )(doctor)


@command
async def doctor(as_json: JsonFlag = False, nats_url: NatsUrl = None) -> None:
    """Check whether the mesh is sound.

    Looks at server, streams, capacity, services, consumers, sandbox, clocks, dead letters, disk, settings and ports.
    Each finding has a code and a fix. Exit code 1 when something is wrong.
    """
    from agentflow.cli.checks import check_mesh
    from agentflow.cli.session import locate
    from agentflow.masking import mask_url

    located = locate(nats_url)
    findings = await check_mesh(located, (lambda _: None) if as_json else _progress)
    ok = all(finding.level != "error" for finding in findings)
    report = {
        "ok": ok,
        "mesh": mask_url(located.url),
        "found_by": located.origin,
        "findings": [asdict(each) for each in findings],
    }
    emit(report, as_json=as_json, render=lambda _: _print(report, findings))
    if not ok:
        raise typer.Exit(1)


def _progress(check: str) -> None:
    """Name the check that runs, for whoever waits at a terminal; the next line overwrites it."""
    if is_terminal(sys.stderr):
        sys.stderr.write(f"\r\x1b[Kchecking {check} …\r")
        sys.stderr.flush()


def _print(report: dict[str, Any], findings: "list[Finding]") -> None:
    if is_terminal(sys.stderr):
        sys.stderr.write("\x1b[K")
    say(f"mesh at {report['mesh']} ({report['found_by']})")
    for finding in findings:
        label, colour = _SHOWN[finding.level]
        say(
            f"  {paint(label, colour, sys.stdout)}  {finding.check:<13} {finding.message}{f'  [{finding.code}]' if finding.level != 'ok' else ''}"
        )
        if finding.fix:
            say(f"                       → {finding.fix}")
