"""What the tests of the executor's shell share.

Calls as planners and agents send them, a sandbox that follows a script, deliveries that remember how they were settled, and
a view of what is stored.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agentflow import logs, subjects
from agentflow.artifacts import check_in, check_out
from agentflow.chain import audit_chain, examine, link_of
from agentflow.clock import Clock, SystemClock, format_time
from agentflow.envelope import ChainPlace, Ref, Sealed, sha256_hex, unseal
from agentflow.ids import new_id
from agentflow.mesh.publishing import store
from agentflow.mesh.transport import Message, Transport
from agentflow.payloads import DeadLetter, Payload, ToolRequested, Usage
from agentflow.project import Allow, Grant, Project, ToolSpec
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose, payload_as
from agentflow.service import Host, Incarnation
from agentflow_executor.catalog import Catalog, load_catalog
from agentflow_executor.execution import Execution, Reply
from agentflow_executor.handling import CallHandler
from agentflow_executor.profile import Policies
from agentflow_executor.sandbox import Job, Sandbox
from agentflow_executor.settings import ExecutorSettings
from tests.services.executor import sample_tools
from tests.services.executor.worlds import AS_ROOT, NOBODY

TOOLS = "add", "echo", "big", "refuse", "stumble", "off_schema", "hang", "look_around"
"""Sample tools the catalog of these tests has."""

WRITERS = "append_line", "append_then_fail", "shoot", "put"
"""Those of them that are granted the outbox."""

EVERYTHING = [*TOOLS, *WRITERS]


def project(outbox: str = "/dev/null", *, agents: Mapping[str, list[str]] | None = None) -> Project:
    """A project in which the agent `clerk` and the workflow `support` may call every tool."""
    granted = {"outbox": Grant(outbox, "append")}
    specs = [
        ToolSpec(f"{sample_tools.__name__}:{name}", {"tool": name}, granted if name in WRITERS else {})
        for name in EVERYTHING
    ]
    return Project(
        tools=specs, allow=Allow(agents=dict(agents or {"clerk": EVERYTHING}), workflows={"support": EVERYTHING})
    )


def catalog(outbox: str = "/dev/null", **more: Any) -> Catalog:
    """The catalog of `project`."""
    return load_catalog(project(outbox, **more), Policies(uid=NOBODY if AS_ROOT else None))


# --- calls ---------------------------------------------------------------------------------------------------------


def envelope(
    payload: Payload,
    sender: str,
    *,
    index: int = 0,
    reply_to: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    raw: Any = None,
) -> Sealed:
    """A call of `sender`; `index` tells the calls of one test apart. `reply_to` is the allowed one unless given."""
    digest = hashlib.sha256(f"{sender}|{index}".encode()).digest()
    id = new_id(datetime(2026, 1, 1, tzinfo=UTC), lambda count: digest[:count])
    cause = Ref(new_id(datetime(2026, 1, 1, tzinfo=UTC), lambda count: digest[-count:]), sha256_hex(digest))
    run = f"run-{index}"
    allowed = subjects.workflow_result(run, id) if sender == "planner" else subjects.tool_result("clerk", id)
    return compose(
        payload,
        id=id,
        subject=subjects.tool_call(id),
        sender=sender,
        to="executor",
        trace_id=digest.hex()[:32],
        span_id=digest.hex()[32:48],
        ts=datetime(2026, 1, 1, tzinfo=UTC),
        place=ChainPlace(f"decision:{cause.id}", 0, cause.hash),
        causes=(cause,),
        metadata={"workflow_id": run, "tenant": "acme", "reply_to": reply_to or allowed, **(metadata or {})},
        raw=raw,
    )


def request(tool: str, input: Mapping[str, Any] | None = None, *, seconds: float = 30.0, workflow: str = "") -> Payload:
    """What a call asks for, with a deadline so many seconds from now."""
    deadline = format_time(SystemClock().now() + timedelta(seconds=seconds))
    return ToolRequested(tool, dict(input or {}), deadline, workflow=workflow)


def call(tool: str, input: Mapping[str, Any] | None = None, *, index: int = 0, seconds: float = 30.0) -> Sealed:
    """A call of the agent `clerk`."""
    return envelope(request(tool, input, seconds=seconds), "clerk", index=index)


def planned(
    tool: str, input: Mapping[str, Any] | None = None, *, workflow: str = "support@1.0.0", **more: Any
) -> Sealed:
    """A call a run's state makes."""
    return envelope(request(tool, input, workflow=workflow), "planner", **more)


# --- a scripted sandbox --------------------------------------------------------------------------------------------


def ran(output: Any = None, **more: Any) -> Execution:
    """An execution that returned `output`."""
    return seen(Reply("output", output=output), **more)


def checked(happened: bool | None, output: Any = None, detail: str = "") -> Execution:
    """What a check said."""
    return seen(Reply("check", happened=happened, output=output, detail=detail))


def crashed() -> Execution:
    """An execution that ended without a word."""
    return seen(None, exit_code=-9)


def seen(reply: Reply | None, **more: Any) -> Execution:
    """An execution of a tool that was started."""
    given: dict[str, Any] = {"started": True, "exit_code": 0, "reason": "", "usage": Usage(1.5, 1.0, 1000, 3)}
    return Execution(reply=reply, **{**given, **more})


