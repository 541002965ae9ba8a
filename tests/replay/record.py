"""Records the histories in `tests/replay/histories` from a real mesh: `python -m tests.replay.record`.

A nats-server of its own, the planner as it runs in its process, and agents that do as their story says. What is stored
is taken down as `agentflow replay --dump` does it. The bad histories are the good ones with something done to them
(`tests.replay.damage`). To be run again when the condition engine's pin changes: a run keeps to its engine's version.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agentflow import logs, subjects
from agentflow.chain import handling_chain
from agentflow.definitions import store_definition
from agentflow.envelope import Sealed, unseal
from agentflow.ids import derive_id
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow.mesh.publishing import store, store_once
from agentflow.mesh.transport import ConsumerSpec, Delivery
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.payloads import (
    CancelRequested,
    Failure,
    GoalSubmitted,
    Payload,
    RunSignalled,
    StepCompleted,
    StepFailed,
    ToolCompleted,
)
from agentflow.registry import ARTIFACTS
from agentflow.testing import START, envelope
from agentflow_planner.catalog import Catalog
from agentflow_planner.conditions import engine_for
from agentflow_planner.histories import read_history
from agentflow_planner.shell import Planner
from agentflow_streams.provision import provision
from agentflow_streams.readonly import ReadOnly
from agentflow_streams.recorder import record_runs
from agentflow_streams.recordings import encode
from tests.replay.damage import BAD
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

HISTORIES = Path(__file__).parent / "histories"

ORDER = b"""\
name: order
version: 1.0.0
timeout: 1m
context: {limit: 100}
input_schema: {type: object, required: [item], properties: {item: {type: string}}}
initial_state: check
final_states: [shipped, refused]
output: {item: "${input.item}", price: "${outputs.check.price}"}
states:
  check:
    agent: checker
    input: {item: "${input.item}"}
    timeout: 10s
    retry: {max_attempts: 3, backoff: 300ms}
    transitions:
      - {to: approve, condition: "output.price > context.limit"}
      - {to: ship, condition: "output.in_stock"}
    on_success: refused
    on_error: refused
  approve: {signal: approved, timeout: 1s, on_success: ship, on_error: refused}
  ship: {tool: ship, input: {item: "${input.item}"}, timeout: 10s, on_success: shipped, on_error: refused}
  shipped:
  refused:
"""

ENDS = ("completed", "failed", "cancelled")

STORIES: dict[str, dict[str, Any]] = {
    "shipped": {},
    "plain_goal": {"plain": b'{"goal":"order","input":{"item":"pen"}}'},
    "retried": {"failures": 2},
    "approved_early": {"price": 500, "before": [RunSignalled("approved", {"by": "ada"})]},
    "approval_timed_out": {"price": 500},
    "cancelled": {"silent": True, "then": [CancelRequested("enough")]},
    "gave_up": {"failures": 9},
    "junk_and_other_goal": {
        "silent": True,
        "before": [b"{", b'{"signal":7}', GoalSubmitted("order", {"item": "other"})],
        "then": [CancelRequested("enough")],
        "after": [RunSignalled("approved"), b"junk"],
    },
    "not_in_stock": {"in_stock": False},
    "unknown_definition": {"goal": GoalSubmitted("nothing", {}), "rejected": True},
    "breaks_its_schema": {"goal": GoalSubmitted("order", {"item": 7}), "rejected": True},
}
"""By run: how its agents behave, what is sent to it and when."""


class Recorder:
    """A mesh with a planner, and agents that answer by the stories."""

    def __init__(self, mesh: JetStreamTransport, url: str) -> None:
        self.mesh, self.url = mesh, url
        self._sent = 0

    async def play(self, run: str, story: dict[str, Any]) -> None:
        """Play a run to its end."""
        goal = story.get("goal", GoalSubmitted("order", {"item": "lamp"}))
        await self.send(run, story.get("plain", goal))
        if story.get("rejected"):
            await self._reaches(run, "rejected")
            return
        await self._reaches(run, "running", *ENDS)
        for message in story.get("before", ()):
            await self.send(run, message)
        for message in story.get("then", ()):
            await self.send(run, message)
        await self._reaches(run, *ENDS)
        for message in story.get("after", ()):
            await self.send(run, message)
        await eventually(lambda: self._all_taken(run), "every input decided", within=30)

    async def send(self, run: str, what: Payload | bytes) -> None:
        """Put an envelope, or a plain body, on the run's subject."""
        self._sent += 1
        subject = subjects.workflow_in(run)
        if isinstance(what, bytes):
            await self.mesh.publish(subject, what, stream="AF_MESSAGES")
        else:
            await store(self.mesh, envelope(what, subject, index=self._sent, metadata={"workflow_id": run}))

    async def _reaches(self, run: str, *statuses: str) -> None:
        objects = await self.mesh.objects(ARTIFACTS)

        async def look() -> bool:
            return (await read_history(self.mesh, objects, run)).state.status in statuses

        await eventually(look, f"{run} {statuses}", within=30)

    async def _all_taken(self, run: str) -> bool:
        history = await read_history(self.mesh, await self.mesh.objects(ARTIFACTS), run)
        results = [given for given in history.unconsumed_before(2**62) if given.kind != "result"]
        return not results

    async def answer(self, delivery: Delivery) -> None:
        """Do what a command asks, as the story of its run says."""
        command = unseal(delivery.message.body)
        story = STORIES[command.workflow_id]
        if story.get("silent"):
            return
        payload = _answer(command, story)
        place, subject = handling_chain(command), str(command.envelope.metadata["reply_to"])
        sealed = envelope(
            payload,
            subject,
            sender=command.envelope.to,
            place=place,
            causes=(command.ref,),
            metadata=dict(command.envelope.metadata),
        )
        assert derive_id(command.envelope.id, "agent", "result")
        await store_once(self.mesh, sealed)


