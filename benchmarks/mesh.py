"""What the mesh costs, beside a plain NATS client that stores and consumes as much.

    python -m benchmarks.mesh [--json] [--quick] [--only NAME] [--keep FILE]

Every figure is measured on a server that syncs before it acknowledges (`always.…`) and on one with its defaults
(`default.…`). The floor is measured in the same run, on the same server, in turns. `--keep` stores figures as they are
measured, and a call with the same file goes on where the last one ended.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.figures import table
from benchmarks.measures import FULL, MEASURES, QUICK, Effort

SERVERS = {"always": True, "default": False}
"""How the server treats its disk, and whether what it acknowledges is on it."""


def parser() -> argparse.ArgumentParser:
    """What the benchmarks take."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.mesh", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--json", action="store_true", help="print one JSON object")
    found.add_argument("--quick", action="store_true", help="one short repetition: under a minute, and rough")
    found.add_argument("--only", choices=sorted(MEASURES), action="append", help="measure this alone (repeatable)")
    found.add_argument("--fsync", choices=sorted(SERVERS), help="measure on this server alone")
    found.add_argument("--keep", type=Path, metavar="FILE", help="store figures there as they come, and go on from it")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table or JSON, return 0."""
    given = parser().parse_args(arguments)
    show(measure_as(given), as_json=given.json)
    return 0


def measure_as(given: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for."""
    return measure(
        effort=QUICK if given.quick else FULL,
        only=given.only or tuple(MEASURES),
        servers=[given.fsync] if given.fsync else tuple(SERVERS),
        keep=given.keep,
    )


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Print figures and conditions."""
    if as_json:
        print(json.dumps(found))
        return
    print(table(found["figures"]))
    print("floor: a plain nats-py program, the same stored messages of the same sizes in the same order")
    print("; ".join(f"{name} {value}" for name, value in found["conditions"].items()))


def measure(*, effort: Effort, only: Iterable[str], servers: Iterable[str], keep: Path | None = None) -> dict[str, Any]:
    """The figures asked for, and their conditions; those that `keep` holds already are not measured again."""
    found = _kept(keep, effort)
    for server in servers:
        for name in only:
            if f"{server}.{name}" in found["measured"]:
                continue
            print(f"{server}: {name} …", file=sys.stderr, flush=True)
            figures = asyncio.run(MEASURES[name](SERVERS[server], effort))
            found["figures"].update({f"{server}.{figure}": each.plain() for figure, each in figures.items()})
            found["measured"].append(f"{server}.{name}")
            if keep is not None:
                keep.write_text(json.dumps(found), "utf-8")
    return {"figures": found["figures"], "conditions": found["conditions"]}


def _kept(keep: Path | None, effort: Effort) -> dict[str, Any]:
    """What was measured before with the same effort, or nothing yet, under the conditions of now."""
    efforts = {"seconds_a_repetition": effort.seconds, "repetitions": effort.repetitions}
    if keep is not None and keep.exists():
        found: dict[str, Any] = json.loads(keep.read_text("utf-8"))
        if efforts.items() <= found["conditions"].items():
            return found
    there = {**conditions(Path(tempfile.gettempdir())), "fsync": list(SERVERS), **efforts}
    return {"figures": {}, "conditions": there, "measured": []}


if __name__ == "__main__":
    sys.exit(main())