@dataclass
class ScriptedSandbox:
    """Returns what the script says, job by job, and keeps the jobs."""

    script: list[Execution | Callable[[Job], Execution]] = field(default_factory=list)
    uid: int | None = None
    clock: Clock = field(default_factory=SystemClock)
    jobs: list[Job] = field(default_factory=list)
    closed: bool = False

    async def execute(self, job: Job) -> Execution:
        """The next line of the script; fails behind its end."""
        self.jobs.append(job)
        assert self.script, f"nobody expected {job.mode} of {job.use}"
        line = self.script.pop(0)
        return line(job) if callable(line) else line

    async def probe(self, uses: Sequence[str] = (), memory_mib: int = 512) -> None:
        """It can always be set up."""

    def close(self) -> None:
        """Remember it."""
        self.closed = True


# --- deliveries ----------------------------------------------------------------------------------------------------


@dataclass
class HandDelivery:
    """A delivery that remembers what was said about it."""

    message: Message
    deliveries: int = 1
    said: list[str] = field(default_factory=list)
    delay: float = 0.0

    async def ack(self) -> None:
        """Done."""
        self.said.append("ack")

    async def nak(self, delay: float = 0.0) -> None:
        """Again."""
        self.said.append("nak")
        self.delay = delay

    async def in_progress(self) -> None:
        """Still working."""

    async def term(self) -> None:
        """Given up."""
        self.said.append("term")


@dataclass
class Desk:
    """One executor's handler on a mesh, and a view of what is stored."""

    mesh: Transport
    catalog: Catalog
    sandbox: Sandbox
    clock: Clock = field(default_factory=SystemClock)

    async def handler(self) -> CallHandler:
        """A handler as a fresh process would have it."""
        objects = await self.mesh.objects(ARTIFACTS)
        return CallHandler(self.mesh, objects, self.catalog, self.sandbox, self.clock, logs.get("test"))

    async def send(self, sealed: Sealed) -> HandDelivery:
        """Store a call, and take its first delivery."""
        stored = await store(self.mesh, sealed, expect=0)
        message = await self.mesh.get(stored.stream, stored.seq)
        assert message is not None
        return HandDelivery(message)

    async def handle(self, sealed: Sealed) -> Sealed:
        """Send a call, handle its first delivery, and return the answer."""
        await (await self.handler()).handle(await self.send(sealed))
        return await self.answer(sealed)

    async def again(self, delivery: HandDelivery) -> HandDelivery:
        """Another process handles another delivery."""
        later = HandDelivery(delivery.message, delivery.deliveries + 1)
        await (await self.handler()).handle(later)
        return later

    async def answer(self, sealed: Sealed) -> Sealed:
        """The stored answer to a call; fails where there is none."""
        found = await self.find_answer(sealed)
        assert found is not None, "no answer is stored"
        return found

    async def find_answer(self, sealed: Sealed) -> Sealed | None:
        """The stored answer to a call, or None."""
        subject = str(sealed.envelope.metadata["reply_to"])
        message = await self.mesh.last(subjects.stream_of(subject), subject)
        return unseal(message.body, subject) if message else None

    async def payload(self, sealed: Sealed) -> Payload:
        """An envelope's payload, fetched where it is kept apart."""
        return await check_out(await self.mesh.objects(ARTIFACTS), sealed.envelope)

    async def audit(self, sealed: Sealed) -> list[Sealed]:
        """The audit chain of a call, checked: unbroken, and resting on the call."""
        messages = await self.stored("AF_AUDIT", subjects.tool_audit(sealed.envelope.id))
        chain = [unseal(message.body, message.subject) for message in messages]
        links = [link_of(each, message.stream, message.seq) for each, message in zip(chain, messages, strict=True)]
        assert [] == examine(links)
        place = audit_chain(sealed)
        for entry in chain:
            found = entry.envelope
            assert (place.chain, place.seq, place.prev_hash) == (found.chain, found.chain_seq, found.prev_hash)
            assert (sealed.ref,) == found.causes
            place = place.after(entry)
        return chain

    async def entries(self, sealed: Sealed) -> list[str]:
        """The schemas of a call's audit chain."""
        return [entry.envelope.schema for entry in await self.audit(sealed)]

    async def dead(self) -> Sequence[DeadLetter]:
        """The executor's dead letters."""
        messages = await self.stored("AF_DEAD", subjects.dead("AF_AUDIT", "executor"))
        return [payload_as(unseal(message.body, message.subject), DeadLetter) for message in messages]

    async def stored(self, stream: str, subject: str) -> list[Message]:
        """What is stored on a subject."""
        return [message async for message in self.mesh.read(stream, subject)]


async def large(mesh: Transport, payload: Payload) -> Any:
    """A payload as it is sealed when it is large: its claim check, with the payload stored."""
    return await check_in(await mesh.objects(ARTIFACTS), payload)


def host(mesh: Transport, **settings: Any) -> Host:
    """What a process's body gets."""
    given = {"ack_wait": 0.3, "heartbeat": 0.5, "drain_timeout": 2.0, **settings}
    incarnation = Incarnation("agentflow-executor", "01ARZ3NDEKTSV4RRFFQ69G5FAV", SystemClock().now())
    return Host(mesh, incarnation, ExecutorSettings(**given), SystemClock(), logs.get("test"))
