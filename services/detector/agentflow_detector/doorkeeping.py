"""The shell around `strays`: reads every stream, and writes a dead letter for each message that is nobody's."""

import asyncio
import functools

from agentflow.errors import InputError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.patience import patiently
from agentflow.mesh.transport import ConsumerSpec, Delivery
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import CONFIG
from agentflow.service import Host
from agentflow_detector.strays import stray

NAME = "strays"
"""The consumers' name, and the last token of their dead letters' subject."""

SENDER = "detector"

READS = {
    "AF_MESSAGES": "workflows.>",
    "AF_AGENTS": "agents.>",
    "AF_AUDIT": "tools.>",
    "AF_PROTOCOLS": "protocols.>",
    "AF_DEAD": "dead.>",
    "AF_TIMERS": "timers.due.>",
}
"""What is read, by stream."""

SLOTS = 64
UNLIMITED = 2**31
"""Deliveries: a message is only looked at, so it is looked at until that has worked."""

AGENTS_EVERY = 2.0
"""Seconds between looks at which agents are declared, while messages for unknown ones come."""


class Doorkeeper:
    """Looks at every message, and keeps a record of those that are nobody's."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._agents: frozenset[str] = frozenset()
        self._looked = float("-inf")

    async def handle(self, delivery: Delivery) -> None:
        """Look at one message; raises `InputError` for one to be given up, with why."""
        message = delivery.message
        found = stray(message.subject, message.body, self._agents)
        if found is not None and found.code == "stray.agent":
            await self._look_for_agents()
            found = stray(message.subject, message.body, self._agents)
        if found is not None:
            raise InputError(found.reason, code=found.code)

    async def give_up(self, delivery: Delivery, code: str, reason: str) -> None:
        """Write the dead letter."""
        await write_dead_letter(self._host.transport, delivery, NAME, SENDER, code, reason)

    async def _look_for_agents(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked < AGENTS_EVERY:
            return
        bucket = await self._host.transport.bucket(CONFIG)
        entries = await bucket.entries("agent.")
        self._agents = frozenset(entry.key.partition(".")[2] for entry in entries if not entry.deleted)
        self._looked = now


async def open_doors(host: Host) -> list[Worker]:
    """A worker for every stream, each to be run until `host.stop` is set."""
    keeper = Doorkeeper(host)
    policy = WorkPolicy(SLOTS, host.settings.ack_wait, UNLIMITED, observed=False)
    doors: list[Worker] = []
    for stream, subject in READS.items():
        spec = ConsumerSpec(stream, NAME, (subject,), ack_wait=host.settings.ack_wait, max_ack_pending=SLOTS * 4)
        consumer = await patiently(host.transport, functools.partial(host.transport.consume, spec))
        doors.append(Worker(consumer, keeper.handle, keeper.give_up, policy, host.log))
    return doors
