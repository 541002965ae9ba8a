"""`agentflow doctor`: is the mesh fit to be trusted with work? Each finding comes with what to do about it."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from agentflow.cli.output import JsonFlag, NatsUrl, command, emit, examples, paint, say

if TYPE_CHECKING:
    from agentflow.cli.checks import Finding

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

    Looks at server, streams, services, clock, dead letters and disk. Exit code 1 when something is wrong.
    """
    from agentflow.cli.checks import check_mesh
    from agentflow.cli.session import locate

    located = locate(nats_url)
    findings = await check_mesh(located)
    ok = all(finding.level != "error" for finding in findings)
    report = {
        "ok": ok,
        "mesh": located.url,
        "found_by": located.origin,
        "findings": [asdict(each) for each in findings],
    }
    emit(report, as_json=as_json, render=lambda _: _print(report, findings))
    if not ok:
        raise typer.Exit(1)


def _print(report: dict[str, Any], findings: "list[Finding]") -> None:
    say(f"mesh at {report['mesh']} ({report['found_by']})")
    for finding in findings:
        label, colour = _SHOWN[finding.level]
        say(f"  {paint(label, colour, sys.stdout)}  {finding.check:<13} {finding.message}")
        if finding.fix:
            say(f"                       → {finding.fix}")