def _answer(command: Sealed, story: dict[str, Any]) -> Payload:
    if command.envelope.schema == "tool.requested/1":
        return ToolCompleted({"parcel": "P-1"})
    if int(command.envelope.metadata["attempt"]) <= story.get("failures", 0):
        return StepFailed(Failure("shop.closed", "Closed", "the shop is closed", "agent"))
    return StepCompleted({"price": story.get("price", 20), "in_stock": story.get("in_stock", True)})


@contextlib.asynccontextmanager
async def recording(directory: Path) -> AsyncIterator[Recorder]:
    """A mesh with everything in place, for the time of a block."""
    server = NatsServer(directory)
    await asyncio.to_thread(server.start)
    mesh = await JetStreamTransport.connect(server.url, name="recording")
    stop = asyncio.Event()
    try:
        await provision(mesh)
        await store_definition(mesh, ORDER, "order", "1.0.0", "fsm", applied=START)
        objects, recorder = await mesh.objects(ARTIFACTS), Recorder(mesh, server.url)
        planner = Planner(mesh, objects, Catalog(mesh, objects, engine_for("python")), logs.get("recording"))
        runs = ("workflows.*.in", "workflows.*.results.*")
        works = [
            (ConsumerSpec("AF_MESSAGES", "planner", runs), planner.handle),
            (ConsumerSpec("AF_TIMERS", "planner", ("timers.due.planner.*.*",)), planner.handle),
            (ConsumerSpec("AF_AGENTS", "agents", ("agents.*.in.*",)), recorder.answer),
            (ConsumerSpec("AF_AUDIT", "tools", ("tools.calls.*",)), recorder.answer),
        ]
        async with asyncio.TaskGroup() as group:
            for spec, handle in works:
                worker = Worker(await mesh.consume(spec), handle, _never, WorkPolicy(8, 5.0, 5), logs.get("recording"))
                group.create_task(worker.run(stop))
            try:
                yield recorder
            finally:
                stop.set()
    finally:
        await mesh.close()
        await asyncio.to_thread(server.kill)


async def _never(delivery: Delivery, code: str, reason: str) -> None:
    raise AssertionError(f"{delivery.message.subject} was given up: {code} {reason}")


async def main() -> None:
    """Record every story, and make the bad histories of them."""
    good, bad = HISTORIES / "good", HISTORIES / "bad"
    for directory in (good, bad):
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        async with recording(Path(scratch)) as recorder:
            for run, story in STORIES.items():
                await recorder.play(run, story)
            taken = {run: await record_runs(ReadOnly(recorder.mesh), [run]) for run in STORIES}
    for run, histories in taken.items():
        await asyncio.to_thread((good / f"{run}.json").write_bytes, encode(histories))
    for name, (run, damage, _) in BAD.items():
        await asyncio.to_thread((bad / f"{name}.json").write_bytes, encode(damage(taken[run])))


if __name__ == "__main__":
    asyncio.run(main())
