"""What `streams` and `verify` print for people, to stdout.

What is checked is said apart: integrity, continuity, completeness (architecture, section 3.2).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentflow.cli.output import paint, say, table
from agentflow_streams.findings import Verification
from agentflow_streams.provision import StreamReport

MOST_LINES = 20
"""Lines of one kind that are shown; --json has all."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def print_streams(found: Sequence[Mapping[str, Any]]) -> None:
    """The table of `streams ls`, and the drift below it."""
    rows = [
        (
            each["name"],
            " ".join(each["subjects"]),
            each["messages"] if each["exists"] else "",
            f"{size(each['bytes'])} of {_room(each['max_bytes'])}" if each["exists"] else "",
            "missing" if not each["exists"] else f"{len(each['drift'])} differ" if each["drift"] else "as declared",
        )
        for each in found
    ]
    table(("stream", "subjects", "messages", "size", "settings"), rows)
    _print_lines("differs from its definition", (line for each in found for line in each["drift"]))


def print_provisioned(report: Mapping[str, Any]) -> None:
    """What `streams apply` did."""
    streams: Sequence[StreamReport] = report["streams"]
    for state in ("created", "updated", "unchanged", "drifted"):
        if names := [stream.name for stream in streams if stream.state == state]:
            say(f"{state:<10} {', '.join(names)}")
    _print_lines("differs from its definition", (drift.sentence for stream in streams for drift in stream.drift))
    _print_lines("refused by the server", (f"{s.name}: {s.refused}" for s in streams if s.refused))


def print_verification(result: Verification) -> None:
    """The result of `verify`, damage first."""
    for damage in result.damages[:MOST_LINES]:
        where = paint(f"{damage.stream} {damage.seq}  {damage.kind}", "31;1", sys.stdout)
        say(f"{where}  {damage.chain or 'no chain known'}")
        say(f"    {damage.detail}")
    _say_left(len(result.damages))
    integrity = sum(damage.kind in ("edited", "moved", "foreign") for damage in result.damages)
    continuity = len(result.damages) - integrity
    plain = f", and {result.adopted} plain messages are accounted for" if result.adopted else ""
    say(f"integrity     {_mark(integrity)}: {result.envelopes} envelopes are the bytes that were sealed{plain}")
    checked = _checked(continuity, result.unchecked)
    say(f"continuity    {checked}: {result.chains} chains, {result.runs} runs of which {_open(result)} open")
    say("completeness  not proven, see below")
    _print_lines("warnings", (f"{each.stream} {each.seq}: {each.detail}" for each in result.warnings))
    _print_lines("not vouched for", result.not_vouched)


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _room(max_bytes: int) -> str:
    return size(max_bytes) if max_bytes > 0 else "any size"


def _mark(damages: int) -> str:
    if damages:
        return paint(f"{damages} damaged", "31;1", sys.stdout)
    return paint("ok", "32", sys.stdout)


def _checked(damages: int, unchecked: int) -> str:
    """Continuity is only ok where all of it was checked."""
    if damages or not unchecked:
        return _mark(damages)
    return f"{paint('not all checked', '33', sys.stdout)} ({unchecked} places or references were not, see below)"


def _open(result: Verification) -> str:
    return str(len(result.open_runs)) if result.open_runs else "none"


def _print_lines(title: str, lines: Iterable[str]) -> None:
    found = list(lines)
    if not found:
        return
    say()
    say(f"{title}:")
    for line in found[:MOST_LINES]:
        say(f"  {line}")
    _say_left(len(found))


def _say_left(count: int) -> None:
    if count > MOST_LINES:
        say(f"  … and {count - MOST_LINES} more (--json has all)")
