"""What the runtime's tests share: steps as a planner sends them, an executor that answers, processes that can be killed.

A `Process` runs the runtime's shell against a broker in memory. `Process.kill` is as near to SIGKILL as one
interpreter allows: from then on nothing the process does reaches the broker, and its tasks are never told why.
"""

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from agentflow import artifacts, logs, subjects
from agentflow.agent import FunctionAgent
from agentflow.chain import Break, examine, handling_chain, link_of
from agentflow.clock import SystemClock, format_time
from agentflow.envelope import ChainPlace, Ref, Sealed, sha256_hex, unseal
from agentflow.errors import MeshError
from agentflow.ids import new_id
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.publishing import store, store_once
from agentflow.mesh.transport import Consumer, ConsumerSpec, Delivery, Message, Transport
from agentflow.payloads import (
    DeadLetter,
    Failure,
    Payload,
    StepCompleted,
    StepFailed,
    StepRequested,
    ToolCompleted,
    ToolFailed,
    ToolRequested,
)
from agentflow.registry import ARTIFACTS
from agentflow.schemas import compose, payload_as
from agentflow.service import Host, Incarnation
from agentflow_runtime.hosting import HostedAgent, hooks_of, hooks_of_function
from agentflow_runtime.settings import RuntimeSettings
from agentflow_runtime.shell import serve

PATIENCE = 10.0
"""Seconds a test waits for something before it fails."""


def quick(**more: Any) -> RuntimeSettings:
    """Settings that make a test quick; the ack wait is as in production, so that a busy machine redelivers nothing."""
    given = {"ack_wait": 1.0, "heartbeat": 0.5, "drain_timeout": 2.0, "cancel_grace": 0.2, "restart_delay": 0.05}
    return RuntimeSettings(**{**given, **more})


IMPATIENT = quick(ack_wait=0.3)
"""For tests that wait for what a silent process had in hand."""


async def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return as soon as `condition`, plain or asynchronous, holds; fails after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        assert loop.time() < deadline, f"not within {seconds} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.005)


# --- what a planner sends ------------------------------------------------------------------------------------------


def request(payload: Payload, agent_id: str, *, index: int = 0, metadata: Mapping[str, Any] | None = None) -> Sealed:
    """A command of a decision to an agent; `index` tells the requests of one test apart."""
    now, workflow_id = SystemClock().now(), f"run-{index}"
    digest = hashlib.sha256(f"{agent_id}|{index}|{now.isoformat()}".encode()).digest()
    id, decision = new_id(now, lambda count: digest[:count]), new_id(now, lambda count: digest[-count:])
    place = ChainPlace(f"decision:{decision}", 0, sha256_hex(digest))
    stated = {"workflow_id": workflow_id, "tenant": "acme", "state": "work", "attempt": 1}
    return compose(
        payload,
        id=id,
        subject=subjects.agent_in(agent_id, id),
        sender="planner",
        to=agent_id,
        trace_id=digest.hex()[:32],
        span_id=digest.hex()[32:48],
        ts=now,
        place=place,
        causes=(Ref(decision, place.prev_hash),),
        metadata={**stated, "reply_to": subjects.workflow_result(workflow_id, id), **(metadata or {})},
    )


def work(input: Mapping[str, Any] | None = None, *, seconds: float = 30.0) -> StepRequested:
    """The payload of a request to do one step within `seconds`."""
    deadline = format_time(SystemClock().now() + timedelta(seconds=seconds))
    return StepRequested("support@1.0.0", "work", 1, dict(input or {}), deadline)


def step(agent_id: str, input: Mapping[str, Any] | None = None, *, index: int = 0, seconds: float = 30.0) -> Sealed:
    """A request to do one step within `seconds`."""
    return request(work(input, seconds=seconds), agent_id, index=index)


