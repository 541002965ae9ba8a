"""The demo: starts a mesh of separate processes, works every ticket through it, and counts what came of it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from agentflow import subjects
from agentflow.client import Client
from agentflow.clock import SystemClock
from agentflow.errors import MeshError, RunError
from agentflow.local.mesh import LocalMesh, MeshOptions
from agentflow.mesh.patience import patiently
from agentflow.mesh.server_errors import directory_error
from agentflow.mesh.transport import Transport
from agentflow.payloads import Lifecycle
from agentflow.registry import BREAKERS, REGISTRY
from agentflow.runs import read_event
from agentflow_streams.replay import replay_runs
from agentflow_streams.verification import verify
from agentflow_support_desk.chaos import PROCESSES, Storm, Wish, unleashed
from agentflow_support_desk.desk import Desk, lay_out, read_calls, read_effects, require_unused
from agentflow_support_desk.errors import AgentNotReadyError
from agentflow_support_desk.figures import Worked, by_state, summarise
from agentflow_support_desk.tickets import Ticket

T = TypeVar("T")

IN_FLIGHT = 32
"""Tickets worked at once."""

PATIENCE = 600.0
"""Seconds one ticket gets."""

LEARNING = 60.0
"""Seconds the agents get to start, learning included."""

AGENTS = frozenset({"bookkeeper", "classifier", "writer"})
"""The agents of the desk."""

Progress = Callable[[int, int], None]
"""Told how many tickets are done, of how many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo came to."""

    figures: dict[str, Any]
    """The documented figures."""
    states: dict[str, int]
    """Tickets by final state."""
    worked: list[Worked]
    desk: Desk
    damages: list[str]
    """Sentences about damaged history; none is right."""
    divergences: list[str]
    """Sentences about runs that are not what deciding them again makes; none is right."""


async def run_demo(
    tickets: list[Ticket],
    directory: Path,
    *,
    examples: Path | None,
    note: Callable[[str], None],
    progress: Progress,
    chaos: Wish | None = None,
) -> Outcome:
    """Work the tickets in a data directory of their own; with `chaos`, while processes are killed and frozen.

    Raises what `LocalMesh.start` and `prepare` raise, `AgentNotReadyError` for an agent that did not start,
    `TooFewTicketsError` for more faults than can fall on work, and `ChaosError` for what did not recover.
    """
    clock, effects = SystemClock(), (Desk(directory).outbox, Desk(directory).cases)
    storm = Storm(chaos, len(tickets), clock, note, effects) if chaos else None
    desk = await asyncio.to_thread(prepare, directory, examples)
    options = MeshOptions(kind="demo", processes=PROCESSES if storm else {})
    told = storm.tell if storm else None
    async with LocalMesh.running(desk.mesh, project=desk.project, options=options, note=note, told=told) as mesh:
        note(f"mesh is up at {mesh.url}: {len(mesh.processes())} service processes and nats-server")
        async with Client.connect(mesh.url) as client:
            note("waiting for the classifier to learn …")
            await _until_hosted(client, mesh.logs / "runtime.log")
            started = time.monotonic()
            async with unleashed(storm, mesh) if storm else contextlib.nullcontext():
                worked = await _work_all(client, tickets, progress, storm)
            seconds = time.monotonic() - started
            note("verifying every stored message …")
            verified = await verify(client.transport, now=clock.now())
            note("deciding every run again …")
            replayed = await replay_runs(client.transport)
            found = await watched_over(client.transport)
            faults = await storm.figures(client.transport, worked, read_calls(desk)) if storm else {}
    figures = {**summarise(worked, read_effects(desk), seconds), **faults}
    figures["verify"] = {"ok": verified.ok, "envelopes": verified.envelopes, "chains": verified.chains}
    figures.update(found)
    figures["replay"] = {"runs": replayed.replay.runs, "matched": replayed.replay.matched}
    figures["data_dir"] = str(directory)
    damages = [f"{each.stream}:{each.seq} {each.kind}: {each.detail}" for each in verified.damages]
    return Outcome(figures, by_state(worked), worked, desk, damages, replayed.sentences())


async def watched_over(transport: Transport) -> dict[str, int]:
    """What the detector made of it: `anomalies` it stored, and tools or agents it `blocked`."""
    anomalies = [message.seq async for message in transport.read("AF_AUDIT", "tools.anomaly.*")]
    return {"anomalies": len(anomalies), "blocked": len(await (await transport.bucket(BREAKERS)).entries())}


def prepare(directory: Path, examples: Path | None = None) -> Desk:
    """Lay out a desk in a folder of its own.

    Raises `DataDirUsedError` for a folder in use, `MeshError` (`server.data_dir`, `server.disk_full`) for one that
    cannot be written, and `MaterialError`.
    """
    try:
        require_unused(directory)
        return lay_out(directory, examples)
    except OSError as error:
        found = directory_error(directory, error)
        hint = "give a --data-dir that is writable and has room"
        raise MeshError(found.message, code=found.error_code, directory=str(directory), hint=hint) from error


async def _until_hosted(client: Client, log: Path) -> None:
    """Wait until both agents are alive: goals would only wait for them on the stream."""
    registry = await client.transport.bucket(REGISTRY)
    deadline = time.monotonic() + LEARNING
    while missing := AGENTS - {entry.key.split(".")[1] for entry in await registry.entries("agent.")}:
        for agent in sorted(missing):
            if reason := await _failure(client, agent):
                raise AgentNotReadyError(agent, reason, log)
        if time.monotonic() >= deadline:
            raise AgentNotReadyError(min(missing), f"it was not ready within {LEARNING:g} s", log)
        await asyncio.sleep(0.1)


async def _failure(client: Client, agent: str) -> str | None:
    """Why an agent failed, if the last thing the runtime told of it is that it did."""
    last = await client.transport.last("AF_AGENTS", subjects.agent_out(agent))
    payload = None if last is None else read_event(last).payload
    return payload.detail if isinstance(payload, Lifecycle) and payload.state == "failed" else None


async def _work_all(
    client: Client, tickets: list[Ticket], progress: Progress, storm: Storm | None = None
) -> list[Worked]:
    """Work all tickets, so many at once; a storm decides from when on each may be."""
    free, done = asyncio.Semaphore(IN_FLIGHT), 0

    async def one(number: int, ticket: Ticket) -> Worked:
        nonlocal done
        async with free:
            if storm is not None:
                await storm.admit(number)
            worked = await _work(client, f"ticket-{number:04}", ticket, storm)
        done += 1
        progress(done, len(tickets))
        if storm is not None:
            await storm.done()
        return worked

    progress(0, len(tickets))
    return await asyncio.gather(*(one(number, ticket) for number, ticket in enumerate(tickets, 1)))


async def _work(client: Client, run_id: str, ticket: Ticket, storm: Storm | None) -> Worked:
    run = await _patiently(client, lambda: client.submit("support", {"ticket": run_id, "text": ticket.text}, id=run_id))
    if storm is not None:
        await storm.begun()
    detail = ""
    try:
        await run.result(timeout=PATIENCE)
    except RunError as error:
        detail = f"{error.error_code}: {error.message}"
    state = await _patiently(client, run.state)
    output = state.output if isinstance(state.output, dict) else {}
    begun, ended = await _patiently(client, lambda: _times(client, run_id))
    took = (ended - begun).total_seconds() * 1000 if begun and ended else None
    ended = ended if state.ended else None
    return Worked(ticket, run_id, state.status, state.state, output, took, detail, begun, ended)


async def _patiently(client: Client, ask: Callable[[], Awaitable[T]]) -> T:
    return await patiently(client.transport, ask, patience=PATIENCE)


async def _times(client: Client, run_id: str) -> tuple[datetime | None, datetime | None]:
    """When the run's goal and its last decision were stored, by the server's clock."""
    goal = await client.transport.first("AF_MESSAGES", subjects.workflow_in(run_id))
    end = await client.transport.last("AF_MESSAGES", subjects.workflow_out(run_id))
    return goal.time if goal else None, end.time if end else None
