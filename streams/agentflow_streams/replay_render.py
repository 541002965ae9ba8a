"""What `replay` prints for people, to stdout: the first divergence in full, the others in a line each."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from agentflow.cli.output import paint, say
from agentflow.payloads import Evaluated
from agentflow_streams.divergence import Condition, Divergence
from agentflow_streams.fidelity import Figures, ReplayReport

MOST_LINES = 20
"""Lines of one kind that are shown; --json has all."""


def print_replay(report: ReplayReport) -> None:
    """The result of `replay`, what is wrong first."""
    for number, divergence in enumerate(report.divergences[:MOST_LINES]):
        _print_headline(divergence)
        if number == 0:
            _print_details(divergence)
    _say_left(len(report.divergences))
    for stopped in report.not_replayable[:MOST_LINES]:
        say(f"{paint(f'{stopped.workflow}  not replayable', '33;1', sys.stdout)}  {stopped.code}: {stopped.detail}")
    _say_left(len(report.not_replayable))
    _print_figures(report.replay, ok=report.ok)


def _print_figures(figures: Figures, *, ok: bool) -> None:
    mark = paint("matched", "32", sys.stdout) if ok else paint("DIFFERS", "31;1", sys.stdout)
    say(f"replay    {mark}: {figures.matched} of {figures.runs} runs were decided again byte for byte")
    if figures.diverged or figures.not_replayable:
        say(f"          {figures.diverged} diverged, {figures.not_replayable} cannot be replayed")
    share = "none" if figures.fidelity is None else f"{figures.fidelity:.2%}"
    say(f"fidelity  {share}: {figures.matched_decisions} of {figures.decisions} decisions, {figures.commands} commands")
    if figures.expired_commands:
        say(f"          {figures.expired_commands} commands are kept no longer; their decisions list what is made now")
    if figures.open:
        say(f"open      {figures.open} runs have not ended, {figures.pending} of their inputs wait for a decision")
    say(f"read      AF_MESSAGES {figures.from_seq} to {figures.to_seq}")


def _print_headline(divergence: Divergence) -> None:
    d = divergence
    say(f"{paint(f'{d.workflow}  {d.kind}', '31;1', sys.stdout)}  decision {d.index} at {d.stream} {d.seq}: {d.detail}")


def _print_details(divergence: Divergence) -> None:
    for difference in divergence.differences:
        say(f"    {difference.path}")
        say(f"        recorded       {_shown(difference.recorded)}")
        say(f"        decided again  {_shown(difference.decided)}")
    for condition in divergence.conditions:
        _print_condition(condition)
    _print_side("recorded", divergence.recorded)
    _print_side("decided again", divergence.decided)
    say()


def _print_condition(condition: Condition) -> None:
    say(f"    condition {condition.expression}")
    say(f"        recorded       {_evaluated(condition.recorded)}")
    say(f"        decided again  {_evaluated(condition.decided)}")


def _evaluated(found: Evaluated | None) -> str:
    if found is None:
        return "not evaluated"
    values = ", ".join(f"{path} = {_shown(value)}" for path, value in found.values.items())
    return f"{str(found.result).lower()}, to {found.to}" + (f"  ({values})" if values else "")


def _print_side(title: str, envelope: Any) -> None:
    """The payload of an envelope, a member a line."""
    say(f"    {title}: {'nothing' if envelope is None else envelope.get('schema', '')}")
    payload = envelope.get("payload") if isinstance(envelope, Mapping) else None
    for name, value in (payload or {}).items():
        say(f"        {name}: {_shown(value)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:399] + "…"


def _say_left(count: int) -> None:
    if count > MOST_LINES:
        say(f"  … and {count - MOST_LINES} more (--json has all)")