# --- what is stored ------------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """A planner's and an operator's view of the mesh."""

    mesh: Transport

    async def send(self, sealed: Sealed, payload: Payload | None = None) -> Sealed:
        """Store a request, and before it the payload where that was sealed with a claim check."""
        if payload is not None:
            await artifacts.keep(await self.mesh.objects(ARTIFACTS), sealed, payload)
        await store(self.mesh, sealed, expect=0)
        return sealed

    async def ask(self, agent_id: str, input: Mapping[str, Any] | None = None, **more: Any) -> Sealed:
        """Send a step and wait for its result."""
        return await self.result(await self.send(step(agent_id, input, **more)))

    async def find(self, cause: Sealed) -> Sealed | None:
        """The stored result of a step."""
        reply_to = str(cause.envelope.metadata["reply_to"])
        message = await self.mesh.last("AF_MESSAGES", reply_to)
        return None if message is None else unseal(message.body, reply_to)

    async def result(self, cause: Sealed) -> Sealed:
        """The result of a step, as soon as it is stored."""
        await until(lambda: self.find(cause))
        found = await self.find(cause)
        assert found is not None
        return found

    async def output(self, cause: Sealed) -> Any:
        """What a step completed with."""
        return payload_as(await self.result(cause), StepCompleted).output

    async def failure(self, cause: Sealed) -> Failure:
        """What a step failed with."""
        return payload_as(await self.result(cause), StepFailed).error

    async def stored(self, stream: str, subject: str = ">") -> list[Message]:
        """All messages under a subject."""
        return [message async for message in self.mesh.read(stream, subject)]

    async def calls(self) -> list[Sealed]:
        """All tool calls, in the order they were stored."""
        return [unseal(each.body, each.subject) for each in await self.stored("AF_AUDIT", "tools.calls.>")]

    async def dead_letters(self) -> list[DeadLetter]:
        """All dead letters."""
        return [payload_as(unseal(each.body, each.subject), DeadLetter) for each in await self.stored("AF_DEAD")]

    async def pending(self, agent_id: str) -> int:
        """Messages of an agent that are neither acknowledged nor given up; -1 while it has no consumer."""
        broker = cast(MemoryTransport, self.mesh).broker
        durable = broker.durables.get(("AF_AGENTS", f"agent-{agent_id}"))
        return len(durable._pending) if durable else -1

    def deliveries(self, agent_id: str) -> int:
        """How often the agent's one pending message has been delivered."""
        durable = cast(MemoryTransport, self.mesh).broker.durables["AF_AGENTS", f"agent-{agent_id}"]
        return max((each.deliveries for each in durable._pending.values()), default=0)

    async def breaks_after(self, cause: Sealed) -> list[Break]:
        """What is wrong with the chain of a step's handling, its result included."""
        links = [
            link_of(sealed, each.stream, each.seq)
            for stream in ("AF_AUDIT", "AF_MESSAGES")
            for each in await self.stored(stream)
            if (sealed := unseal(each.body, each.subject)).envelope.chain == f"handling:{cause.envelope.id}"
        ]
        assert links[0].prev_hash == cause.hash
        return examine(links)


# --- an executor ---------------------------------------------------------------------------------------------------


Tool = Callable[[dict[str, Any]], Any]
"""A tool of the executor below: input in; output, `Failure`, or an awaitable of either out."""


