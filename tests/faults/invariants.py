"""The invariant checker: after a fault, `report = await check(witness)`, then `report.require("I1", "I2", …)`.

A `Witness` is what a test knows beside the mesh itself: what was acknowledged, which effects the outside world saw,
which heads were shown, which secrets were planted. Every invariant is judged by a function of its own, from plain
values; this module gathers them. What the mesh does not have yet is `not applicable`, with the reason, and never held.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentflow.clock import SystemClock
from agentflow.mesh.transport import Transport
from agentflow_streams.verification import verify
from tests.faults import history
from tests.faults.canaries import Canary, Places, kept, logged, no_secret_appears
from tests.faults.footprint import Mesh, look_at_mesh, nothing_stays
from tests.faults.health import Health, health_is_true, pages
from tests.faults.publishes import PublishLog, StoredIndex, nothing_acked_is_lost, unknown_stays_unknown
from tests.faults.verdicts import Report, Verdict, judged, not_built

ALWAYS = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I10", "I11", "I12")
"""What every fault test has to have examined; I8 and I9 are about what is not built yet."""

RUNNING = ("I1", "I2", "I3", "I4", "I5", "I6", "I7")
"""What can be examined wherever runs were submitted through the recording client."""


@dataclass(slots=True)
class Witness:
    """What a test knows beside the mesh."""

    transport: Transport
    """A connection that works now, to read with."""
    publishes: PublishLog
    effects: Callable[[], Mapping[str, int]] = dict
    """Effects by id, counted in the world outside."""
    heads: history.Heads = field(default_factory=history.Heads)
    told: dict[str, Any] = field(default_factory=dict)
    """Run to the output a caller was given."""
    answers: list[tuple[str, str]] = field(default_factory=list)
    """Subject and what its caller was told: `stored`, `refused` or `unknown`."""
    parked: list[str] = field(default_factory=list)
    """Runs that are meant to be open."""
    health: Health = field(default_factory=Health)
    canaries: list[Canary] = field(default_factory=list)
    logs: Sequence[Path] = ()
    """Folders of log files."""
    mesh_before: Mesh | None = None
    """What was there before the fault; None where I10 is not looked at."""
    pids: Callable[[], Mapping[str, int]] = dict
    """Services that run now, by name."""
    snapshots: Callable[[], Sequence[str]] = list
    """Disagreements of services' snapshots with the fold of their streams: the seam for the detector's."""


async def check(witness: Witness) -> Report:
    """Look at everything; raises only when the mesh cannot be read at all."""
    transport, attempts = witness.transport, witness.publishes.attempts()
    footprint = await _footprint(witness)  # first: reading leaves traces of its own for a moment
    messages = await history.read_evidence(transport)
    stored = StoredIndex.of(messages)
    lived = await history.read_runs(transport, messages)
    verification = await verify(transport, now=SystemClock().now())
    behind = await witness.heads.violations(transport)
    before = dict(witness.effects())
    replayed = await history.decide_again(transport, lived)
    now = max([SystemClock().now(), *(message.time for message in messages)])
    verdicts = (
        nothing_acked_is_lost(attempts, stored),
        history.nothing_is_applied_twice(before, lived),
        unknown_stays_unknown(attempts, stored, witness.answers),
        history.chains_verify(verification, behind, len(witness.heads.seen)),
        history.folding_agrees(lived, witness.told, witness.snapshots()),
        history.replay_changes_nothing(replayed, before, witness.effects()),
        history.every_run_ends(lived, messages, now, witness.parked),
        _participants(messages),
        not_built("I9", "nothing has a budget yet: there are no reservations to add up"),
        footprint,
        await _secrets(witness),
        health_is_true(witness.health.observations),
    )
    return Report(verdicts)


def _participants(messages: Sequence[Any]) -> Verdict:
    """I8: there is no two-phase commit yet; messages of one would be something this checker cannot judge."""
    spoken = [message.subject for message in messages if message.subject.startswith("protocols.")]
    if spoken:
        return judged("I8", len(spoken), [f"{spoken[0]}: participants speak, and this checker cannot judge them yet"])
    return not_built("I8", "no participants: nothing speaks a commit protocol yet")


async def _footprint(witness: Witness) -> Verdict:
    if witness.mesh_before is None:
        return not_built("I10", "nobody looked before the fault")
    pids = witness.pids()
    return nothing_stays(witness.mesh_before, await look_at_mesh(witness.transport, pids), len(pids))


async def _secrets(witness: Witness) -> Verdict:
    if not witness.canaries:
        return not_built("I11", "no secret was planted")
    shown = logged(witness.logs)
    for address in witness.health.addresses.values():
        shown.update(await asyncio.to_thread(pages, address))
    return no_secret_appears(witness.canaries, Places(await kept(witness.transport), shown))
