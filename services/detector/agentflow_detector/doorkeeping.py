"""The shell around `strays`: reads every stream, and writes a dead letter for each message that is nobody's."""

import functools

from agentflow.errors import InputError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.patience import patiently
from agentflow.mesh.transport import ConsumerSpec, Delivery, Transport
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import CONFIG, agent_key
from agentflow.service import Host
from agentflow.subjects import parse
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


class Doorkeeper:
    """Looks at every message, and keeps a record of those that are nobody's."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._agents: set[str] = set()

    async def handle(self, delivery: Delivery) -> None:
        """Look at one message; raises `InputError` for one to be given up, with why."""
        message = delivery.message
        found = stray(message.subject, message.body, self._agents)
        if found is not None and found.code == "stray.agent":
            await self._look_for(parse(message.subject).owner)
            found = stray(message.subject, message.body, self._agents)
        if found is not None:
            raise InputError(found.reason, code=found.code)

    async def give_up(self, delivery: Delivery, code: str, reason: str) -> None:
        """Write the dead letter."""
        await write_dead_letter(self._transport, delivery, NAME, SENDER, code, reason)

    async def _look_for(self, agent_id: str) -> None:
        """Ask whether an agent is declared: each time, since it may have been a moment ago."""
        there = await (await self._transport.bucket(CONFIG)).get(agent_key(agent_id))
        if there is not None and not there.deleted:
            self._agents.add(agent_id)


async def open_doors(host: Host) -> list[Worker]:
    """A worker for every stream, each to be run until `host.stop` is set."""
    keeper = Doorkeeper(host.transport)
    policy = WorkPolicy(SLOTS, host.settings.ack_wait, UNLIMITED, observed=False)
    doors: list[Worker] = []
    for stream, subject in READS.items():
        spec = ConsumerSpec(stream, NAME, (subject,), ack_wait=host.settings.ack_wait, max_ack_pending=SLOTS * 4)
        consumer = await patiently(host.transport, functools.partial(host.transport.consume, spec))
        doors.append(Worker(consumer, keeper.handle, keeper.give_up, policy, host.log))
    return doors
