"""Waiting for a broker that is away for a moment: what is safe to ask again is asked again.

A process that starts while the server is being restarted, or a client in the middle of it, need not fail. Whoever asks
`patiently` asks for something that may be repeated: a read, a declaration, a publish under a derived id.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentflow.errors import AgentflowError, MeshError, OutcomeUnknown, ServerUnfit, Unreachable
from agentflow.mesh.transport import Transport

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds a broker may be away while a process starts."""

PAUSE = 0.2
"""Seconds between two attempts."""


async def patiently(transport: Transport, ask: Callable[[], Awaitable[T]], *, patience: float = PATIENCE) -> T:
    """What `ask` returns; asked again while the broker is away, at most for `patience` seconds.

    Raises what `ask` raised last when time is up or the connection is closed for good, and at once what is no matter of
    time: a stream that is missing, a refusal, a conflict.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            return await ask()
        except MeshError as error:
            if not is_away(error, transport) or transport.closed_reason is not None or loop.time() >= deadline:
                raise
        await asyncio.sleep(PAUSE)


def is_away(error: AgentflowError, transport: Transport) -> bool:
    """Whether an error says that the broker is away just now, or that its JetStream is not up yet.

    Its monitoring port says nothing by itself, because it may be wrong; it does while the connection is down too.
    """
    if isinstance(error, ServerUnfit):
        return error.error_code == "server.not_provable" and not transport.connected
    return isinstance(error, Unreachable | OutcomeUnknown) or error.error_code == "mesh.no_responders"