@dataclass
class FakeExecutor:
    """Answers tool calls, and remembers what it was asked."""

    mesh: Transport
    tools: Mapping[str, Tool]
    seen: list[Sealed] = field(default_factory=list)
    """Every call, each as often as it was carried out."""
    _answers: dict[str, Sealed] = field(default_factory=dict)

    def times(self, tool: str) -> int:
        """How often a tool was carried out."""
        return sum(payload_as(call, ToolRequested).tool == tool for call in self.seen)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer calls inside the block."""
        consumer = await self.mesh.consume(ConsumerSpec("AF_AUDIT", "executor", ("tools.calls.>",), ack_wait=30.0))
        task = asyncio.create_task(self._work(consumer))
        try:
            yield
        finally:
            await consumer.close()
            task.cancel()
            await asyncio.wait({task})

    async def _work(self, consumer: Consumer) -> None:
        async with asyncio.TaskGroup() as group:
            async for delivery in consumer.deliveries(lambda: 8):
                group.create_task(self._one(delivery))

    async def _one(self, delivery: Delivery) -> None:
        """Carry a call out once; its result is sent until it is known to be stored."""
        call = unseal(delivery.message.body, delivery.message.subject)
        if call.hash not in self._answers:
            self._answers[call.hash] = tool_result(call, await self._execute(call))
        with contextlib.suppress(MeshError):
            await store_once(self.mesh, self._answers[call.hash])
            await delivery.ack()

    async def _execute(self, call: Sealed) -> Payload:
        self.seen.append(call)
        asked = payload_as(call, ToolRequested)
        answer = self.tools[asked.tool](asked.input)
        answer = await answer if inspect.isawaitable(answer) else answer
        return ToolFailed(answer) if isinstance(answer, Failure) else ToolCompleted(answer)


def tool_result(call: Sealed, payload: Payload) -> Sealed:
    """The result of a tool call as an executor seals it."""
    digest = sha256_hex(f"result of {call.envelope.id}".encode())
    now = SystemClock().now()
    return compose(
        payload,
        id=new_id(now, lambda count: bytes.fromhex(digest)[:count]),
        subject=str(call.envelope.metadata["reply_to"]),
        sender="executor",
        to=call.envelope.sender,
        trace_id=call.envelope.trace_id,
        span_id=digest[:16],
        ts=now,
        place=handling_chain(call),
        causes=(call.ref,),
    )


# --- processes -----------------------------------------------------------------------------------------------------


class Wire:
    """A connection that can be cut for ever or held up for a while, without the one that holds it noticing."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.cut = False
        """Nothing gets through any more: the process was killed."""
        self.closed = False
        """A consumer was told to ask for nothing more."""
        self.open = asyncio.Event()
        """Not set while nothing gets through: the process is frozen."""
        self.open.set()
        self.lost: set[str] = set()
        """Settlements that get lost on their way: `ack`, `nak`, `in_progress`, `term`."""
        self.settled: list[str] = []
        """Settlements that were said, lost or not."""
        self.pauses: list[float] = []
        """Seconds that were asked for with each `nak`."""
        self.heard: list[Callable[[str], Awaitable[None]]] = []
        """Called with each settlement before it gets through."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "consume":
            return self._consume
        return self._guard(found) if inspect.iscoroutinefunction(found) else found

    def _guard(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.cut:
                await asyncio.Event().wait()
            await self.open.wait()
            return await call(*args, **kwargs)

        return guarded

    async def _consume(self, spec: ConsumerSpec) -> Consumer:
        return WireConsumer(self, await self._inner.consume(spec))


class WireConsumer:
    """A consumer on a connection that can be cut."""

    def __init__(self, wire: Wire, inner: Consumer) -> None:
        self._wire, self._inner = wire, inner

    async def deliveries(self, slots: Callable[[], int]) -> AsyncIterator[Delivery]:
        """Deliveries, none after the cut, whose settlements are lost after the cut."""
        async for delivery in self._inner.deliveries(
            lambda: slots() if not self._wire.cut and self._wire.open.is_set() else 0
        ):
            yield WireDelivery(self._wire, delivery)

    async def close(self) -> None:
        """Ask for nothing more."""
        self._wire.closed = True
        await self._inner.close()


class WireDelivery:
    """A delivery whose settlement is lost when the connection is."""

    def __init__(self, wire: Wire, inner: Delivery) -> None:
        self._wire, self._inner = wire, inner
        self.message, self.deliveries = inner.message, inner.deliveries
        self._settled = False

    async def _say(self, what: str, *args: float) -> None:
        if self._settled:
            return
        self._settled = what != "in_progress"
        self._wire.settled.append(what)
        for listener in self._wire.heard:
            await listener(what)
        if not self._wire.cut and self._wire.open.is_set() and what not in self._wire.lost:
            await getattr(self._inner, what)(*args)

    async def ack(self) -> None:
        """Done, if anyone hears it."""
        await self._say("ack")

    async def nak(self, delay: float = 0.0) -> None:
        """Again, if anyone hears it."""
        if not self._settled:
            self._wire.pauses.append(delay)
        await self._say("nak", delay)

    async def in_progress(self) -> None:
        """Still working, if anyone hears it."""
        await self._say("in_progress")

    async def term(self) -> None:
        """Given up, if anyone hears it."""
        await self._say("term")


class Process:
    """One runtime process."""

    def __init__(self, mesh: MemoryTransport, name: str, agents: list[HostedAgent], settings: RuntimeSettings) -> None:
        self.wire = Wire(cast(Transport, MemoryTransport(mesh.broker)))
        started = SystemClock().now()
        self.host = Host(
            cast(Transport, self.wire),
            Incarnation("agentflow-runtime", name, started),
            settings,
            SystemClock(),
            logs.get(name),
        )
        self._agents, self._settings = agents, settings
        self.task = asyncio.create_task(serve(self.host, settings, agents), name=name)

    def kill(self) -> None:
        """End it without its knowing."""
        self.wire.cut = True

    def freeze(self) -> None:
        """Let nothing through until `thaw`, as SIGSTOP does."""
        self.wire.open.clear()

    def thaw(self) -> None:
        """Let it go on."""
        self.wire.open.set()

    async def stop(self) -> None:
        """End it in order."""
        self.host.stop.set()
        await self.task

    async def bury(self) -> None:
        """Clear away what is left of it, whatever its state."""
        self.kill()
        while not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=0.05)
        if not self.task.cancelled():
            self.task.exception()


@contextlib.asynccontextmanager
async def hosted(
    mesh: MemoryTransport, *agents: HostedAgent, name: str = "a", settings: RuntimeSettings | None = None
) -> AsyncIterator[Process]:
    """A process that hosts agents inside the block, and is stopped in order at its end unless it was killed."""
    process = Process(mesh, name, list(agents), settings or quick())
    try:
        yield process
        if not process.wire.cut and not process.task.done():
            await process.stop()
    finally:
        await process.bury()


def class_agent(found: type, id: str = "worker", *, concurrency: int = 4, **settings: Any) -> HostedAgent:
    """A class as a hosted agent."""
    return HostedAgent(id, lambda: hooks_of(found()), "", concurrency, settings)


def function_agent(handler: Callable[..., Any], id: str = "worker", *, concurrency: int = 4) -> HostedAgent:
    """A function as a hosted agent."""
    return HostedAgent(id, lambda: hooks_of_function(FunctionAgent(id, handler, "", concurrency)), "", concurrency)
