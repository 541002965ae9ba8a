"""Whether a call is blocked: the breakers of its tool and of who asks, read before anything is executed.

Read anew for every call, so that a block counts from the next call on. Where the bucket cannot be read nothing runs: the
`MeshError` gives the call back, to be tried again.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from agentflow.breakers import Breaker, breaker_keys, is_open, read_breaker
from agentflow.clock import parse_time
from agentflow.errors import EvidenceError, MeshError
from agentflow.mesh.transport import Bucket, Transport
from agentflow.payloads import Failure
from agentflow.registry import BREAKERS


class BreakerBoard:
    """The breakers as the executor sees them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._bucket: Bucket | None = None

    async def blocked(self, tool: str, principal: str, now: datetime) -> Failure | None:
        """Why the call must not run now, or None.

        Raises `MeshError` where that cannot be told: the bucket cannot be read, or holds what is no breaker.
        """
        if self._bucket is None:
            self._bucket = await self._transport.bucket(BREAKERS)
        keys = breaker_keys(tool, principal)
        entries = await asyncio.gather(*(self._bucket.get(key) for key in keys))
        try:
            found = {entry.key: read_breaker(entry.key, entry.value) for entry in entries if entry is not None}
        except EvidenceError as error:
            raise MeshError(error.message, code=error.error_code, **error.fields) from error
        return refusal(((key, each) for key, each in found.items() if is_open(each, now)), now)


def refusal(breakers: Iterable[tuple[str, Breaker]], now: datetime) -> Failure | None:
    """The failure of a call that open breakers block, by the one that is open longest; None where there is none."""
    key, breaker = max(breakers, key=lambda each: parse_time(each[1].until), default=("", None))
    if breaker is None:
        return None
    message = f"{key} is blocked until {breaker.until} by rule {breaker.rule} (anomaly {breaker.anomaly})"
    left = max(0.0, (parse_time(breaker.until) - now).total_seconds())
    return Failure("breaker.open", "Blocked", message, "mesh", retryable=True, retry_after=round(left, 3))
